"""What ``dacrl fit`` keeps beside a policy, its page and its front, written again."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacrl_env.cli.listing import width

if TYPE_CHECKING:
    import pandas as pd

    from dacrl_env.comparison.fronts import Hypervolume
    from dacrl_env.comparison.made import Made
    from dacrl_env.policies import Fitted

FRONT, TABLE, FIGURE, VOLUME = "front", "pareto.csv", "pareto.png", "pareto.json"


@dataclass(frozen=True)
class Kept:
    """Files of a fit.

    Attributes:
        page: of the fit.
        table: of its front; None: it has none.
        hypervolume: of its front.
        front: `dacrl_env.comparison.fronts.table` with the files of the policies.
    """

    page: Path
    table: Path | None = None
    hypervolume: Hypervolume | None = None
    front: pd.DataFrame | None = None


def keep(
    out: Path,
    stem: str,
    fitted: Fitted,
    about: Mapping[str, Any],
    made: Made,
    reference: Mapping[str, float] | None = None,
) -> Kept:
    """Write the page of a fit, and the table, figure and policies of its front.

    They are in ``fits/STEM``. Those of a front are beside the policy of the latest fit,
    too.

    Args:
        out: folder of fits.
        stem: of the policy's file.
        fitted: with its trace.
        about: method, budget and seed.
        made: how it was made.
        reference: point of the hypervolume.
    """
    folder = out / "fits" / stem
    kept = write(folder, fitted, about, made, f"../../policies/{stem}", reference)
    made.write(folder)
    if kept.front is None:
        return kept
    table = _write_front(out, fitted, about, reference)
    kept.front["file"] = [str(out / name) for name in _names(fitted)]
    return replace(kept, table=table)


def write(
    folder: Path,
    fitted: Fitted,
    about: Mapping[str, Any],
    made: Made,
    policy: str,
    reference: Mapping[str, float] | None = None,
) -> Kept:
    """Write the page of a fit into its folder, with what belongs to its front.

    Args:
        folder: of the fit.
        fitted: with its trace.
        about: method, budget and seed.
        made: how it was made.
        policy: its file without suffix, relative to the folder.
        reference: point of the hypervolume.
    """
    from dacrl_env.comparison import fronts, pages
    from dacrl_env.comparison.fit_page import fit_page
    from dacrl_env.policies import policy_suffix
    from dacrl_env.tasks.registration import get_task

    folder.mkdir(parents=True, exist_ok=True)
    assert fitted.task is not None
    fitted.about = about
    files = _names(fitted)
    hypervolume = front = None
    if fitted.front:
        hypervolume = fronts.hypervolume_of(fitted, reference)
        front = fronts.table(fitted)
        _write_front(folder, fitted, about, reference)
    page = fit_page(
        fitted,
        str(about.get("method", "a method")),
        get_task(fitted.task).id,
        f"{policy}{policy_suffix(fitted.policy)}",
        made,
        files,
        reference,
    )
    return Kept(
        page.write(folder / pages.NAME),
        folder / TABLE if fitted.front else None,
        hypervolume,
        front,
    )


def _names(fitted: Fitted) -> list[str]:
    """Files of the front's policies."""
    from dacrl_env.policies import policy_suffix

    return [
        f"{FRONT}/{number}{policy_suffix(point.policy)}"
        for number, point in enumerate(fitted.front, start=1)
    ]


def _write_front(
    folder: Path,
    fitted: Fitted,
    about: Mapping[str, Any],
    reference: Mapping[str, float] | None,
) -> Path:
    """Write what belongs to a front; returns the path of the table.

    That is table, figure, hypervolume and policies, of which those of an earlier front
    in the folder go.
    """
    from dacrl_env.comparison import fronts
    from dacrl_env.core.files import write_text
    from dacrl_env.policies import Fitted, save_fitted

    names = _names(fitted)
    (folder / FRONT).mkdir(parents=True, exist_ok=True)
    for number, (name, point) in enumerate(
        zip(names, fitted.front, strict=True), start=1
    ):
        one = Fitted(
            point.policy,
            fitted.cost,  # all of it was needed to know that it is on the front
            online=point.online,
            task=fitted.task,
            settings=fitted.settings,
        )
        told = {**about, "front": number, "values": dict(point.values)}
        save_fitted(one, folder / name, told)
    for path in (folder / FRONT).iterdir():
        if (
            re.fullmatch(r"\d+\.json", path.name)
            and f"{FRONT}/{path.name}" not in names
        ):
            path.unlink()
    table = fronts.table(fitted)
    table.insert(1, "file", names)
    write_text(folder / TABLE, table.to_csv(index=False))
    fronts.draw(fitted, folder / FIGURE)
    volume = asdict(fronts.hypervolume_of(fitted, reference))
    about_volume = {"hypervolume": volume, "given": dict(reference or {})}
    write_text(folder / VOLUME, json.dumps(about_volume, indent=1))
    return folder / TABLE


def _given_point(folder: Path) -> dict[str, float]:
    """What was given of the reference point of a fit; nothing if it cannot be read."""
    from dacrl_env.core.files import read_json

    try:
        given = read_json((folder / VOLUME).read_bytes())["given"]
        return {str(name): float(value) for name, value in given.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def say(kept: Kept) -> None:
    """Print a front."""
    from dacrl_env.comparison.tables import aligned

    if kept.front is None:
        return
    columns = {}
    for name in kept.front:
        cells = kept.front[name].tolist()
        if name == "file":
            continue
        columns[str(name)] = [_cell(value) for value in cells]
    print(f"\nPareto front:\n{aligned(columns, width())}")
    print(f"hypervolume: {kept.hypervolume}")
    print(f"front: {kept.table}")


def _cell(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def report(directory: Path, figures: Sequence[str] = ()) -> list[dict[str, str]]:
    """Write the pages of the fits in a folder again, from the runs in its store.

    Args:
        directory: ``--out`` of ``dacrl fit``.
        figures: formats that fronts are drawn in, too.

    Returns:
        Of each fit its policy and its page; nothing where there are no fits.
    """
    from dacrl_env.cli.kept import made_of
    from dacrl_env.comparison import fronts
    from dacrl_env.comparison.results import fitted_of
    from dacrl_env.core.specs import POLICY_SUFFIXES
    from dacrl_env.core.store import Store
    from dacrl_env.policies import identity, load_fitted

    files = sorted(
        path
        for path in (directory / "policies").glob("*")
        if path.suffix in POLICY_SUFFIXES
    )
    if not files or not (directory / "results").is_dir():
        return []
    store = Store(directory / "results")
    entries = [one for one in store.entries() if one.key["kind"] == "fit"]
    entries.sort(key=lambda one: -one.written)
    result = []
    for path in files:
        try:
            policy = load_fitted(path)
        except ValueError as error:
            print(f"dacrl: {error}; it has no page", file=sys.stderr)
            continue
        about, wanted = dict(policy.about or {}), identity(policy.policy)
        same = [
            one
            for one in entries
            if one.key["task"] == policy.task
            and all(one.key[name] == about.get(name) for name in ("budget", "seed"))
        ]
        found = ((one, fitted_of(store.read(one.key))) for one in same)
        entry, fitted = next(
            (pair for pair in found if identity(pair[1].policy) == wanted), (None, None)
        )
        if entry is None or fitted is None:
            print(
                f"dacrl: the runs of {path} are not in {directory / 'results'}; its "
                "page stays as it is",
                file=sys.stderr,
            )
            continue
        fitted.task, fitted.settings = policy.task, policy.settings
        folder = directory / "fits" / path.stem
        settings = policy.settings or {}
        made = replace(made_of(folder), settings=settings, versions=entry.versions)
        kept = write(
            folder,
            fitted,
            about,
            made,
            f"../../policies/{path.stem}",
            _given_point(folder),
        )
        for kind in figures if fitted.front else ():
            fronts.draw(fitted, folder / f"pareto.{kind}")
        print(f"fit: {path}\npage: {kept.page}")
        result.append({"policy": str(path), "page": str(kept.page)})
    return result
