"""What is there from earlier comparisons: labels, and files that are replaced."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from dacrl_env.comparison.made import Made


def take_labels(specs: list[str]) -> dict[str, str]:
    """Cut the labels off policies or methods; they come back by what is left."""
    from dacrl_env.core.specs import take_label

    labels = {}
    for k, spec in enumerate(specs):
        label, rest = take_label(spec)
        if label is not None:
            # bytes that are no text here may be text elsewhere
            label = os.fsencode(label).decode("utf-8", "replace")
            specs[k], labels[rest] = rest, label
    return labels


def with_labels(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Results whose policies have their labels for names."""
    shuffled = {
        f"{name} shuffled": f"{label} shuffled" for name, label in labels.items()
    }
    return frame.replace({"policy": {**labels, **shuffled}})


def kept_labels(directory: Path) -> dict[str, str]:
    """Labels of the comparisons in a directory, the latest ones; damaged ones: none."""
    from dacrl_env.comparison.results import LABELS, labels_in

    try:
        return labels_in(directory)
    except ValueError as error:
        print(
            f"dacrl: {directory / LABELS}: {error}; names are shown, not labels",
            file=sys.stderr,
        )
        return {}


def check_labels(
    directory: Path, names: Sequence[str], labels: Mapping[str, str]
) -> None:
    """Whether every name and label of a directory stands for one policy.

    Args:
        directory: of comparisons.
        names: of policies and methods that are to be run.
        labels: of some of them.

    Raises:
        ValueError: a label is the name of another policy, or the other way round.
    """
    from dacrl_env.comparison.report import check_names
    from dacrl_env.core.store import Store

    shown = [labels.get(name, name) for name in names]
    check_names(shown)
    if len(set(shown)) < len(shown):
        raise ValueError(f"labels and names must differ, got {', '.join(shown)}")
    kept = {**kept_labels(directory), **labels}
    if not kept:
        return
    for name in names:
        other = next((n for n, label in kept.items() if label == name != n), None)
        if other is not None and name not in labels:
            raise ValueError(
                f"{name!r} is the label of {other!r} in {directory}; give this one a "
                f"label, too: own-{name}={name}"
            )
    keys = Store(directory / "results").keys() if labels else []
    there = {key["policy"] for key in keys if key["kind"] == "evaluate"}
    for name, label in labels.items():
        if label != name and label in there and label not in kept:
            raise ValueError(
                f"{label!r} cannot be a label, since results of the policy of that "
                f"name are in {directory}; choose another one for {name!r}"
            )


def keep_labels(directory: Path, labels: Mapping[str, str]) -> None:
    """Remember labels for later reports; what had one of them before loses it.

    Args:
        directory: of comparisons.
        labels: by what they stand for.
    """
    from dacrl_env.comparison.results import LABELS
    from dacrl_env.core.files import write_text

    taken = set(labels.values())
    kept = {n: x for n, x in kept_labels(directory).items() if x not in taken}
    write_text(directory / LABELS, json.dumps({**kept, **labels}, indent=1))


def made_of(folder: Path) -> Made:
    """How the comparison in a folder was made; nothing if the file is damaged."""
    from dacrl_env.comparison.made import Made

    try:
        return Made.read(folder)
    except ValueError as error:
        print(f"dacrl: {error}; the order of policies is not known", file=sys.stderr)
        return Made()


def keep_made(
    folder: Path,
    line: Sequence[str],
    names: Sequence[str],
    reference: str | None,
    labels: Mapping[str, str],
    settings: Mapping[str, Any],
) -> Made:
    """Remember how a comparison is made.

    Args:
        folder: of the comparison.
        line: the command line, without its program.
        names: of policies and methods, without labels, in their order.
        reference: label or name of a policy; None: the first.
        labels: by what they stand for.
        settings: options of the environment that were given.
    """
    from dataclasses import replace

    meant = {label: name for name, label in labels.items()}
    name = None if reference is None else meant.get(reference, reference)
    made = made_of(folder).again(names, name, f"dacrl {shlex.join(line)}")
    made.write(folder)
    return replace(made, settings=settings)


@contextmanager
def nothing_lost(*paths: Path) -> Iterator[None]:
    """Keep files that are replaced by others within, and say so."""
    from dacrl_env.core.files import write_whole

    kept = {}
    for path in paths:
        if path.is_file():
            old = path.read_bytes()
            digest = hashlib.sha256(old).hexdigest()[:8]
            kept[path] = path.with_name(f"{path.stem}-{digest}{path.suffix}"), old
            if not kept[path][0].exists():
                write_whole(*kept[path])
    yield
    for path, (beside, old) in kept.items():
        if path.read_bytes() == old:
            beside.unlink(missing_ok=True)
        else:
            print(
                f"{path} was another one before, which is kept as {beside.name}",
                file=sys.stderr,
            )
