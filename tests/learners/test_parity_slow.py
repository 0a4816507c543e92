"""Full runs of our algorithms against full runs of Stable-Baselines3's.

Both are judged by the same code on fresh episodes: by code of this test alone, or by
that of a comparison, on tasks that came with the compiled engine. As a program it
prints its numbers as JSON: ``PYTHONPATH=tests python tests/learners/test_parity_slow.py
[case …]``.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sb3_rows import dqn_row, sac_row

from dacrl_env.comparison import stats
from dacrl_env.comparison.comparison import compare
from dacrl_env.comparison.report import summarize
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.learners import dqn, sac
from dacrl_env.outer.settings import resolve
from dacrl_env.tasks.registration import get_task

POINTS = 20
EPISODES = 20
OUR_RUNS = 64
SB3_SEEDS = range(16)
MARGIN = 0.1
# the seeds of our members and of Stable-Baselines3's runs share no stream
OUR_SEED, SB3_EVALUATION_SEED = 0, 1


@dataclass(frozen=True)
class Case:
    """An algorithm with what both implementations of it are given."""

    task: str
    kind: Any  # our learner
    config: Any
    budget: int  # environment steps of a run
    values: dict[str, float]  # hyperparameters; others have their default
    theirs: Callable[..., Any]  # a model of Stable-Baselines3, see below
    row: Callable[[Any, Any], NDArray[np.float32]]  # of its parameters, as ours

    def learner(self) -> Any:
        env = ENVS[get_task(self.task).inner_env]()
        return self.kind(env, env, self.config, self.budget)


def theirs_dqn(**shared: Any) -> Any:
    from stable_baselines3 import DQN

    return DQN(
        **shared,
        target_update_interval=500,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        max_grad_norm=10,
    )


def theirs_sac(**shared: Any) -> Any:
    from stable_baselines3 import SAC

    return SAC(**shared, tau=0.005, ent_coef="auto", target_entropy="auto")


CASES = {
    "dqn": Case(
        task="dacrl/DQN-CartPole-v0",
        kind=dqn.DQN,
        config=dqn.DQNConfig(
            hidden_sizes=(64, 64), replay_capacity=50_000, learning_starts=1_000
        ),
        budget=50_000,
        values={
            "learning_rate": 1e-3,
            "epsilon": 0.1,
            "batch_size": 64,
            "gamma": 0.99,
            "target_update_interval": 500,
            "train_freq": 4,
            "gradient_steps": 1,
            "max_grad_norm": 10,
        },
        theirs=theirs_dqn,
        row=lambda model, fixed: dqn_row(model, fixed.net),
    ),
    # half of the task's steps, in which most of them learn it
    "sac": Case(
        task="dacrl/SAC-Pendulum-v0",
        kind=sac.SAC,
        config=sac.SACConfig(
            hidden_sizes=(64, 64), replay_capacity=10_000, learning_starts=100
        ),
        budget=10_000,
        values={
            "learning_rate": 1e-3,
            "batch_size": 64,
            "gamma": 0.99,
            "tau": 0.005,
            "train_freq": 1,
            "gradient_steps": 1,
            "target_entropy": -1.0,
        },
        theirs=theirs_sac,
        row=sac_row,
    ),
}


class NewTask(NamedTuple):
    """A task that came with the compiled engine; both run in the same environment."""

    task: str
    options: dict[str, Any]
    ours: int = OUR_RUNS
    theirs: int = len(SB3_SEEDS)


TASKS = {
    # scores of runs differ so much (deviation 0.22) that fewer could not tell
    "dqn-task": NewTask(
        "dacrl/DQN-CartPole-Small-v0", {"fixed": {"loss": "huber"}}, 256, 96
    ),
    "ppo-task": NewTask(
        "dacrl/PPO-TwoColours-Small-v0",
        {"hyperparameters": ["learning_rate", "ent_coef"]},  # there are no events
    ),
    "sac-task": NewTask("dacrl/SAC-CartPoleSwingup-v0", {"budget": 15_000}),
}


def physics_of(learner: Any, P: int) -> NDArray[np.float64]:
    return np.tile([*learner.env.physics.values()], (P, 1))


def evaluate(
    case: Case, learner: Any, state: Any, keys: streams.UInts, point: int
) -> NDArray[np.float64]:
    """Mean scores ``(P,)`` of greedy episodes that no other point plays."""
    P = len(keys)
    base = streams.of(keys, "report")
    episodes = streams.bits(base, np.full(P, point), EPISODES)
    returns, _ = learner.play(state, np.arange(P), episodes, physics_of(learner, P))
    return get_task(case.task).score(returns.mean(1))


def our_aucs(case: Case) -> list[float]:
    P, learner = OUR_RUNS, case.learner()
    keys = np.stack([streams.member_keys("test", OUR_SEED, i, 0) for i in range(P)])
    values = {
        h.name: np.full(P, float(case.values.get(h.name, h.start)))
        for h in learner.hyperparameters
    }
    state, scores = learner.init(keys, physics_of(learner, P)), []
    for point in range(1, POINTS + 1):
        interval = learner.begin_interval(state)
        learner.train(state, values, case.budget // POINTS, interval)
        scores.append(evaluate(case, learner, state, keys, point))
    return np.mean(scores, 0).tolist()


def sb3_auc(case: Case, seed: int) -> float:
    import gymnasium as gym
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(1)
    learner = case.learner()
    keys = streams.member_keys("test", SB3_EVALUATION_SEED, seed, 0)[None]
    state = learner.init(keys, physics_of(learner, 1))
    scores: list[float] = []

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % (case.budget // POINTS) == 0:
                state.parameters[0] = case.row(self.model, learner.fixed)
                score = evaluate(case, learner, state, keys, len(scores) + 1)
                scores.append(float(score[0]))
            return True

    names = ("learning_rate", "gamma", "batch_size", "train_freq", "gradient_steps")
    model = case.theirs(
        policy="MlpPolicy",
        env=gym.make(get_task(case.task).inner_env),
        buffer_size=case.config.replay_capacity,
        learning_starts=case.config.learning_starts,
        policy_kwargs={"net_arch": [*case.config.hidden_sizes]},
        seed=seed,
        device="cpu",
        **{name: case.values[name] for name in names},
    )
    model.learn(case.budget, callback=Evaluate())
    assert len(scores) == POINTS
    return float(np.mean(scores))


def _timed(job: tuple[str, int | None]) -> tuple[Any, float]:
    began = time.perf_counter()
    name, seed = job
    case = CASES[name]
    result = our_aucs(case) if seed is None else sb3_auc(case, seed)
    return result, time.perf_counter() - began


def measure(name: str) -> dict[str, Any]:
    jobs = [(name, None), *((name, seed) for seed in SB3_SEEDS)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        (ours, our_time), *rest = pool.map(_timed, jobs, chunksize=1)
    sb3 = [auc for auc, _ in rest]
    return {
        "ours": told(ours) | {"seed": OUR_SEED, "seconds": round(our_time)},
        "sb3": told(sb3)
        | {
            "seeds": list(SB3_SEEDS),
            "seconds": [round(seconds) for _, seconds in rest],
            "aucs": sb3,
        },
        "equivalence": asdict(stats.equivalence(ours, sb3, margin=MARGIN)),
    }


def measure_task(name: str) -> dict[str, Any]:
    """Seeds differ, so that no two runs share a stream."""
    task, options, ours, theirs = TASKS[name]
    aucs = {
        implementation: compare(
            task, ["default"], seeds, implementation=implementation, **options
        )
        for implementation, seeds in {
            "compiled": range(ours),
            "sb3": range(ours, ours + theirs),
        }.items()
    }
    compiled, sb3 = (summarize(frame)["report_auc"] for frame in aucs.values())
    return {
        "ours": told(compiled),
        "sb3": told(sb3),
        "equivalence": asdict(stats.equivalence(compiled, sb3, margin=MARGIN)),
    }


def told(aucs: Any) -> dict[str, Any]:
    return {
        "runs": len(aucs),
        "mean_auc": float(np.mean(aucs)),
        "std_auc": float(np.std(aucs, ddof=1)),
    }


@pytest.mark.parametrize("name", TASKS)
def test_both_implementations_can_run_the_new_tasks(name: str):
    task, options, *_ = TASKS[name]
    for implementation in ("compiled", "sb3"):
        resolve(get_task(task), report=True, implementation=implementation, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_full_runs_are_worth_as_much_as_those_of_stable_baselines3(name: str):
    result = measure(name)
    assert result["equivalence"]["equivalent"], json.dumps(result, indent=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_so_are_full_runs_of_new_tasks(name: str):
    result = measure_task(name)
    assert result["equivalence"]["equivalent"], json.dumps(result, indent=2)


if __name__ == "__main__":
    measured = {
        name: measure(name) if name in CASES else measure_task(name)
        for name in sys.argv[1:] or (*CASES, *TASKS)
    }
    print(json.dumps(measured, indent=2))
