"""Compiled environments and those that Python steps; members alone and in company."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import slow

from dacrl_env.algorithms import dqn, drivers, ppo
from dacrl_env.inner_envs.compiled import cartpole, dynamics, pendulum
from dacrl_env.kernels import dense
from dacrl_env.kernels.compiling import entry
from dacrl_env.learners import streams

T = 32
CASES = ("dqn", "dqn, double, 3 steps, 3 environments", "ppo", "ppo, continuous")
VALUES = {
    "learning_rate": [1e-3, 3e-3, 1e-4, 1e-2],
    "epsilon": [0.1, 0.5, 0.0, 1.0],
    "batch_size": [4, 7, 64, 96],
    "gamma": [0.99, 0.9, 0.999, 0.95],
    "target_update_interval": [10, 50, 500, 77],
    "train_freq": [1, 4, 4, 9],
    "gradient_steps": [1, 1, 2, 3],
    "max_grad_norm": [10.0, 0.5, 1.0, 10.0],
    "replay_window": [1_000, 1_500, 1e5, 1_200],
    "clip_range": [0.2, 0.1, 0.3, 0.2],
    "gae_lambda": [0.95, 0.9, 1.0, 0.8],
    "n_epochs": [1, 2, 5, 3],
    "ent_coef": [0.0, 0.01, 0.1, 0.0],
    "vf_coef": [0.5, 1.0, 0.5, 0.0],
}


@entry
def _restart(p, keys, physics, env, envs, room):
    dynamics.restart(p, keys, physics, env, envs, room)


@entry
def _step(actions, env, envs, following, now, told, room):
    """All environments, as Python would step them."""
    P, N = envs.keys.shape
    for p in range(P):
        for n in range(N):
            reward, terminated, cut = dynamics.advance(
                p, n, actions[p, n], env, envs, room
            )
            variables = dynamics.variables_of(p, n, envs)
            dynamics.observe(env, variables, following[p, n])
            told[0, p, n], told[1, p, n] = reward, terminated
            told[2, p, n] = terminated or cut
            if terminated or cut:
                dynamics.begin_next(p, n, env, envs, room)
            dynamics.observe(env, variables, now[p, n])


class _Population:
    """Members ``which`` of four, with their environments."""

    def __init__(self, case: str, which=(0, 1, 2, 3)) -> None:
        P, self.continuous = len(which), "continuous" in case
        module = pendulum if self.continuous else cartpole
        self.env = pendulum.Pendulum() if self.continuous else cartpole.CartPole()
        self.physics = np.tile([*module.PHYSICS.values()], (P, 1))
        K, D = self.physics.shape[1], self.env.features
        A = 1 if self.continuous else 2
        self.N = N = 1 if case == "dqn" else 3
        keys = np.stack([streams.member_keys("tuning", 0, p, 0) for p in which])
        purposes = [streams.PURPOSES.index(n) for n in ("init", "act", "replay")]
        self.env_keys = streams.env_keys(keys, N)
        self.module = dqn if case[:3] == "dqn" else ppo
        names = self.module.Values._fields
        values = {n: np.array(VALUES[n], float)[list(which)] for n in names}
        finished = np.zeros((P, 3))
        if self.module is dqn:
            several = case != "dqn"
            net = dense.make_network(D, (64, 64), A, "relu")
            fixed = dqn.Fixed(net, N, 1, D, A, 200, several, 3 if several else 1, 1.0)
            state = dqn.make_state(P, fixed, 600 // N, np.float32, 3)
            interval = drivers.Interval(np.zeros((P, 4)), finished, state.parameters)
            self.run = dqn.Run(fixed, dqn.Values(**values), state, interval)
            self.memory = self.shared = dqn.make_memory(fixed, 256, K)
        else:
            actor, critic = (dense.make_network(D, (64, 64), o, "tanh") for o in (A, 1))
            fixed = ppo.Fixed(
                actor, critic, N, T, D, A, self.continuous, True, True, True, 0.3, 1.0
            )
            state = ppo.make_state(P, fixed, 3)
            interval = drivers.Interval(np.zeros((P, 6)), finished, state.parameters)
            self.run = ppo.Run(fixed, ppo.Values(**values), state, interval)
            bound = np.full(1, 2.0) if self.continuous else np.zeros(0)
            self.memory, self.shared = (
                ppo.make_memory(
                    fixed, 512, K, -bound, bound, ppo.make_rollout(R, fixed)
                )
                for R in (1, P)
            )
        state.keys[:] = keys[:, purposes]
        self.envs = dynamics.make_env_state(P, N, K, self.env.variables)
        for p in range(P):
            self.module.restart(p, fixed, state)
            self._restart_env(p)

    def _restart_env(self, p: int) -> None:
        given = self.env_keys[p], self.physics[p]
        _restart(p, *given, self.env, self.envs, self.memory.room)

    def train(self, steps: int) -> None:
        for p in range(len(self.physics)):
            drivers.train(p, steps, self.run, self.memory, self.env, self.envs)

    def train_stepped(self, steps: int) -> None:
        """The same, with environments that Python steps."""
        P, N, D = len(self.physics), self.N, self.env.features
        following, now = np.zeros((2, P, N, D), np.float32)
        actions, told = np.zeros((P, N, 1)), np.zeros((3, P, N))
        seen = np.zeros((P, N, D), np.float32)
        for p in range(P):
            drivers.see_now(p, self.run, self.memory, self.env, self.envs)
            seen[p] = self.memory.seen
        for i in range(steps // N):
            t = i % self.run.fixed.T
            for part in ((0, 1), (1, P)):
                drivers.act_all(*part, t, seen, actions, self.run, self.shared)
            _step(actions, self.env, self.envs, following, now, told, self.memory.room)
            for part in ((0, 1), (1, P)):
                drivers.learn_all(
                    *part, t, seen, following, now, actions, told, self.run, self.shared
                )
            seen[...] = now

    def arrays(self, p: int) -> list[np.ndarray]:
        """Everything that member p consists of, its environments aside."""
        state, leaves = self.run.state, []
        for leaf in state:
            leaves += [*leaf] if isinstance(leaf, tuple) else [leaf]
        return [np.array(leaf[p]) for leaf in (*leaves, self.run.interval.sums)]


def _equal(one, other) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def _steps(case: str) -> int:
    return 603 if case[:3] == "dqn" else 3 * T * 3


@pytest.mark.parametrize("case", CASES)
def test_stepped_by_python_as_compiled(case: str) -> None:
    compiled, stepped = _Population(case), _Population(case)
    fresh = stepped.arrays(0)
    compiled.train(_steps(case))
    stepped.train_stepped(_steps(case))
    for p in range(4):
        _equal(compiled.arrays(p), stepped.arrays(p))
    assert (stepped.arrays(0)[0] != fresh[0]).any()


@pytest.mark.parametrize("case", CASES)
def test_a_member_depends_on_itself_alone(case: str) -> None:
    together, steps = _Population(case), _steps(case)
    together.train(steps)
    for which in ((0,), (2, 1), (3, 0)):
        some = _Population(case, which)
        some.train(steps)
        for place, p in enumerate(which):
            _equal(together.arrays(p), some.arrays(place))


@pytest.mark.parametrize("case", CASES)
def test_cutting_a_run_changes_nothing(case: str) -> None:
    whole, cut, steps = _Population(case), _Population(case), _steps(case)
    whole.train(steps)
    for _ in range(3):
        cut.train(steps // 3)
    for p in range(4):
        _equal(whole.arrays(p), cut.arrays(p))


@pytest.mark.parametrize("case", CASES)
def test_values_bite(case: str) -> None:
    one = _Population(case)
    one.train(_steps(case))
    for name in one.run.values._fields:
        other = _Population(case)
        getattr(other.run.values, name)[0] *= 0.5
        if name in ("epsilon", "ent_coef"):
            getattr(other.run.values, name)[0] += 0.1
        if name in ("batch_size", "train_freq", "gradient_steps", "n_epochs"):
            getattr(other.run.values, name)[0] += 3
        if name == "replay_window":
            getattr(other.run.values, name)[0] = 50
        other.train(_steps(case))
        assert (one.arrays(0)[0] != other.arrays(0)[0]).any(), name
        _equal(one.arrays(1), other.arrays(1))


def _digest(case: str) -> str:
    one, made = _Population(case), hashlib.sha256()
    one.train(_steps(case))
    for p in range(4):
        for array in one.arrays(p):
            made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()[:16]


# each is compiled anew
@pytest.mark.parametrize("case", [CASES[0], slow(CASES[2])])
def test_bits_do_not_depend_on_the_width_of_vectors(tmp_path, case) -> None:
    """Digests here and on a processor without AVX-512 are equal."""
    here = Path(__file__).parent
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; import test_drivers as t\n"
        "print(t._digest(sys.argv[1]))"
    )
    narrow = {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, case, str(here), str(here.parent)],
        env={**os.environ, **narrow},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [_digest(case)], done.stderr
