"""A population in several processes: the same runs, whatever happens to a worker."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import quick, slow
from gymnasium.vector import VectorEnv

from dacrl_env import Snapshot, Task, sharding, snapshot
from dacrl_env.population import Population
from dacrl_env.rewards import RewardContext
from dacrl_env.settings import resolve
from dacrl_env.snapshot import SnapshotNotSupported
from dacrl_env.vector_env import PopulationEnv

P = 5
DQN: dict[str, Any] = {
    "budget": 1500,
    "decision_interval": 500,
    "learning_starts": 100,
    "hidden_sizes": (16,),
    "eval_episodes": 2,
}
PPO: dict[str, Any] = {
    "budget": 192,
    "decision_interval": 64,
    "num_inner_envs": 2,
    "rollout_length": 32,
    "hidden_sizes": (16,),
    "eval_episodes": 2,
}
ONE_BY_ONE = Task(
    id="test/DQN-CartPole-one-by-one",
    inner_env="CartPole-v1",
    learner="dqn",
    budget=1500,
    random_return=20.0,
    reference_return=500.0,
    floor_return=0.0,
    backend="gymnasium",
)


class Connected(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that can be copied, but not passed to another process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(gym.make("CartPole-v1"))

    def __deepcopy__(self, memo: Any) -> Connected:
        other = Connected.__new__(Connected)
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other

    def __reduce__(self) -> Any:
        raise TypeError("it holds a connection")


gym.register("test/Unpickled-v0", Connected, max_episode_steps=500)
UNPICKLED = replace(
    ONE_BY_ONE, id="test/DQN-Unpickled-v0", inner_env="test_sharding:test/Unpickled-v0"
)


@contextmanager
def population(
    task: str | Task, workers: int, **options: Any
) -> Iterator[PopulationEnv]:
    env = PopulationEnv(task, P, num_workers=workers, **options)
    try:
        yield env
    finally:
        env.close()


def _pids(env: PopulationEnv) -> list[int | None]:
    engine = env._engine
    assert isinstance(engine, sharding.Shards)
    return [engine._worker(k).process.pid for k in range(len(engine._workers))]


def actions(env: PopulationEnv, step: int) -> Any:
    """Different ones for every member and step."""
    shape = env.action_space.shape
    assert shape is not None
    return np.random.default_rng(step).uniform(-1, 1, shape)


def state_of(env: PopulationEnv) -> dict[str, bytes]:
    """Every bit of the runs but their times, by name."""
    arrays = snapshot.capture(env.population.state, opaque=False)
    return {k: a.tobytes() for k, a in arrays.items() if k != "wall_seconds"}


def course(env: PopulationEnv) -> list[Any]:
    """What a user sees of a fork, the ends of runs, and those that follow."""
    seen: list[Any] = [env.reset(seed=7)]
    for step in range(4):
        if step == 1:
            env.fork([4, 1, 0, 4, 2])
        seen.append(env.step(actions(env, step)))
    mask = np.array([True, False, False, False, True])
    seen.append(env.reset(options={"reset_mask": mask}))
    seen.append(env.step(actions(env, 4)))
    return seen


def without_times(seen: Any) -> Any:
    if isinstance(seen, dict):
        return {k: without_times(v) for k, v in seen.items() if "wall" not in k}
    if isinstance(seen, list | tuple):
        return [without_times(part) for part in seen]
    if isinstance(seen, np.ndarray) and seen.dtype == object:
        return [without_times(part) for part in seen]
    return seen.tobytes() if isinstance(seen, np.ndarray) else seen


@pytest.mark.parametrize(
    ("task", "workers", "options"),
    [
        slow("dacrl/DQN-CartPole-v0", 2, DQN),
        ("dacrl/DQN-CartPole-v0", 5, {**DQN, "num_inner_envs": 2, "n_step": 3}),
        slow("dacrl/PPO-CartPole-v0", 2, PPO),
        slow("dacrl/DQN-CartPoleShift-v0", 2, {**DQN, "report": True}),
        slow("dacrl/DQN-MiniGrid-Empty-5x5-v0", 2, DQN),
        slow("dacrl/DQN-CartPole-v0", 2, {**DQN, "learner": "sb3"}),
        slow(ONE_BY_ONE, 2, DQN),
    ],
    ids=["dqn", "workers", "ppo", "shift", "minigrid", "sb3", "gymnasium"],
)
def test_runs_do_not_depend_on_the_number_of_workers(
    task: str | Task, workers: int, options: dict[str, Any]
) -> None:
    with (
        population(task, 1, **options) as one,
        population(task, workers, **options) as several,
    ):
        assert without_times(course(one)) == without_times(course(several))
        assert state_of(one) == state_of(several)


@pytest.mark.parametrize(
    ("task", "before", "after"),
    [
        slow("dacrl/DQN-CartPole-v0", 1, 2),
        slow("dacrl/DQN-CartPole-v0", 2, 1),
        (ONE_BY_ONE, 2, 3),
    ],
    ids=["to workers", "from workers", "gymnasium"],
)
def test_a_snapshot_goes_on_under_another_number_of_workers(
    task: str | Task, before: int, after: int
) -> None:
    with (
        population(task, before, **DQN) as first,
        population(task, after, **DQN) as second,
    ):
        first.reset(seed=1)
        first.step(actions(first, 0))
        snap = first.snapshot()
        first.step(actions(first, 1))
        second.reset(seed=2)
        second.restore(snap)
        second.step(actions(second, 1))
        assert state_of(first) == state_of(second)


def test_an_inexact_snapshot_goes_on_in_workers(tmp_path: Path) -> None:
    with (
        population("dacrl/DQN-CartPole-v0", 1, **DQN) as one,
        population("dacrl/DQN-CartPole-v0", 2, **DQN) as two,
    ):
        one.reset(seed=1)
        one.step(actions(one, 0))
        one.snapshot(exact=False).save(tmp_path / "snap")
        for env in (one, two):
            env.reset(seed=2)
            env.restore(Snapshot.load(tmp_path / "snap"))
            env.step(actions(env, 1))
        assert state_of(one) == state_of(two)


def test_make_vec_takes_workers_and_close_ends_them() -> None:
    env: VectorEnv[Any, Any, Any] = gym.make_vec(
        "dacrl/DQN-CartPole-v0", num_envs=P, num_workers=2, **DQN
    )
    env.reset(seed=0)
    base: Any = env.unwrapped
    workers = [base._engine._worker(k) for k in range(2)]
    assert all(worker.is_alive() for worker in workers)
    env.close()
    assert not any(worker.is_alive() for worker in workers)
    with pytest.raises(gym.error.ClosedEnvironmentError, match="closed"):
        env.step(env.action_space.sample())


# -- workers that die -------------------------------------------------------------


def dies(context: RewardContext) -> Any:
    """Kills its process as often as files say, in the first of the shards."""
    return _in_trouble(context, lambda: os.kill(os.getpid(), signal.SIGKILL))


def fails(context: RewardContext) -> Any:
    """Raises as often as files say."""

    def trouble() -> None:
        raise ArithmeticError("no reward today")

    return _in_trouble(context, trouble)


class UnpicklableError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(lambda: first + second)


def fails_badly(context: RewardContext) -> Any:
    def trouble() -> None:
        raise UnpicklableError(1, 2)

    return _in_trouble(context, trouble)


def _in_trouble(context: RewardContext, trouble: Any) -> Any:
    directory = Path(os.environ["TROUBLE"])
    if len(context.score) == 3:  # the larger of the two shards
        for file in sorted(directory.iterdir()):
            file.unlink()
            trouble()
    return context.score - context.previous_score


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it with how often there is to be trouble."""
    monkeypatch.setenv("TROUBLE", str(tmp_path))

    def make(times: int) -> None:
        for k in range(times):
            (tmp_path / str(k)).touch()

    return make


def test_a_worker_that_dies_in_a_step_is_replaced_and_nothing_is_lost(
    trouble: Any,
) -> None:
    task, options = "dacrl/DQN-CartPole-v0", {**DQN, "reward": dies}
    with population(task, 1, **DQN) as one, population(task, 2, **options) as two:
        for env in (one, two):
            env.reset(seed=3)
            env.step(actions(env, 0))
        trouble(2)
        expected = one.step(actions(one, 1))
        with pytest.warns(
            RuntimeWarning, match="worker 0 with members 0 to 2 died with exit code -9"
        ) as caught:
            got = two.step(actions(two, 1))
        assert len(caught) == 2
        assert without_times(expected) == without_times(got)
        assert state_of(one) == state_of(two)
        one.step(actions(one, 2))
        two.step(actions(two, 2))
        assert state_of(one) == state_of(two)


@pytest.mark.parametrize(
    ("task", "options", "rows"),
    [
        ("dacrl/DQN-CartPole-v0", {**DQN, "replay_capacity": 700}, 501),
        ("dacrl/DQN-CartPole-v0", {**DQN, "replay_capacity": 300}, 300),
        (
            "dacrl/DQN-MiniGrid-Empty-5x5-v0",
            {**DQN, "replay_capacity": 800, "num_inner_envs": 2},
            251,
        ),
        ("dacrl/PPO-CartPole-v0", PPO, None),
    ],
    ids=["ring", "short ring", "two rings", "ppo"],
)
def test_whatever_a_job_has_done_is_undone(
    task: str, options: dict[str, Any], rows: int | None
) -> None:
    settings = resolve(task, **options)
    memory = sharding._Memory.of(
        Population(settings, P).state, settings.decision_interval
    )
    shard = sharding._Shard(
        sharding._Share(settings, memory, 0, slice(0, P)), replacing=False
    )
    members = np.arange(P)

    def start(some: Any) -> None:
        shard.start(members[some], members[some], members[some], members[some])

    def held() -> dict[str, bytes]:
        return {name: view.tobytes() for name, view in memory.state().items()}

    def advance() -> None:
        shard.advance(shard._population.actions.defaults(P))

    start([0, 1, 2, 3, 4])
    for _ in range(2):
        for job in (
            lambda: start([0, 3]),
            shard.begin_episodes,
            advance,
        ):
            before = held()
            shard.keep()
            job()
            assert held() != before
            memory.kept(slice(0, P)).put_back()
            assert held() == before
        advance()
        start([1])  # rings that are filled to different rows
    if rows is not None:
        assert memory.before["learner.replay.observations"].shape[2] == rows


def test_a_worker_that_dies_between_steps_is_replaced() -> None:
    task = "dacrl/DQN-CartPole-v0"
    with population(task, 1, **DQN) as one, population(task, 2, **DQN) as two:
        for env in (one, two):
            env.reset(seed=3)
        two._engine._worker(1).process.kill()  # type: ignore[union-attr]
        with pytest.warns(RuntimeWarning, match="members 3 to 4 died"):
            two.step(actions(two, 0))
        one.step(actions(one, 0))
        assert state_of(one) == state_of(two)


@pytest.mark.filterwarnings("ignore:worker 0 with members:RuntimeWarning")
def test_a_worker_that_dies_again_and_again_is_given_up(trouble: Any) -> None:
    options = {**DQN, "reward": dies}
    with population("dacrl/DQN-CartPole-v0", 2, **options) as env:
        env.reset(seed=3)
        before = state_of(env)
        trouble(sharding.ATTEMPTS)
        with pytest.raises(RuntimeError, match=r"members 0 to 2 died.* 3 times"):
            env.step(actions(env, 0))
        assert state_of(env) == before
        env.step(actions(env, 0))
        assert state_of(env) != before


@pytest.mark.parametrize(
    ("reward", "kind", "message"),
    [
        slow(fails, ArithmeticError, "no reward today"),
        (fails_badly, RuntimeError, "UnpicklableError"),
    ],
)
def test_an_error_in_a_worker_is_raised_and_changes_nothing(
    trouble: Any, reward: Any, kind: type[Exception], message: str
) -> None:
    with population("dacrl/DQN-CartPole-v0", 2, **{**DQN, "reward": reward}) as env:
        env.reset(seed=3)
        before = state_of(env)
        trouble(1)
        with pytest.raises(kind, match=message):
            env.step(actions(env, 0))
        assert state_of(env) == before
        env.step(actions(env, 0))
        assert state_of(env) != before


def test_an_interrupted_step_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with population("dacrl/DQN-CartPole-v0", 2, **DQN) as env:
        env.reset(seed=3)
        before = state_of(env)
        wait = sharding.connection.wait

        def interrupted(pipes: Any) -> Any:
            wait(pipes)  # one shard has done the step
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(sharding.connection, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                env.step(actions(env, 0))
        assert state_of(env) == before
        env.step(actions(env, 0))
        assert state_of(env) != before


def test_environments_of_a_dead_worker_begin_new_episodes() -> None:
    with population(ONE_BY_ONE, 2, **DQN) as env:
        env.reset(seed=3)
        env.step(actions(env, 0))
        before = env.population.state.learner.envs.lengths.copy()
        env._engine._worker(0).process.kill()  # type: ignore[union-attr]
        with pytest.warns(RuntimeWarning, match="inner episodes begin anew"):
            arrays = env.snapshot().arrays
        made, lengths = arrays["learner.envs.envs"], arrays["learner.envs.lengths"]
        counted = [
            [one.get_wrapper_attr("_elapsed_steps") for one in row] for row in made
        ]
        np.testing.assert_array_equal(counted, lengths)
        assert before[:3].any()
        np.testing.assert_array_equal(lengths[:3], 0)
        np.testing.assert_array_equal(lengths[3:], before[3:])
        _, _, _, _, infos = env.step(actions(env, 1))
        assert (infos["env_steps"] == 1000).all()


def test_a_worker_that_dies_before_the_first_step_has_consistent_episodes() -> None:
    with population(ONE_BY_ONE, 2, **DQN) as env:
        env.reset(seed=3)
        env._engine._worker(0).process.kill()  # type: ignore[union-attr]
        with pytest.warns(RuntimeWarning, match="inner episodes begin anew"):
            arrays = env.snapshot().arrays
        made = arrays["learner.envs.envs"]
        held = [[one.unwrapped.state for one in row] for row in made]
        shown = arrays["learner.envs.observations"]
        np.testing.assert_array_equal(np.float32(held), shown)
        assert len(np.unique(shown[:, 0, 0])) == P


def test_environments_that_cannot_be_passed_on_say_so() -> None:
    options = {**DQN, "eval_episodes": 1}
    with population(UNPICKLED, 2, **options) as env:
        env.reset(seed=3)
        workers = _pids(env)
        with pytest.raises(SnapshotNotSupported, match="num_workers=1"):
            env.snapshot()
        assert _pids(env) == workers


def test_environments_that_cannot_be_copied_say_so_and_nothing_changes() -> None:
    pytest.importorskip("gymnasium.envs.box2d.lunar_lander")
    options = {**DQN, "eval_episodes": 1}
    with population("dacrl/DQN-LunarLander-v0", 2, **options) as env:
        env.reset(seed=3)
        before, workers = state_of(env), _pids(env)
        with pytest.raises(SnapshotNotSupported, match="exact=False"):
            env.fork([0, 0, 0, 0, 0])
        with pytest.raises(SnapshotNotSupported, match="exact=False"):
            env.snapshot()
        assert state_of(env) == before
        # who have the running episodes
        assert _pids(env) == workers
        env.restore(env.snapshot(exact=False))
        env.step(actions(env, 0))


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from dacrl_env.vector_env import PopulationEnv\n"
        "if __name__ == '__main__':\n"
        "    env = PopulationEnv('dacrl/DQN-CartPole-v0', 2, num_workers=2)\n"
        "    env.reset(seed=0)\n"
        "    pids = [w.process.pid for w in env._engine._workers]\n"
        "    print(*pids, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


FORKED = {
    "exit": "sys.exit(0)",
    "close": "env.close(); sys.exit(0)",
    "collected": "del env; gc.collect(); sys.exit(0)",
    "exception": "raise KeyError('of the user')",
    "used": (
        "env.step(zeros)"  # shared memory and pipes are the parent's
    ),
    "multiprocessing": None,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("way", quick(FORKED, "exit", "used"))
def test_workers_are_ended_by_their_own_process_alone(way: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    if FORKED[way] is None:
        child = """
    one = multiprocessing.get_context("fork").Process(target=leave, args=(env,))
    one.start()
    one.join()
"""
    else:
        child = f"""
    if os.fork() == 0:
        {FORKED[way]}
    os.wait()
"""
    script.write_text(
        f"""
import gc, multiprocessing, os, sys
import numpy as np
from dacrl_env.vector_env import PopulationEnv
def leave(env):
    env.close()
if __name__ == "__main__":
    zeros = np.zeros((2, 1))
    env = PopulationEnv("dacrl/NoisyQuadratic-v0", 2, num_workers=2, budget=50)
    env.reset(seed=0)
    env.step(zeros)
    pids = [w.process.pid for w in env._engine._workers]
{child}
    env.step(zeros)  # a worker that had died would be replaced, with a warning
    assert pids == [w.process.pid for w in env._engine._workers]
    print("steps", env.population.state.learner.env_steps.tolist())
    env.close()
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("steps [2, 2]\n")
    if way == "used":
        assert "ClosedEnvironmentError: the environment is closed, or" in done.stderr
    elif way != "exception":
        assert done.stderr == ""


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# -- bad input --------------------------------------------------------------------


def unpassable(context: RewardContext) -> Any:
    return context.score


unpassable.lock = threading.Lock()  # type: ignore[attr-defined]
# as if it were a notebook's: it travels with what it has
unpassable.__module__ = "__main__"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 0}, "num_workers must be a whole number of at least 1, got 0"),
        (
            {"num_workers": 1.5},
            "num_workers must be a whole number of at least 1, got 1.5",
        ),
        ({"num_workers": 3}, "num_workers 3 exceeds the 2 members"),
        (
            {"num_workers": 2, "reward": unpassable},
            "several workers was given cannot be passed to another process",
        ),
    ],
)
def test_bad_workers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PopulationEnv("dacrl/DQN-CartPole-v0", 2, **options)


def test_too_little_shared_memory_is_said_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("this system keeps shared memory elsewhere")
    usage = shutil.disk_usage("/dev/shm")
    monkeypatch.setattr(
        sharding.shutil, "disk_usage", lambda _: usage._replace(free=64 << 20)
    )
    with pytest.raises(MemoryError, match=r"\d MB of shared memory.* 67 MB left"):
        PopulationEnv("dacrl/DQN-CartPole-v0", 64, num_workers=2)
