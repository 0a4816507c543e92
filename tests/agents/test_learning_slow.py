"""A controller learns what the optimal policy of the conformance task knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dacrl_env
from dacrl_env.policies import get_method

pytestmark = pytest.mark.slow

TASK = "dacrl/NoisyQuadratic-v0"
SEEDS = range(1_024)
METHOD = (
    "controller-ppo,population=128,action_mode='continuous',history=1,batch_size=640,"
    "learning_rate=3e-3,log_std_init=-1.2,gae_lambda=0.9,trial_runs=128"
)
BUDGET = 1_200_000


def finals(policy: Any) -> np.ndarray:
    frame = dacrl_env.evaluate(TASK, policy, SEEDS)
    return frame.groupby("seed").tail(1)["report_score"].to_numpy()


def test_ppo_comes_near_the_known_optimum() -> None:
    # from the best static learning rate, at least 95 % of the way to the optimal
    # policy, which sees the true state; no open-loop schedule gets that far
    static, optimal, schedule = (
        finals(f"dacrl_env.baselines.quadratic:{name}")
        for name in ("BestStatic", "Optimal", "BestSchedule")
    )
    way = optimal.mean() - static.mean()
    learned = finals(get_method(METHOD).fit(TASK, BUDGET, 0))
    share = (learned.mean() - static.mean()) / way
    print(f"\nPPO: {100 * share:.1f} % of the way from static to optimal")
    assert share >= 0.95
    assert (schedule.mean() - static.mean()) / way < 0.7
