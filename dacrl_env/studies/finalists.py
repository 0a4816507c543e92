"""Candidates of the final of `dacrl tune-static`: what is known, and what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dacrl_env.comparison import stats
from dacrl_env.comparison.evaluation import suitable_options
from dacrl_env.learners.events import OF_EVENTS
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import own_hyperparameters, resolve
from dacrl_env.policies import load_fitted, to_json
from dacrl_env.policies.static import Static
from dacrl_env.policies.tuned import place
from dacrl_env.tasks import Event, Knob, Number, Option, Task, bases
from dacrl_env.tasks.public import public
from dacrl_env.tasks.registration import ALGORITHMS, load
from dacrl_env.tasks.rungs import STATIC

BASE = "base"


@dataclass(frozen=True)
class Finalist:
    """A candidate of the final.

    Args:
        name: "default", "public …", "base", "headroom" or "fit 0", ….
        policy: what it sets where that differs from the task's default.
        source: where it is from.
        work: floating-point operations of a run, as a multiple of the default's.
        score: mean report score in the final, and its interval.
    """

    name: str
    policy: Static
    source: str
    work: float
    score: stats.Estimate | None = None

    def about(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            "source": self.source,
            "defaults": self.policy.config,
            "configuration": self.policy.configuration,
            "work": self.work,
            "score": None if self.score is None else list(self.score),
        }


def reduced(
    task: Task,
    config: Mapping[str, Option],
    configuration: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Static:
    """A static policy that sets what differs from the default of a task alone.

    What has no meaning under the choices that are made is left out, too.

    Args:
        task: the task.
        config: hyperparameters.
        configuration: static configuration.
        options: of the environment.
    """
    own = own_hyperparameters(task, load(ALGORITHMS[task.algorithm]).hyperparameters)
    whole = {h.name for h in own.values() if isinstance(h, Number) and h.integer}
    settings = resolve(task, **options).config
    return Static(
        {
            name: value
            for name, value in configuration.items()
            if plain(getattr(settings, name)) != plain(value)
        },
        **{
            name: int(value) if name in whole else value
            for name, value in config.items()
            if own[name].codes(own[name].default) != own[name].codes(value)
            and _matters(own[name], own, config)
        },
    )


def _matters(h: Knob, own: Mapping[str, Knob], config: Mapping[str, Option]) -> bool:
    """Whether a hyperparameter has a meaning in a configuration."""
    if h.condition is None:
        return True
    choice = own[h.condition.choice]
    return config.get(choice.name, choice.default) in h.condition.options


def published(
    task: Task, names: Sequence[str], whole: bool, options: Mapping[str, Any]
) -> tuple[list[Finalist], dict[str, str]]:
    """What is published for a task as finalists, and why some of it is none.

    Args:
        task: the task.
        names: hyperparameters that may differ from the task's default.
        whole: static configuration, too; and without it once more.
        options: of the environment.
    """
    given = public(task)
    if given is None:
        return [], {}
    own = own_hyperparameters(task, load(ALGORITHMS[task.algorithm]).hyperparameters)
    plain = {h.name: h for h in load(ALGORITHMS[task.algorithm]).hyperparameters}
    config = {
        name: given.defaults.get(name, plain[name].default)
        for name, h in own.items()
        if not isinstance(h, Event) and name not in OF_EVENTS
    }
    several = {"public": given.configuration} if whole else {}
    if given.configuration or not whole:
        several["public, own configuration" if whole else "public"] = {}
    found, left_out = [], {}
    for name, configuration in several.items():
        try:
            policy = reduced(task, config, configuration, options)
            found.append(_finalist(name, task, policy, given.source, names, options))
        except ValueError as error:
            left_out[name] = str(error)
    return found, left_out


def measured(
    task: Task, names: Sequence[str], options: Mapping[str, Any]
) -> tuple[list[Finalist], dict[str, str]]:
    """What is kept of a task, as `published` gives it.

    That is the base of the next version, and what `dacrl headroom --keep` found.

    Args:
        task: the task.
        names: hyperparameters that may differ from the task's default.
        options: of the environment.
    """
    found, left_out = [], {}
    for name, (policy, source) in _kept(task).items():
        try:
            least = reduced(task, policy.config, policy.configuration, options)
            found.append(_finalist(name, task, least, source, names, options))
        except ValueError as error:
            left_out[name] = str(error)
    return found, left_out


def _kept(task: Task) -> dict[str, tuple[Any, str]]:
    """Static policies that are kept of a task, and where they are from, by name."""
    kept: dict[str, tuple[Any, str]] = {}
    if (base := bases.stored().get(task.id)) is not None:
        policy = Static(base["configuration"], **base["defaults"])
        kept[BASE] = policy, f"the base of {bases.following(task.id)}"
    path = place(task.id, STATIC)
    fitted = load_fitted(path) if path.is_file() else None
    about = (fitted.about if fitted else None) or {}
    if fitted and about.get("study") == "headroom":
        runs = about["runs"] * (2 if about.get("static_twice") else 1)
        source = f"{runs:,} runs of dacrl headroom, fit {about['fit']}"
        kept["headroom"] = fitted.policy, source
    return kept


def _finalist(
    name: str,
    task: Task,
    policy: Static,
    source: str,
    names: Sequence[str],
    options: Mapping[str, Any],
) -> Finalist:
    others = [h for h in policy.config if h not in names]
    if others:
        raise ValueError(f"it sets {', '.join(others)}, not searched here")
    return Finalist(name, policy, source, work_of(task, policy, options))


def work_of(task: Task, policy: Static, options: Mapping[str, Any]) -> float:
    """Floating-point operations of a run, as a multiple of the default's."""
    each = []
    for one in (Static(), policy):
        given = suitable_options(one, task, dict(options))
        settings = resolve(task, split="tuning", **given)
        runs = Population(settings, 1)
        runs.close()
        values = [
            float(h.codes(one.config[h.name])) if h.name in one.config else h.start
            for h in settings.controlled
        ]
        each.append(float(runs.work(np.array([values]))[0]))
    return each[1] / each[0] if each[0] else 1.0


def once_each(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Without those that are what an earlier one is."""
    found: dict[str, Finalist] = {}
    for f in finalists:
        found.setdefault(json.dumps(to_json(f.policy), sort_keys=True), f)
    return list(found.values())


def plain(value: Any) -> Any:
    """As JSON, in which tuples and lists are alike."""
    return json.loads(json.dumps(value))
