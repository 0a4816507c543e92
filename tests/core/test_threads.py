"""Several threads, each with an environment, and settings that are not theirs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from cases import slow
from threadpoolctl import ThreadpoolController, threadpool_limits

import dacrl_env
from dacrl_env import PopulationEnv
from dacrl_env.core import isolation
from dacrl_env.core.isolation import inner_context

SHORT: dict[str, Any] = {"budget": 800, "decision_interval": 200, "eval_episodes": 1}
DQN = {**SHORT, "learning_starts": 50, "hidden_sizes": (64, 64)}
PPO = {**SHORT, "num_inner_envs": 2, "rollout_length": 100, "fixed": {"n_epochs": 2}}
SB3 = {"implementation": "sb3", "feedback": "train", "hidden_sizes": (16,)}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dqn": ("dacrl/DQN-CartPole-v0", DQN),
    "ppo": ("dacrl/PPO-CartPole-v0", PPO),
    "sgd": ("dacrl/NoisyQuadratic-v0", {"budget": 50}),
    "sb3 dqn": ("dacrl/DQN-CartPole-v0", {**DQN, **SB3}),
    "sb3 ppo": ("dacrl/PPO-CartPole-v0", {**PPO, **SB3}),
}


def blas() -> list[int]:
    """Threads of what multiplies numpy's matrices."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library.get_num_threads() for library in libraries]


@contextmanager
def several(number: int) -> Iterator[None]:
    """BLAS and torch with so many threads, as for a user with several cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    with threadpool_limits(number, "blas"):
        yield
    torch.set_num_threads(before)


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """What functions return that are called at one time."""
    results: list[Any] = [None] * len(functions)
    barrier = threading.Barrier(len(functions))

    def call(k: int) -> None:
        barrier.wait()
        try:
            results[k] = functions[k]()
        except BaseException as error:
            results[k] = error

    threads = [threading.Thread(target=call, args=(k,)) for k in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def run(kind: str, seed: int, steps: int) -> bytes:
    task, options = KINDS[kind]
    envs = PopulationEnv(task, 3, **options)
    seen = [envs.reset(seed=seed)[0]]
    for k in range(steps):
        actions = np.full(envs.action_space.shape, 0.3 * np.cos(k))
        seen.append(envs.step(actions)[0])
    envs.close()
    return np.stack(seen).tobytes()


@pytest.mark.parametrize("kinds", [*map(slow, KINDS), ("dqn", "sb3 dqn", "ppo")])
def test_the_same_bits_as_alone(kinds: Any) -> None:
    kinds = (kinds,) * 3 if isinstance(kinds, str) else kinds
    # one leaves while others are still at it
    jobs = [(kind, seed, 3 - seed) for seed, kind in enumerate(kinds)]
    with several(2):
        alone = [run(*job) for job in jobs]
        together = in_threads(*(lambda job=job: run(*job) for job in jobs))
        assert together == alone
        assert set(blas()) == {2}
        assert torch.get_num_threads() == 2


def test_generators_of_the_process_are_left_alone_by_threads() -> None:
    before = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    in_threads(lambda: run("sb3 dqn", 0, 2), lambda: run("sb3 ppo", 1, 2))
    np.testing.assert_array_equal(before[0][1], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


class Other:
    """A thread that does one thing after the other when told."""

    def __init__(self) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._what: Callable[[], Any] | None = None
        self._result: Any = None
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            self._go.acquire()
            if self._what is None:
                return
            self._result = self._what()
            self._done.release()

    def do(self, what: Callable[[], Any]) -> Any:
        self._what = what
        self._go.release()
        self._done.acquire()
        return self._result

    def end(self) -> None:
        self._what = None
        self._go.release()
        self._thread.join()


@pytest.fixture
def others() -> Iterator[list[Other]]:
    threads = [Other() for _ in range(2)]
    yield threads
    for thread in threads:
        thread.end()


@pytest.mark.parametrize("first", [0, 1])
def test_the_last_to_leave_puts_back_what_the_first_found(
    others: list[Other], first: int
) -> None:
    with several(3):
        contexts = [inner_context(), inner_context()]
        for thread, context in zip(others, contexts, strict=True):
            thread.do(context.__enter__)
            assert set(blas()) == {1}
            assert thread.do(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 3  # of this one, which does not train

        def leave(k: int) -> None:
            others[k].do(lambda: contexts[k].__exit__(None, None, None))

        leave(first)
        assert set(blas()) == {1}
        assert others[first].do(torch.get_num_threads) == 3
        assert others[1 - first].do(torch.get_num_threads) == 1
        leave(1 - first)
        assert set(blas()) == {3}
        assert [thread.do(torch.get_num_threads) for thread in others] == [3, 3]
        new = Other()
        assert new.do(torch.get_num_threads) == 3
        new.end()


def test_a_thread_keeps_a_number_of_its_own(others: list[Other]) -> None:
    with several(3):
        others[0].do(torch.get_num_threads)  # before that torch forgets what is set
        others[0].do(lambda: torch.set_num_threads(2))
        with inner_context():
            for _ in range(2):
                context = inner_context()
                others[0].do(context.__enter__)
                others[0].do(lambda c=context: c.__exit__(None, None, None))
                assert others[0].do(torch.get_num_threads) == 2
            assert torch.get_num_threads() == 1
            assert set(blas()) == {1}
        assert torch.get_num_threads() == 3
        assert set(blas()) == {3}


def test_a_limit_of_the_users_in_another_thread_is_no_obstacle(
    others: list[Other],
) -> None:
    limits: list[Any] = []
    others[0].do(lambda: limits.append(threadpool_limits(4, "blas")))
    try:
        with inner_context():
            assert set(blas()) == {1}
        assert set(blas()) == {4}
    finally:
        others[0].do(lambda: limits[0].restore_original_limits())


def test_contexts_in_one_another_and_exceptions() -> None:
    with several(3):
        with inner_context(), pytest.raises(KeyError), inner_context():
            raise KeyError
        assert set(blas()) == {3}
        assert torch.get_num_threads() == 3
        assert isolation._THREADS._inside == {}
        isolation._THREADS.leave(object())  # one that has not begun
        assert set(blas()) == {3}


def test_denormal_numbers_are_a_threads_own_matter(others: list[Other]) -> None:
    def flushed() -> bool:
        return sys.float_info.min / 2 == 0.0

    context = inner_context()
    others[0].do(context.__enter__)
    assert others[0].do(flushed)
    assert not flushed()
    assert not others[1].do(flushed)
    others[0].do(lambda: context.__exit__(None, None, None))
    assert not others[0].do(flushed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_does_not_inherit_what_another_thread_was_doing(
    others: list[Other],
) -> None:
    with several(3):
        context = inner_context()
        others[0].do(context.__enter__)
        isolation._THREADS._lock.acquire()  # as if that thread had it
        child = os.fork()
        if child == 0:
            right = set(blas()) == {3}
            with inner_context():
                right &= set(blas()) == {1}
            right &= set(blas()) == {3}
            os._exit(0 if right else 1)
        isolation._THREADS._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        others[0].do(lambda: context.__exit__(None, None, None))


# -- numpy's error state ----------------------------------------------------------


@pytest.mark.parametrize("state", ["raise", slow("warn")])
@pytest.mark.parametrize(
    "kind", [slow(kind) if kind.startswith("sb3") else kind for kind in KINDS]
)
def test_numpys_error_state_changes_nothing(kind: str, state: Any) -> None:
    expected = run(kind, 0, 3)
    with np.errstate(all=state):
        assert run(kind, 0, 3) == expected
        assert set(np.geterr().values()) == {state}


@pytest.mark.parametrize(
    ("task", "level"),
    [("dacrl/PPO-Pendulum-v0", 1.0), slow("dacrl/PPO-Acrobot-v0", 0.8)],
)
def test_numpys_error_state_and_large_updates(task: str, level: float) -> None:
    def seen() -> list[bytes]:
        env = dacrl_env.DynamicConfigEnv(task, budget=20_480, eval_episodes=1)
        env.reset(seed=0)
        return [env.step(np.full(3, level))[0].tobytes() for _ in range(4)]

    expected = seen()
    with np.errstate(all="raise"):  # products underflow
        assert seen() == expected


@pytest.mark.parametrize("mode", ["continuous", "relative", "discrete"])
@pytest.mark.parametrize("kind", ["ppo", "sgd"])
def test_numpys_error_state_and_runs_that_diverge(kind: str, mode: str) -> None:
    task, options = KINDS[kind]

    def ends(reward: str) -> tuple[list[bytes], dict[str, Any]]:
        env = dacrl_env.DynamicConfigEnv(
            task, **options, action_mode=mode, reward=reward
        )
        space: Any = env.action_space
        most = space.n - 1 if mode == "discrete" else space.high
        seen, ended = [env.reset(seed=0)[0].tobytes()], False
        while not ended:
            observation, value, ended, _, info = env.step(most)
            seen += [observation.tobytes(), np.array(value).tobytes()]
        info["objectives"].pop("wall_seconds")
        return seen, info

    for reward in ("progress", "best", "auc", "final"):
        expected = ends(reward)
        assert expected[1]["diverged"] == (kind == "sgd")
        with np.errstate(all="raise"):
            assert ends(reward) == expected


@pytest.mark.parametrize(
    "policy",
    ["default", "freeze-when-good", "reduce-on-plateau", "random", "lr-bandit", "vdbe"],
)
def test_numpys_error_state_and_evaluations(policy: str) -> None:
    def evaluated() -> Any:
        task, options = KINDS["dqn"]
        frame = dacrl_env.evaluate(task, policy, range(2), **options)
        return frame.drop(columns="wall_seconds")

    expected = evaluated()
    with np.errstate(all="raise"):
        assert evaluated().equals(expected)


@pytest.mark.parametrize("method", [slow("smac"), "tpe", "pb2,population=4"])
def test_numpys_error_state_and_libraries_of_methods(method: str) -> None:
    for library in {"smac": ["smac"], "tpe": ["optuna"]}.get(method, []):
        pytest.importorskip(library)
    with np.errstate(all="raise"):
        fitted = dacrl_env.fit("dacrl/NoisyQuadratic-v0", method, 50 * 40, 0, budget=50)
    assert fitted.cost.env_steps <= 50 * 40


def test_the_users_own_code_runs_as_the_user_has_set_numpy() -> None:
    def reward(context: Any) -> Any:
        return context.score / np.zeros(1)

    env = gym.make("dacrl/NoisyQuadratic-v0", budget=50, reward=reward).unwrapped
    env.reset(seed=0)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        env.step(np.zeros(1))
