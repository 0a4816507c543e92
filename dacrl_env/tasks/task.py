"""What a task is made of: hyperparameters, instances, budgets, score references."""

from __future__ import annotations

import copy
import importlib
import itertools
import multiprocessing
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike, NDArray

from dacrl_env.core.checks import check_types, unknown
from dacrl_env.core.provenance import described, entry_source, load

REPORT_POINTS = 20  # evaluations of a run by the report stream, the end included
REPORT_EPISODES = 20  # at each point on the way
FINAL_REPORT_EPISODES = 100  # at the end
JUDGED_BY = {"evaluation": "eval", "training": "train"}
"""What tasks are judged by, and what policies see there unless they say otherwise."""


@dataclass(frozen=True)
class Instance:
    """A variation of a task: other physical constants, the same shapes.

    Args:
        name: as in ``reset(options={"instance": name})``.
        physics: constants that differ from the inner environment's own.
        random_return: as of a :class:`Task`, on this instance; None: the task's.
        reference_return: the same; all three are given, or none.
        floor_return: the same.

    Raises:
        ValueError: a value of another type, one or two of the three returns, or
            returns in the wrong order.
    """

    name: str
    physics: Mapping[str, float] = field(default_factory=dict)
    random_return: float | None = None
    reference_return: float | None = None
    floor_return: float | None = None

    def __post_init__(self) -> None:
        check_types(f"instance {self.name!r}", Instance, vars(self))
        floor, random = self.floor_return, self.random_return
        if floor is random is self.reference_return is None:
            return
        if floor is None or random is None or self.reference_return is None:
            raise ValueError(
                f"instance {self.name!r} needs all of random_return, reference_return "
                "and floor_return, or none of them; got "
                f"{random}, {self.reference_return} and {floor}"
            )
        _check_order(f"instance {self.name!r}", floor, random, self.reference_return)


DEFAULT_INSTANCE = Instance("default")


class Returns(NamedTuple):
    """What returns of a task are normalised by.

    Args:
        random: return of score 0.
        reference: return of score 1.
        floor: what a diverged run returns.
    """

    random: float
    reference: float
    floor: float


RETURNS = ("random_return", "reference_return", "floor_return")  # fields of a task


@dataclass(frozen=True)
class References:
    """What returns are normalised by: a row for each instance, or for each member.

    Args:
        random: ``(n,)`` returns of score 0.
        reference: ``(n,)`` returns of score 1.
        floor: ``(n,)`` what diverged runs return.
    """

    random: NDArray[np.float64]
    reference: NDArray[np.float64]
    floor: NDArray[np.float64]

    def rows(self, index: NDArray[np.integer]) -> References:
        """Chosen rows: those of members, from those of instances."""
        return References(self.random[index], self.reference[index], self.floor[index])

    def score(self, returns: ArrayLike) -> NDArray[np.float64]:
        """Scores ``(n,)`` of returns: 0 = random policy, 1 = reference."""
        span = self.reference - self.random
        return (np.asarray(returns, np.float64) - self.random) / span

    def returns(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Inverse of :meth:`score`."""
        span = self.reference - self.random
        return np.asarray(scores, np.float64) * span + self.random

    @property
    def floor_score(self) -> NDArray[np.float64]:
        """Scores ``(n,)`` of diverged runs."""
        return self.score(self.floor)


@dataclass(frozen=True)
class Task:
    """An inner environment, an algorithm, a budget and a scale for scores.

    Args:
        id: Gymnasium id of the outer environment.
        inner_env: Gymnasium id of the inner environment.
        algorithm: its name, such as "dqn".
        budget: inner environment steps of one run.
        random_return: mean return of uniformly random actions (score 0); None: it is
            measured when it is first needed, and kept, as the next two are. See
            :mod:`dacrl_env.studies.returns`.
        reference_return: return of score 1.
        floor_return: below every attainable return; what a diverged run scores.
        decisions: outer steps of one run by default.
        controlled: hyperparameters an action sets by default; None: the algorithm's.
        defaults: hyperparameter defaults that differ from the algorithm's.
        ranges: name to lowest and highest value, where they differ from those of the
            algorithm: what actions mean by default, and what is searched. Values that
            are fixed, static configurations, schedules and `Hyperparameter` objects may
            use all of the algorithm's range.
        configuration: what differs from the algorithm's.
        scale_images: divide images by 255 before the networks see them, as
            Stable-Baselines3 does: observations of three axes and dtype uint8 whose
            space goes from 0 to 255. False: they are fed as they are, for grids of
            codes, which are no pictures.
        inner_env_kwargs: passed to ``gymnasium.make`` or ``envpool.make`` of the inner
            environment.
        backend: ``"batched"`` dynamics, the ``"gymnasium"`` original, ``"envpool"``
            (see :mod:`dacrl_env.inner_envs.envpool_adapter`), or ``"auto"``: batched
            where this package has it, else the original.
        stateful: the inner environment may keep state from one episode to the next, or
            not follow from its seeds. By default that is refused, see
            :mod:`dacrl_env.inner_envs.first_use`: runs would not repeat, and depend on
            other members and on evaluations. True: for those who know.
        train_instances: instances of the "train" set.
        test_instances: instances of the "test" set.
        always_varied: without a choice, runs of the tuning split take instances of the
            "train" set and runs of the test split of the "test" set; otherwise all
            take the inner environment as it is.
        description: one line for lists.
        tags: words for lists; "smoke": its tuned static configuration scores outside
            0.2–0.9, or no change was found to gain 0.05, see docs/dynamics.md. Where
            headroom is measured, they follow from it (`dacrl_env.tasks.headroom`).
        judged_by: ``"evaluation"``: report episodes of the networks as they are, whose
            actions are the best they know, while training stands still. ``"training"``:
            the training episodes that ended since the last report point, so that
            exploring has its price, and a run is worth what it returns while it learns
            (Machado et al. 2018, "Revisiting the Arcade Learning Environment"). Scores
            that policies see are of training episodes there, too.

    Raises:
        ValueError: a value of another type or out of range.
    """

    id: str
    inner_env: str
    algorithm: str
    budget: int
    random_return: float | None = None
    reference_return: float | None = None
    floor_return: float | None = None
    decisions: int = 20
    controlled: tuple[str, ...] | None = None
    defaults: Mapping[str, str | bool | float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    scale_images: bool = True
    inner_env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    backend: Literal["auto", "batched", "gymnasium", "envpool"] = "auto"
    stateful: bool = False
    train_instances: tuple[Instance, ...] = (DEFAULT_INSTANCE,)
    test_instances: tuple[Instance, ...] = (DEFAULT_INSTANCE,)
    always_varied: bool = False
    description: str = ""
    tags: tuple[str, ...] = ()
    judged_by: Literal["evaluation", "training"] = "evaluation"

    def __post_init__(self) -> None:
        if not isinstance(self.inner_env, str | None):
            raise ValueError(
                f"inner_env of {self.id} must be a Gymnasium id, got "
                f"{self.inner_env!r}; register_task(id=..., inner_env=...) takes "
                "classes and functions, too"
            )
        if isinstance(self.ranges, Mapping):
            ranges = {
                name: bounds(f"range of {name} in {self.id}", pair)
                for name, pair in self.ranges.items()
            }
            object.__setattr__(self, "ranges", ranges)
        rest = {k: v for k, v in vars(self).items() if k != "inner_env"}  # or None
        check_types(f"task {self.id}", Task, rest)
        _check_order(
            self.id, self.floor_return, self.random_return, self.reference_return
        )
        if self.missing_returns and not self.inner_env:
            raise ValueError(
                f"{self.id} has no inner environment to measure returns in; it needs "
                f"{', '.join(self.missing_returns)}"
            )
        if self.judged_by not in JUDGED_BY:
            raise ValueError(
                f"{self.id}: {unknown('judged_by', self.judged_by, JUDGED_BY)}"
            )
        if self.judged_by == "training" and not self.inner_env:
            raise ValueError(
                f"{self.id} has no inner environment, and so no training episodes to "
                "be judged by"
            )
        if self.budget < 1 or self.decisions < 1:
            raise ValueError(f"budget and decisions of {self.id} must be at least 1")
        if self.budget % self.decisions:
            raise ValueError(
                f"budget {self.budget} of {self.id} does not divide into "
                f"{self.decisions} decisions"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """With what Gymnasium knows of the inner environment.

        Another process, in which nobody has registered it, can then make it, too: also
        where it is a class of a notebook or a function without a name.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return _unpickled, (own, _packed(gym.registry.get(self.inner_env)))

    def __copy__(self) -> Task:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return Task(**copy.deepcopy(own, memo))

    def definition(self) -> dict[str, Any]:
        """All that results depend on, for the keys of a store.

        Returns that are missing are measured, see :attr:`returns`.

        Raises:
            NoSource: of a user's inner environment it cannot be told.
            ValueError: returns that are missing cannot be measured.
        """
        return definition_with(self._filled())

    @property
    def missing_returns(self) -> tuple[str, ...]:
        """Names of the returns that it was not given, which are measured."""
        return tuple(name for name in RETURNS if getattr(self, name) is None)

    @property
    def returns(self) -> Returns:
        """What returns are normalised by.

        What is missing is measured when it is first asked for, and kept. That may train
        runs. `references`, `score` and `floor_score` ask for it, too.

        Raises:
            ValueError: it cannot be measured.
        """
        task = self._filled()
        random, reference = task.random_return, task.reference_return
        floor = task.floor_return
        assert random is not None
        assert reference is not None
        assert floor is not None
        return Returns(random, reference, floor)

    def _filled(self) -> Task:
        if not self.missing_returns:
            return self
        # by its name, since it knows of tasks
        task: Task = load("dacrl_env.tasks.returns:filled")(self)
        return task

    def references(self, instances: Sequence[Instance]) -> References:
        """What returns on each instance are normalised by."""
        own = self.returns
        rows = [
            own
            if i.random_return is None
            else (i.random_return, i.reference_return, i.floor_return)
            for i in instances
        ]
        random, reference, floor = np.array(rows, np.float64).reshape(-1, 3).T
        return References(random, reference, floor)

    def score(self, returns: ArrayLike) -> NDArray[np.float64]:
        """Returns on the task's scale: 0 = random policy, 1 = reference.

        Instances may have a scale of their own, see :meth:`references`.
        """
        own = self.returns
        span = own.reference - own.random
        return (np.asarray(returns, np.float64) - own.random) / span

    @property
    def floor_score(self) -> float:
        """Score of a diverged run, where the instance has no other."""
        return float(self.score(self.returns.floor))


def definition_with(task: Task) -> dict[str, Any]:
    """`Task.definition` of a task with all of its returns."""
    own = {f.name: getattr(task, f.name) for f in fields(task)}
    del own["description"], own["tags"]
    every: dict[str, Any] = described(own)
    made = _made(task)
    return every if made is None else every | {"inner_env_made": made}


def _made(task: Task) -> Any:
    """What an inner environment is made of; None: this package's version says it."""
    from dacrl_env.tasks.backends import backend_of

    backend = backend_of(task)
    if backend == "envpool":
        given = described(dict(task.inner_env_kwargs), "envpool:make")
        return {"source": entry_source("envpool:make"), "kwargs": given}
    if backend != "gymnasium" or not isinstance(task.inner_env, str):
        return None
    module, _, name = task.inner_env.rpartition(":")
    if module:
        importlib.import_module(module)  # as gymnasium.make does
    spec = gym.registry.get(name)
    if spec is None:
        return None  # making it says what is wrong
    about = {f.name: getattr(spec, f.name) for f in fields(spec)}
    # the first three repeat the id, vectors of it are made here
    for name in ("namespace", "name", "version", "vector_entry_point"):
        about.pop(name, None)
    given = {**spec.kwargs, **task.inner_env_kwargs}
    return described(about) | {
        "source": entry_source(spec.entry_point),
        "kwargs": described(given, spec.entry_point),
        "wrappers": [
            {
                **described(vars(w)),
                "source": entry_source(w.entry_point),
                "kwargs": described(w.kwargs, w.entry_point),
            }
            for w in spec.additional_wrappers
        ],
    }


def _packed(spec: EnvSpec | None) -> bytes | None:
    """What Gymnasium knows of an environment, for another process.

    Raises:
        ValueError: it cannot be sent there.
    """
    import cloudpickle

    if spec is None:
        return None
    try:
        return bytes(cloudpickle.dumps(spec))
    except Exception as error:  # of whatever the entry point holds
        raise ValueError(
            f"the inner environment {spec.id} cannot be sent to another process "
            f"({type(error).__name__}: {error}); register it by a name, "
            "entry_point='module:Class', or stay in one process"
        ) from error


def _unpickled(own: dict[str, Any], packed: bytes | None) -> Task:
    if packed is not None:
        spec = pickle.loads(packed)
        # a worker's own registrations may be older than those of who sent the task
        if is_worker() or spec.id not in gym.registry:
            gym.registry[spec.id] = spec
    return Task(**own)


def is_worker() -> bool:
    """Whether this process was started by another one of Python's."""
    return multiprocessing.parent_process() is not None


def _check_order(
    what: str, floor: float | None, random: float | None, reference: float | None
) -> None:
    """Raise a ValueError unless those that are given are finite and in order."""
    given = [x for x in (floor, random, reference) if x is not None]
    ordered = all(a < b for a, b in itertools.pairwise(given))
    if not (np.isfinite(given).all() and ordered):
        raise ValueError(
            f"returns of {what} must be finite, and ordered floor < random < "
            f"reference, got {floor}, {random}, {reference}"
        )


def bounds(what: str, given: Any) -> tuple[float, float]:
    """Lowest and highest value of a range: any pair of numbers, also of an array.

    Args:
        what: is given, for the message.
        given: the pair.

    Raises:
        ValueError: something else, or a pair in the wrong order.
    """
    pair = given.tolist() if isinstance(given, np.ndarray) else given
    numbers = isinstance(pair, Sequence) and all(
        isinstance(x, int | float | np.number) and not isinstance(x, bool) for x in pair
    )
    if not numbers or len(pair) != 2:
        raise ValueError(
            f"{what} must be the lowest and the highest value, (low, high), got "
            f"{given!r}"
        )
    low, high = map(float, pair)
    if not low < high or not np.isfinite(pair).all():
        raise ValueError(f"{what} is inverted, empty or not finite: {low}, {high}")
    return low, high
