"""What names results in a store, and reading them back."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.policies import Cost, Fitted, Policy, from_json, identity, to_json
from dacrl_env.store import Store, canonical
from dacrl_env.tasks import Task
from dacrl_env.version import __version__


def stored(directory: str | os.PathLike[str]) -> dict[str, pd.DataFrame]:
    """Comparisons in a store, by a name made of task and settings.

    Where units overlap in policy, run and seed, the larger one counts.

    Raises:
        FileNotFoundError: no such directory, or nothing in it.
        ValueError: one name stands for several results of a method: it was fitted at
            two budgets, or its policy file has changed.
        StoreError: a damaged file.
    """
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"no results in {directory}")
    store = Store(directory)
    groups: dict[str, list[dict[str, Any]]] = {}
    for key in store.keys():  # noqa: SIM118 - not a dict
        if key["kind"] != "evaluate":
            continue
        about = {k: key[k] for k in ("version", "definition", "settings", "split")}
        digest = hashlib.sha256(canonical(about).encode()).hexdigest()[:8]
        name = f"{key['task'].replace('/', '-')}-{digest}"
        groups.setdefault(name, []).append(key)
    if not groups:
        raise FileNotFoundError(f"no results in {directory}")
    frames = {}
    for name, keys in groups.items():
        taken: set[tuple[str, int, int]] = set()
        made: dict[tuple[str, int], dict[str, Any] | None] = {}
        parts = []
        for key in sorted(keys, key=lambda key: -len(key["seeds"])):
            who = key["policy"], key["run"]
            if made.setdefault(who, key["fitted"]) != key["fitted"]:
                raise ValueError(_ambiguous(*who, made[who], key["fitted"]))
            fresh = [s for s in key["seeds"] if (*who, s) not in taken]
            taken.update((*who, s) for s in fresh)
            if fresh:
                frame = store.read(key)
                parts.append(frame[frame["seed"].isin(fresh)])
        frames[name] = pd.concat(parts, ignore_index=True)
    return frames


def _ambiguous(name: str, run: int, *fits: dict[str, Any] | None) -> str:
    steps = [f"{fit['cost']['env_steps']:,}" if fit else "no" for fit in fits]
    return (
        f"{name!r}, run {run}, stands for several results of a method in this store, "
        f"after {' and '.join(steps)} steps of tuning; give them directories of their "
        "own, or delete what is out of date"
    )


def unit_key(
    task: Task,
    policy: str,
    seeds: list[int],
    split: str,
    options: dict[str, Any],
    run: int = 0,
    fitted: Fitted | None = None,
    kind: str = "evaluate",
    digest: str | None = None,
) -> dict[str, Any]:
    """What names a unit of work in the store: everything its result depends on.

    ``digest`` is of the file of a user's policy, see `policies.source`.
    """
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    made = None
    if fitted is not None:
        cost, online = asdict(fitted.cost), fitted.online
        made = {"policy": identity(fitted.policy), "cost": cost, "online": online}
    return {
        "kind": kind,
        "version": __version__,
        "task": task.id,
        # a user's task may change under the same id
        "definition": task.definition(),
        "settings": settings,
        "policy": policy,
        "run": run,
        "fitted": made,
        "split": split,
        "seeds": seeds,
        **({} if digest is None else {"source": digest}),
    }


def fit_frame(fitted: Fitted) -> pd.DataFrame:
    """A fit as rows: one an incumbent, the last being the result; then its trace."""
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
    if fitted.trace is None:
        return incumbents
    return pd.concat([incumbents, fitted.trace.assign(row="trace")], ignore_index=True)


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
        trace = trace.drop(columns=["row", "online", "policy", *asdict(Cost())])
        whole = ["generation", "member", "parent", "step"]
        trace = trace.astype(dict.fromkeys(whole, np.int64)).reset_index(drop=True)
    cost, policy = course[-1]
    online_score = None if np.isnan(online) else online
    return Fitted(policy, cost, course, online_score, trace=trace)
