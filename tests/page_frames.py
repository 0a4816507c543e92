"""Frames, suites and fits whose pages tests look at, and names that could break out."""

import numpy as np
import pandas as pd
import report_frames
from report_frames import POINTS

HOSTILE = (
    "</script><script>document.title='in'</script>",
    "<!-- <img src=x onerror=\"document.title='in'\">",
    "\"'` onclick=document.title='in' x=\"",
    "../../etc & <b>bold</b> &lt;i&gt; %{x} $x^2$ {{ 7 * 7 }} {% raw %}",
    "<a href=\"javascript:document.title='in'\">here</a> ünï — 学習",
)
"""Names of policies; those with line ends are refused before anything is drawn."""


def make_run(policy, seed, scores, run=0, tuned=False, diverged_at=None):
    """As `report_frames.make_run`, with a choice and an event, by any name tuned."""
    frame = report_frames.make_run(policy, run, seed, scores, diverged_at)
    step, later = frame["step"], frame["step"] > 0
    none = {f"tuning_{c}": 0 for c in ("eval_steps", "gradient_steps", "flops")}
    more = {
        "reward": 0.0,
        "tuning_env_steps": 30_000 if tuned else 0,
        "report_online": 0.9 if tuned else np.nan,
        "hp/loss": np.where(later, np.where(step > 9, "mse", "huber"), None),
        "hp/checkpoint": np.where(later, np.where(step % 9, "none", "save"), None),
    }
    return frame.assign(**none, **more)


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
