"""Fits as studies of Optuna, for its dashboard, importance and plots.

Optuna (Akiba et al. 2019, "Optuna: a next-generation hyperparameter optimization
framework", KDD) keeps trials in storages that other tools read. A fit's runs become
trials there, whichever method made them, under the names and scales of the task::

    fitted = dacrl_env.fit("dacrl/NoisyQuadratic-v0", "random-search", 2_000)
    study = to_study(fitted, journal("optuna.journal"), seed=0)
    optuna.importance.get_param_importances(study)

A trial is one run with one tuning seed. Runs of one candidate on several seeds are
several trials. A run that was forked is several trials with a common beginning.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dacrl_env.core import installed
from dacrl_env.core.checks import unknown
from dacrl_env.integrations.configspace import COMPLEMENT
from dacrl_env.methods.lineages import NEEDED, has_lines, lines
from dacrl_env.methods.search import quiet
from dacrl_env.methods.trials import COST, OBJECTIVES
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import Fitted
from dacrl_env.tasks import LEAST_COMPLEMENT, Knob, Number

if TYPE_CHECKING:
    import optuna

JOURNAL = "optuna.journal"  # in the folder of a fit
CONFIGURATION = "configuration/"  # before the names of static configuration


def journal(path: str | os.PathLike[str]) -> optuna.storages.JournalStorage:
    """A storage in one file, which is made where it is not there.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
    """
    require()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(os.fspath(path)))


def to_study(
    fitted: Fitted,
    storage: Any = None,
    *,
    seed: int | None = None,
    objective: str | Sequence[str] = "final",
) -> optuna.Study:
    """The runs of a fit as a study, which is maximised (costs are minimised).

    Parameters are the values applied at a run's last decision; where they changed on
    the way the attribute ``varied`` names them. Events and inactive values are absent.
    A number on the scale ``log_complement`` is there as ``one_minus_<name>``, as in
    `dacrl_env.integrations.configspace`. Intermediate values are observed scores by
    decision. States: COMPLETE, a run to its end; PRUNED, one given up before; FAIL, one
    that diverged.

    Attributes: ``generation`` (fresh starts before it), ``member``, ``decisions``,
    ``varied``.

    Args:
        fitted: with its task and its trace.
        storage: of Optuna, or its URL; None: in memory. A fit that is there already is
            not written again; one that was interrupted is completed.
        seed: of the method, for the study's name and attributes.
        objective: value of a trial: the last observed score ("final"), the best one
            ("best"), the mean over decisions ("auc"), or the floating-point operations
            of the run ("cost"). Several make a study of several objectives, which are
            its metric names.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: an unknown objective, or a fit without a task or a trace.
    """
    names = [objective] if isinstance(objective, str) else list(objective)
    for name in names:
        if name not in (*OBJECTIVES, COST):
            raise ValueError(unknown("objective", name, (*OBJECTIVES, COST)))
    if not has_runs(fitted):
        lacking = "task" if fitted.task is None else "trace of its runs"
        raise ValueError(
            f"this fit has no {lacking}; a study is made of a task and of a trace with "
            f"the columns {', '.join(sorted(NEEDED))}"
        )
    require()
    import optuna
    from optuna.study import StudyDirection

    trace = fitted.trace
    assert trace is not None
    assert fitted.task is not None
    settings = resolve(fitted.task, **(fitted.settings or {}))
    about = {"task": fitted.task, **(fitted.about or {})}
    about["objective"] = names[0] if len(names) == 1 else names
    if seed is not None:
        about["seed"] = seed
    about["options"] = {k: repr(v) for k, v in (fitted.settings or {}).items()}
    text = json.dumps(about, sort_keys=True, default=repr) + trace.to_csv(index=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    method = about.get("method", "fit")
    words = [fitted.task, str(method), *([] if seed is None else [f"seed {seed}"])]
    with quiet("optuna"), warnings.catch_warnings():
        # that names of metrics are experimental there
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=storage,
            study_name=" ".join([*words, digest]),
            directions=[
                StudyDirection.MINIMIZE if name == COST else StudyDirection.MAXIMIZE
                for name in names
            ],
            load_if_exists=True,
        )
        if not study.user_attrs:
            for name, value in about.items():
                study.set_user_attr(name, _plain(value))
            if len(names) > 1:
                study.set_metric_names(names)
        # the order is that of the trace, so that what is missing is the rest
        trials = _trials(trace, settings.controlled, names)
        study.add_trials(trials[len(study.get_trials(deepcopy=False)) :])
    return study


def read_studies(directory: str | os.PathLike[str]) -> list[optuna.Study]:
    """Studies of the fits in a folder.

    Args:
        directory: ``--out`` of ``dacrl fit``.

    Raises:
        FileNotFoundError: no journal.
        ModuleNotFoundError: Optuna is not installed.
        ValueError: the journal is damaged, or there is no fit in it.
    """
    require()
    import optuna

    path = Path(directory) / JOURNAL
    if not path.is_file():
        raise FileNotFoundError(
            f"no {JOURNAL} in {directory}; dacrl fit --out writes one where optuna is "
            "installed"
        )
    try:
        with quiet("optuna"):
            storage = journal(path)
            names = optuna.get_all_study_names(storage)
            found = [
                optuna.load_study(study_name=name, storage=storage) for name in names
            ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no journal of Optuna: {error}") from error
    if not found:
        raise ValueError(f"no fit can be read in {path}")
    return found


def is_installed() -> bool:
    """Whether Optuna is."""
    return installed.has("optuna")


def has_runs(fitted: Fitted) -> bool:
    """Whether a fit has what a study is made of; that of a controller does not."""
    return fitted.task is not None and has_lines(fitted.trace)


def require() -> None:
    """Raise a ModuleNotFoundError that names the extra, if Optuna is not installed."""
    installed.require("optuna", "studies need optuna")


def _trials(
    trace: pd.DataFrame, knobs: Sequence[Knob], objectives: Sequence[str]
) -> list[Any]:
    """Frozen trials, in the order of generations, then of ends of runs."""
    searched = [h for h in knobs if h.held and f"hp/{h.name}" in trace]
    fields = _fields(trace)
    longest = int(trace["step"].max())
    rows = [{str(k): v for k, v in r.items()} for r in trace.to_dict("records")]
    return [
        _trial([rows[k] for k in one.rows], searched, fields, longest, objectives)
        for one in lines(trace)
    ]


def _trial(
    line: Sequence[dict[str, Any]],
    knobs: Sequence[Knob],
    fields: dict[str, list[str]],
    longest: int,
    objectives: Sequence[str],
) -> Any:
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState

    last = line[-1]
    params: dict[str, Any] = {}
    spaces: dict[str, Any] = {}
    for h in knobs:
        value = last[f"hp/{h.name}"]
        if _is_missing(value):
            continue
        name, params_value, space = _parameter(h, value)
        params[name], spaces[name] = params_value, space
    found = _configuration(last)
    for field, options in fields.items():
        name = f"{CONFIGURATION}{field}"
        params[name] = json.dumps(found[field]) if field in found else "default"
        spaces[name] = CategoricalDistribution(options)
    scores = np.array([row["score"] for row in line], np.float64)
    steps = [int(row["step"]) for row in line]
    finite = bool(np.isfinite(scores[-1])) and not last.get("diverged", False)
    state = TrialState.COMPLETE if steps[-1] == longest else TrialState.PRUNED
    if not finite:
        state = TrialState.FAIL
    values = {
        "final": scores[-1],
        "best": scores.max(),
        "auc": scores.mean(),
        COST: last.get(COST, np.nan),
    }
    varied = [h.name for h in knobs if len({str(r[f"hp/{h.name}"]) for r in line}) > 1]
    return optuna.trial.create_trial(
        state=state,
        values=[float(values[name]) for name in objectives] if finite else None,
        params=params,
        distributions=spaces,
        intermediate_values={
            step: float(score)
            for step, score in zip(steps, scores, strict=True)
            if np.isfinite(score)
        },
        user_attrs={
            "generation": int(last["generation"]),
            "member": int(last["member"]),
            "decisions": steps[-1],
            "varied": varied,
        },
    )


def _parameter(knob: Knob, value: Any) -> tuple[str, Any, Any]:
    """Name, value and distribution of a value that was applied."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if not isinstance(knob, Number):
        value = _plain(value)
        option = next(o for o in knob.options if o == value)
        return knob.name, option, CategoricalDistribution(knob.options)
    if knob.scale == "log_complement":
        most, least = 1.0 - knob.low, max(1.0 - knob.high, LEAST_COMPLEMENT)
        inside = min(max(1.0 - float(value), least), most)
        space = FloatDistribution(least, most, log=True)
        return f"{COMPLEMENT}{knob.name}", inside, space
    log = knob.scale == "log"
    # what is applied may be capped outside of what is searched
    low, high = min(knob.low, float(value)), max(knob.high, float(value))
    if knob.integer:
        whole = IntDistribution(int(low), int(high), log=log)
        return knob.name, int(value), whole
    return knob.name, float(value), FloatDistribution(low, high, log=log)


def _fields(trace: pd.DataFrame) -> dict[str, list[str]]:
    """Options of each field of the static configuration that was searched, as JSON."""
    fields: dict[str, set[str]] = {}
    for text in trace.get("configuration", pd.Series(dtype=object)).dropna().unique():
        for name, value in json.loads(text).items():
            fields.setdefault(name, set()).add(json.dumps(value))
    return {name: ["default", *sorted(fields[name])] for name in sorted(fields)}


def _configuration(row: dict[str, Any]) -> dict[str, Any]:
    text = row.get("configuration")
    return json.loads(text) if isinstance(text, str) else {}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
