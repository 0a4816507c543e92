"""What the training programs of controllers share.

A population on the tuning split is the vectorised environment of a Stable-Baselines3
algorithm. Training is a sequence of *rounds*, each as many outer steps as a run has
decisions. After some rounds the controller, without its exploration, is tried on
held-out tuning runs, always the same; the best of these trials is what comes out.
Everything is charged, these trials included.

With a store, a checkpoint is written after a round, every half minute at most: the
population, and the algorithm's tensors, buffers and random states, in safetensors. A
training that is started again goes on from it to the same result, bit for bit where
the inner environments can be copied.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import inspect
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.logger import KVWriter, Logger, configure
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
)

from dacrl_env.comparison.evaluation import evaluate, suitable_options
from dacrl_env.core import checks, random_state, trackers
from dacrl_env.core.isolation import globals_kept
from dacrl_env.core.locks import journal_lock
from dacrl_env.core.provenance import NoSource
from dacrl_env.core.store import Store, canonical
from dacrl_env.core.version import __version__
from dacrl_env.integrations.sb3 import to_sb3
from dacrl_env.methods.trials import fit_key, journal_path, rehearsal_ends
from dacrl_env.outer.actions import check_names
from dacrl_env.outer.settings import resolve
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies import METHODS, Cost, Fitted, from_json, to_json
from dacrl_env.policies.network import CLIP, About, Controller
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import get_task

from . import checkpoints

CHECKPOINT_SECONDS = 30.0

Floats = NDArray[np.float64]
# activation, output and weights of a policy, as `Controller` takes them
Network = tuple[str, str, dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Outer:
    """A method that trains a controller: what does not depend on the algorithm.

    A training program adds the algorithm's own fields, and `build` and `network`.

    Args:
        population: inner runs side by side, each charged.
        action_mode: of the environment; relative by default, since with absolute
            actions a network that knows nothing yet destroys nearly every run.
        history: decisions stacked in the observation.
        rows: names of the observation rows that it sees; None: all. A controller that
            sees ``("progress",)`` alone learns a schedule.
        decisions: outer steps of a run; None: the task's.
        reward: of the environment.
        objective: what trials on held-out runs are compared by: "final" or "auc" of
            the observed score.
        trial_runs: held-out tuning runs of a trial.
        trials: how many trials, evenly spread, the last at the end.
        trial_share: of the budget, at most, that trials may take; where it pays for
            none, the last network is returned untried.

    Raises:
        ValueError: values out of range.
    """

    population: int = 32
    action_mode: str = "relative"
    history: int = 3
    rows: Sequence[str] | None = None
    decisions: int | None = None
    reward: str = "progress"
    objective: str = "final"
    trial_runs: int = 32
    trials: int = 8
    trial_share: float = 0.25

    def __post_init__(self) -> None:
        if self.objective not in ("final", "auc"):
            raise ValueError(f"unknown objective {self.objective!r}; valid: final, auc")
        for name in ("population", "history", "trial_runs", "trials"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} must be a whole number of at least 1, got {value!r}"
                )
        if not 0 <= self.trial_share < 1:
            raise ValueError(f"trial_share must lie in [0, 1), got {self.trial_share}")

    def fit(
        self,
        task: str | Task,
        budget: int,
        seed: int,
        /,
        store: Store | None = None,
        progress: Callable[[int], Any] | None = None,
        **task_kwargs: Any,
    ) -> Fitted:
        """Train a controller; see :class:`dacrl_env.policies.Method`.

        Raises:
            ValueError: options of the wrong kind, unknown observation rows, or a
                budget below one round; or every controller that was tried failed.
            Busy: somebody, perhaps this process, has the checkpoints in use.
            StoreError: a damaged checkpoint.
        """
        task, budget = get_task(task), int(budget)
        alone: AbstractContextManager[Any] = nullcontext()
        if store is not None:
            key = fit_key(task, self, budget, seed, task_kwargs)
            alone = journal_lock(store.directory, key)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            # Stable-Baselines3 draws from the global generators
            with alone, globals_kept():
                training = _Training(
                    self,
                    task,
                    budget,
                    seed,
                    store,
                    progress,
                    task_kwargs,
                )
                try:
                    rehearsal_ends()
                    return training.run()
                finally:
                    training.venv.close()
        finally:
            torch.set_num_threads(threads)

    def build(self, venv: VecEnv, round_steps: int) -> Any:
        """A model of Stable-Baselines3.

        Args:
            venv: vectorised environments.
            round_steps: outer steps of a round, for each of them.
        """
        raise NotImplementedError("a training program builds its own model")

    def begin_round(self, model: Any, share: float) -> None:
        """Set what depends on the share of all rounds that is done."""

    def network(self, model: Any) -> Network:
        """Activation, output and weights of the model's policy."""
        raise NotImplementedError("a training program knows its own network")


class Seen(VecEnvWrapper):
    """What a controller sees of a population, and the account of what it spends.

    Args:
        venv: of `to_sb3`, not monitored.
        columns: of the observation that are shown.
        progress: called with inner environment steps done since its last call.
    """

    def __init__(
        self,
        venv: VecEnv,
        columns: NDArray[np.int64],
        progress: Callable[[int], Any] | None,
    ) -> None:
        space = spaces.Box(-1.0, 1.0, (len(columns),), np.float32)
        super().__init__(venv, observation_space=space)
        self.columns, self.progress = columns, progress
        self.cost = Cost()
        self._spent = [Cost()] * venv.num_envs  # of the runs under way
        self.finals: Sequence[dict[str, Any]] = ()  # infos of the last decision

    def reset(self) -> NDArray[np.float32]:
        """Begin new runs."""
        observations: Any = self.venv.reset()
        self._charge(self.venv.reset_infos, fresh=True)
        return self._shown(observations)

    def _shown(self, observations: Any) -> NDArray[np.float32]:
        # rows one after the other: their layout decides a network's last bits
        return np.ascontiguousarray(observations[:, self.columns])

    def step_wait(self) -> Any:
        """One outer step."""
        observations, rewards, ended, infos = self.venv.step_wait()
        before = self.cost.env_steps
        self.finals = [info.get("final_info", info) for info in infos]
        self._charge(self.finals, fresh=False)
        if ended.any():
            for i in np.flatnonzero(ended):
                last = infos[i]["terminal_observation"]
                infos[i]["terminal_observation"] = last[self.columns]
                self._spent[i] = Cost()
            self._charge(infos, fresh=False)  # evaluations before training
        if self.progress is not None:
            self.progress(self.cost.env_steps - before)
        return self._shown(observations), rewards, ended, infos

    def _charge(self, infos: Sequence[dict[str, Any]], fresh: bool) -> None:
        for i, info in enumerate(infos):
            before = Cost() if fresh else self._spent[i]
            self._spent[i] = spent(info)
            self.cost += self._spent[i].less(before)

    def state(self) -> dict[str, Any]:
        """Its account, as JSON values."""
        return {
            "cost": asdict(self.cost),
            "spent": [asdict(cost) for cost in self._spent],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from the account that `state` gave."""
        self.cost = Cost(**state["cost"])
        self._spent = [Cost(**cost) for cost in state["spent"]]


def spent(info: dict[str, Any]) -> Cost:
    """What a run has used so far."""
    return Cost(
        env_steps=int(info["env_steps"]),
        eval_steps=int(info["eval_steps"]),
        gradient_steps=int(info["gradient_steps"]),
        flops=float(info["objectives"]["flops"]),
    )


@dataclass
class _Course:
    """How far a training is, beside what the model and the population hold."""

    rounds: int = 0  # done
    best: float = -np.inf  # score of the best trial
    incumbents: list[tuple[Cost, Controller]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)  # a row a round


class _Training:
    """One training, from its first or from a later round to the end."""

    def __init__(
        self,
        method: Outer,
        task: Task,
        budget: int,
        seed: int,
        store: Store | None,
        progress: Callable[[int], Any] | None,
        options: dict[str, Any],
    ) -> None:
        for name, why in (
            ("split", "methods see the tuning split alone"),
            ("action_mode", "it is an argument of the method"),
            ("history", "it is an argument of the method"),
            ("reward", "it is an argument of the method"),
            ("report", "what a policy is judged by is no part of tuning"),
        ):
            if name in options:
                raise ValueError(f"a method cannot be given {name!r}: {why}")
        if method.action_mode == "values":  # over orders of magnitude
            raise ValueError(
                "a controller cannot be trained in action_mode 'values'; valid: "
                "continuous, relative, discrete, multidiscrete"
            )
        self.method, self.task, self.progress = method, task, progress
        policy: Any = method  # it has what such a policy would ask for
        self.options = suitable_options(policy, task, options)
        settings = resolve(task, split="tuning", reward=method.reward, **self.options)
        self.decisions = settings.budget // settings.decision_interval
        budget = checks.whole("a tuning budget", budget)
        seed = checks.seed(seed)
        self._divide(budget, settings.budget)
        first, held_out = (
            np.random.SeedSequence((seed, use)).generate_state(
                method.trial_runs, np.uint64
            )
            >> np.uint64(2)
            for use in (1, 2)
        )
        self.trial_seeds = [int(word) for word in held_out]
        self.path = self.folder = None
        key = None
        if store is not None:
            # without a name there is no checkpoint
            with suppress(NoSource):
                key = fit_key(task, method, budget, seed, options)
        if store is not None and key is not None:
            self.path = journal_path(store.directory, key)
            digest = hashlib.sha256(canonical(key).encode()).hexdigest()[:8]
            name = f"{type(method).__name__}-{task.id.replace('/', '-')}-{seed}"
            self.folder = store.directory / "curves" / f"{name}-{digest}"

        envs = PopulationEnv(
            task,
            method.population,
            split="tuning",
            reward=method.reward,
            **self.options,
        )
        names = list(envs.observation_names)
        self.rows = names if method.rows is None else list(method.rows)
        check_names(self.rows, names, "observation row")
        columns = np.array([names.index(row) for row in self.rows])
        self.envs = envs
        self.seen = Seen(to_sb3(envs, monitored=False), columns, progress)
        self.monitor = VecMonitor(self.seen)
        self.venv = VecNormalize(self.monitor, clip_obs=CLIP, gamma=1.0)
        self.controlled = envs.population.actions.names
        random_state.seed_globals(int(first[0] & np.uint64(0xFFFFFFFF)))
        self.venv.seed(int(first[0]))
        self.model = method.build(self.venv, self.decisions)
        self.model.action_space.seed(int(first[0]))
        self.model.set_logger(self._logger())
        self.course = _Course()

    def _divide(self, budget: int, steps: int) -> None:
        """How many rounds and trials the budget pays for."""
        one_round = self.method.population * steps
        one_trial = self.method.trial_runs * steps
        trials = min(
            self.method.trials, int(self.method.trial_share * budget) // one_trial
        )
        rounds = (budget - trials * one_trial) // one_round
        if rounds < 1:
            raise ValueError(
                f"a tuning budget of {budget:,} steps is below one round of "
                f"{self.method.population} runs, which takes {one_round:,}"
            )
        self.rounds = rounds
        trials = min(trials, rounds)
        # the last trial is at the end
        self.tried = {(k + 1) * rounds // trials for k in range(trials)}

    def _logger(self) -> Logger:
        if trackers.is_tracked():
            return Logger(None, [_Told()])
        if self.folder is None or importlib.util.find_spec("tensorboard") is None:
            return Logger(None, [])
        return configure(str(self.folder), ["tensorboard"])

    def run(self) -> Fitted:
        """All rounds that are left."""
        self._resume()
        saved = time.monotonic()
        course = self.course
        while course.rounds < self.rounds:
            self.method.begin_round(self.model, course.rounds / self.rounds)
            self.model.learn(
                self.method.population * self.decisions,
                log_interval=None,
                reset_num_timesteps=False,
            )
            course.rounds += 1
            trial = None
            if course.rounds in self.tried:
                trial = self._try()
            elif course.rounds == self.rounds and not self.tried:
                course.incumbents.append((self.seen.cost, self.controller()))
            self._log(trial)
            now = time.monotonic()
            last = course.rounds == self.rounds
            if self.path is not None and (last or now - saved >= CHECKPOINT_SECONDS):
                self._checkpoint()
                saved = time.monotonic()
        self.model.logger.close()
        if not course.incumbents:
            raise ValueError(
                f"no controller for {self.task.id} to return: in every trial all runs "
                "diverged (a loss, gradient or parameter became non-finite); control "
                f"smaller ranges of {', '.join(self.controlled)}"
            )
        _, policy = course.incumbents[-1]
        # the incumbent stands until all is spent
        incumbents = [*course.incumbents, (self.seen.cost, policy)]
        return Fitted(policy, self.seen.cost, incumbents, task=self.task.id)

    def controller(self) -> Controller:
        """The present network as a policy."""
        activation, output, weights = self.method.network(self.model)
        moments: Any = self.venv.obs_rms
        about = About(
            action_mode=self.method.action_mode,
            hyperparameters=self.controlled,
            rows=tuple(self.rows),
            history=self.method.history,
            activation=activation,
            output=output,
            decisions=self.decisions,
            version=__version__,
        )
        observed = {"mean": moments.mean, "variance": moments.var}
        return Controller(about, {**weights, **observed})

    def _try(self) -> float:
        """Mean score of the present network on the held-out runs."""
        controller = self.controller()
        frame = evaluate(
            self.task,
            controller,
            self.trial_seeds,
            "tuning",
            progress=self.progress,
            **self.options,
        )
        decided = frame[frame["eval_steps"].notna()]
        ends = decided.groupby("seed").tail(1)
        self.seen.cost += Cost(
            env_steps=int(ends["env_steps"].sum()),
            eval_steps=int(ends["eval_steps"].sum()),
            gradient_steps=int(ends["gradient_steps"].sum()),
            flops=float(ends["flops"].sum()),
        )
        if self.method.objective == "final":
            score = float(ends["score"].mean())
        else:  # a run that diverged stays at the floor
            scores = decided[decided["step"] > 0].groupby("seed")["score"]
            missing = self.decisions - scores.count()
            sums = scores.sum() + missing * scores.last()
            score = float((sums / self.decisions).mean())
        if ends["diverged"].all():
            score = -np.inf  # this controller has failed
        if score > self.course.best:
            self.course.best = score
            self.course.incumbents.append((self.seen.cost, controller))
        return score

    def _log(self, trial: float | None) -> None:
        cost, recent = self.seen.cost, list(self.model.ep_info_buffer)
        row = {
            "round": float(self.course.rounds),
            "env_steps": float(cost.env_steps),
            "eval_steps": float(cost.eval_steps),
            "return": float(np.mean([e["r"] for e in recent])) if recent else np.nan,
            "trial": np.nan if trial is None else trial,
        }
        self.course.curve.append(row)
        logger = self.model.logger
        for name, value in {**_shown(row), **_applied(self.seen.finals)}.items():
            logger.record(name, value)
        logger.dump(cost.env_steps)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(self.course.curve).to_csv(
                self.folder / "curve.csv", index=False
            )

    # -- checkpoints ------------------------------------------------------------

    def _checkpoint(self) -> None:
        assert self.path is not None
        course = self.course
        about = {
            "rounds": course.rounds,
            "best": course.best,
            "incumbents": [
                [asdict(cost), to_json(policy)] for cost, policy in course.incumbents
            ],
            "curve": course.curve,
            "seen": self.seen.state(),
        }
        trained = checkpoints.read(self.model, self.venv, self.monitor)
        checkpoints.save(self.path, self.envs, trained, about)

    def _resume(self) -> None:
        if self.path is None or not checkpoints.exist(self.path):
            return
        trained, about = checkpoints.load(self.path, self.envs)
        checkpoints.write(self.model, self.venv, self.monitor, trained)
        self.seen.set_state(about["seen"])
        self.course = _Course(
            rounds=about["rounds"],
            best=about["best"],
            incumbents=[
                (Cost(**cost), from_json(policy))  # type: ignore[misc]
                for cost, policy in about["incumbents"]
            ],
            curve=about["curve"],
        )
        for row in self.course.curve:
            trackers.tell(int(row["env_steps"]), _shown(row))
        if self.progress is not None:
            self.progress(self.seen.cost.env_steps)


class _Told(KVWriter):
    """Where Stable-Baselines3 writes what it records: to whoever tracks the fit."""

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Tell numbers and texts."""
        trackers.tell(step, key_values)

    def close(self) -> None:
        """Nothing is open."""


def _shown(row: dict[str, float]) -> dict[str, float]:
    """A row of the curve as it is recorded."""
    return {f"controller/{k}": v for k, v in row.items() if np.isfinite(v)}


def _applied(infos: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Scores of runs at their last decision, and means of the numbers applied there."""
    if not infos:
        return {}
    scores = [info["score"] for info in infos]
    told = {"score/mean": float(np.mean(scores)), "score/best": float(np.max(scores))}
    for name in dict.fromkeys(n for info in infos for n in info["hyperparameters"]):
        values = [info["hyperparameters"].get(name) for info in infos]
        known = [v for v in values if isinstance(v, float | int)]
        if known:
            told[f"hp_mean/{name}"] = float(np.mean(known))
    return told


def layers_of(*parts: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """Weights of all linear layers, in order, as `Controller` takes them."""
    linear = [
        m for part in parts for m in part.modules() if isinstance(m, torch.nn.Linear)
    ]
    weights: dict[str, NDArray[Any]] = {}
    for k, layer in enumerate(linear):
        weights[f"weight/{k}"] = layer.weight.detach().numpy().T.copy()
        weights[f"bias/{k}"] = layer.bias.detach().numpy().copy()
    return weights


def divisor(n: int, wanted: int) -> int:
    """The largest divisor of n up to a wanted number: equal minibatches."""
    return max(k for k in range(1, min(n, wanted) + 1) if n % k == 0)


def main(method: type[Outer]) -> None:
    """The command line of a training program: ``dacrl fit`` with its method.

    Args:
        method: whose fields are options; others go to ``dacrl fit``.
    """
    from dacrl_env.cli.commands import main as dacrl

    # the module is called __main__ where it is run as a program
    module = Path(sys.argv[0]).stem
    entry = f"dacrl_env.agents.{module}:{method.__name__}"
    (name,) = (name for name, (where, _) in METHODS.items() if where == entry)
    about = [inspect.cleandoc(str(c.__doc__)) for c in (method, Outer)]
    parser = argparse.ArgumentParser(
        description=f"The same as: dacrl fit TASK {name},option=value,… --budget STEPS "
        "--out DIR",
        epilog="\n\n".join(about),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("task", help="id, as `dacrl tasks` lists them")
    for f in fields(method):
        option = f"--{f.name.replace('_', '-')}"
        parser.add_argument(
            option, dest=f.name, metavar="VALUE", help=f"default {f.default!r}"
        )
    given, others = parser.parse_known_args()
    chosen = [
        f"{f.name}={getattr(given, f.name)}"
        for f in fields(method)
        if getattr(given, f.name) is not None
    ]
    raise SystemExit(dacrl(["fit", given.task, ",".join([name, *chosen]), *others]))
