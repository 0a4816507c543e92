"""Frames, suites and fits whose pages tests look at, and names that could break out."""

import numpy as np
import pandas as pd

POINTS, BUDGET = 20, 10_000

HOSTILE = (
    "</script><script>document.title='in'</script>",
    "<!-- <img src=x onerror=\"document.title='in'\">",
    "\"'` onclick=document.title='in' x=\"",
    "../../etc & <b>bold</b> &lt;i&gt; %{x} $x^2$ {{ 7 * 7 }} {% raw %}",
    "<a href=\"javascript:document.title='in'\">here</a> ünï — 学習",
)
"""Names of policies; those with line ends are refused before anything is drawn."""


def make_run(policy, seed, scores, run=0, tuned=False, diverged_at=None):
    """Two decisions per report point; step 0 is before training."""
    step = np.arange(2 * POINTS + 1)
    scores = np.concatenate([[0.0], scores])
    later = step > 0
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
            "reward": 0.0,
            "report_score": np.where(step % 2 == 0, scores[step // 2], np.nan),
            "diverged": False,
            "flops": step * 1e6,
            "wall_seconds": step * 0.1,
            "tuning_env_steps": 30_000 if tuned else 0,
            "tuning_eval_steps": 0,
            "tuning_gradient_steps": 0,
            "tuning_flops": 0.0,
            "report_online": 0.9 if tuned else np.nan,
            "hp/learning_rate": np.where(later, 10.0 ** -(1 + step / 10), np.nan),
            "hp/batch_size": np.where(later, 64.0, np.nan),
            "hp/loss": np.where(later, np.where(step > 9, "mse", "huber"), None),
            "hp/checkpoint": np.where(later, np.where(step % 9, "none", "save"), None),
        }
    )
    if diverged_at is not None:
        frame = frame[step <= diverged_at].copy()
        frame.loc[diverged_at, ["diverged", "report_score"]] = [True, -0.5]
    return frame


def make_frame(means, seeds=12, **more):
    """Runs of policies with given mean scores at the end; noise is small and paired."""
    ramp = np.linspace(0.05, 1.0, POINTS)
    runs = []
    for policy, mean in means.items():
        rng = np.random.default_rng(0)
        for seed in range(seeds):
            noise = 0.02 * rng.normal(size=POINTS) + 0.01 * np.sin(len(runs))
            runs.append(make_run(policy, seed, mean * ramp + noise, **more))
    return pd.concat(runs, ignore_index=True)
