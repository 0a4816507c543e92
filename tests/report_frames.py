"""Frames of single runs, as tests of reports and of their pages take them."""

import numpy as np
import pandas as pd

POINTS, BUDGET, FLOOR = 20, 10_000, -0.5


def make_run(policy, run, seed, scores, diverged_at=None):
    """Two decision boundaries per report point; step 0 is before training."""
    step = np.arange(2 * POINTS + 1)
    scores = np.concatenate([[0.0], scores])
    frame = pd.DataFrame(
        {
            "task": "dacrl/DQN-CartPole-v0",
            "policy": policy,
            "run": run,
            "seed": seed,
            "split": "test",
            "instance": "default",
            "step": step,
            "env_steps": step * BUDGET // (2 * POINTS),
            "eval_steps": step * 10,
            "gradient_steps": step * 5,
            "report_score": np.where(step % 2 == 0, scores[step // 2], np.nan),
            "diverged": False,
            "flops": step * 1e6,
            "wall_seconds": step * 0.1,
            "tuning_env_steps": 30_000 if policy == "tuned" else 0,
            "tuning_eval_steps": 4_000 if policy == "tuned" else 0,
            "tuning_gradient_steps": 900 if policy == "tuned" else 0,
            "tuning_flops": 2e9 if policy == "tuned" else 0.0,
            "report_online": 0.9 + 0.05 * run if policy == "tuned" else np.nan,
            "hp/learning_rate": np.where(step == 0, np.nan, 10.0 ** -(1 + step / 10)),
            "hp/batch_size": np.where(step == 0, np.nan, 64.0),
        }
    )
    if diverged_at is not None:
        frame = frame[step <= diverged_at].copy()
        frame.loc[diverged_at, ["diverged", "report_score"]] = [True, FLOOR]
    return frame
