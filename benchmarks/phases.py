"""Where the time of a training run goes: shares by phase, task by task.

Whole decisions of a population with the task's default settings are timed, evaluations
included, on one core. Compiled code is one phase: nothing can be seen inside of it. The
learners know nothing of the measurement: the methods that a phase consists of are
replaced by timed ones meanwhile.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from dacrl_env.inner_envs.gymnasium_adapter import needs_box2d
from dacrl_env.outer.population import Population
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks.registration import get_task, listed

from .throughput import one_core, versions

TRAINING, ENVIRONMENT = "training", "environment"
EVALUATION, REPORT, OTHER = "evaluation", "report", "other"
PHASES = {
    TRAINING: "acting and learning, and steps of environments that are compiled",
    ENVIRONMENT: "steps of inner environments by Python, in training",
    EVALUATION: "what policies see",
    REPORT: "what policies are judged on; off by default",
    OTHER: "the rest: actions, signals, features, infos",
}
SKIPPED = 0.05  # of the run: the first decisions, in which updates begin
_MISSING = object()

F = TypeVar("F", bound=Callable[..., Any])


class PhaseTimer:
    """Seconds by phase, each moment counted once.

    Attributes:
        seconds: by path: a phase, then the phases within it, outermost first; ``()``
            is what no phase covers.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, ...], float] = defaultdict(float)
        self._path: tuple[str, ...] = ()
        self._since = time.perf_counter()

    def timed(self, function: F, phase: str) -> F:
        """The function, whose time is added to a phase."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            outer = self._path
            self._turn((*outer, phase))
            try:
                return function(*args, **kwargs)
            finally:
                self._turn(outer)

        return run  # type: ignore[return-value]

    def _turn(self, path: tuple[str, ...]) -> None:
        """What has passed belongs to the old path, what comes to this one."""
        now = time.perf_counter()
        self.seconds[self._path] += now - self._since
        self._path, self._since = path, now

    def totals(self) -> dict[str, float]:
        """Seconds of every one of `PHASES`, up to now.

        Steps of environments in training are a phase of their own; those in evaluations
        and reports belong to these.
        """
        self._turn(self._path)
        result = dict.fromkeys(PHASES, 0.0)
        for path, seconds in self.seconds.items():
            training = path[:1] == (TRAINING,)
            phase = path[-1] if training else path[0] if path else OTHER
            result[phase] += seconds
        return result

    def anywhere(self, phase: str) -> float:
        """Seconds of one phase, within others, too."""
        return sum(s for path, s in self.seconds.items() if phase in path)


@contextmanager
def instrumented(population: Population) -> Iterator[PhaseTimer]:
    """Time a population's phases; everything is as before afterwards."""
    timer = PhaseTimer()
    replaced: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, phase in _boundaries(population):
            replaced.append((owner, name, vars(owner).get(name, _MISSING)))
            setattr(owner, name, timer.timed(getattr(owner, name), phase))
        yield timer
    finally:
        for owner, name, before in reversed(replaced):
            if before is _MISSING:
                delattr(owner, name)  # the class has it
            else:
                setattr(owner, name, before)


def _boundaries(population: Population) -> list[tuple[Any, str, str]]:
    """Owner, name and phase of all that is timed."""
    learner = population.learner
    return [
        (population, "_evaluate", EVALUATION),
        (population, "_report", REPORT),
        (learner, "train", TRAINING),
        *(
            (env, name, ENVIRONMENT)
            for env in (population.env, getattr(learner, "eval_env", None))
            for name in ("step", "advance")
            if hasattr(env, name)
        ),
    ]


def available() -> list[str]:
    """Ids of the tasks whose inner environments are installed."""
    found = importlib.util.find_spec("Box2D") is not None
    return [t.id for t in listed() if found or not needs_box2d(t.inner_env)]


def measure(
    tasks: Sequence[str] | None = None,
    populations: Sequence[int] = (64,),
    seconds: float = 1.0,
    **options: Any,
) -> dict[str, Any]:
    """Shares of time by phase, of default runs under way.

    Args:
        tasks: ids; None: all that are `available`.
        populations: sizes P.
        seconds: of one measurement, at least; whole decisions are measured.
        **options: of the environments, see :func:`dacrl_env.outer.settings.resolve`.

    Returns:
        Figures and what they were measured on, as JSON values.

    Raises:
        ValueError: an unknown task or option, sizes below one, no time, or no task.
    """
    tasks = available() if tasks is None else tasks
    for task in tasks:
        get_task(task)
    if not tasks or min(populations, default=0) < 1 or not seconds > 0:
        raise ValueError(
            "there must be a task, and populations and seconds must be positive, got "
            f"{list(tasks)}, {list(populations)}, {seconds}"
        )
    with one_core() as core:
        rows = [
            measure_one(task, P, seconds, **options)
            for task in tasks
            for P in populations
        ]
    return {"seconds": seconds, "core": core, "versions": versions(), "rows": rows}


def measure_one(task: str, P: int, seconds: float, **options: Any) -> dict[str, Any]:
    """One row of `measure`, on the cores that this process may use.

    Returns:
        ``task``, ``P``, ``decisions`` and ``seconds`` measured, ``steps_per_second`` of
        members in training (evaluations take of the time), ``shares`` of the time by
        phase, and ``environments``, the share of all steps of environments, those in
        evaluations and reports included.
    """
    env = PopulationEnv(task, P, num_threads=1, action_mode="continuous", **options)
    population, s = env.population, env.settings
    env.reset(seed=0)
    default = np.zeros((P, len(s.controlled)))  # the middle of the box
    skipped = max(getattr(s.config, "learning_starts", 0), SKIPPED * s.budget)
    # not the last decision, at which the next runs begin
    most = s.budget // s.decision_interval - 1
    skip = min(math.ceil(skipped / s.decision_interval), most - 1)
    for _ in range(skip):
        env.step(default)
    decisions, began = 0, time.perf_counter()
    with instrumented(population) as timer:
        while not decisions or (
            time.perf_counter() - began < seconds and skip + decisions < most
        ):
            env.step(default)
            decisions += 1
        totals = timer.totals()
    spent = sum(totals.values())  # to the same moment as its parts
    return {
        "task": get_task(task).id,
        "P": P,
        "decisions": decisions,
        "seconds": spent,
        "steps_per_second": P * decisions * s.decision_interval / spent,
        "shares": {phase: total / spent for phase, total in totals.items()},
        "environments": timer.anywhere(ENVIRONMENT) / spent,
    }


def render(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    of = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"Share of time by phase, one core, whole decisions ({of})",
        "",
        f"| task | P | member-steps/s | {' | '.join(PHASES)} | environments in all |",
        f"| --- | ---: | ---: |{' ---: |' * len(PHASES)} ---: |",
    ]
    for row in result["rows"]:
        shares = [row["shares"][phase] for phase in PHASES] + [row["environments"]]
        cells = " | ".join(f"{share:.1%}" for share in shares)
        rate = f"{row['steps_per_second']:,.0f}"
        lines.append(f"| {row['task']} | {row['P']} | {rate} | {cells} |")
    lines += ["", *(f"- {phase}: {meaning}" for phase, meaning in PHASES.items())]
    lines.append("- environments in all: their steps in evaluations and reports, too")
    return "\n".join(lines)
