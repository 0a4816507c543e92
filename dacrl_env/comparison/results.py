"""What names results in a store, and reading them back."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.evaluation import batches
from dacrl_env.core.files import read_json
from dacrl_env.core.installed import version
from dacrl_env.core.provenance import NoSource, described, source
from dacrl_env.core.sources import OWN
from dacrl_env.core.store import Entry, Store, canonical, digest
from dacrl_env.methods.trials import settings_key
from dacrl_env.policies import (
    Cost,
    Fitted,
    FrontPoint,
    Policy,
    from_json,
    get_policy,
    identity,
    parts_of,
    to_json,
)
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import definition_of

Key = dict[str, Any]
_VALUE = "value/"  # before names of objectives, in columns of fits


# -- names --------------------------------------------------------------------------


def unit_key(
    task: Task,
    policy: str,
    seeds: list[int],
    split: str,
    options: dict[str, Any],
    run: int = 0,
    fitted: Fitted | None = None,
    kind: str = "evaluate",
    origin: Any = OWN,
) -> Key:
    """What names a unit of work in the store: everything its result depends on.

    Args:
        task: that the policy is run on.
        policy: its name.
        seeds: of the runs.
        split: "test" or "tuning".
        options: of the environment.
        run: of the method that made the policy.
        fitted: a policy that a method made, as opposed to one of that name.
        kind: of the unit.
        origin: what the policy is made by, see `origin_of`.

    Raises:
        NoSource: of the task or an option it cannot be told.
    """
    made = about = None
    if fitted is not None:
        cost, online = asdict(fitted.cost), fitted.online
        made = {"policy": identity(fitted.policy), "cost": cost, "online": online}
        about = described(fitted.about)
    return {
        "kind": kind,
        "version": version(),
        "task": task.id,
        # a user's task may change under the same id
        "definition": definition_of(task),
        "settings": settings_key(options),
        "policy": policy,
        "run": run,
        "about": about,
        "fitted": made,
        "origin": origin,
        "split": split,
        "seeds": seeds,
    }


def origin_of(policy: Policy, name: str | None) -> Any:
    """What a policy is made by, beside its name, as JSON.

    Args:
        policy: not used yet: what it holds is part of what it is.
        name: as `get_policy` takes it; None: the object alone was given.

    Raises:
        NoSource: it cannot be told.
    """
    if isinstance(policy, Fitted):
        return OWN if name is not None else described(policy.about)
    if name is None:
        return described(policy)
    factory, arguments = parts_of(name)
    if factory is None:
        return source(policy)
    about = {"entry": source(factory), "class": source(policy)}
    about["arguments"] = described(arguments, factory)
    # what it read when it was made is in its state; not if that differs each time
    try:
        state = described(policy)
        if state == described(get_policy(name)):
            about["state"] = state
    except NoSource:
        pass
    return about


def named(store: Store | None, makes: Sequence[Callable[[], Key]]) -> list[Key | None]:
    """Keys of units; what has none is not kept, which one warning says.

    Args:
        store: None: nothing is kept, and needs no key.
        makes: of the keys.
    """
    keys: list[Key | None] = []
    reasons: list[str] = []
    for make in makes:
        try:
            keys.append(None if store is None else make())
        except NoSource as error:
            keys.append(None)
            reasons.append(str(error))
    tell_unnamed(reasons)
    return keys


def tell_unnamed(reasons: Sequence[str]) -> None:
    """Say once why results are not kept, if there is a reason."""
    if reasons:
        why = "; ".join(dict.fromkeys(reasons))
        warnings.warn(
            f"results are not kept, since what they depend on cannot be told: {why}",
            stacklevel=4,
        )


# -- seeds that are there already ------------------------------------------------------


def independent(policy: Any, options: Mapping[str, Any]) -> bool:
    """Whether what happens to a run does not depend on the runs beside it.

    A user's policy says so by an attribute ``independent``.
    """
    policy = policy.policy if isinstance(policy, Fitted) else policy
    if type(policy).__module__.partition(".")[0] == OWN:
        return not getattr(policy, "shuffle", False)
    return bool(getattr(policy, "independent", False))


def divide(
    store: Store | None, key: Key | None, seeds: list[int], batch: int, mixed: bool
) -> tuple[dict[int, Key], list[list[int]]]:
    """Seeds that are in the store, by the key of their unit, and batches of the rest.

    Args:
        store: where to look.
        key: of the work, with any seeds.
        seeds: that are wanted.
        batch: seeds of a unit of work.
        mixed: whether runs of other batches are the same; see `independent`.
    """
    # a run alone agrees with the same run in company to rounding only
    if store is None or key is None or not mixed or min(batch, len(seeds)) == 1:
        return {}, list(batches(seeds, batch))
    kept: dict[int, Key] = {}
    for entry in store.parts(key):
        if len(entry.key["seeds"]) > 1:
            kept |= dict.fromkeys(entry.key["seeds"], entry.key)
    kept = {seed: kept[seed] for seed in seeds if seed in kept}
    missing = [seed for seed in seeds if seed not in kept]
    if len(missing) == 1:  # it gets company, as it would have had
        missing.append(next(seed for seed in seeds if seed not in missing))
    return kept, list(batches(missing, batch)) if missing else []


def arranged(frames: list[pd.DataFrame], seeds: list[int], batch: int) -> pd.DataFrame:
    """Rows of seeds as one call would have given them, from units of any batches.

    Args:
        frames: of `evaluate`; a seed that is in several is taken from the first.
        seeds: that are wanted.
        batch: as in `divide`.
    """
    rows: dict[int, pd.DataFrame] = {}
    for frame in frames:
        for seed in frame["seed"].unique().tolist():
            rows.setdefault(seed, frame[frame["seed"] == seed])
    parts = [
        rows[seed].assign(member=part.index(seed), parent=part.index(seed))
        for part in batches(seeds, batch)
        for seed in sorted(part)
    ]
    return pd.concat(parts, ignore_index=True)


def renew(store: Store, keys: Sequence[Key]) -> None:
    """Make units that were found in the store the newest of their name.

    A user's file may be as it was before an edit; `stored` is to show what was asked
    for last.
    """
    units = {canonical(key): key for key in keys}
    works: dict[str, list[Key]] = {}
    for key in units.values():
        works.setdefault(canonical({**key, "seeds": []}), []).append(key)
    for parts in works.values():
        entries = store.versions(parts[0])
        newest = max(entries, key=lambda entry: entry.written, default=None)
        if newest is not None and _version(newest.key) != _version(parts[0]):
            for key in parts:
                store.write(key, store.read(key))


# -- reading back ----------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Results of one comparison that are in a store.

    Args:
        frame: as `compare` gives it; names of policies are those shown.
        notes: what is there and not shown, in sentences.
        settings: options of the environment.
        versions: of this package and of libraries, of the unit that was written last.
    """

    frame: pd.DataFrame
    notes: list[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def folder(task: str, budget: int, settings: Mapping[str, Any], split: str) -> str:
    """Name of a comparison: task and length of a run, and a digest of all settings.

    Args:
        task: id.
        budget: inner environment steps of a run.
        settings: of `settings_key`.
        split: "test" or "tuning".
    """
    about = {"task": task, "settings": dict(settings), "split": split}
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", task).strip("-")
    return f"{readable}-{budget}-{digest(about)[:8]}"


def folder_of(task: Task, options: Mapping[str, Any], split: str = "test") -> str:
    """`folder` of a comparison with given options of the environment.

    Options that cannot be described are told apart by what they print.
    """
    try:
        settings = settings_key(options)
    except NoSource:
        settings = {"printed": {name: repr(value) for name, value in options.items()}}
    budget = options.get("budget") or task.budget
    return folder(task.id, int(budget), settings, split)


LABELS = "labels.json"  # in the directory of a comparison


def labels_in(directory: str | os.PathLike[str]) -> dict[str, str]:
    """Labels of the comparisons in a directory, by what they stand for.

    Raises:
        ValueError: a damaged file.
    """
    path = Path(directory) / LABELS
    try:
        labels = read_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not all(isinstance(label, str) for label in labels.values()):
        raise ValueError("a label is no text")
    return labels


def read_results(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """All results in a directory, one frame.

    Args:
        directory: ``--out`` of a comparison, or the store of `compare`.

    Returns:
        The frames of `compare`, one comparison after the other. The column
        ``comparison`` names them by task, budget and settings, as folders do.

    Raises:
        FileNotFoundError: no such directory, or nothing in it.
        ValueError: a damaged file of labels.
        StoreError: a damaged file of results.
    """
    below = Path(directory) / "results"
    store = below if below.is_dir() else Path(directory)
    found = stored(store, labels_in(directory))
    frames = [kept.frame.assign(comparison=name) for name, kept in found.items()]
    return pd.concat(frames, ignore_index=True)


def stored(
    directory: str | os.PathLike[str],
    labels: Mapping[str, str] | None = None,
    orders: Callable[[str], Sequence[str]] = lambda name: (),
) -> dict[str, Kept]:
    """Comparisons in a store, by the name that `folder` gives them.

    Of each policy the newest version is there: the one that was written, or asked for,
    last. All are of one version of this package and of the task. Fits of one name that
    differ in method, budget or seed have rows of their own, told apart in their names.
    Where units overlap in policy, run and seed, the larger one counts, and one with
    trajectories before all others. Policies whose order is not known come after the
    others, in the order in which they were first written.

    Args:
        directory: of the store.
        labels: to be shown instead of names.
        orders: names of policies in their order, by the name of a comparison.

    Raises:
        FileNotFoundError: no such directory, or nothing in it.
        StoreError: a damaged file.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"no results in {directory}")
    store = Store(directory)
    groups: dict[str, list[Entry]] = {}
    for entry in store.entries():
        key = entry.key
        if key["kind"] == "evaluate":
            budget = key["settings"].get("budget") or key["definition"]["budget"]
            name = folder(key["task"], budget, key["settings"], key["split"])
            groups.setdefault(name, []).append(entry)
    found = {}
    for name, entries in groups.items():
        kept = _kept(store, entries, labels or {}, orders(name))
        if kept is not None:
            found[name] = kept
    if not found:
        raise FileNotFoundError(f"no results in {directory}")
    return found


def _kept(
    store: Store,
    entries: list[Entry],
    labels: Mapping[str, str],
    order: Sequence[str],
) -> Kept | None:
    """One comparison; None if all of it went in the meantime."""
    notes = []
    newest = max(entries, key=lambda entry: entry.written)
    settings, libraries = newest.key["settings"], newest.versions
    edition = _edition(newest.key)
    older = [entry for entry in entries if _edition(entry.key) != edition]
    entries = [entry for entry in entries if _edition(entry.key) == edition]
    if older:
        names = ", ".join(sorted({entry.key["policy"] for entry in older}))
        notes.append(
            f"Results of an older dacrl-env or an older version of the task are there "
            f"and not shown: {names}; run them again to compare them."
        )
    rows: dict[tuple[str, str], list[Entry]] = {}  # by name and fit
    for entry in entries:
        fit = canonical({"about": entry.key["about"]})
        rows.setdefault((entry.key["policy"], fit), []).append(entry)
    rows = dict(sorted(rows.items(), key=lambda row: _place(row[0][0], row[1], order)))
    shown = _shown([(name, json.loads(fit)["about"]) for name, fit in rows], labels)
    parts = []
    for text, versions in zip(shown, rows.values(), strict=True):
        newest = max(versions, key=lambda entry: entry.written)
        chosen = [e for e in versions if e.key["origin"] == newest.key["origin"]]
        # of a method one fit a run, of a policy file the latest
        last: dict[int, Entry] = {}
        for entry in sorted(chosen, key=lambda entry: entry.written):
            last[entry.key["run"]] = entry
        chosen = [
            e for e in chosen if e.key["fitted"] == last[e.key["run"]].key["fitted"]
        ]
        others = {_version(e.key) for e in versions} - {_version(e.key) for e in chosen}
        if others:
            many = f"{len(others)} older versions are" if len(others) > 1 else ""
            many = many or "an older version is"
            notes.append(f"Of {text} {many} there and not shown.")
        frame = _joined(store, chosen)
        if frame is not None:
            parts.append(frame.assign(policy=text))
    if not parts:
        return None
    return Kept(pd.concat(parts, ignore_index=True), notes, settings, libraries)


def _place(
    name: str, entries: list[Entry], order: Sequence[str]
) -> tuple[int, int, int]:
    """What policies are sorted by; shuffled ones follow after all others."""
    own = name.removesuffix(" shuffled")
    known = order.index(own) if own in order else len(order)
    return own != name, known, min(entry.written for entry in entries)


def _joined(store: Store, entries: list[Entry]) -> pd.DataFrame | None:
    """Rows of units, each run and seed once: with trajectories, of larger units."""
    taken: set[tuple[int, int]] = set()
    parts = []

    def order(entry: Entry) -> tuple[bool, int]:
        return "trajectories" not in entry.key, -len(entry.key["seeds"])

    for entry in sorted(entries, key=order):
        run = entry.key["run"]
        fresh = [s for s in entry.key["seeds"] if (run, s) not in taken]
        if not fresh:
            continue
        try:
            frame = store.read(entry.key)
        except KeyError:  # went since the folder was listed
            continue
        taken.update((run, s) for s in fresh)
        parts.append(frame[frame["seed"].isin(fresh)])
    return pd.concat(parts, ignore_index=True) if parts else None


def _shown(
    rows: list[tuple[str, Mapping[str, Any] | None]], labels: Mapping[str, str]
) -> list[str]:
    """Names to show, no two alike: label or name, and where fits differ, in what."""
    bases = [name.removesuffix(" shuffled") for name, _ in rows]
    texts = [
        labels.get(base, base) + name[len(base) :]
        for base, (name, _) in zip(bases, rows, strict=True)
    ]
    result = []
    for text, (name, about) in zip(texts, rows, strict=True):
        # a label that also stands for something else says nothing
        meant = {n for other, (n, _) in zip(texts, rows, strict=True) if other == text}
        abouts = [other for n, other in rows if n == name]
        shown = text if meant == {name} else name
        result.append(shown + (_difference(about, abouts) if len(abouts) > 1 else ""))
    return result


def _difference(
    about: Mapping[str, Any] | None, every: list[Mapping[str, Any] | None]
) -> str:
    """In what a fit differs from others of its name, in brackets."""
    if about is None:
        return " [no fit]"
    words = [
        f"{name} {value:,}" if type(value) is int else f"{name} {value}"
        for name, value in sorted(about.items())
        if any(other is None or other.get(name) != value for other in every)
    ]
    return f" [{', '.join(words)}]"


def _edition(key: Key) -> str:
    """Of this package and the task."""
    return canonical({name: key[name] for name in ("version", "definition")})


def _version(key: Key) -> str:
    """Of the package, the task and the policy; of a method that is one a run."""
    names = ("version", "definition", "origin", "fitted")
    return canonical({name: key[name] for name in names})


# -- fits --------------------------------------------------------------------------


def fit_frame(fitted: Fitted) -> pd.DataFrame:
    """A fit as rows: one an incumbent, the last being the result; front and trace."""
    incumbents = pd.DataFrame(
        [
            {
                "row": "incumbent",
                **asdict(cost),
                "online": np.nan if fitted.online is None else fitted.online,
                "policy": json.dumps(to_json(policy), sort_keys=True),
            }
            for cost, policy in fitted.incumbents
        ]
    )
    parts = [incumbents]
    if fitted.front:
        parts.append(
            pd.DataFrame(
                [
                    {
                        "row": "front",
                        "online": np.nan if point.online is None else point.online,
                        "policy": json.dumps(to_json(point.policy), sort_keys=True),
                        **{f"{_VALUE}{k}": v for k, v in point.values.items()},
                    }
                    for point in fitted.front
                ]
            )
        )
    if fitted.trace is not None:
        parts.append(fitted.trace.assign(row="trace"))
    return pd.concat(parts, ignore_index=True) if parts[1:] else incumbents


def _front_of(frame: pd.DataFrame) -> list[FrontPoint]:
    """The front that `fit_frame` wrote."""
    names = [name for name in frame.columns if name.startswith(_VALUE)]
    return [
        FrontPoint(
            from_json(json.loads(row["policy"])),
            {name.removeprefix(_VALUE): float(row[name]) for name in names},
            None if np.isnan(row["online"]) else float(row["online"]),
        )
        for row in frame[frame["row"] == "front"].to_dict("records")
    ]


def fitted_of(frame: pd.DataFrame) -> Fitted:
    """The fit that `fit_frame` wrote."""
    course: list[tuple[Cost, Policy]] = []
    incumbents = frame[frame["row"] == "incumbent"]
    for row in incumbents.to_dict("records"):
        cost = Cost(
            int(row["env_steps"]),
            int(row["eval_steps"]),
            int(row["gradient_steps"]),
            float(row["flops"]),
        )
        course.append((cost, from_json(json.loads(row["policy"]))))
    online = float(incumbents["online"].iloc[-1])
    trace = None
    if "generation" in frame:
        trace = frame[frame["row"] == "trace"]
        others = [name for name in frame.columns if name.startswith(_VALUE)]
        others += ["row", "online", "policy", *asdict(Cost())]
        trace = trace.drop(columns=others)
        whole = ["generation", "member", "parent", "step"]
        kinds = {**dict.fromkeys(whole, np.int64), "diverged": bool}
        kinds = {name: kind for name, kind in kinds.items() if name in trace}
        trace = trace.astype(kinds).reset_index(drop=True)
    cost, policy = course[-1]
    known = None if np.isnan(online) else online
    front = _front_of(frame)
    return Fitted(policy, cost, course, known, trace=trace, front=front)
