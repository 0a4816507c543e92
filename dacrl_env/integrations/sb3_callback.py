"""Policies of this package at work on a plain model of Stable-Baselines3.

    model = DQN("MlpPolicy", "CartPole-v1")
    model.learn(50_000, callback=DynamicConfigCallback("freeze-when-good"))

The run is described as any run of this package is: observation rows, scores and infos
are computed by the same code, from the model's own losses, gradients, replay and
episodes.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor, is_vecenv_wrapped

from dacrl_env.algorithms.sb3.follower import Follower
from dacrl_env.comparison.given import PolicyLike, name_of, one
from dacrl_env.core import checks
from dacrl_env.core.blame import blame_if_users
from dacrl_env.core.checks import unknown, whole
from dacrl_env.core.streams import SPLITS
from dacrl_env.integrations import sb3_run
from dacrl_env.integrations.sb3_run import ModelEnv, Plan
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import FEEDBACK
from dacrl_env.outer.state import UnderWay
from dacrl_env.outer.vector_env import PopulationEnv, vector_info
from dacrl_env.policies.tuned import on
from dacrl_env.tasks import JUDGED_BY, Option, Task

_ONE = np.ones(1, bool)


@dataclass(frozen=True)
class Decision:
    """What a policy set, and what was known then.

    Args:
        env_steps: of the run, before the decision.
        score: observed.
        values: of the hyperparameters that the policy sets, as applied; those without a
            meaning beside the others are left out.
    """

    env_steps: int
    score: float
    values: dict[str, Option]


class DynamicConfigCallback(BaseCallback):
    """Lets a policy set hyperparameters of a DQN, PPO or SAC while it trains.

    What the policy does not set stays as the model has it, its schedules included. What
    it sets begins with the model's own value, which is also what policies mean by the
    default; where the model follows a schedule, that is replaced, and the default is
    the task's. Values stay when training ends.

    Decisions divide the run evenly: as many as the policy asks for, else as the task
    has, else 20, at most one a rollout of PPO. A rollout of DQN or SAC that is under
    way at a decision goes on afterwards with what was decided; one that ends with an
    episode (``train_freq=(1, "episode")``) is waited for. After each decision
    ``dacrl/score``, ``dacrl/best_score``, ``dacrl/eval_return``,
    ``dacrl/train_return``, ``dacrl/decision``, ``dacrl/diverged`` and
    ``dacrl/hp/<name>`` are written to the model's logger. `decisions` has all of them.

    A model whose loss or parameters are no numbers any more is left alone. Training
    that goes on after the budget is, too. With the same callback ``learn`` may be
    called again with ``reset_num_timesteps=False``, to go on with a budget that is not
    spent.

    Args:
        policy: as `dacrl_env.evaluate` takes it: a name with arguments, a file, an
            object, or a class. A file's length of runs is not insisted on.
        eval_env: environment for greedy evaluations: Gymnasium's, its id, or a
            ``VecEnv``. None: the task's own inner environment, with the episodes that
            the package plays.
        budget: environment steps of the run; None: those that ``learn`` is called for.
        task: id or task with the scale of scores, the ranges of actions, and
            decisions; None: the one that the policy was made for, or the first of the
            algorithm on the model's environment.
        returns: of score 0, score 1 and a diverged run, a mapping with ``random``,
            ``reference`` and ``floor`` or these three, instead of the task's; with them
            no task is needed.
        hyperparameters: names, or `Number` and `Choice` objects, that the policy sets;
            None: those that it names itself, or the task's.
        decision_interval: environment steps between decisions; None: see above.
        eval_interval: environment steps between evaluations; None: as many
            evaluations as the task has decisions.
        eval_episodes: of an evaluation.
        feedback: ``"eval"``: scores are of evaluations; ``"train"``: of finished
            training episodes. None: the first, where ``eval_env`` is given, or the task
            has an environment and is not judged by training.
        seed: of evaluations and of what policies draw.
        split: of streams, ``"tuning"`` or ``"test"``.
        verbose: as of other callbacks.

    Raises:
        ValueError: here, a policy or an option that is none; when training starts, an
            algorithm, action space, hyperparameter, budget or interval that does not
            fit.
    """

    def __init__(
        self,
        policy: PolicyLike,
        eval_env: Any = None,
        budget: int | None = None,
        *,
        task: str | Task | None = None,
        returns: Any = None,
        hyperparameters: Any = None,
        decision_interval: int | None = None,
        eval_interval: int | None = None,
        eval_episodes: int = 10,
        feedback: str | None = None,
        seed: int = 0,
        split: str = "tuning",
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.policy = one(policy, "policy")
        text = isinstance(policy, str | os.PathLike)
        self.name = str(policy) if text else name_of(self.policy)
        self.eval_env = eval_env
        self.budget = sb3_run.checked_interval("budget", budget)
        self.task = task
        self.returns = sb3_run.checked_returns(returns)
        self.hyperparameters = hyperparameters
        self.intervals = {
            name: sb3_run.checked_interval(name, value)
            for name, value in (
                ("decision_interval", decision_interval),
                ("eval_interval", eval_interval),
            )
        }
        self.eval_episodes = whole("eval_episodes", eval_episodes)
        for what, value, valid in (
            ("feedback", feedback, (None, *FEEDBACK)),
            ("split", split, tuple(SPLITS)),
        ):
            if value not in valid:
                known = [one for one in valid if one is not None]
                raise ValueError(unknown(what, value, known))
        self.feedback, self.split = feedback, split
        self.seed = checks.seed(seed)
        self.decisions: list[Decision] = []
        self._run: _Run | None = None

    @property
    def population(self) -> Population:
        """The run as this package knows runs: settings, state, infos.

        Raises:
            ValueError: training has not begun.
        """
        if self._run is None:
            raise ValueError("there is a run when the model's learn() has begun")
        return self._run.population

    def _on_training_start(self) -> None:
        if self._run is None or not self._run.goes_on(self.model):
            self.decisions = []
            self._run = _Run(self)
            self._run.follower.attach(self._run.decide)
            self._run.begin()
        else:
            self._run.follower.attach(self._run.decide)

    def _on_step(self) -> bool:
        assert self._run is not None
        self._run.note(self.locals)
        return True

    def _on_training_end(self) -> None:
        assert self._run is not None
        self._run.decide()
        self._run.follower.detach()


class _Run:
    """One run of a model under a policy.

    Args:
        callback: with a model.
    """

    def __init__(self, callback: DynamicConfigCallback) -> None:
        c, model = callback, callback.model
        self.callback = callback
        policy, returns = c.policy, c.returns
        task = sb3_run.task_of(model, c.task, returns, policy, c.name)
        self.policy = on(policy, task)
        self.theirs = getattr(self.policy, "policy", self.policy)  # of a fit
        scale_alone = c.task is None and returns is not None
        inner = None if scale_alone else sb3_run.check_spaces(model, task)
        feedback = c.feedback
        if feedback is None:
            nothing = inner is None and c.eval_env is None
            own = JUDGED_BY[task.judged_by] if c.eval_env is None else "eval"
            feedback = "train" if nothing else own
        play: Any = _nothing
        env: Any = ModelEnv.of(model)
        if feedback == "eval" and c.eval_env is not None:
            play = sb3_run.given_episodes(model, c.eval_env, c.seed)
        elif feedback == "eval":
            if inner is None or task.always_varied:
                raise ValueError(
                    "feedback 'eval' needs eval_env here: "
                    + (
                        "returns alone do not say what to evaluate in"
                        if inner is None
                        else f"the inner environment of {task.id} varies"
                    )
                )
            play, env = sb3_run.own_episodes(model, task, inner), inner
        budget = c.budget or model._total_timesteps - model.num_timesteps
        self.plan: Plan = sb3_run.plan(
            model,
            task,
            self.policy,
            budget,
            hyperparameters=c.hyperparameters,
            feedback=feedback,
            eval_episodes=c.eval_episodes,
            split=c.split,
            **c.intervals,
        )
        self._warn()
        s = self.plan.settings
        names = tuple(h.name for h in s.controlled)
        self.follower = Follower(model, task.algorithm, env, play, names)
        self.population = Population(s, 1, follows=self.follower)
        self.envs = PopulationEnv.around(self.population)
        self.step: UnderWay | None = None
        self._decided = self._evaluated = 0  # marks that lie behind
        venv: Any = model.env
        self._monitored = is_vecenv_wrapped(venv, VecMonitor)
        self._monitored |= any(venv.env_is_wrapped(Monitor))
        self._returns, self._lengths = np.zeros((2, model.n_envs))
        self._seen_at = -1  # the model's steps when it was last left

    def _warn(self) -> None:
        """Say what the model does not do of what the policy asks for."""
        static = getattr(self.policy, "configuration", None) or {}
        notes = [self.plan.note] if self.plan.note else []
        if static:
            notes.append(
                f"static configuration stays the model's own; the policy is for "
                f"{', '.join(f'{k}={v!r}' for k, v in static.items())}"
            )
        for note in notes:
            warnings.warn(f"{self.callback.name}: {note}", stacklevel=6)

    def goes_on(self, model: Any) -> bool:
        """Whether training that starts is that of this run."""
        same = model is self.follower.model and model.num_timesteps == self._seen_at
        return same and self.step is not None and model.num_timesteps > 0

    def begin(self) -> None:
        """Begin the run: evaluate, and ask for the first values."""
        self._clock = time.perf_counter()
        zero = np.zeros(1, np.int64)
        seed = zero + self.callback.seed
        self.population.start(zero, seed, zero, zero, 0)
        with blame_if_users(self.theirs, f"policy {self.callback.name}, reset()"):
            self.policy.reset(self.envs, self.callback.seed)
        self._ask()

    def decide(self) -> int | None:
        """Look at the model where something is due; steps until it is again."""
        follower, population = self.follower, self.population
        self._seen_at = follower.model.num_timesteps
        if self.step is None:
            return None
        follower.count()
        now, plan = int(population.state.learner.env_steps[0]), self.plan
        evaluation = now >= plan.evaluations[self._evaluated]
        decision = now >= plan.decisions[self._decided]
        if evaluation or decision:
            population.look(self.step, np.array([evaluation]))
            passed = plan.evaluations[:-1] <= now
            self._evaluated = int(passed.sum())
        if decision:
            population.end_step(self.step)
            self._decided = int((plan.decisions[:-1] <= now).sum())
            self.step, follower.interval = None, None
            population.state.wall_seconds[:] = time.perf_counter() - self._clock
            if population.ended()[0] or now >= plan.decisions[-1]:
                self._end()
                return None
            self._ask()
        ahead = plan.evaluations[self._evaluated], plan.decisions[self._decided]
        return int(min(mark for mark in ahead if mark > now) - now)

    def _ask(self) -> None:
        """Have the policy set values."""
        population, number = self.population, len(self.callback.decisions) + 1
        infos = vector_info(population.info(), _ONE)
        what = f"policy {self.callback.name}, act() at decision {number}"
        with blame_if_users(self.theirs, what):
            actions = self.policy.act(population.observation(), infos)
        requested = population.actions.to_values(actions, population.state.requested)
        self.step = population.begin_step(requested)
        self.follower.apply(self.step.values)
        shown = vector_info(population.info(), _ONE)["hyperparameters"]
        values = {
            h.name: shown[h.name].tolist()[0]
            for h in population.settings.controlled
            if shown[f"_{h.name}"][0]
        }
        state = population.state
        now, score = int(state.learner.env_steps[0]), float(state.score[0])
        self.callback.decisions.append(Decision(now, score, values))
        self._log({f"hp/{name}": value for name, value in values.items()})

    def _end(self) -> None:
        """Nothing is decided any more."""
        if self.population.state.diverged[0]:
            warnings.warn(
                f"the model has diverged before step "
                f"{self.follower.model.num_timesteps:,}: its loss or parameters are "
                "not finite; nothing is decided any more",
                stacklevel=2,
            )
        self._log({})

    def _log(self, more: dict[str, Any]) -> None:
        state, logger = self.population.state, self.callback.logger
        told = {
            "decision": len(self.callback.decisions),
            "score": float(state.score[0]),
            "best_score": float(state.best_score[0]),
            "eval_return": sb3_run.finite(state.eval_return[0]),
            "train_return": sb3_run.finite(state.train_return[0]),
            "diverged": int(state.diverged[0]),
            **more,
        }
        for name, value in told.items():
            if value is not None:
                logger.record(f"dacrl/{name}", value)
        logger.dump(self.follower.model.num_timesteps)

    def note(self, heard: dict[str, Any]) -> None:
        """Take note of one step of the environments: episodes that have ended."""
        rewards: NDArray[Any] = heard["rewards"]
        if self._monitored is False:
            normalised = self.follower.model.get_vec_normalize_env()
            if normalised is not None:
                rewards = normalised.get_original_reward()
            self._returns += rewards
            self._lengths += 1
        interval = self.follower.interval
        for n in np.flatnonzero(heard["dones"]):
            told = heard["infos"][n].get("episode")
            if told is None and self._monitored:
                continue  # the episode goes on below a wrapper
            ended = (self._returns[n], self._lengths[n])
            if told is not None:
                ended = (told["r"], told["l"])
            self._returns[n] = self._lengths[n] = 0
            if interval is not None:
                interval.finished[0] += 1, float(ended[0]), float(ended[1])


def _nothing(*_: Any) -> Any:
    raise AssertionError("nothing is evaluated")
