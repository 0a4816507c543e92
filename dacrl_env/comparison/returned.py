"""What methods return: a fit that is kept as rows, or what must not be lost either."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.results import fit_frame
from dacrl_env.policies import Cost, Fitted, Policy, to_json
from dacrl_env.policies.protocol import cost_of

FOLDER = "returned"  # in a store, for what is no result


def written(
    result: Any,
    name: str,
    seed: int,
    directory: Path | None,
    suits: Callable[[Policy], None],
) -> pd.DataFrame:
    """A fit as rows; anything else is put into a file, since it took training.

    Args:
        result: what the ``fit`` of a method returned.
        name: of the method.
        seed: of its run.
        directory: of the store; None: there is none, and such a file is temporary.
        suits: raises a ValueError for a policy that cannot be run.

    Raises:
        ValueError: the result is no `Fitted`, its policy cannot be written out or run,
            or its cost or score is none; the message says why, and where it is.
    """
    if isinstance(result, Fitted):
        try:
            _check(result)
            suits(result.policy)
            return fit_frame(result)
        except Exception as error:  # whatever is wrong with it, it took training
            why = f"returned a fit that cannot be kept: {error}"
    else:
        why = f"returned {_kind(result)}, not a dacrl_env.policies.Fitted"
    place = _keep(result, name, seed, directory)
    raise ValueError(f"method {name!r} {why}; what it returned is in {place}")


def _check(fitted: Fitted) -> None:
    """Raise a ValueError for numbers that no cost or score is."""
    for cost, policy in fitted.incumbents:
        if not isinstance(cost, Cost):
            raise ValueError(f"its cost is a dacrl_env.policies.Cost, got {cost!r}")
        cost_of({name: _python(value) for name, value in asdict(cost).items()})
        content = to_json(policy)
        try:
            json.dumps(content, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"its policy is {content!r} ({error})") from error
    if fitted.online is not None and not np.isfinite(fitted.online):
        raise ValueError(f"online is a finite score or None, got {fitted.online!r}")


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _kind(result: Any) -> str:
    return (
        "nothing" if result is None else f"an object of class {type(result).__name__}"
    )


def _keep(result: Any, name: str, seed: int, directory: Path | None) -> str:
    """Where it was put: for cloudpickle, or as much of it as can be written."""
    import cloudpickle

    if directory is None:
        folder = Path(tempfile.mkdtemp(prefix="dacrl-returned-"))
    else:
        folder = directory / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name)[:60].strip("-")
    number = 0
    while (path := folder / f"{stem}-{seed}-{number}.pkl").exists():
        number += 1  # of an earlier try
    try:
        path.write_bytes(cloudpickle.dumps(result))
        return f"{path}, for cloudpickle.load; dacrl itself does not read it"
    except Exception as error:  # of whatever it holds
        path.unlink(missing_ok=True)
        path = path.with_suffix(".txt")
        path.write_text(f"{error}\n{result!r}\n", encoding="utf-8")
    trace = getattr(result, "trace", None)
    if isinstance(trace, pd.DataFrame):
        table = path.with_suffix(".csv")
        trace.to_csv(table, index=False)
        return f"{path} as text, its runs in {table}"
    return f"{path} as text"
