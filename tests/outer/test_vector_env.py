"""The population as a Gymnasium vector environment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import cases, registered, varied
from gymnasium.vector import AutoresetMode

import dacrl_env
from dacrl_env.core.snapshot import leaves
from dacrl_env.outer.actions import ACTION_MODES
from dacrl_env.tasks import Number

# the conformance task has no inner environment; baselines/test_quadratic.py tests it
TASKS = sorted(t for t in registered() if dacrl_env.TASKS[t].inner_env)
DQN = "dacrl/DQN-CartPole-v0"
# all action modes for one task of each learner, for each other task one, in turn
TURNS = [
    (task, mode)
    for i, task in enumerate(TASKS)
    for mode in (ACTION_MODES if "-CartPole-" in task else [ACTION_MODES[i % 5]])
]
DECISIONS = 4
# what makes a run of 400 steps contain updates, by learner
SMALL: dict[str, dict[str, Any]] = {
    "dqn": {"learning_starts": 100},
    "discrete_sac": {"learning_starts": 100},
    "pipeline": {"rollout_length": 20, "learning_starts": 100},
    "ppo": {"num_inner_envs": 2, "rollout_length": 10},
    "sac": {"learning_starts": 100},
}


def options_of(task: str, **options: Any) -> dict[str, Any]:
    small = SMALL.get(dacrl_env.TASKS[task].algorithm, {})
    defaults = {"budget": 400, "decision_interval": 100, "eval_episodes": 2}
    return {**defaults, **small, **options}


def make(task: str = DQN, num_envs: int = 3, **options: Any) -> Any:
    return gym.make_vec(task, num_envs=num_envs, **options_of(task, **options))


def single(task: str = DQN, **options: Any) -> Any:
    return gym.make(task, **options_of(task, **options)).unwrapped


def neutral(envs: Any) -> Any:
    return np.zeros((envs.num_envs, len(envs.unwrapped.settings.controlled)))


def member(envs: Any, i: int) -> dict[str, Any]:
    """Every bit of one member's state, but for the wall clock."""
    return {
        name: np.asarray(leaf[i]).copy()
        for name, leaf in leaves(envs.unwrapped.population.state)
        if name != "wall_seconds"
    }


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [n for n in a if not np.array_equal(a[n], b[n], equal_nan=True)]


def assert_same_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal keys, masks, dtypes and, up to tolerance, values.

    A value that no member has is absent from theirs, and masked out in ours: the arrays
    of a population keep their places.
    """
    assert theirs.keys() <= ours.keys()
    for key in ours.keys() - theirs.keys():
        mask = ours[key if key.startswith("_") else f"_{key}"]
        assert not mask.any(), key
    for key, value in theirs.items():
        mine = ours[key]
        if isinstance(value, dict):
            assert_same_infos(mine, value)
            continue
        assert type(mine) is np.ndarray, key
        assert mine.dtype == value.dtype, key
        assert mine.shape == value.shape, key
        if value.dtype == object:
            for a, b in zip(mine, value, strict=True):
                assert (a is None) == (b is None), key
                if isinstance(b, str):
                    assert a == b
                elif b is not None:
                    assert a.dtype == b.dtype
                    np.testing.assert_allclose(a, b, atol=1e-2)  # logarithms of noise
        elif key != "wall_seconds":
            np.testing.assert_allclose(mine, value, rtol=1e-4, atol=1e-4, err_msg=key)


@pytest.mark.parametrize(("task", "mode"), varied(TASKS, ACTION_MODES))
def test_spaces_shapes_and_dtypes(task: str, mode: str) -> None:
    options: dict[str, Any] = {"action_mode": mode}
    if mode == "values":  # where options are numbered, most samples are refused
        controlled = single(task).settings.controlled
        numbers = [h.name for h in controlled if isinstance(h, Number)]
        options["hyperparameters"] = numbers
    envs, one = make(task, **options), single(task, **options)
    assert isinstance(envs.unwrapped, dacrl_env.PopulationEnv)
    assert envs.num_envs == 3
    assert envs.single_observation_space == one.observation_space
    assert envs.single_action_space == one.action_space
    assert envs.unwrapped.observation_names == one.observation_names
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    envs.action_space.seed(0)
    for k in range(DECISIONS + 1):
        observations, rewards, terminated, truncated, _ = envs.step(
            envs.action_space.sample()
        )
        assert envs.observation_space.contains(observations)
        for array, dtype in (
            (rewards, np.float64),
            (terminated, np.bool_),
            (truncated, np.bool_),
        ):
            assert array.shape == (3,)
            assert array.dtype == dtype
        assert (terminated == (k == DECISIONS - 1)).all()
        assert not truncated.any()
    envs.close()


@pytest.mark.parametrize(("task", "mode"), cases(TURNS))
def test_agrees_with_gymnasium_s_own_vector_environment(task: str, mode: str) -> None:
    seeds, options = [11, 5], {"action_mode": mode}
    if mode == "values":  # most of what lies between the numbers of options is refused
        controlled = single(task).settings.controlled
        numbers = [h.name for h in controlled if isinstance(h, Number)]
        options |= {"hyperparameters": numbers}
    ours = make(task, num_envs=2, **options)
    theirs = gym.make_vec(
        task,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **options_of(task, **options),
    )
    assert isinstance(theirs, gym.vector.SyncVectorEnv)
    mine, info = ours.reset(seed=seeds)
    other, other_info = theirs.reset(seed=seeds)
    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)
    assert_same_infos(info, other_info)
    ours.action_space.seed(3)
    for k in range(DECISIONS + 2):
        actions = ours.action_space.sample()
        if actions.dtype == np.float32:  # large learning rates magnify rounding errors
            actions *= np.float32(0.3)
        *results, info = ours.step(actions)
        *others, other_info = theirs.step(actions)
        assert ("final_obs" in info) == (k == DECISIONS - 1)
        for a, b in zip(results, others, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, atol=1e-2)  # logarithms of noise
        assert_same_infos(info, other_info)


def test_final_info_is_the_last_info_of_the_run() -> None:
    envs, one = make(num_envs=2), single()
    envs.reset(seed=[3, 4])
    for _ in range(DECISIONS):
        _, _, terminated, _, infos = envs.step(neutral(envs))
    assert terminated.all()
    assert infos["_final_obs"].all()
    assert infos["_final_info"].all()
    final = infos["final_info"]
    assert final["env_steps"].tolist() == [400, 400]
    assert infos["env_steps"].tolist() == [0, 0]
    assert (final["objectives"]["wall_seconds"] > 0).all()
    one.reset(seed=4)
    for _ in range(DECISIONS):
        observation, _, _, _, info = one.step(np.zeros(3))
    np.testing.assert_allclose(infos["final_obs"][1], observation, atol=1e-4)
    assert final["score"][1] == pytest.approx(info["score"])
    assert final["objectives"]["auc"][1] == pytest.approx(info["objectives"]["auc"])


@pytest.mark.parametrize("train_freq", [(4, 4, 4), (4, 2, 4), (3, 5, 2)])
def test_a_diverged_member_restarts_alone(train_freq: tuple[int, ...]) -> None:
    outcomes = []
    for inject in (False, True):
        envs = make(hyperparameters=("learning_rate", "train_freq"))
        # members that train at other times are updated together with others
        actions = envs.unwrapped.to_actions({"train_freq": train_freq})
        population = envs.unwrapped.population
        floor = envs.unwrapped.settings.task.floor_score
        observations, infos = envs.reset(seed=8)
        steps = []
        for k in range(2 * DECISIONS):
            diverges = inject and k == 1
            if diverges:
                population.state.learner.parameters[1][...] = math.nan
            before = infos["score"][1]
            observations, rewards, terminated, _, infos = envs.step(actions)
            assert envs.observation_space.contains(observations)
            steps.append(([member(envs, i) for i in range(3)], rewards, terminated))
            if not diverges:
                continue
            assert terminated.tolist() == [False, True, False]
            assert infos["_final_info"].tolist() == [False, True, False]
            assert infos["_final_obs"].tolist() == [False, True, False]
            assert infos["final_obs"][0] is None
            assert infos["final_obs"][1].shape == observations[1].shape
            final = infos["final_info"]
            assert final["diverged"].tolist() == [False, True, False]
            assert final["score"][1] == floor
            assert final["env_steps"].tolist() == [0, 200, 0]  # zero: masked out
            assert final["_env_steps"].tolist() == [False, True, False]
            assert rewards[1] == floor - before < -0.01
            assert not infos["diverged"].any()
            assert infos["env_steps"].tolist() == [200, 0, 200]
            assert population.state.episodes.tolist() == [0, 1, 0]
            assert observations[1, 0] == -1  # progress
        outcomes.append(steps)
    for k, (plain, injected) in enumerate(zip(*outcomes, strict=True)):
        for i in (0, 2):
            assert differing(plain[0][i], injected[0][i]) == [], (k, i)
            assert plain[1][i] == injected[1][i]
            assert plain[2][i] == injected[2][i] == (k % DECISIONS == DECISIONS - 1)
        assert injected[2][1] == (k in (1, 1 + DECISIONS))


def test_what_follows_a_diverged_run_is_the_seed_s_next_run() -> None:
    envs, one = make(), single()
    envs.reset(seed=[0, 7, 0])
    envs.unwrapped.population.state.learner.parameters[1][...] = math.nan
    *_, infos = envs.step(neutral(envs))
    assert infos["final_info"]["diverged"][1]
    one.reset(seed=7)
    one.reset()
    for k in range(2):
        observations, *_, infos = envs.step(neutral(envs))
        observation, *_, info = one.step(np.zeros(3))
        np.testing.assert_allclose(observations[1], observation, atol=1e-3)
        assert infos["gradient_steps"][1] == info["gradient_steps"] == 25 * k


def test_seeds() -> None:
    envs = make()
    starts = envs.reset(seed=9)
    first = [member(envs, i) for i in range(3)]
    assert not np.array_equal(first[0]["learner.keys"], first[1]["learner.keys"])
    # an int gives stream i to member i, a list what a single environment would have
    envs.reset(seed=[9, 9, 4])
    listed = [member(envs, i) for i in range(3)]
    assert differing(listed[0], first[0]) == []
    # beside the run itself, the replay's unused rows
    for name in ("learner.parameters", "learner.keys", "seed_members", "score"):
        np.testing.assert_array_equal(listed[1][name], first[0][name])
    assert differing(listed[2], first[2]) != []
    again = envs.reset(seed=9)
    np.testing.assert_array_equal(starts[0], again[0])
    envs.reset(seed=[1, None, 0])
    state = envs.unwrapped.population.state
    assert state.seeds.tolist() == [1, 9, 0]
    assert state.seed_members.tolist() == [0, 1, 0]
    assert state.episodes.tolist() == [0, 1, 0]
    envs.reset()
    assert state.seeds.tolist() == [1, 9, 0]
    assert state.episodes.tolist() == [1, 2, 1]
    other = make()
    other.reset(seed=np.array([1, 2, 0]))
    assert other.unwrapped.population.state.seeds.tolist() == [1, 2, 0]


def test_unseeded_populations_differ() -> None:
    a, b = make(), make()
    a.reset()
    b.reset()
    keys = np.stack([e.unwrapped.population.state.learner.keys for e in (a, b)])
    assert len(np.unique(keys)) == keys.size


def test_autoreset_is_the_next_episode_of_every_member() -> None:
    envs, other = make(), make()
    envs.reset(seed=2)
    for _ in range(DECISIONS):
        observations, *_ = envs.step(neutral(envs))
    other.reset(seed=2)
    following, _ = other.reset()
    np.testing.assert_array_equal(observations, following)
    a, *_ = envs.step(neutral(envs))
    b, *_ = other.step(neutral(other))
    np.testing.assert_array_equal(a, b)


def test_reset_mask() -> None:
    envs, twin = make(), make()
    for each in (envs, twin):
        each.reset(seed=1)
        each.step(neutral(each))
    mask = np.array([False, True, False])
    before = [member(envs, i) for i in range(3)]
    observations, infos = envs.reset(
        seed=[70, 71, 72], options={"reset_mask": mask, "instance": "default"}
    )
    assert infos["_score"].tolist() == mask.tolist()
    state = envs.unwrapped.population.state
    assert state.seeds.tolist() == [1, 71, 1]
    assert state.learner.env_steps.tolist() == [100, 0, 100]
    for i in (0, 2):
        assert differing(member(envs, i), before[i]) == []
    envs.step(neutral(envs))
    twin.step(neutral(twin))
    for i in (0, 2):
        assert differing(member(envs, i), member(twin, i)) == []
    one = single()
    np.testing.assert_allclose(one.reset(seed=71)[0], observations[1], atol=1e-4)


def test_instances_by_member() -> None:
    heavy = dacrl_env.Instance("heavy", {"gravity": 20.0})
    envs = make(instances=[dacrl_env.Instance("plain"), heavy], observe_instance=True)
    row = envs.unwrapped.observation_names.index("instance/gravity")
    names = ["heavy", "plain", "heavy"]
    observations, _ = envs.reset(seed=0, options={"instance": names})
    assert (observations[:, row] > 0).tolist() == [True, False, True]
    observations, _ = envs.reset(seed=0, options={"instance": "plain"})
    assert (observations[:, row] == 0).all()


def test_population_of_one() -> None:
    envs, one = make(num_envs=1), single()
    mine, _ = envs.reset(seed=[6])
    other, _ = one.reset(seed=6)
    np.testing.assert_array_equal(mine[0], other)
    for _ in range(DECISIONS):
        action = envs.action_space.sample()
        mine, reward, over, _, infos = envs.step(action)
        other, one_reward, terminated, _, info = one.step(action[0])
        assert reward[0] == one_reward
        assert over[0] == terminated
        shown = infos["final_obs"] if terminated else mine
        np.testing.assert_array_equal(shown[0], other)
    assert infos["final_info"]["score"][0] == info["score"]


def test_conversions_are_those_of_a_member() -> None:
    envs, one = (m(action_mode="relative") for m in (make, single))
    envs.reset(seed=[1, 2, 3])
    one.reset(seed=2)
    actions = np.array([[0, 0, 0], [0.5, -0.5, 1], [-1, -1, -1]])
    envs.step(actions)
    one.step(actions[1])
    assert envs.unwrapped.to_config(actions[1], member=1) == one.to_config(actions[1])
    assert envs.unwrapped.to_config(actions[0]) != one.to_config(actions[0])
    config = {"learning_rate": 1e-3, "batch_size": 128}
    np.testing.assert_array_equal(
        envs.unwrapped.to_action(config, member=1), one.to_action(config)
    )
    envs = make()
    wanted = {"learning_rate": [1e-5, 3e-4, 1e-1], "epsilon": 0.3}
    *_, infos = (envs.reset(seed=0), envs.step(envs.unwrapped.to_actions(wanted)))[1]
    applied = infos["hyperparameters"]
    np.testing.assert_allclose(applied["learning_rate"], wanted["learning_rate"])
    np.testing.assert_allclose(applied["epsilon"], 0.3)
    assert applied["batch_size"].tolist() == [64] * 3


def test_results_are_not_views_of_the_state() -> None:
    envs = make()
    envs.reset(seed=0)
    observations, rewards, terminated, _, infos = envs.step(neutral(envs))
    kept = [np.copy(observations), np.copy(rewards), np.copy(infos["score"])]
    recorded = infos["hyperparameters"]["learning_rate"].copy()
    envs.step(neutral(envs) - 0.5)
    now = [observations, rewards, infos["score"]]
    for a, b in zip(kept, now, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(infos["hyperparameters"]["learning_rate"], recorded)
    before = member(envs, 0)
    for array in (observations, rewards, terminated, infos["score"]):
        array[...] = 0
    assert differing(member(envs, 0), before) == []


def test_stepping_before_reset() -> None:
    envs = make()
    for call in (
        lambda: envs.step(neutral(envs)),
        envs.unwrapped.snapshot,
        lambda: envs.unwrapped.fork([0, 0, 0]),
    ):
        with pytest.raises(gym.error.ResetNeeded):
            call()


def test_episode_statistics_wrapper() -> None:
    envs = gym.wrappers.vector.RecordEpisodeStatistics(make())
    envs.reset(seed=0)
    totals = np.zeros(3)
    for k in range(2 * DECISIONS):
        _, rewards, terminated, _, infos = envs.step(neutral(envs))
        totals += rewards
        if k % DECISIONS == DECISIONS - 1:
            assert terminated.all()
            assert infos["episode"]["l"].tolist() == [DECISIONS] * 3
            np.testing.assert_allclose(infos["episode"]["r"], totals, atol=1e-6)
            totals[:] = 0
        else:
            assert "episode" not in infos


def one_step(seeds: Sequence[int]) -> Any:
    envs = make(num_envs=len(seeds))
    envs.reset(seed=list(seeds))
    return envs.step(neutral(envs))


def test_members_do_not_depend_on_their_place() -> None:
    observations = one_step([1, 2, 3])[0]
    np.testing.assert_allclose(one_step([3, 1])[0], observations[[2, 0]], atol=1e-4)
