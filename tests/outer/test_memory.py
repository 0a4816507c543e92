"""Options that would take more memory than there is are refused before it is taken."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_copies import OBJECTS

import dacrl_env
from dacrl_env import PopulationEnv
from dacrl_env.core import memory
from dacrl_env.core.snapshot import is_opaque, leaves
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import resolve

DQN, PPO, SGD = (
    f"dacrl/{name}-v0" for name in ("DQN-CartPole", "PPO-CartPole", "NoisyQuadratic")
)
HUGE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "history": (DQN, {"history": 10**8}, "for history=100000000"),
    "history of sgd": (SGD, {"history": 10**9}, "for history=1000000000"),
    "eval_episodes": (DQN, {"eval_episodes": 10**9}, "for eval_episodes=1000000000"),
    "eval_episodes of sgd": (SGD, {"eval_episodes": 10**9}, "for eval_episodes"),
    "episodes that are objects": (
        OBJECTS,
        {"eval_episodes": 10**8, "learning_starts": 10},
        "for eval_episodes",
    ),
    "replay_capacity": (DQN, {"replay_capacity": 10**12}, "for replay_capacity=10000"),
    "replay of images": (
        replace(dacrl_env.get_task("dacrl/DQN-MiniGrid-Empty-5x5-v0")),
        {"replay_capacity": 10**10},
        "for replay_capacity",
    ),
    "replay_capacity of sb3": (
        DQN,
        {"replay_capacity": 10**12, "implementation": "sb3"},
        "for replay_capacity",
    ),
    "hidden_sizes": (DQN, {"hidden_sizes": (10**6, 10**6)}, "for hidden_sizes="),
    "hidden_sizes of ppo": (PPO, {"hidden_sizes": (10**12,)}, "for hidden_sizes="),
    "hidden_sizes of sb3": (
        PPO,
        {"hidden_sizes": (10**6, 10**6), "implementation": "sb3"},
        "for hidden_sizes=",
    ),
    "rollout_length": (
        PPO,
        {"rollout_length": 10**9, "budget": 160 * 10**9},
        "for rollout_length=",
    ),
    "num_inner_envs": (
        DQN,
        {"num_inner_envs": 10**9, "budget": 20 * 10**9},
        "for num_inner_envs=",
    ),
    "dimensions": (SGD, {"dimensions": 10**12}, "for dimensions="),
}


@pytest.mark.parametrize("case", HUGE)
def test_what_does_not_fit_is_refused_at_once(case: str) -> None:
    task, options, words = HUGE[case]
    tracemalloc.start()
    began = time.monotonic()
    for make in (
        lambda: dacrl_env.DynamicConfigEnv(task, **options),
        lambda: PopulationEnv(task, 2, **options),
        lambda: PopulationEnv(task, 2, num_threads=2, **options),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            make()
        assert "of memory" in str(caught.value)
        assert "there are" in str(caught.value)
        assert "\n" not in str(caught.value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("task", [DQN, PPO, SGD])
def test_too_many_members(task: str) -> None:
    with pytest.raises(ValueError, match=r"1,000,000,000 runs need about .*TB"):
        PopulationEnv(task, 10**9)


def test_where_runs_are_made() -> None:
    for call in (
        lambda: dacrl_env.evaluate(DQN, "default", range(2), history=10**8),
        lambda: dacrl_env.compare(DQN, ["default"], range(2), history=10**8),
        lambda: dacrl_env.fit(DQN, "random-search", 10**6, 0, history=10**8),
    ):
        with pytest.raises(ValueError, match="for history=100000000"):
            call()


def test_what_there_is_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"replay_capacity": 10**7, "budget": 10**7}
    for free in (10**12, None):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        Population(resolve(DQN, **options), 1)
    monkeypatch.setattr(memory, "available", lambda: 2 * 10**8)
    with pytest.raises(ValueError, match=r"one run needs about 48\d MB.*are 200 MB"):
        Population(resolve(DQN, **options), 1)
    monkeypatch.setattr(memory, "available", lambda: 0)
    Population(resolve(DQN, budget=4000), 1)  # what is little is not asked for


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (DQN, {"budget": 100_000}),
        (DQN, {"hidden_sizes": (1024, 1024), "replay_capacity": 1_000}),
        (DQN, {"num_inner_envs": 500, "replay_capacity": 500}),
        (DQN, {"history": 5_000, "replay_capacity": 1_000}),
        ("dacrl/DQN-MiniGrid-Empty-5x5-v0", {}),
        pytest.param(PPO, {"hidden_sizes": (1024, 1024)}, marks=pytest.mark.slow),
        (SGD, {"dimensions": 10**6}),
        (DQN, {"implementation": "sb3", "budget": 100_000}),
    ],
)
def test_what_is_asked_for_is_about_what_is_taken(
    task: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(memory, "check", lambda size, parts, _: asked.append(parts))
    runs = Population(resolve(task, eval_episodes=1, **options), 3)
    taken = sum(
        leaf.nbytes if isinstance(leaf, np.ndarray) else leaf.untyped_storage().nbytes()
        for _, leaf in leaves(runs.state)
        if not is_opaque(leaf)
    )
    assert 0.9 * taken < sum(asked[0].values()) < 12 * taken


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_limit_of_the_process_counts() -> None:
    program = (
        "import resource, dacrl_env, dacrl_env.outer.env, dacrl_env.learners.dqn\n"
        "from dacrl_env.core import memory\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "limit = used + 500 * 10**6\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "assert memory.available() <= 500 * 10**6\n"
        "try: dacrl_env.DynamicConfigEnv('dacrl/DQN-CartPole-v0', "
        "replay_capacity=10**8)\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "one run needs about 4.8 GB" in done.stdout
