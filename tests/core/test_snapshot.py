"""Snapshots and their files."""

from __future__ import annotations

import functools
import json
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from cases import sb3_n_steps

import dacrl_env
import dacrl_env.outer.rewards
from dacrl_env.core import snapshot as module
from dacrl_env.core.snapshot import Snapshot, is_opaque, leaves

DQN = "dacrl/DQN-CartPole-v0"
OPTIONS: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "learning_starts": 100,
    "eval_episodes": 2,
}


def make(task: str = DQN, **options: Any) -> Any:
    return gym.make(task, **{**OPTIONS, **options}).unwrapped


def make_vec(task: str = DQN, num_envs: int = 3, **options: Any) -> Any:
    return gym.make_vec(task, num_envs=num_envs, **{**OPTIONS, **options}).unwrapped


def rows(env: Any) -> dict[str, Any]:
    """Every bit of a state; wall clock and objects excepted."""
    return {
        name: np.asarray(leaf).copy()
        for name, leaf in leaves(env.population.state)
        if name != "wall_seconds" and not is_opaque(leaf)
    }


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    assert a.keys() == b.keys()
    return [n for n in a if a[n].tobytes() != b[n].tobytes()]


def begun(steps: int = 2, **options: Any) -> Any:
    envs = make_vec(**options)
    envs.reset(seed=3)
    for _ in range(steps):
        envs.step(np.zeros(envs.action_space.shape))
    return envs


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run.safetensors"
    begun().snapshot().save(path)
    return path


# -- contents -------------------------------------------------------------------


def test_everything_is_in_it() -> None:
    envs = begun()
    snap = envs.snapshot()
    assert snap.size == 3
    assert set(snap.arrays) == {name for name, _ in leaves(envs.population.state)}
    for name, leaf in leaves(envs.population.state):
        np.testing.assert_array_equal(snap.arrays[name], np.asarray(leaf))
    assert {
        "learner.parameters",
        "learner.target",
        "learner.mean",
        "learner.replay.observations",
        "learner.envs.variables",
        "learner.keys",
        "best_score",
        "observation",
    } <= set(snap.arrays)


def test_it_is_a_copy() -> None:
    envs = begun()
    snap = envs.snapshot()
    kept = {name: a.copy() for name, a in snap.arrays.items()}
    envs.step(np.zeros((3, 3)))
    for name, array in kept.items():
        np.testing.assert_array_equal(snap.arrays[name], array)
    # and restoring hands nothing out either
    envs.restore(snap)
    envs.step(np.zeros((3, 3)))
    for name, array in kept.items():
        np.testing.assert_array_equal(snap.arrays[name], array)


def test_round_trip(saved: Path) -> None:
    snap, loaded = begun().snapshot(), Snapshot.load(saved)
    assert loaded.header == snap.header
    assert loaded.arrays.keys() == snap.arrays.keys()
    for name, array in snap.arrays.items():
        other = loaded.arrays[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        if name != "wall_seconds":
            assert other.tobytes() == array.tobytes(), name


def test_select() -> None:
    envs = begun()
    snap = envs.snapshot()
    for members, chosen in (
        ([2, 0], [2, 0]),
        (np.array([1]), [1]),
        ([0, 0, 0, 1], [0, 0, 0, 1]),
        ([True, False, True], [0, 2]),
        ([-1], [2]),
    ):
        part = snap.select(members)
        assert part.size == len(chosen)
        for name, array in part.arrays.items():
            np.testing.assert_array_equal(array, snap.arrays[name][chosen])
            assert not np.shares_memory(array, snap.arrays[name])
    survivors = make_vec(num_envs=2)
    survivors.restore(snap.select([2, 0]))
    ours = {n: a[[2, 0]] for n, a in rows(envs).items()}
    assert differing(rows(survivors), ours) == []
    survivors.step(np.zeros((2, 3)))
    for members in ([3], [-4], [], np.zeros(3, bool), [True, False]):
        with pytest.raises(dacrl_env.SnapshotError):
            snap.select(members)


def test_single_and_vector_exchange() -> None:
    one = make()
    one.reset(seed=4)
    one.step([0, 0, 0])
    snap = one.snapshot()
    straight = [one.step([0, 0, 0])[0] for _ in range(3)]
    envs = make_vec(num_envs=1)
    observations, infos = envs.reset(options={"snapshot": snap})
    np.testing.assert_array_equal(observations[0], snap.arrays["observation"][0, 0])
    assert infos["env_steps"].tolist() == [100]
    np.testing.assert_array_equal(envs.step(np.zeros((1, 3)))[0][0], straight[0])
    other = make()
    _, info = other.reset(options={"snapshot": snap})
    assert info["env_steps"] == 100
    for expected in straight:
        np.testing.assert_array_equal(other.step([0, 0, 0])[0], expected)
    # the run that follows is the next one of the snapshot's seed
    other.reset()
    one.reset()
    assert differing(rows(one), rows(other)) == []


def test_what_if() -> None:
    env = make()
    env.reset(seed=5)
    env.step([0, 0, 0])
    snap = env.snapshot()
    ends = []
    for action in ([0, 0, 0], [1, 1, 1], [0, 0, 0]):
        env.restore(snap)
        ends.append(env.step(action)[0])
    np.testing.assert_array_equal(ends[0], ends[2])
    assert not np.array_equal(ends[0], ends[1])


def test_what_does_not_decide_how_runs_go_on_may_differ() -> None:
    snap = begun().snapshot()  # at step 200 of 400
    expected = begun()
    *_, infos = expected.step(np.zeros((3, 3)))
    assert infos["env_steps"].tolist() == [300] * 3
    same = (
        {"report": True},
        {"num_threads": 2},
        {"autoreset_mode": "NEXT_STEP"},
        {"reward": dacrl_env.outer.rewards.progress},
    )
    for free in same:
        envs = make_vec(**free)
        envs.restore(snap)
        envs.step(np.zeros((3, 3)))
        ours, theirs = rows(envs), rows(expected)
        ours.pop("reports"), theirs.pop("reports")
        assert differing(ours, theirs) == []
        envs.close()
    for interval, steps in ((50, 250), (200, 400)):
        envs = make_vec(decision_interval=interval, eval_interval=100)
        _, infos = envs.reset(options={"snapshot": snap})
        *_, infos = envs.step(np.zeros((3, 3)))
        final = infos.get("final_info", infos)
        assert final["env_steps"].tolist() == [steps] * 3
    reported = make_vec(report=True, autoreset_mode="DISABLED")
    reported.restore(snap)
    for _ in range(2):
        reported.step(np.zeros((3, 3)))
    known = ~np.isnan(reported.population.state.reports)
    # what lay behind when the run was taken up stays empty
    np.testing.assert_array_equal(known, [np.arange(21) > 10] * 3)


def test_a_budget_of_numpys_can_be_saved(tmp_path: Path) -> None:
    envs = begun(1, budget=np.int64(400))
    envs.snapshot().save(tmp_path / "run.safetensors")
    make_vec().restore(Snapshot.load(tmp_path / "run.safetensors"))


@pytest.mark.parametrize(
    "implementation", ["compiled", pytest.param("sb3", marks=sb3_n_steps)]
)
def test_episodes_that_were_left_are_closed_in_the_replay(implementation: str) -> None:
    envs = begun(1, implementation=implementation, fixed={"n_step": 3})
    state = envs.population.state.learner
    envs.restore(envs.snapshot(exact=False))
    if implementation == "compiled":
        going_on, done = state.replay.transitions[:, 0, 99, 1:3].T
    else:
        replay = state.replay
        done = replay.dones[:, 99, 0]
        going_on = 1 - done * (1 - replay.timeouts[:, 99, 0])
    assert done.tolist() == [1, 1, 1]
    assert going_on.tolist() == [1, 1, 1]  # balanced at step 100, by seed 3


def test_returns_of_episodes_that_were_left_are_forgotten() -> None:
    envs = gym.make_vec(
        "dacrl/PPO-CartPole-v0",
        num_envs=2,
        num_inner_envs=2,
        rollout_length=50,
        budget=2000,
        normalize_rewards=True,
    ).unwrapped
    envs.reset(seed=3)
    envs.step(np.zeros(envs.action_space.shape))
    discounted = envs.population.state.learner.discounted
    assert discounted.any()
    envs.restore(envs.snapshot(exact=False))
    assert not envs.population.state.learner.discounted.any()


# -- what does not fit --------------------------------------------------------------


def doubled(context: Any) -> Any:
    return 2 * context.score


class Scaled:
    """A reward that is an object."""

    def __call__(self, context: Any) -> Any:
        return context.score


H = dacrl_env.Number
MOON = dacrl_env.Instance("default", {"gravity": 5.0})
SCALED = dacrl_env.Instance(
    "default", {}, random_return=10.0, reference_return=90.0, floor_return=0.0
)
# options, and what the message names beside them
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"num_envs": 2}, "members"),
    "budget": ({"budget": 800}, "budget 400, not 800 as here"),
    "split": ({"split": "test"}, "split 'tuning', not 'test'"),
    "controlled": ({"hyperparameters": ("learning_rate",)}, "controlled"),
    "order": (
        {"hyperparameters": ("epsilon", "learning_rate", "batch_size")},
        "controlled",
    ),
    "range": (
        {
            "hyperparameters": (
                H("learning_rate", 1e-5, 1e-1, 1e-3, "log"),
                "epsilon",
                "batch_size",
            )
        },
        "controlled.*1e-05",
    ),
    "default": (
        {"hyperparameters": ("learning_rate", H("epsilon", 0, 1, 0.2), "batch_size")},
        "controlled.*0.2",
    ),
    "fixed": ({"fixed": {"gamma": 0.9}}, r"fixed\.gamma 0.99, not 0.9"),
    "network": ({"hidden_sizes": (32, 32)}, r"config\.hidden_sizes \[64, 64\], not"),
    "activation": ({"activation": "tanh"}, r"config\.activation 'relu', not 'tanh'"),
    "replay": ({"replay_capacity": 100}, r"config\.replay_capacity None, not 100"),
    "instances": ({"instances": [dacrl_env.Instance("other")]}, "instances.*other"),
    "physics": ({"instances": [MOON]}, "instances.*gravity"),
    "references": ({"instances": [SCALED]}, "instances.*random_return"),
    "history": ({"history": 2}, "history 1, not 2"),
    "observation": ({"observe_instance": True}, "observe_instance False, not True"),
    "feedback": ({"feedback": "train"}, "feedback 'eval', not 'train'"),
    "reward": ({"reward": "auc"}, "reward 'progress', not 'auc'"),
    "function": ({"reward": doubled}, "reward 'progress', not 'test_snapshot:doubled'"),
    "object": ({"reward": Scaled()}, "reward 'progress', not 'test_snapshot:Scaled'"),
    "action mode": ({"action_mode": "relative"}, "action_mode 'continuous', not"),
    "evaluations": ({"eval_interval": 200}, "eval_interval 100, not 200"),
    "episodes": ({"eval_episodes": 3}, "eval_episodes 2, not 3"),
    "implementation": (
        {"implementation": "sb3"},
        "implementation 'compiled', not 'sb3'",
    ),
    "several": (
        {"feedback": "train", "reward": "best"},
        "reward 'progress', not 'best' as here; feedback 'eval', not 'train' as here",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_misfits_change_nothing(misfit: str) -> None:
    snap = begun().snapshot()
    options, words = MISFITS[misfit]
    envs = make_vec(**{"num_envs": 3, **options})
    envs.reset(seed=1)
    before = rows(envs)
    for call in (
        lambda: envs.restore(snap),
        lambda: envs.reset(options={"snapshot": snap}),
        lambda: envs.reset(seed=9, options={"snapshot": snap}),
    ):
        with pytest.raises(dacrl_env.SnapshotError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert differing(rows(envs), before) == []


def test_rewards_that_are_lambdas_are_told_apart() -> None:
    rewards = (
        lambda context: context.score,
        lambda context: -context.score,
    )
    snap = begun(reward=rewards[0]).snapshot()
    make_vec(reward=rewards[0]).restore(snap)
    with pytest.raises(dacrl_env.SnapshotError, match=r"reward .line \d+ of"):
        make_vec(reward=rewards[1]).restore(snap)


class Weighted:
    """A reward that has a value."""

    def __init__(self, k: float) -> None:
        self.k = k
        self.calls = 0

    def __call__(self, context: Any) -> Any:
        self.calls += 1
        return self.k * context.score

    def method(self, context: Any) -> Any:
        return self.k * context.score


def weighted(context: Any, k: float = 1.0) -> Any:
    return k * context.score


def enclosing(k: float, *others: Any) -> Any:
    return lambda context: k * context.score + 0 * len(others)


def nowhere(k: float) -> Any:
    """A function of which nobody has the text."""
    names: dict[str, Any] = {}
    exec(f"def f(context): return {k} * context.score", names)
    return names["f"]


REWARDS: dict[str, tuple[Any, str]] = {
    "object": (Weighted, r"reward_made_of\.state\.k 1, not 2 as here"),
    "method": (
        lambda k: Weighted(k).method,
        r"reward_made_of\.of\.state\.k 1, not 2 as here",
    ),
    "closure": (enclosing, r"reward_made_of\.enclosed\.k 1, not 2 as here"),
    "partial": (
        lambda k: functools.partial(weighted, k=k),
        r"reward_made_of\.keywords\.k 1, not 2 as here",
    ),
    "positional": (
        lambda k: functools.partial(Weighted.method, Weighted(k)),
        r"reward_made_of\.args",
    ),
    "undescribable": (
        lambda k: enclosing(k, threading.Lock()),
        r"reward_made_of\.enclosed\.k 1, not 2 as here",
    ),
    "without source": (nowhere, r"reward_made_of\.source"),
}


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_of_other_values_are_told_apart(name: str, tmp_path: Path) -> None:
    make, words = REWARDS[name]
    begun(reward=make(1)).snapshot().save(tmp_path / "snap")
    snap = dacrl_env.Snapshot.load(tmp_path / "snap")
    make_vec(reward=make(1)).restore(snap)
    with pytest.raises(dacrl_env.SnapshotError, match=words):
        make_vec(reward=make(2)).restore(snap)


def test_another_definition_of_the_same_task() -> None:
    task = dacrl_env.get_task(DQN)
    snap = begun().snapshot()
    for change, words in (
        ({"backend": "gymnasium"}, "backend 'auto', not 'gymnasium'"),
        ({"reference_return": 400.0}, r"returns \[22.2, 500.0, 0.0\], not"),
        ({"inner_env_kwargs": {"sutton_barto_reward": True}}, "inner_env_kwargs"),
        ({"inner_env": "Acrobot-v1"}, "inner_env 'CartPole-v1', not 'Acrobot-v1'"),
    ):
        other = dacrl_env.PopulationEnv(replace(task, **change), 3, **OPTIONS)
        with pytest.raises(dacrl_env.SnapshotError, match=words):
            other.restore(snap)


@pytest.mark.parametrize(
    "thing",
    [None, 3, "run.safetensors", {}, np.zeros(3), [None] * 10_000],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_snapshot_changes_nothing(thing: Any) -> None:
    for make_one in (make, make_vec):
        env = make_one()
        fresh = make_one()
        env.reset(seed=1)
        before, generator = rows(env), env.np_random.bit_generator.state
        for each in (env, fresh):
            for call in (
                lambda each=each: each.restore(thing),
                lambda each=each: each.reset(options={"snapshot": thing}),
                lambda each=each: each.reset(seed=4, options={"snapshot": thing}),
            ):
                with pytest.raises(
                    dacrl_env.SnapshotError, match=r"is no snapshot.*load"
                ) as caught:
                    call()
                assert len(str(caught.value)) < 200
        assert differing(rows(env), before) == []
        assert env.np_random.bit_generator.state == generator
        with pytest.raises(gym.error.ResetNeeded):
            fresh.step(np.zeros(fresh.action_space.shape))


def test_headers_that_say_too_little() -> None:
    snap = begun().snapshot()
    envs = make_vec()
    for header in ({}, None, {"exact": True}, {**snap.header, "settings": None}):
        with pytest.raises(dacrl_env.SnapshotError, match=r"header|settings None"):
            envs.restore(Snapshot(header, snap.arrays))  # type: ignore[arg-type]
    with pytest.raises(dacrl_env.SnapshotError, match="holds no arrays"):
        envs.restore(Snapshot(snap.header, {}))


def test_arrays_that_do_not_fit_change_nothing() -> None:
    envs = begun()
    snap = envs.snapshot()
    arrays = snap.arrays
    missing = {n: a for n, a in arrays.items() if n != "learner.target"}
    surplus = {**arrays, "bogus": np.zeros(3)}
    short = {**arrays, "learner.target": arrays["learner.target"][:, :-1]}
    other_type = {**arrays, "score": arrays["score"].astype(np.float32)}
    envs.step(np.zeros((3, 3)))
    before = rows(envs)
    for bad, what in (
        (missing, "learner.target"),
        (surplus, "bogus"),
        (short, "learner.target"),
        (other_type, "score"),
    ):
        with pytest.raises(dacrl_env.SnapshotError, match=what):
            envs.restore(Snapshot(snap.header, bad))
        assert differing(rows(envs), before) == []


def test_another_task(registered: str) -> None:
    snap = begun().snapshot()
    envs = make_vec(registered, num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(dacrl_env.SnapshotError, match="task"):
        envs.restore(snap)


# -- files ------------------------------------------------------------------------


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.putenv, ("DACRL_TEST_TRAP", "sprung")


def foreign(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, path)


DAMAGES: dict[str, Any] = {
    "empty": lambda path, data: path.write_bytes(b""),
    "truncated": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "header only": lambda path, data: path.write_bytes(data[:100]),
    "one byte short": lambda path, data: path.write_bytes(data[:-1]),
    "one byte more": lambda path, data: path.write_bytes(data + b"x"),
    "one bit flipped": lambda path, data: path.write_bytes(
        data[:-500] + bytes([data[-500] ^ 4]) + data[-499:]
    ),
    "text": lambda path, data: path.write_text("no snapshot"),
    "JSON": lambda path, data: path.write_text(json.dumps({"format": 1})),
    "pickle": lambda path, data: path.write_bytes(pickle.dumps(Trap())),
    "foreign safetensors": lambda path, data: foreign(path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(saved: Path, damage: str) -> None:
    DAMAGES[damage](saved, saved.read_bytes())
    with pytest.raises(dacrl_env.SnapshotError) as caught:
        Snapshot.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_part_of_the_data_is_checked(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    for at in np.linspace(start, len(data) - 1, 50).astype(int):
        damaged = data.copy()
        damaged[at] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(dacrl_env.SnapshotError, match="checksum"):
            Snapshot.load(saved)


def with_header(path: Path, **changes: Any) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["dacrl_env"])
    arrays = load_file(path)
    save_file(arrays, path, {"dacrl_env": json.dumps({**header, **changes})})


def test_newer_formats_are_refused(saved: Path) -> None:
    with_header(saved)
    Snapshot.load(saved)  # rewriting alone does no harm
    with_header(saved, format=module.FORMAT + 1, package="99.0")
    with pytest.raises(
        dacrl_env.SnapshotError, match=r"format 3.*99\.0.*reads format 2"
    ):
        Snapshot.load(saved)


def test_the_header_is_checked(saved: Path) -> None:
    with_header(saved, task="dacrl/DQN-Acrobot-v0")
    with pytest.raises(dacrl_env.SnapshotError, match="checksum"):
        Snapshot.load(saved)


def test_nothing_else_is_taken_beside_a_snapshot() -> None:
    env = gym.make("dacrl/DQN-CartPole-v0", budget=2_000).unwrapped
    envs = gym.make_vec("dacrl/DQN-CartPole-v0", num_envs=1, budget=2_000).unwrapped
    for reset, name, value in (
        (env, "instance", "default"),
        (envs, "instance", "default"),
        (envs, "reset_mask", np.array([True])),
    ):
        reset.reset(seed=0)
        snap = reset.snapshot()
        with pytest.raises(ValueError, match=f"'{name}' cannot be given beside it"):
            reset.reset(options={"snapshot": snap, name: value})


@pytest.mark.parametrize("format_", [None, "1", [1], 1, True])
def test_odd_formats_are_refused(saved: Path, format_: Any) -> None:
    with_header(saved, format=format_)
    with pytest.raises(dacrl_env.SnapshotError, match="this version reads format 2"):
        Snapshot.load(saved)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError):
            Snapshot.load(path)


def test_writing_is_atomic(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    before = saved.read_bytes()
    snap = begun(steps=1).snapshot()

    def failing(*_: Any) -> None:
        raise OSError("disk full")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(module.os, name, failing)
            with pytest.raises(OSError, match="disk full"):
                snap.save(saved)
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    snap.save(str(saved))  # strings are paths, too
    assert Snapshot.load(saved).arrays["decisions"].tolist() == [1, 1, 1]
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


# -- environments that are Python objects -----------------------------------------


@pytest.fixture
def registered() -> Iterator[str]:
    task = dacrl_env.register_task(
        id="dacrl-tests/DQN-Acrobot-v0",
        inner_env="Acrobot-v1",
        backend="gymnasium",
        algorithm="dqn",
        budget=400,
        random_return=-499.0,
        reference_return=-80.0,
        floor_return=-501.0,
    )
    yield task.id
    del dacrl_env.TASKS[task.id], gym.registry[task.id]


ADAPTED = {"budget": 400, "eval_episodes": 1, "feedback": "train"}


def test_adapter_continues_exactly_in_memory(registered: str) -> None:
    envs = make_vec(registered, num_envs=2, **ADAPTED)
    envs.reset(seed=1)
    envs.step(np.zeros((2, 3)))
    snap = envs.snapshot()
    straight = []
    for _ in range(2):
        envs.step(np.zeros((2, 3)))
        straight.append(rows(envs))
    other = make_vec(registered, num_envs=2, **ADAPTED)
    for target in (envs, other, envs):  # the snapshot's own environments do not move
        target.restore(snap)
        for expected in straight:
            target.step(np.zeros((2, 3)))
            assert differing(rows(target), expected) == []


def test_adapter_copies_are_objects_of_their_own(registered: str) -> None:
    envs = make_vec(registered, **ADAPTED)
    envs.reset(seed=1)
    envs.step(np.zeros((3, 3)))
    snap = envs.snapshot()
    selected = make_vec(registered, **ADAPTED)
    selected.restore(snap.select([1, 1, 1]))
    envs.fork([1, 1, 1], shared_streams=True)
    for each in (selected, envs):
        for _ in range(2):
            each.step(np.zeros((3, 3)))
        state = each.population.state.learner
        assert len({id(e.unwrapped) for e in state.envs.envs[:, 0]}) == 3
        for k in (1, 2):
            np.testing.assert_array_equal(*state.envs.observations[[0, k]])
            np.testing.assert_array_equal(*state.parameters[[0, k]])


def test_adapter_snapshots_stay_out_of_files(registered: str, tmp_path: Path) -> None:
    env = make(registered, **ADAPTED)
    env.reset(seed=1)
    env.step([0, 0, 0])
    with pytest.raises(dacrl_env.SnapshotNotSupported, match="exact=False"):
        env.snapshot().save(tmp_path / "snap")
    assert list(tmp_path.iterdir()) == []
    assert issubclass(dacrl_env.SnapshotNotSupported, dacrl_env.SnapshotError)


def test_inexact_snapshot_keeps_the_learner(registered: str, tmp_path: Path) -> None:
    env = make(registered, **ADAPTED)
    env.reset(seed=1)
    for _ in range(2):
        env.step([0, 0, 0])
    before = rows(env)
    assert before["learner.envs.lengths"].item() == 200
    env.snapshot(exact=False).save(tmp_path / "snap")
    loaded = Snapshot.load(tmp_path / "snap")
    assert loaded.header["exact"] is False
    outcomes = []
    for _ in range(2):
        other = make(registered, **ADAPTED)
        _, info = other.reset(options={"snapshot": loaded})
        assert info["env_steps"] == 200
        after = rows(other)
        # a new episode has begun, the old one is closed, and nothing else has changed
        names = ("observations", "lengths", "returns", "episodes")
        assert set(differing(before, after)) == {
            *(f"learner.envs.{n}" for n in names),
            "learner.replay.transitions",
        }
        assert after["learner.envs.lengths"].item() == 0
        assert after["learner.envs.episodes"].item() == 1
        other.step([0, 0, 0])
        outcomes.append(rows(other))
        replay = other.population.state.learner.replay.observations[0, 0]
        first = replay[200, 0]  # the first row that was written since
        np.testing.assert_array_equal(first, after["learner.envs.observations"][0, 0])
    assert differing(*outcomes) == []


def test_inexact_snapshot_of_batched_environments() -> None:
    envs = begun()
    before = rows(envs)
    envs.restore(envs.snapshot(exact=False))
    after = rows(envs)
    changed = differing(before, after)
    own = ("learner.envs.", "learner.replay.transitions", "learner.held_steps")
    assert all(n.startswith(own) for n in changed)
    assert (after["learner.envs.lengths"] == 0).all()
    np.testing.assert_array_equal(
        after["learner.envs.episodes"], before["learner.envs.episodes"] + 1
    )
    assert np.abs(after["learner.envs.variables"]).max() <= 0.05


class Simulator(gym.Env[np.ndarray, int]):
    """Stands for one that is written in another language."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.ones(1, np.float32), 1.0, False, False, {}


class Uncopyable(Simulator):
    """A copy raises."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise TypeError("cannot copy a simulator")


class Forgetful(gym.utils.EzPickle, Simulator):
    """A copy is a new environment, as with Gymnasium's Box2D and MuJoCo."""


@pytest.mark.parametrize("entry_point", [Uncopyable, Forgetful])
def test_environments_that_cannot_be_copied(entry_point: type) -> None:
    inner, outer = "dacrl-tests/Uncopyable-v0", "dacrl-tests/DQN-Uncopyable-v0"
    gym.register(inner, entry_point=entry_point, max_episode_steps=7)
    fields = {"random_return": 1.0, "reference_return": 7.0, "floor_return": 0.0}
    dacrl_env.register_task(
        id=outer, inner_env=inner, algorithm="dqn", budget=400, **fields
    )
    try:
        env = make(outer)
        env.reset(seed=0)
        env.step([0, 0, 0])
        with pytest.raises(dacrl_env.SnapshotNotSupported, match="exact=False"):
            env.snapshot()
        env.restore(env.snapshot(exact=False))
        assert env.step([0, 0, 0])[4]["env_steps"] == 200
    finally:
        del dacrl_env.TASKS[outer], gym.registry[inner], gym.registry[outer]


@pytest.mark.parametrize("kind", ["numpy", "torch", "strided", "empty", "numbers"])
@pytest.mark.parametrize("size", [3, 50_001])
def test_rows_move_as_they_were_before(kind: str, size: int) -> None:
    array = np.random.default_rng(0).integers(0, 99, (5, 2, size)).astype(np.float32)
    leaf: Any = array.copy()
    if kind == "torch":
        leaf = torch.from_numpy(leaf)
    elif kind == "strided":
        leaf = np.ascontiguousarray(leaf.T).T
    elif kind == "empty":
        array, leaf = array[..., :0], leaf[..., :0].copy()
    elif kind == "numbers":
        array, leaf = array[:, 0, 0], leaf[:, 0, 0].copy()
    # a cycle of three, and one that is copied twice
    rows, source = np.array([0, 1, 2, 4]), np.array([1, 2, 0, 1])
    module.move_rows(leaf, rows, source)
    expected = array[[1, 2, 0, 3, 1]]
    np.testing.assert_array_equal(np.asarray(leaf), expected)
