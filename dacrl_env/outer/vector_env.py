"""Many outer environments at once: their inner runs are one tensor program."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import error, spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dacrl_env.core import checks, streams
from dacrl_env.core.snapshot import Snapshot, SnapshotError
from dacrl_env.outer.env import check_options, instance_index
from dacrl_env.outer.population import IN_STEP, Population
from dacrl_env.outer.settings import Settings, resolve
from dacrl_env.outer.state import Outcome
from dacrl_env.tasks import Knob, Number, Option, Task

OPTIONS = ("instance", "snapshot", "reset_mask")


class PopulationEnv(VectorEnv[NDArray[np.float32], Any, NDArray[Any]]):
    """A population of :class:`~dacrl_env.outer.env.DynamicConfigEnv`, member by member.

    Spaces, rewards and infos of a member are those of the single environment. Infos are
    arrays ``(num_envs,)`` with a mask ``_<key>`` beside every key.

    What happens to a member whose run has ended is what Gymnasium's own vector
    environments do in the three modes of ``gymnasium.vector.AutoresetMode``:

    - ``SAME_STEP``: the next run begins in the same step. ``infos["final_obs"]`` and
      ``infos["final_info"]`` hold what ended.
    - ``NEXT_STEP``: its last observation and info are given. The step after that begins
      the next run; its reward is 0 and the member's action means nothing.
    - ``DISABLED``: the same, but the step after that is refused until the member has
      been reset, alone by ``options={"reset_mask": ...}``.

    Gymnasium's vector wrappers that change observations need ``NEXT_STEP`` or
    ``DISABLED``. Where ``NEXT_STEP`` begins a run while others go on, it takes part in
    their decision, which is undone afterwards.

    Args:
        task: id or task.
        num_envs: members, P.
        render_mode: None. A member is rendered alone: ``gymnasium.make`` with the same
            seed gives the same run.
        num_threads: members that are trained at a time; results do not depend on it.
            None: as many as there are cores that this process may use. Environments
            that Python steps, and ``implementation="sb3"``, take one.
        autoreset_mode: a ``gymnasium.vector.AutoresetMode``, or its name or value.
        **options: see :func:`dacrl_env.outer.settings.resolve`.

    Raises:
        ValueError: an unknown option, or a value out of range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as Gymnasium has it
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        task: str | Task,
        num_envs: int = 1,
        render_mode: str | None = None,
        num_threads: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        **options: Any,
    ) -> None:
        if render_mode is not None:
            raise ValueError(
                f"render_mode {render_mode!r} is not supported for a population; "
                "gymnasium.make has it: ansi, rgb_array"
            )
        num_envs = checks.whole("num_envs", num_envs)
        if num_threads is not None:
            num_threads = checks.whole("num_threads", num_threads)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = None
        settings = resolve(task, **options)
        self._hold(Population(settings, num_envs))
        if num_threads is not None:
            self.population.learner.num_threads = num_threads

    @classmethod
    def around(cls, population: Population) -> PopulationEnv:
        """What policies see of a population that somebody else steps."""
        envs = cls.__new__(cls)
        envs.autoreset_mode = AutoresetMode.DISABLED
        envs.metadata = {**cls.metadata, "autoreset_mode": envs.autoreset_mode}
        envs.render_mode = None
        envs._hold(population)
        return envs

    def _hold(self, population: Population) -> None:
        self.settings: Settings = population.settings
        self.num_envs = population.size
        self.population = population
        self.observation_names = self.population.observation_names
        self.single_observation_space = spaces.Box(
            -1.0, 1.0, (len(self.observation_names),), np.float32
        )
        self.single_action_space = self.population.actions.space
        self.observation_space = batch_space(
            self.single_observation_space, self.num_envs
        )
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._started = False
        self._in_step = False  # or left in the middle of one that begins runs

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin new runs, or continue from a snapshot.

        Args:
            seed: an int: member i gets stream i of it. A list: member i gets the
                stream of a single environment with that seed; None in it: the
                member's next episode. None: every member's next episode.
            options: ``"instance"``: a name or one name a member; ``"snapshot"``:
                continue from it; ``"reset_mask"``: bool ``(num_envs,)``, only those.

        Raises:
            ValueError: unknown option or instance, wrong number of seeds, or a
                snapshot that does not fit.
        """
        options = check_options(options, OPTIONS)
        mask = self._mask(options.get("reset_mask"))
        instances = self._instances(options.get("instance"))
        seeds, numbers, episodes = self._streams(seed)
        if "snapshot" in options:
            self.restore(options["snapshot"])
            return self.population.observation(), self._infos(mask)
        if _for_all(seed):
            super().reset(seed=int(seeds[0]))
        for instance in dict.fromkeys(instances):
            same = np.array([i == instance for i in instances]) & mask
            members = np.flatnonzero(same)
            if len(members):
                self.population.start(
                    members,
                    seeds[members],
                    numbers[members],
                    episodes[members],
                    instance,
                )
        self._started = True
        self._in_step = self._in_step and not mask.all()
        return self.population.observation(), self._infos(mask)

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, bool)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"reset_mask must be a boolean array of shape ({self.num_envs},) with "
                f"a True value, got {mask!r}"
            )
        if not self._started and not mask.all():
            raise ValueError("the first reset must be of all members")
        return mask

    def _instances(self, names: Any) -> list[int | None]:
        if names is None or isinstance(names, str):
            return [instance_index(self.settings, names)] * self.num_envs
        if len(names) != self.num_envs:
            raise ValueError(
                f"expected one instance or {self.num_envs}, got {len(names)}"
            )
        return [instance_index(self.settings, name) for name in names]

    def _streams(
        self, seed: int | Sequence[int | None] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Seeds, member numbers and episodes that new runs would have."""
        P, state = self.num_envs, self.population.state
        if _for_all(seed):
            number = checks.seed(seed)
            return np.full(P, number, np.int64), np.arange(P), np.zeros(P, np.int64)
        wanted: list[Any] = [None] * P if seed is None else [*seed]  # type: ignore[misc]
        if len(wanted) != P:
            raise ValueError(f"expected {P} seeds, one a member, got {len(wanted)}")
        wanted = [None if s is None else checks.seed(s) for s in wanted]
        if self._started:
            seeds, numbers = state.seeds.copy(), state.seed_members.copy()
            episodes = state.episodes + 1
        else:
            seeds = np.full(P, int(self.np_random.integers(2**31)), np.int64)
            numbers, episodes = np.arange(P), np.zeros(P, np.int64)
        for i, s in enumerate(wanted):
            if s is not None:
                seeds[i], numbers[i], episodes[i] = s, 0, 0
        return seeds, numbers, episodes

    def step(
        self, actions: Any
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Set every member's hyperparameters and train until the next decision.

        Args:
            actions: ``(num_envs, d)``, or ``(num_envs,)`` in discrete mode.

        Raises:
            ResetNeeded: before the first reset; the last step, or reset, was
                interrupted, or failed, in its middle.
            ValueError: actions of the wrong kind; the runs are left untouched.
        """
        self._check_whole("step(): no run is under way")
        population = self.population
        requested = population.actions.to_values(actions, population.state.requested)
        over = population.ended()  # since the step before
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        if over.any() and same_step:  # it was interrupted before they were begun again
            raise error.ResetNeeded(IN_STEP)
        if over.any() and self.autoreset_mode is AutoresetMode.DISABLED:
            raise error.ResetNeeded(
                f"the runs of members {np.flatnonzero(over).tolist()} are over: reset "
                'them by reset(options={"reset_mask": ...}), or choose another '
                "autoreset_mode"
            )
        waiting = np.flatnonzero(over)
        self._in_step = len(waiting) > 0
        rewards, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        if len(waiting):
            self._begin(waiting, later=1)
            requested[waiting] = population.state.requested[waiting]
        if not over.all():
            outcome = self.population.advance(requested)
            rewards, ended = outcome.rewards, outcome.ended
            if len(waiting):
                # all members advance together; those that begin have yet to do so
                self._begin(waiting, later=0)
                rewards, ended = np.where(over, 0.0, rewards), ended & ~over
        infos: dict[str, Any] = {}
        if ended.any() and same_step:
            self._in_step = True
            final = population.observation()
            infos["final_obs"] = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(ended):
                infos["final_obs"][i] = final[i]
            infos["_final_obs"] = ended.copy()
            infos["final_info"] = self._infos(ended)
            infos["_final_info"] = ended.copy()
            self._begin(np.flatnonzero(ended), later=1)
        infos.update(self._infos(np.ones(self.num_envs, bool)))
        self._in_step = False
        return (
            population.observation(),
            rewards,
            ended,
            np.zeros(self.num_envs, bool),
            infos,
        )

    def advance(self, requested: NDArray[np.float64]) -> Outcome:
        """An outer step after which runs that are over stay so.

        Args:
            requested: values ``(num_envs, d)`` of the controlled hyperparameters.
        """
        return self.population.advance(requested)

    def _check_whole(self, before: str) -> None:
        if not self._started:
            raise error.ResetNeeded(f"call reset() before {before}")
        if self._in_step:
            raise error.ResetNeeded(IN_STEP)

    def _begin(self, members: NDArray[np.int64], later: int) -> None:
        """Begin runs of so many episodes later, each on the instance of its stream."""
        state = self.population.state
        self.population.start(
            members,
            state.seeds[members],
            state.seed_members[members],
            state.episodes[members] + later,
        )

    def _infos(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        infos = vector_info(self.population.info(), mask)
        shown = infos["hyperparameters"]
        for h in self.settings.hyperparameters:
            # also where some are inactive
            kind = dtype_of(h)
            if shown[h.name].dtype != kind:
                filled = np.where(shown[f"_{h.name}"], shown[h.name], 0)
                shown[h.name] = filled.astype(kind)
        return infos

    def to_config(self, action: Any, member: int = 0) -> dict[str, Option]:
        """Values that one member's action would apply; see the single environment."""
        population = self.population
        current = self._requested(member)
        values = population.actions.to_values([action], current)
        return population.config_of(values)

    def to_action(self, config: Mapping[str, Any], member: int = 0) -> NDArray[Any]:
        """The action ``(d,)`` that asks for given values for one member."""
        population = self.population
        current = self._requested(member)
        actions = population.actions.to_actions(config, current)
        return actions[0].astype(self.single_action_space.dtype)

    def _requested(self, member: Any) -> NDArray[np.float64]:
        """What one member goes on from, ``(1, d)``."""
        if not isinstance(member, int | np.integer) or not 0 <= member < self.num_envs:
            raise ValueError(
                f"member must be a whole number from 0 to {self.num_envs - 1}, got "
                f"{member!r}"
            )
        return self.population.state.requested[member][None]

    def to_actions(self, config: Mapping[str, Any]) -> NDArray[np.float64]:
        """Actions ``(num_envs, d)`` from values that are scalars or ``(num_envs,)``.

        In double precision. In mode ``values`` they are the values, and defaults where
        none is given.
        """
        population = self.population
        return population.actions.to_actions(config, population.state.requested)

    @property
    def policy_keys(self) -> NDArray[np.uint64]:
        """Random bits of each member's run ``(num_envs,)``, for policies that draw.

        Used with the functions of :mod:`dacrl_env.core.streams`.
        """
        keys = self.population.state.learner.keys
        return keys[:, streams.PURPOSES.index("policy")].copy()

    def snapshot(self, exact: bool = True) -> Snapshot:
        """A copy of all runs; see :meth:`Population.snapshot`.

        Raises:
            ResetNeeded: as for `step`.
            SnapshotNotSupported: exact, and the environments cannot be copied.
        """
        self._check_whole("snapshot()")
        return self.population.snapshot(exact)

    def restore(self, snap: Snapshot) -> None:
        """Continue from a snapshot of as many members.

        Raises:
            SnapshotError: it does not fit, or, where runs that end are followed by
                others in the same step, holds some that are over; the runs are left
                untouched.
        """
        over = self.population.over(snap)
        if over.any() and self.autoreset_mode is AutoresetMode.SAME_STEP:
            raise SnapshotError(
                f"members {np.flatnonzero(over).tolist()} of the snapshot are over; "
                "use snapshot.select for the others, or autoreset_mode NEXT_STEP or "
                "DISABLED"
            )
        self.population.restore(snap)
        self._started, self._in_step = True, False

    def fork(self, parents: Any, shared_streams: bool = False) -> None:
        """Member i continues from ``parents[i]``; see :meth:`Population.fork`.

        Raises:
            ResetNeeded: as for `step`.
            ValueError: wrong shape or an index outside the population.
        """
        self._check_whole("fork()")
        self.population.fork(parents, shared_streams)

    def __copy__(self) -> PopulationEnv:
        """As a deep copy: two environments cannot train the same runs."""
        return copy.deepcopy(self)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the inner environments."""
        if "population" in vars(self):  # else its making failed
            self.population.close()


def _autoreset_mode(mode: Any) -> AutoresetMode:
    """A mode by name or value.

    Raises:
        ValueError: there is no such mode.
    """
    for one in AutoresetMode:
        if mode is one or mode in (one.name, one.value):
            return one
    raise ValueError(
        f"unknown autoreset_mode {mode!r}; valid: "
        f"{', '.join(one.name for one in AutoresetMode)}"
    )


def _for_all(seed: Any) -> bool:
    """Whether a seed is one for all members, and no list of them."""
    listed = isinstance(seed, Sequence | np.ndarray)
    listed &= not isinstance(seed, str | bytes)
    return seed is not None and not (listed and getattr(seed, "shape", None) != ())


def dtype_of(knob: Knob) -> np.dtype[Any]:
    """Of the values of a hyperparameter that is active: object where texts are."""
    if isinstance(knob, Number):
        return np.dtype(np.int64 if knob.integer else np.float64)
    kinds = {type(option) for option in knob.options}
    return np.dtype(object if len(kinds) > 1 or str in kinds else kinds.pop())


def vector_info(info: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Infos as Gymnasium's vector environments give them: 0, or None, if masked out."""
    result: dict[str, Any] = {}
    for key, value in info.items():
        if isinstance(value, dict):
            result[key], present = vector_info(value, mask), mask
        elif value.dtype == object:
            present = mask & np.array([one is not None for one in value], bool)
            result[key] = np.where(present, value, None)
        else:
            present = mask & ~np.isnan(value)
            result[key] = np.where(present, value, np.zeros((), value.dtype))
        result[f"_{key}"] = present.copy()
    return result
