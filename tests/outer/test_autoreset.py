"""Ends of runs in a population, in each of Gymnasium's modes."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import slow
from gymnasium.vector import AutoresetMode
from test_copies import OBJECTS, SMALL_DQN, bits
from test_vector_env import assert_same_infos

import dacrl_env
from dacrl_env import PopulationEnv, SnapshotError

MODES = [*AutoresetMode]
QUADRATIC = "dacrl/NoisyQuadratic-v0"
P = 3
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (QUADRATIC, {"budget": 6, "decision_interval": 1, "history": 2}),
    "dqn": ("dacrl/DQN-CartPole-v0", SMALL_DQN),
    "dqn, instances": (
        "dacrl/DQN-CartPole-v0",
        {**SMALL_DQN, "instances": "test", "feedback": "train"},
    ),
    "dqn, objects": (OBJECTS, SMALL_DQN),
    "ppo": (
        "dacrl/PPO-CartPole-v0",
        {"budget": 400, "decision_interval": 100, "num_inner_envs": 2}
        | {"rollout_length": 50, "eval_episodes": 1},
    ),
}


def population(kind: str, mode: Any, **more: Any) -> Any:
    task, options = KINDS[kind]
    return PopulationEnv(task, P, autoreset_mode=mode, **{**options, **more})


def actions_of(envs: Any, k: int) -> Any:
    """Different ones; those of the first member of a quadratic make it diverge."""
    rows = 0.3 * np.cos(np.arange(P) + k)[:, None]
    if "Quadratic" in envs.unwrapped.settings.task.id:
        rows[0] = 1.0
    shape = envs.action_space.shape
    return np.broadcast_to(rows, shape).astype(np.float32)


# -- the same as Gymnasium's ------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_sync_vector_env(kind: str, mode: AutoresetMode) -> None:
    task, options = KINDS[kind]
    ours = population(kind, mode)
    theirs = gym.vector.SyncVectorEnv(
        [lambda: dacrl_env.DynamicConfigEnv(task, **options)] * P, autoreset_mode=mode
    )
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is mode
    seeds = [11, 5, 7]
    mine, others = ours.reset(seed=seeds), theirs.reset(seed=seeds)
    ends = np.zeros(P, int)
    for k in range(16):
        np.testing.assert_allclose(mine[0], others[0], atol=1e-2)  # logs of noise
        assert_same_infos(mine[-1], others[-1])
        for a, b in zip(mine[1:-1], others[1:-1], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        if k == 2:  # out of step with the others from here on
            mask = np.arange(P) == 1
            mine = ours.reset(options={"reset_mask": mask})
            others = theirs.reset(options={"reset_mask": mask.copy()})
            np.testing.assert_allclose(mine[0], others[0], atol=1e-2)
            assert_same_infos(mine[-1], others[-1])
        actions = actions_of(ours, k)
        mine, others = ours.step(actions), theirs.step(actions)
        ended = mine[2]
        ends += ended
        if mode is AutoresetMode.DISABLED and ended.any():
            np.testing.assert_array_equal(ended, others[2])
            again = ours.reset(options={"reset_mask": ended})
            them = theirs.reset(options={"reset_mask": ended.copy()})
            mine, others = (again[0], again[1]), (them[0], them[1])
    assert (ends >= 2).all()
    assert len(set(ends.tolist())) > 1 or kind != "sgd"


def episodes(kind: str, mode: AutoresetMode, **more: Any) -> list[list[Any]]:
    """The first two runs of each member: rewards, observations and final infos."""
    envs = population(kind, mode, **more)
    observations, _ = envs.reset(seed=3)
    runs: list[list[Any]] = [[[observations[i].tobytes()]] for i in range(P)]
    decision, waiting = np.zeros(P, int), np.zeros(P, bool)
    for _ in range(30):
        actions = np.concatenate(
            [actions_of(envs, int(d))[[i]] for i, d in enumerate(decision)]
        )
        observations, rewards, ended, _, infos = envs.step(actions)
        for i in range(P):
            if waiting[i]:
                assert rewards[i] == 0
                runs[i].append([observations[i].tobytes()])
                decision[i] = 0
                continue
            decision[i] += 1
            final = "final_obs" in infos and infos["_final_obs"][i]
            last = infos["final_obs"][i] if final else observations[i]
            score = (infos["final_info"] if final else infos)["score"][i]
            runs[i][-1] += [last.tobytes(), rewards[i], score]
            if ended[i] and mode is AutoresetMode.SAME_STEP:
                runs[i].append([observations[i].tobytes()])
                decision[i] = 0
        waiting = ended & (mode is AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.DISABLED and ended.any():
            fresh, _ = envs.reset(options={"reset_mask": ended})
            for i in np.flatnonzero(ended):
                runs[i].append([fresh[i].tobytes()])
                decision[i] = 0
        if min(map(len, runs)) > 2:
            break
    envs.close()
    return [run[:2] for run in runs]


@pytest.mark.parametrize("kind", ["sgd", "dqn", "dqn, objects"])
def test_runs_are_the_same_in_every_mode(kind: str) -> None:
    expected = episodes(kind, AutoresetMode.SAME_STEP)
    lengths = [len(run[0]) for run in expected]
    assert len(set(lengths)) > 1 or kind != "sgd"
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        assert episodes(kind, mode) == expected


@pytest.mark.parametrize("mode", [MODES[0], *map(slow, MODES[1:])])
def test_runs_are_the_same_with_workers(mode: AutoresetMode) -> None:
    assert episodes("sgd", mode, num_threads=2) == episodes("sgd", mode)


# -- names, and what is refused ---------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_modes_by_name_and_value(mode: AutoresetMode) -> None:
    for given in (mode, mode.name, mode.value):
        envs = gym.make_vec(QUADRATIC, num_envs=2, autoreset_mode=given)
        assert envs.metadata["autoreset_mode"] is mode
    assert PopulationEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("mode", ["next", 1, None, True, ["NEXT_STEP"], "same_step"])
def test_other_modes_are_refused(mode: Any) -> None:
    with pytest.raises(ValueError, match="NEXT_STEP, SAME_STEP, DISABLED") as caught:
        gym.make_vec(QUADRATIC, num_envs=2, autoreset_mode=mode)
    assert repr(mode) in str(caught.value)


def test_a_step_of_runs_that_are_over_is_refused_without_autoreset() -> None:
    envs = population("sgd", "DISABLED")
    envs.reset(seed=0)
    ended = np.zeros(P, bool)
    k = 0
    while not ended.any():
        *_, ended, _, _ = envs.step(actions_of(envs, k))
        k += 1
    assert ended.tolist() == [True, False, False]
    before = bits(envs)
    with pytest.raises(gym.error.ResetNeeded, match=r"members \[0\] are over"):
        envs.step(actions_of(envs, k))
    assert bits(envs) == before
    envs.reset(options={"reset_mask": ended})
    envs.step(actions_of(envs, k))


def test_where_modes_mean_nothing_they_are_refused() -> None:
    from dacrl_env.integrations.sb3 import to_sb3

    with pytest.raises(ValueError, match="needs autoreset_mode SAME_STEP"):
        to_sb3(population("sgd", "NEXT_STEP"))
    with pytest.raises(ValueError, match="autoreset_mode cannot be given"):
        dacrl_env.evaluate(QUADRATIC, "default", range(2), autoreset_mode="NEXT_STEP")


# -- wrappers ---------------------------------------------------------------------


NEED = {  # the modes in which Gymnasium's own wrappers work
    "NormalizeObservation": [AutoresetMode.NEXT_STEP],
    "FlattenObservation": [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED],
    "RecordEpisodeStatistics": MODES,
    "NormalizeReward": MODES,
    "ClipReward": MODES,
    "TransformReward": MODES,
    "ClipAction": MODES,
    "RescaleAction": MODES,
    "DictInfoToList": MODES,
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "ClipReward": {"min_reward": -0.01, "max_reward": 0.01},
    "TransformReward": {"func": lambda rewards: 10 * rewards},
    "RescaleAction": {"min_action": np.float32(-3), "max_action": np.float32(3)},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NEED)
def test_wrappers_of_gymnasium(name: str, mode: AutoresetMode) -> None:
    of_name = getattr(gym.wrappers.vector, name)
    wrapper = partial(of_name, **ARGUMENTS.get(name, {}))
    task, options = KINDS["sgd"]
    theirs = gym.vector.SyncVectorEnv(
        [lambda: dacrl_env.DynamicConfigEnv(task, **options)] * P, autoreset_mode=mode
    )
    ours = population("sgd", mode)
    if mode not in NEED[name]:
        for each in (ours, theirs):
            # Gymnasium's lowest version has an assertion without words
            with pytest.raises((ValueError, AssertionError)) as caught:
                wrapper(each)
            assert "autoreset_mode" in str(caught.value) or not str(caught.value)
        return
    ours, theirs = wrapper(ours), wrapper(theirs)
    ours.reset(seed=[1, 2, 3])
    theirs.reset(seed=[1, 2, 3])
    for k in range(12):
        actions = actions_of(ours, k)
        mine, others = (each.step(actions) for each in (ours, theirs))
        for a, b in zip(mine[:4], others[:4], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)
        if name == "RecordEpisodeStatistics" and "episode" in others[-1]:
            for key in ("r", "l"):
                a, b = (x[-1]["episode"][key] for x in (mine, others))
                np.testing.assert_allclose(a, b, atol=1e-4)
        if mode is AutoresetMode.DISABLED and mine[2].any():
            for each in (ours, theirs):
                each.reset(seed=[4, 5, 6])


# -- snapshots, forks and copies --------------------------------------------------


def to_an_end(envs: Any) -> int:
    """Steps until the first member's run ends, and no other."""
    for k in range(10):
        *_, ended, _, _ = envs.step(actions_of(envs, k))
        if ended.any():
            assert ended.tolist() == [True, False, False]
            return k + 1
    raise AssertionError


def onwards(envs: Any, first: int) -> list[Any]:
    seen = []
    for k in range(first, first + 4):
        observations, rewards, ended, _, infos = envs.step(actions_of(envs, k))
        seen.append((observations.tobytes(), rewards.tobytes(), ended.tolist()))
        seen.append((infos["env_steps"].tolist(), "final_obs" in infos, bits(envs)))
        if envs.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended})
    return seen


@pytest.mark.parametrize(
    ("workers", "mode"),
    [*((1, mode) for mode in MODES), (2, MODES[0]), *(slow(2, m) for m in MODES[1:])],
)
def test_snapshots_and_copies_after_the_end_of_a_run(
    mode: AutoresetMode, workers: int
) -> None:
    envs = population("sgd", mode, num_threads=workers)
    envs.reset(seed=0)
    k = to_an_end(envs)
    snap = envs.snapshot()
    over = mode is not AutoresetMode.SAME_STEP
    assert envs.population.over(snap).tolist() == [over, False, False]
    twins = [copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))]
    other = population("sgd", mode)
    _, infos = other.reset(options={"snapshot": snap})
    assert infos["env_steps"].tolist() == [k if over else 0, k, k]
    twins.append(other)
    if mode is AutoresetMode.DISABLED:
        for each in (envs, *twins):
            with pytest.raises(gym.error.ResetNeeded):
                each.step(actions_of(envs, k))
            each.reset(options={"reset_mask": np.arange(P) == 0})
    expected = onwards(envs, k)
    if mode is AutoresetMode.NEXT_STEP:
        assert expected[1][0] == [0, k + 1, k + 1]
    for twin in twins:
        assert onwards(twin, k) == expected
        twin.close()
    envs.restore(snap)
    if mode is AutoresetMode.DISABLED:
        envs.reset(options={"reset_mask": np.arange(P) == 0})
    assert onwards(envs, k) == expected
    envs.close()


def test_a_snapshot_of_runs_that_are_over_needs_a_mode_that_waits() -> None:
    envs = population("sgd", "NEXT_STEP")
    envs.reset(seed=0)
    to_an_end(envs)
    snap = envs.snapshot()
    same = population("sgd", "SAME_STEP")
    with pytest.raises(SnapshotError, match=r"members \[0\].*NEXT_STEP or DISABLED"):
        same.restore(snap)
    population("sgd", "DISABLED").restore(snap)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "DISABLED"])
def test_forks_from_and_to_runs_that_are_over(mode: str) -> None:
    envs = population("sgd", mode)
    envs.reset(seed=0)
    k = to_an_end(envs)
    twin = copy.deepcopy(envs)
    envs.fork([0, 0, 2])  # the second is over, too
    assert envs.population.ended().tolist() == [True, True, False]
    if mode == "NEXT_STEP":
        *_, infos = envs.step(actions_of(envs, k))
        assert infos["env_steps"].tolist() == [0, 0, k + 1]
        # the next run of its own seed
        assert envs.population.state.episodes.tolist() == [1, 1, 0]
        assert envs.population.state.seed_members.tolist() == [0, 1, 2]
    else:
        with pytest.raises(gym.error.ResetNeeded, match=r"\[0, 1\]"):
            envs.step(actions_of(envs, k))
    twin.fork([1, 1, 2])  # the first goes on with what the second did
    *_, infos = twin.step(actions_of(twin, k))
    assert infos["env_steps"].tolist() == [k + 1] * 3


@pytest.mark.parametrize(
    ("mode", "calls"),
    [
        (AutoresetMode.SAME_STEP, 1),
        (AutoresetMode.NEXT_STEP, 1),
        (AutoresetMode.NEXT_STEP, 2),
    ],
)
@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_an_interrupt_while_runs_are_begun_asks_for_a_reset(
    mode: AutoresetMode, calls: int, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = population("sgd", mode)
    actions = actions_of(envs, 0)
    envs.reset(seed=3)
    steps = 1  # in which runs end
    while not envs.step(actions)[2].any():
        steps += 1
    envs.reset(seed=3)
    whole = envs.snapshot()
    for _ in range(steps - (mode is AutoresetMode.SAME_STEP)):
        envs.step(actions)
    engine, left = envs.population, [calls]
    start, evaluate = engine.start, engine._evaluate

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    def interrupted(*arguments: Any) -> None:
        left[0] -= 1
        if not left[0]:
            if when == "before":
                raise KeyboardInterrupt
            if when == "within":
                monkeypatch.setattr(engine, "_evaluate", interrupt)
        start(*arguments)
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        envs.step(actions)
    monkeypatch.setattr(engine, "start", start)
    monkeypatch.setattr(engine, "_evaluate", evaluate)
    for call in (
        lambda: envs.step(actions),
        envs.snapshot,
        lambda: envs.fork([0] * P),
    ):
        with pytest.raises(gym.error.ResetNeeded, match="did not reach its end"):
            call()
    envs.restore(whole)
    envs.step(actions)
    envs.reset(seed=3)
    envs.step(actions)


def test_a_reset_that_was_interrupted_asks_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = dacrl_env.DynamicConfigEnv("dacrl/NoisyQuadratic-v0")
    env.reset(seed=3)
    evaluate = env.population._evaluate

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(env.population, "_evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        env.reset(seed=4)
    monkeypatch.setattr(env.population, "_evaluate", evaluate)
    with pytest.raises(gym.error.ResetNeeded, match="did not reach its end"):
        env.step(env.action_space.sample())
    env.reset(seed=4)
    env.step(env.action_space.sample())


def test_a_reset_of_members_on_several_instances_is_one_of_all() -> None:
    options = {**SMALL_DQN, "instances": "test"}
    envs = PopulationEnv("dacrl/DQN-CartPole-v0", 2, **options)
    names = [instance.name for instance in envs.settings.instances[:2]]
    envs.reset(seed=3)
    train = envs.population.learner.train

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    envs.population.learner.train = interrupted
    with pytest.raises(KeyboardInterrupt):
        envs.step(np.zeros(envs.action_space.shape))
    envs.population.learner.train = train
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match="did not reach its end"):
        envs.step(np.zeros(envs.action_space.shape))
    envs.reset(seed=3, options={"instance": names})
    envs.step(np.zeros(envs.action_space.shape))
