"""The outer environment: one inner training run, configured while it trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import error, spaces
from numpy.typing import NDArray

from dacrl_env.core import checks
from dacrl_env.core.snapshot import Snapshot
from dacrl_env.outer.population import Population
from dacrl_env.outer.rendering import RENDER_MODES, Course, check_render_mode
from dacrl_env.outer.settings import Settings, resolve
from dacrl_env.tasks import Option, Task

OPTIONS = ("instance", "snapshot")


class DynamicConfigEnv(gym.Env[NDArray[np.float32], Any]):
    """Configure a reinforcement-learning run while it trains.

    ## Description
    One episode is one complete *inner* training run of an algorithm (DQN, …) on an inner
    environment. Each step sets hyperparameters, trains for ``decision_interval`` inner
    environment steps and returns the progress made. This class is a population of
    one; :class:`dacrl_env.outer.vector_env.PopulationEnv` advances many runs at once.

    ## Action Space
    Each component (or digit) belongs to one name in ``hyperparameters``, in order: a
    number, a choice of one of some options, or an event, of which nothing stays set. The
    *unit axis* of a number is logarithmic or linear as its table row says.

    | action_mode | space | a number | a choice of n options | an event |
    | --- | --- | --- | --- | --- |
    | ``continuous`` | ``Box(-1, 1, (d,))`` | −1 low, 0 default, +1 high; in between piecewise along the unit axis | n equal bins, the default's around 0, the others in their order after it | happens above 0.5; one with two kinds below −0.5, too |
    | ``relative`` | ``Box(-1, 1, (d,))`` | 0 hold, ± 1 times or divided by 4 (linear: ± a quarter of the range) | the same around the option that holds | the same |
    | ``multidiscrete`` | ``MultiDiscrete``, 3 for a number | 0: ÷ 2, 1: hold, 2: × 2 (linear: ∓ an eighth of the range) | the number of the option | the number of the option |
    | ``discrete`` | ``Discrete`` of all combinations | the same as digits, first name most significant | | |
    | ``values`` | ``Box(low, high, (d,), float64)`` | the values themselves, applied to the last bit | the number of the option | the number of the option |

    ``to_action`` translates values and options into actions, ``to_config`` back.

    Components outside of ± 1 are clipped. Values outside of their range, wrong shapes,
    NaN and infinities raise ``ValueError`` and leave the run untouched. Integers are
    rounded; when applied,
    ``batch_size`` and ``replay_window`` are at most the replay capacity, and
    ``gradient_steps`` at most 4 × ``train_freq``. In relative modes the position is kept
    unrounded between steps, so that small moves add up. What the option of a choice
    leaves without a meaning (*with* in the tables) is inactive: it may be asked for, and
    is not applied.

    DQN: the first three are controlled by default.

    | name | range | scale | default |
    | --- | --- | --- | --- |
    | learning_rate | 1e-6 to 1e-1 | log | 1e-3 |
    | epsilon | 0 to 1 | linear | 0.1 |
    | batch_size | 4 to 256 | log, integer | 64 |
    | gamma | 0.8 to 0.9999 | log in 1 − γ | 0.99 |
    | target_update_interval (environment steps) | 1 to 10,000 | log, integer | 500 |
    | train_freq (environment steps) | 1 to 256 | log, integer | 4 |
    | gradient_steps (per training event) | 1 to 256 | log, integer | 1 |
    | max_grad_norm | 0.1 to 100 | log | 10 |
    | replay_window (newest transitions that are replayed) | 1,000 to 100,000 | log, integer | all |
    | n_step (rewards of a return) | 1 to 10 | linear, integer | 1 |
    | double_q | False, True | choice | False |
    | loss | huber, mse | choice | huber |
    | q_regularisation (k of the loss + k · value) | 0 to 1 | linear | 0 |
    | tau (share that the target network moves) | 1e-3 to 1 | log | 1 |
    | priority_alpha (exponent of errors; 0: even replay) | 0 to 1 | linear | 0 |
    | priority_beta (exponent of the weights that make up for it) | 0 to 1 | linear | 0.4 |
    | exploration | epsilon-greedy, ez-greedy | choice | epsilon-greedy |
    | hold_exponent (of the steps that a random action is held, at most 100; with ez-greedy) | 1 to 5 | linear | 2 |
    | checkpoint | none, save, restore | event | |
    | swap (with what was saved; the first time with) | none, fresh, copy | event | |
    | reset_head, reset_all, shrink_perturb, clear_replay | False, True | event | |
    | perturb_strength (share of the way to fresh networks) | 0 to 1 | linear | 0.5 |

    PPO: the first three are controlled by default. (The noisy quadratic has its
    ``learning_rate`` alone, 1e-4 to 1e2.)

    | name | range | scale | default |
    | --- | --- | --- | --- |
    | learning_rate | 1e-6 to 1e-1 | log | 3e-4 |
    | clip_range | 0.01 to 0.5 | linear | 0.2 |
    | batch_size | 16 to 512 | log, integer | 64 |
    | gamma | 0.8 to 0.9999 | log in 1 − γ | 0.99 |
    | gae_lambda | 0.8 to 0.9999 | log in 1 − λ | 0.95 |
    | n_epochs | 1 to 20 | linear, integer | 10 |
    | ent_coef | 0 to 0.1 | linear | 0 |
    | vf_coef | 0 to 1 | linear | 0.5 |
    | max_grad_norm | 0.05 to 10 | log | 0.5 |

    It has DQN's events, too, without ``clear_replay``.

    ## Observation Space
    ``Box(-1, 1, (D,), float32)``; ``observation_names`` names every row.

    | row | meaning |
    | --- | --- |
    | ``progress`` | share of the budget spent, −1 to 1 |
    | ``hp/<name>`` | each controlled number as applied: position between its bounds on the unit axis |
    | ``hp/<name>=<option>`` | a choice: 1 for the current option, −1 for the others; an event: share of the budget since it last happened so, −1 to 1, which is also never |
    | ``return/now`` | latest observed return between the lowest (−1) and highest (1) of this run |
    | ``return/best`` | gain of the highest over the first observed return, in units of that span |
    | ``return/slope`` | change since the decision before, in units of that span |
    | ``return/since_best`` | share of the budget since the highest return, −1 to 1 |
    | ``return/level`` | latest observed return, 0 before there is one; signed log10 of 1 + magnitude |
    | ``signal/loss`` | mean over gradient steps since the last decision; log10, 1e±8 at ± 1; PPO's, which may be negative: sign times log10 of 1 + 1,000 times the magnitude, 1e8 at 1 |
    | ``signal/td_error`` | mean absolute temporal-difference error of a probe batch; log10 |
    | ``signal/grad_norm`` | mean gradient norm before clipping; log10 |
    | ``signal/update_ratio`` | norm of the parameter change over norm of the parameters; log10 |
    | ``signal/value_mean`` | mean value of the probe batch; signed log10 of 1 + magnitude |
    | ``signal/value_std`` | its standard deviation; log10 |
    | ``signal/kl``, ``signal/entropy`` | PPO, instead of the temporal-difference error: mean over updates of the approximate divergence from the policy that played, log10, and of the policy's entropy, on the scale of PPO's loss |
    | ``episode_length`` | mean steps of the latest finished training episodes; log10 |
    | ``instance/<constant>`` | with ``observe_instance``: half the log2 of the ratio to the default; where that is 0, the constant |

    With ``history=h`` the rows of the h latest decisions follow each other, newest
    first; older ones end in ``@-1``, ``@-2``, ….

    ## Rewards
    ``score`` is the observed return (of evaluation episodes, or of training episodes
    where ``feedback`` says so or the task is judged by training), 0 for random actions
    and 1 for the reference of the instance, or of the task where it has none.
    ``"progress"``: score now minus score before. ``"best"``: gain of the best score so
    far. ``"auc"``: score times share of the budget. ``"final"``: the score at the end.
    Or a function of a :class:`~dacrl_env.outer.rewards.RewardContext`.

    ## Starting State
    Fresh networks, an empty replay, default hyperparameters, all streams derived from
    ``(split, seed, member, episode)``. ``reset()`` without a seed goes on to the next
    episode. ``reset(options={"instance": name})`` chooses the instance,
    ``options={"snapshot": snap}`` continues from a snapshot.

    ## Episode End
    ``terminated`` when the budget is spent, or when a loss, gradient or parameter
    became non-finite (``info["diverged"]``; the score is then the floor, for the rest
    of its area under the curve, too). ``truncated`` is never set.

    ## Information
    ``env_steps``, ``eval_steps``, ``gradient_steps``, ``score``, ``eval_return``,
    ``train_return`` (each once there is one), ``hyperparameters`` (name to applied
    value or option; inactive ones are left out), where actions set events ``ignored``
    (names of those that were asked for and could not happen), ``diverged`` and ``objectives``: ``final``, ``best``, ``auc``,
    ``training_steps``, ``evaluation_steps``, ``gradient_steps``, ``samples``,
    ``flops``, and at the end of the run ``wall_seconds`` (not before, since
    equal runs give equal infos).

    ## Rendering
    ``render_mode="ansi"``: `render` gives one line, the last decision with the values
    set, the score and the reward. ``"rgb_array"``: an image ``(480, 640, 3)`` of scores
    and values so far, one a decision, so that ``RecordVideo`` shows a run as it goes.
    After a snapshot both begin where it does.

    ## Arguments
    ``render_mode``; for others see :func:`dacrl_env.outer.settings.resolve`.

    ## Version History
    * v0: initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as Gymnasium has it
        "render_modes": [*RENDER_MODES],
        "render_fps": 4,  # decisions
    }

    def __init__(
        self,
        task: str | Task,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        check_render_mode(render_mode)
        self.render_mode = render_mode
        self.settings: Settings = resolve(task, **options)
        self.population = Population(self.settings, 1)
        self.observation_names = self.population.observation_names
        self.observation_space = spaces.Box(
            -1.0, 1.0, (len(self.observation_names),), np.float32
        )
        self.action_space = self.population.actions.space
        self._course: Course | None = None  # nobody looks
        if render_mode is not None:
            s = self.settings
            decisions = s.budget // s.decision_interval
            self._course = Course(s.task.id, s.budget, decisions, s.controlled)
        self._running = False
        self._seed: int | None = None
        self._member = 0  # of the seed: another one after a restored population's run
        self._episode = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a run, or continue one from a snapshot.

        Args:
            seed: of the run's streams; None: the next episode of the last seed.
            options: ``"instance"``: name; ``"snapshot"``: continue from it.

        Raises:
            ValueError: unknown option or instance, or a snapshot that does not fit.
        """
        options = check_options(options, OPTIONS)
        instance = instance_index(self.settings, options.get("instance"))
        seed = None if seed is None else checks.seed(seed)
        if "snapshot" in options:
            self.restore(options["snapshot"])
            super().reset(seed=seed)
            return self._observation(), self._info()
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._member, self._episode = seed, 0, 0
        elif self._seed is None:
            self._seed = int(self.np_random.integers(2**31))
        else:
            self._episode += 1
        one = np.zeros(1, np.int64)
        name = (one + self._seed, one + self._member, one + self._episode)
        self.population.start(one, *name, instance)
        self._running = True
        return self._observation(), self._begun()

    def step(
        self, action: Any
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Set hyperparameters and train until the next decision.

        Raises:
            ResetNeeded: before the first reset, or after the end of a run.
            ValueError: an action of the wrong kind; the run is left untouched.
        """
        if not self._running:
            raise error.ResetNeeded("call reset() before step(): no run is under way")
        requested = self._requested(action)
        outcome = self.population.advance(requested)
        self._running = not outcome.ended[0]
        reward, info = float(outcome.rewards[0]), self._info()
        if self._course is not None:
            self._course.add(int(self.population.state.decisions[0]), info, reward)
        return self._observation(), reward, bool(outcome.ended[0]), False, info

    def render(self) -> Any:
        """What the mode shows; None without one.

        Raises:
            ResetNeeded: before the first reset.
        """
        if self._course is None:
            gym.logger.warn(
                "render() shows nothing without a render_mode; valid: "
                f"{', '.join(RENDER_MODES)}"
            )
            return None
        if not self._course.points:
            raise error.ResetNeeded("call reset() before render(): there is no run")
        if self.render_mode == "ansi":
            return self._course.line()
        return self._course.image()

    def _begun(self) -> dict[str, Any]:
        """The info of a run that begins here, of which note is taken."""
        info = self._info()
        if self._course is not None:
            self._course.begin(int(self.population.state.decisions[0]), info)
        return info

    def _requested(self, action: Any) -> NDArray[np.float64]:
        current = self.population.state.requested
        return self.population.actions.to_values([action], current)

    def _observation(self) -> NDArray[np.float32]:
        return self.population.observation()[0]

    def _info(self) -> dict[str, Any]:
        return _scalars(self.population.info())

    def to_config(self, action: Any) -> dict[str, Option]:
        """Values that an action would apply, by name of controlled hyperparameter.

        Relative modes start from the current values.

        Raises:
            ValueError: an action of the wrong kind.
        """
        return self.population.config_of(self._requested(action))

    def to_action(self, config: Mapping[str, float]) -> NDArray[Any]:
        """The action ``(d,)`` that asks for given values.

        Raises:
            ValueError: unknown name, value out of range, or a discrete mode.
        """
        current = self.population.state.requested
        actions = self.population.actions.to_actions(config, current)
        return actions[0].astype(self.action_space.dtype)

    def __copy__(self) -> DynamicConfigEnv:
        """As a deep copy: two environments cannot train one run."""
        return copy.deepcopy(self)

    def close(self) -> None:
        """Close the inner environments."""
        self.population.close()
        super().close()

    def snapshot(self, exact: bool = True) -> Snapshot:
        """A copy of the whole run; see :meth:`Population.snapshot`.

        Raises:
            ResetNeeded: before the first reset.
            SnapshotNotSupported: exact, and the environment cannot be copied.
        """
        if self._seed is None:
            raise error.ResetNeeded("call reset() before snapshot()")
        return self.population.snapshot(exact)

    def restore(self, snap: Snapshot) -> None:
        """Continue from a snapshot.

        Raises:
            SnapshotError: it does not fit; the run is left untouched.
        """
        self.population.restore(snap)
        state = self.population.state
        self._seed, self._episode = int(state.seeds[0]), int(state.episodes[0])
        self._member = int(state.seed_members[0])
        self._running = not self.population.ended()[0]
        self._begun()


def check_options(
    options: dict[str, Any] | None, valid: tuple[str, ...]
) -> dict[str, Any]:
    """The options of a reset; raises a ValueError that lists the valid ones."""
    options = {} if options is None else options
    unknown = [repr(key) for key in options if key not in valid]
    if unknown:
        raise ValueError(
            f"unknown reset option {', '.join(unknown)}; valid: {', '.join(valid)}"
        )
    if "snapshot" in options and len(options) > 1:
        others = [repr(key) for key in options if key != "snapshot"]
        raise ValueError(
            f"a snapshot is of all runs with their instances: {', '.join(others)} cannot "
            "be given beside it"
        )
    return options


def instance_index(settings: Settings, name: str | None) -> int | None:
    """Position of an instance; None stays None.

    Raises:
        ValueError: an unknown name.
    """
    names = [instance.name for instance in settings.instances]
    if name is None:
        return None
    if name not in names:
        raise ValueError(f"unknown instance {name!r}; valid: {', '.join(names)}")
    return names.index(name)


def _scalars(info: dict[str, Any]) -> dict[str, Any]:
    """The first member's info as Python values; NaN and None are left out."""
    result: dict[str, Any] = {}
    for key, value in info.items():
        if isinstance(value, dict):
            result[key] = _scalars(value)
        else:
            scalar = value[:1].tolist()[0]
            if scalar is not None and scalar == scalar:
                result[key] = scalar
    return result
