"""Bytes that are images are seen divided by 255, as Stable-Baselines3 does."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from cases import slow
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs

from dacrl_env import Task
from dacrl_env.inner_envs.images import is_image
from dacrl_env.kernels import dense
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks.registration import get_task, listed, make_inner_env


class Pictures(gym.Env[Any, Any]):
    """Observations drawn from a space; each episode has ten steps."""

    def __init__(self, space: gym.spaces.Box) -> None:
        self.observation_space = space
        self.action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._drawn(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._drawn(), float(action), self.steps == 10, False, {}

    def _drawn(self) -> Any:
        low, high = self.observation_space.low, self.observation_space.high
        values = self.np_random.integers(low, high.astype(np.int64) + 1)
        return values.astype(self.observation_space.dtype)


def box(high: Any, shape: tuple[int, ...], dtype: Any = np.uint8) -> gym.spaces.Box:
    return gym.spaces.Box(0, high, shape, dtype)


SPACES = {
    "colour": box(255, (4, 4, 3)),
    "channels first": box(255, (1, 4, 5)),
    "odd channels": box(255, (4, 4, 7)),
    "codes": box(10, (4, 4, 3)),
    "two axes": box(255, (4, 4)),
    "a row": box(255, (6,)),
    "shorts": box(255, (4, 4, 3), np.int16),
    "shares": box(1, (4, 4, 3), np.float32),
    "planes": box(1, (4, 4, 3), bool),
}
IMAGES = ("colour", "channels first", "odd channels")
for _name, _space in SPACES.items():
    gym.register(f"Pictures-{_name.replace(' ', '-')}-v0", lambda s=_space: Pictures(s))

SHORT: dict[str, dict[str, Any]] = {
    "dqn": {"budget": 80, "learning_starts": 10, "hidden_sizes": (8,)},
    "ppo": {
        "budget": 80,
        "rollout_length": 10,
        "num_inner_envs": 2,
        "hidden_sizes": (8,),
    },
}


def task(space: str, algorithm: str, **fields: Any) -> Task:
    return Task(
        id="x/Pictures-v0",
        inner_env=f"Pictures-{space.replace(' ', '-')}-v0",
        algorithm=algorithm,
        budget=80,
        decisions=2,
        random_return=5,
        reference_return=10,
        floor_return=-1,
        **fields,
    )


def population(task: Task, implementation: str, **options: Any) -> PopulationEnv:
    env = PopulationEnv(
        task,
        2,
        implementation=implementation,
        eval_episodes=1,
        **SHORT[task.algorithm] | options,
    )
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("name", SPACES)
def test_images_are_those_of_stable_baselines3(name: str) -> None:
    assert is_image(SPACES[name]) == is_image_space(SPACES[name]) == (name in IMAGES)
    made = make_inner_env(task(name, "dqn"))
    assert made.scales_images == (name in IMAGES)
    assert not make_inner_env(task(name, "dqn", scale_images=False)).scales_images


@pytest.mark.parametrize(
    "name", [slow("colour"), "channels first", slow("codes"), "two axes"]
)
@pytest.mark.parametrize("learner", ["dqn", "ppo"])
def test_own_networks_see_what_stable_baselines3_shows(name: str, learner: str) -> None:
    space = SPACES[name]
    env = population(task(name, learner), "compiled")
    own, state = env.population.learner, env.population.state.learner
    raw = state.envs.observations
    expected = torch.stack(
        [preprocess_obs(torch.from_numpy(x), space).flatten(1) for x in raw]
    )
    fixed, rows = own.fixed, torch.from_numpy(state.parameters)
    net = fixed.net if learner == "dqn" else fixed.actor
    best = dense.apply(net, rows[:, : net.row], expected).argmax(-1)
    actions = own.policy(state, np.arange(len(raw)))(raw)
    assert actions.tolist() == best.tolist()
    scaled = raw.reshape(expected.shape).astype(np.float32) * np.float32(fixed.scale)
    np.testing.assert_allclose(scaled, expected, rtol=2e-7)


@pytest.mark.parametrize("n_step", [1, 3])
def test_batches_of_a_replay_are_scaled(n_step: int) -> None:
    options = {**SHORT["dqn"], "fixed": {"n_step": n_step}}
    env = PopulationEnv(task("colour", "dqn"), 2, eval_episodes=1, **options)
    env.reset(seed=0)
    env.step(np.zeros((2, 3)))
    learner, state = env.population.learner, env.population.state.learner
    kept = state.replay.observations[:, 0, :40].astype(np.float32)
    kept = kept * np.float32(1 / 255)
    population = env.population
    values = dict(zip(population.names, population.state.applied.T, strict=True))
    seen, *_, following, _, _ = learner.probe(state, values, state.keys[:, 0], 8)
    for member in range(2):
        rows = {tuple(row.flatten().tolist()) for row in kept[member, :, 0]}
        after = {tuple(row.flatten().tolist()) for row in kept[member, :, 1]}
        assert {tuple(x.tolist()) for x in seen[member]} <= rows
        assert {tuple(x.tolist()) for x in following[member]} <= after


def run(task: Task, implementation: str, **options: Any) -> np.ndarray:
    """Parameters after a run."""
    env = PopulationEnv(
        task,
        2,
        implementation=implementation,
        eval_episodes=1,
        **SHORT[task.algorithm] | options,
    )
    env.reset(seed=0)
    env.step(np.zeros((2, 3)))
    parameters: np.ndarray = np.asarray(env.population.state.learner.parameters).copy()
    env.close()
    return parameters


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
@pytest.mark.parametrize("learner", ["dqn", "ppo"])
def test_training_sees_them(learner: str, implementation: str) -> None:
    image = run(task("colour", learner), implementation)
    same = run(task("colour", learner), implementation)
    raw = run(task("colour", learner, scale_images=False), implementation)
    assert np.array_equal(image, same)
    assert not np.array_equal(image, raw)
    codes = task("codes", learner)
    kept = task("codes", learner, scale_images=False)
    assert np.array_equal(run(codes, implementation), run(kept, implementation))


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
@pytest.mark.parametrize("learner", ["dqn", "ppo"])
@pytest.mark.parametrize("name", ["planes", "shares", "codes"])
def test_convolutions_train_on_grids_of_any_kind(
    learner: str, implementation: str, name: str
) -> None:
    env = population(task(name, learner), implementation, conv_channels=16)
    before = np.asarray(env.population.state.learner.parameters).copy()
    env.step(np.zeros((2, 3)))
    state = env.population.state.learner
    assert (np.asarray(state.parameters) != before).any(1).all()
    if learner == "dqn":
        kept = np.asarray(state.replay.observations)
        assert kept.dtype == SPACES[name].dtype
        assert len(np.unique(kept)) == SPACES[name].high.max() + 1
    if implementation == "sb3":
        model = env.population.learner.model
        policy = model.policy if learner == "ppo" else model.q_net
        assert "convolution" in str(policy)
    env.close()


def test_models_of_stable_baselines3_scale_alike() -> None:
    for name, scaled in (("colour", True), ("codes", False)):
        for learner in ("dqn", "ppo"):
            env = population(task(name, learner), "sb3")
            assert env.population.learner.model.policy.normalize_images == scaled


def test_normalised_observations_are_not_scaled_before() -> None:
    """What VecNormalize gives is no image any more."""
    options = {"normalize_observations": True}
    scaled = run(task("colour", "ppo"), "compiled", **options)
    raw = run(task("colour", "ppo", scale_images=False), "compiled", **options)
    assert np.array_equal(scaled, raw)


def test_grids_of_codes_stay_as_they_are() -> None:
    grids = [t for t in listed() if t.inner_env.startswith("MiniGrid")]
    assert len(grids) == 4
    for grid in grids:
        env = make_inner_env(grid)
        assert env.has_images
        assert not env.scales_images
    assert get_task("dacrl/DQN-CartPole-v0").scale_images  # nothing there to scale
