"""Digests of short runs, of all that is in their state: equal on every machine.

``python tests/digests.py`` prints those of all compiled tasks as JSON, to be kept in
``digests.json`` when what runs compute is changed on purpose.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cases import registered

import dacrl_env
from dacrl_env.comparison.executors import all_compiled
from dacrl_env.core import streams
from dacrl_env.core.snapshot import Snapshot, leaves
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.schedules import SHAPES

TASKS = sorted(t for t in registered() if all_compiled(dacrl_env.TASKS[t], {}))
KEPT = Path(__file__).parent / "digests.json"
SEED = 7  # of the run that is told of
OPTIONS: dict[str, dict[str, Any]] = {
    "dqn": {"budget": 1_200, "decision_interval": 300, "learning_starts": 200},
    "ppo": {
        "budget": 2_560, "decision_interval": 640, "num_inner_envs": 4,
        "rollout_length": 32,
    },
    "sac": {"budget": 1_200, "decision_interval": 300, "learning_starts": 200},
    "discrete_sac": {
        "budget": 1_200, "decision_interval": 300, "learning_starts": 200,
    },
    "pipeline": {
        "budget": 1_280, "decision_interval": 320, "learning_starts": 200,
        "rollout_length": 32,
    },
    "sgd": {},
}  # fmt: skip
# episodes of MinAtar are up to 2,500 steps long, and a report has 480
FEW = {"eval_episodes": 1, "report": False}


def made(task: str, P: int, num_threads: int) -> PopulationEnv:
    algorithm = dacrl_env.TASKS[task].algorithm
    options = {**OPTIONS[algorithm], "report": True, "num_threads": num_threads}
    if dacrl_env.TASKS[task].inner_env.startswith("MinAtar/"):
        options |= FEW
    return PopulationEnv(task, P, **options)


def digest(task: str, P: int = 1, num_threads: int = 1, saved: bool = False) -> str:
    """Of the first of P members, whose actions follow from its streams.

    Args:
        task: id.
        P: members.
        num_threads: that train them.
        saved: half way, the run goes through a file into another population.
    """
    envs = made(task, P, num_threads)
    _, infos = envs.reset(seed=[SEED, *range(100, 99 + P)])
    s = envs.settings
    decisions = s.budget // s.decision_interval
    for k in range(decisions):
        if saved and k == decisions // 2:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "snapshot"
                envs.snapshot().save(path)
                envs = made(task, P, num_threads)
                envs.reset(seed=0)
                envs.restore(Snapshot.load(path))
        lanes = len(s.controlled)
        u = streams.uniforms(envs.policy_keys, infos["env_steps"], lanes)
        actions = envs.population.actions.to_values(
            0.6 * u - 0.3, envs.population.state.requested
        )
        envs.advance(actions)
        infos = {"env_steps": envs.population.state.learner.env_steps.copy()}
    told = hashlib.sha256()
    for name, leaf in sorted(leaves(envs.population.state)):
        # what a report is made of is told by the reports
        if name not in ("wall_seconds", "since_report"):
            row = np.ascontiguousarray(leaf[0])
            told.update(f"{name} {row.dtype.str} {row.shape}".encode())
            told.update(row.tobytes())
    return told.hexdigest()[:16]


def policies() -> str:
    """Of what controllers and schedules answer, which numpy takes part in."""
    told = hashlib.sha256()
    for number in range(3):
        for kind in ("gate", "sac"):
            name = f"pretrained/dqn-cartpoleshift-{kind}-{number}"
            controller = dacrl_env.get_policy(name).policy
            keys = np.arange(1, 65, dtype=np.uint64)
            lanes = len(controller.about.rows)
            seen = 2 * streams.uniforms(keys, np.zeros(64, np.int64), lanes) - 1
            told.update(controller.decide(seen.astype(np.float32)).tobytes())
    t = np.linspace(0, 1, 101)
    for shape in SHAPES.values():
        told.update(np.asarray(shape(t, 0.1, 3e-4, 4)).tobytes())
    return told.hexdigest()[:16]


def every() -> dict[str, str]:
    """All digests."""
    return {"policies": policies()} | {task: digest(task) for task in TASKS}


if __name__ == "__main__":
    json.dump(every(), sys.stdout, indent=1)
    print()
