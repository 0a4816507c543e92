"""What ``dacrl fit`` keeps beside a policy, its page and its front, written again."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacrl_env.cli.listing import width

if TYPE_CHECKING:
    from dacrl_env.comparison.fronts import Front
    from dacrl_env.comparison.made import Made
    from dacrl_env.core.store import Entry, Store
    from dacrl_env.policies import Fitted

FRONT, TABLE, FIGURE, VOLUME = "front", "pareto.csv", "pareto.png", "pareto.json"


@dataclass(frozen=True)
class Kept:
    """Files of a fit.

    Attributes:
        page: of the fit.
        table: of its front; None: it has none.
        front: its table and its hypervolume.
    """

    page: Path
    table: Path | None = None
    front: Front | None = None


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
    _copy_front(folder, out, _names(fitted))
    kept.front.table["file"] = [str(out / name) for name in _names(fitted)]
    return replace(kept, table=out / TABLE)


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
    front = None
    if fitted.front:
        front = fronts.front_of(fitted, reference)
        _write_front(folder, fitted, about, front, reference)
    page = fit_page(
        fitted,
        str(about.get("method", "a method")),
        get_task(fitted.task).id,
        f"{policy}{policy_suffix(fitted.policy)}",
        made,
        files,
        front,
    )
    path = page.write(folder / pages.NAME)
    return Kept(path) if front is None else Kept(path, folder / TABLE, front)


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
    front: Front,
    reference: Mapping[str, float] | None,
) -> None:
    """Write what belongs to a front.

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
    _drop_others(folder, names)
    table = front.table.copy()
    table.insert(1, "file", names)
    write_text(folder / TABLE, table.to_csv(index=False))
    fronts.draw(fitted, folder / FIGURE)
    volume = asdict(front.hypervolume)
    about_volume = {"hypervolume": volume, "given": dict(reference or {})}
    write_text(folder / VOLUME, json.dumps(about_volume, indent=1))


def _copy_front(source: Path, target: Path, names: Sequence[str]) -> None:
    """Put the same files of a front into another folder."""
    from dacrl_env.core.files import write_whole

    (target / FRONT).mkdir(parents=True, exist_ok=True)
    for name in (*names, TABLE, FIGURE, VOLUME):
        write_whole(target / name, (source / name).read_bytes())
    _drop_others(target, names)


def _drop_others(folder: Path, names: Sequence[str]) -> None:
    """Remove policies of an earlier front."""
    for path in (folder / FRONT).iterdir():
        if (
            re.fullmatch(r"\d+\.json", path.name)
            and f"{FRONT}/{path.name}" not in names
        ):
            path.unlink()


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
    from dacrl_env.comparison.tables import aligned, cell

    if kept.front is None:
        return
    columns = {}
    for name in kept.front.table:
        cells = kept.front.table[name].tolist()
        if name == "file":
            continue
        columns[str(name)] = [cell(value) for value in cells]
    print(f"\nPareto front:\n{aligned(columns, width())}")
    print(f"hypervolume: {kept.front.hypervolume}")
    print(f"front: {kept.table}")


def _key_of(policy: Fitted) -> dict[str, Any]:
    """What the key of a fit's runs has, as far as the file of its policy tells.

    Raises:
        ValueError: no method of that name, or none is told.
        ImportError: the method needs a package that is not installed.
        NoSource: of its arguments it cannot be told what they are.
    """
    from dacrl_env.core.provenance import described
    from dacrl_env.policies import get_method

    about = policy.about or {}
    if not isinstance(about.get("method"), str):
        raise ValueError("no method is told")
    method: Any = get_method(about["method"])
    arguments = {f.name: getattr(method, f.name) for f in fields(method)}
    settings = dict(policy.settings or {})
    settings.pop("num_threads", None)  # changes no result
    key = {
        "task": policy.task,
        "settings": settings,
        "method": f"{type(method).__module__}:{type(method).__qualname__}",
        "arguments": described(arguments, type(method)),
        "budget": about.get("budget"),
        "seed": about.get("seed"),
    }
    plain: dict[str, Any] = json.loads(json.dumps(key))  # tuples as lists
    return plain


def _found(
    store: Store, entries: Sequence[Entry], wanted: Any
) -> tuple[Entry | None, Fitted | None]:
    """The first fit that found a policy; those that cannot be read are said."""
    from dacrl_env.comparison.results import fitted_of
    from dacrl_env.policies import identity

    for entry in entries:
        try:
            fitted = fitted_of(store.read(entry.key))
        except (KeyError, ValueError, OSError) as error:  # went, or is damaged
            print(f"dacrl: {error}", file=sys.stderr)
            continue
        if identity(fitted.policy) == wanted:
            return entry, fitted
    return None, None


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
    from dacrl_env.core.provenance import NoSource
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
        about = dict(policy.about or {})
        try:
            own = _key_of(policy)
        except (ValueError, ImportError, NoSource) as error:
            print(
                f"dacrl: how {path} was made cannot be told ({error}); its page stays "
                "as it is",
                file=sys.stderr,
            )
            continue
        same = [one for one in entries if own == {k: one.key.get(k) for k in own}]
        entry, fitted = _found(store, same, identity(policy.policy))
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
