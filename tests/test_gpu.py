"""Learners on a GPU: skipped where there is none, but for what can be told without.

No figures are expected to the last bit: devices round differently.
"""

from typing import Any

import numpy as np
import pytest
import torch

from dacrl_env import snapshot
from dacrl_env.vector_env import PopulationEnv

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

STEPS = {"budget": 1024, "decision_interval": 256, "eval_episodes": 2}
TASKS = {
    "dacrl/DQN-CartPole-v0": {"learning_starts": 64},
    "dacrl/DQN-Acrobot-v0": {"learning_starts": 64},
    "dacrl/PPO-CartPole-v0": {"num_inner_envs": 2, "rollout_length": 32},
    "dacrl/PPO-Pendulum-v0": {"num_inner_envs": 2, "rollout_length": 32},
    "dacrl/NoisyQuadratic-v0": {"budget": 4, "decision_interval": 1},
}


def make(task: str, device: str, P: int = 3) -> PopulationEnv:
    options: dict[str, Any] = {**STEPS, **TASKS[task]}
    env = PopulationEnv(task, P, device=device, **options)
    env.reset(seed=1)
    return env


def step(env: PopulationEnv, number: int) -> Any:
    shape = env.action_space.shape
    assert shape is not None
    return env.step(np.random.default_rng(number).uniform(-1, 1, shape))


@pytest.mark.parametrize("task", [task for task in TASKS if "Quadratic" not in task])
def test_updates_bring_nothing_to_the_host(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make(task, "cpu")
    learner: Any = env.population.learner
    # what makes the host wait for a device
    waiting = ("cpu", "item", "tolist", "__bool__", "__float__", "__int__", "__array__")
    inside, updates = False, 0
    for name in waiting:
        before = getattr(torch.Tensor, name)

        def checked(
            self: Any, *rest: Any, before: Any = before, name: str = name
        ) -> Any:
            assert not inside, f"{name} in an update"
            return before(self, *rest)

        monkeypatch.setattr(torch.Tensor, name, checked)
    update = learner._update

    def noted(*arguments: Any) -> None:
        nonlocal inside, updates
        inside, updates = True, updates + 1
        update(*arguments)
        inside = False

    monkeypatch.setattr(learner, "_update", noted)
    step(env, 0)
    assert updates > 0


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("task", TASKS)
def test_starts_from_the_same_parameters_and_trains(task: str) -> None:
    cpu, gpu = make(task, "cpu"), make(task, "cuda")
    mine, theirs = (snapshot.capture(e.population.state) for e in (cpu, gpu))
    for name, array in mine.items():
        if "parameters" in name or "keys" in name:
            np.testing.assert_array_equal(array, theirs[name])
    tensors = [
        leaf
        for _, leaf in snapshot.leaves(gpu.population.state)
        if isinstance(leaf, torch.Tensor)
    ]
    assert all(leaf.is_cuda for leaf in tensors)
    for number in range(4):
        _, _, _, _, infos = step(gpu, number)
    assert np.isfinite(infos["final_info"]["score"][0])


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("task", TASKS)
def test_snapshots_and_forks_go_on(task: str) -> None:
    first, second = make(task, "cuda"), make(task, "cuda")
    step(first, 0)
    first.fork([0, 0, 2])
    second.restore(first.snapshot())
    for env in (first, second):
        step(env, 1)
    one, two = (snapshot.capture(e.population.state) for e in (first, second))
    for name in one:
        if name != "wall_seconds":
            np.testing.assert_array_equal(one[name], two[name], name)


@pytest.mark.gpu
@NO_GPU
def test_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_workers=1"):
        PopulationEnv("dacrl/DQN-CartPole-v0", 4, device="cuda", num_workers=2)
