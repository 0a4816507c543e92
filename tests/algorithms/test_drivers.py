"""Members alone and in company, on compiled environments and on stepped ones."""

import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from populations import Runs, Stepped, make_runs

from dacrl_env.algorithms import discrete_sac, dqn, ppo, sac
from dacrl_env.algorithms.interval import AT_ONCE
from dacrl_env.core import snapshot, streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.tasks.backends import OF_LEVELS

SEVERAL = {"num_inner_envs": 3, "replay_capacity": 600}
NORMALISED = {
    "num_inner_envs": 3,
    "rollout_length": 32,
    "normalize_observations": True,
    "normalize_rewards": True,
    "clip_range_vf": 0.3,
}
FEATURES = {"normalize_observations": True, "fourier_features": 34}
CASES: dict[str, dict[str, Any]] = {
    "dqn": {"hidden_sizes": (33, 17), "replay_capacity": 400},
    "dqn, several": {"activation": "tanh", **SEVERAL},
    "dqn, features": {**SEVERAL, **FEATURES},
    "dqn, convolution": {"conv_channels": 16, "normalize_observations": True},
    "ppo": {"hidden_sizes": (33, 17), "rollout_length": 32},
    "ppo, normalised": NORMALISED,
    "ppo, continuous": {"activation": "relu", **NORMALISED},
    "ppo, convolution": {**NORMALISED, "conv_channels": 16},
    "ppo, features": {**NORMALISED, **FEATURES},
    "sac": {"hidden_sizes": (33, 17), "replay_capacity": 400},
    "sac, several": {"activation": "tanh", **SEVERAL},
    "discrete_sac": {"hidden_sizes": (33, 17), "replay_capacity": 400},
    "discrete_sac, features": {"activation": "tanh", **SEVERAL, **FEATURES},
}
# convolutions compile for long, and have tests of their own
MOST = [slow(case) if "convolution" in case else case for case in CASES]
KINDS: dict[str, Any] = {
    "dqn": dqn,
    "ppo": ppo,
    "sac": sac,
    "discrete_sac": discrete_sac,
}
ENV_OF = {"continuous": "Pendulum-v1", "convolution": "MiniGrid-Empty-5x5-v0"}
# members that differ in everything, in the order of how many gradient steps they take
# neither by member nor by batch size
VALUES = {
    "learning_rate": [1e-3, 1e-2, 1e-5, 1e-3, 3e-3, 1e-4],
    "epsilon": [0.1, 0.3, 1.0, 0.5, 0.05, 0.0],
    "batch_size": [64, 5, 32, 4, 17, 33],
    "gamma": [0.99, 0.9, 0.8, 0.999, 0.95, 0.99],
    "target_update_interval": [50, 7, 500, 20, 1, 33],
    "train_freq": [4, 1, 3, 4, 7, 2],
    "gradient_steps": [1, 3, 2, 4, 1, 2],
    "max_grad_norm": [10, 0.1, 1, 100, 0.5, 10],
    "replay_window": [100_000, 50, 120, 100_000, 7, 64],
    "clip_range": [0.2, 0.1, 0.3, 0.2, 0.05, 0.5],
    "gae_lambda": [0.95, 0.9, 1.0, 0.8, 0.95, 0.9],
    "n_epochs": [1, 2, 5, 3, 10, 1],
    "ent_coef": [0.0, 0.01, 0.1, 0.0, 0.05, 0.0],
    "vf_coef": [0.5, 1.0, 0.5, 0.0, 0.2, 0.5],
    "n_step": [1, 3, 1, 2, 10, 1],
    "double_q": [0, 0, 1, 1, 0, 0],
    "loss": [0, 0, 0, 1, 1, 0],
    "q_regularisation": [0, 0, 0.1, 0, 0, 1],
    "tau": [1, 1, 0.1, 1, 0.01, 1],
    "priority_alpha": [0, 0.6, 0, 1.0, 0.3, 0],
    "priority_beta": [0.4, 0.4, 0, 1.0, 0.5, 0.4],
    "exploration": [0, 1, 0, 0, 1, 0],
    "hold_exponent": [2, 2, 2, 2, 1.5, 2],
    "drift": [0, 0, 1, 1, 0, 0],
    "drift_alpha": [2, 2, 1, 0.5, 2, 2],
    "drift_beta": [0.6, 0.6, 1, 0.2, 2, 0.6],
    "lr_rule": [0, 0, 1, 0, 1, 0],
    "desired_kl": [0.01, 0.01, 0.02, 0.01, 0.002, 0.01],
    "stop_early": [0, 0, 0, 1, 1, 0],
    "target_kl": [0.01, 0.01, 0.01, 0.002, 0.1, 0.01],
    "ent_rule": [0, 0, 1, 0, 1, 0],
    "alpha": [0.2, 0.2, 0.05, 0.2, 1.0, 0.2],
    "target_entropy": [-1, -2, -1, 0, -1, -1],
    # without levels they choose nothing
    "level_replay": [0, 1, 0.5, 0, 1, 0],
    "level_temperature": [0.1, 0.1, 1, 0.1, 10, 0.1],
    "level_staleness": [0.1, 0.1, 0, 0.1, 1, 0.1],
}
# a value of every hyperparameter that binds at the step it is set
CHANGED = {
    "learning_rate": 2e-2,
    "epsilon": 0.9,
    "batch_size": 21,
    "gamma": 0.85,
    "target_update_interval": 10,
    "train_freq": 2,
    "gradient_steps": 5,
    "max_grad_norm": 0.05,
    "replay_window": 20,
    "clip_range": 0.01,
    "gae_lambda": 0.85,
    "n_epochs": 4,
    "ent_coef": 0.2,
    "vf_coef": 0.1,
}
CHANGED |= {
    "n_step": 4,
    "double_q": 1,
    "loss": 1,
    "q_regularisation": 0.5,
    "tau": 0.3,
    "priority_alpha": 0.9,
    "priority_beta": 0.8,
    "exploration": 0,
    "hold_exponent": 1.2,
    "drift": 1,
    "drift_alpha": 0.2,
    "drift_beta": 0.2,
    "lr_rule": 1,
    "desired_kl": 0.0,
    "stop_early": 1,
    "target_kl": 0.0,
    "ent_rule": 1,
    "alpha": 3.0,
    "target_entropy": 0.5,
}
# without these they have no effect
NEEDS = {
    "drift_alpha": "drift",
    "drift_beta": "drift",
    "desired_kl": "lr_rule",
    "target_kl": "stop_early",
    "alpha": "ent_rule",
}
# those that compiled functions take; events happen before
NAMES = [
    (case, name)
    for case, kind in KINDS.items()
    for name in kind.Values._fields
    if name not in OF_LEVELS  # `learners/test_levels.py` has environments of levels
]


def _make(case: str, which: int | list[int] = 6, stepped: bool = False) -> Runs:
    """Members of a case; each has its own values, whatever its company."""
    members = list(range(which)) if isinstance(which, int) else which
    algorithm, _, rest = case.partition(", ")
    usual = "Pendulum-v1" if algorithm == "sac" else "CartPole-v1"
    name = ENV_OF.get(rest, usual)
    env: Any = Stepped(ENVS[name]()) if stepped else ENVS[name]()
    values = {}
    for h in KINDS[algorithm].Values._fields:
        values[h] = np.resize(np.array(VALUES[h], float), max(members) + 1)[members]
    runs = make_runs(members, env, algorithm=algorithm, **CASES[case])
    runs.values |= values
    return runs


def _steps(case: str) -> int:
    return 603 if case[:3] != "ppo" else 9 * 32 * (2 if case == "ppo" else 3)


def _equal(a: Runs, b: Runs, members: Any = range(6)) -> None:
    for i in members:
        assert a.differences(b, i) == [], i
        for name in ("sums", "counts", "finished"):
            mine, theirs = getattr(a.interval, name), getattr(b.interval, name)
            np.testing.assert_array_equal(mine[i], theirs[i], err_msg=name)


@pytest.mark.parametrize("case", MOST)
def test_stepped_by_python_as_compiled(case: str) -> None:
    compiled, stepped = _make(case), _make(case, stepped=True)
    fresh = _make(case)
    for runs in (compiled, stepped):
        runs.train(_steps(case))
    _equal(compiled, stepped)
    told = [
        r.learner.signals(r.state, r.values, r.interval) for r in (compiled, stepped)
    ]
    for name in compiled.learner.signal_names:
        np.testing.assert_array_equal(told[0][name], told[1][name], err_msg=name)
    for i in range(6):
        assert "parameters" in compiled.differences(fresh, i)
    assert (compiled.interval.updates > 5).all()
    assert (compiled.interval.episodes > 0).all()


@pytest.mark.parametrize("case", MOST)
def test_evaluated_by_python_as_compiled(case: str) -> None:
    results = []
    for runs in (_make(case), _make(case, stepped=True)):
        runs.train(_steps(case))
        members = np.array([4, 0, 3])
        # more than are played side by side
        keys = streams.bits(runs.keys[members, 4], np.zeros(3, np.int64), AT_ONCE + 5)
        physics = runs.physics[members]
        before = runs.member(4)
        results.append(runs.learner.play(runs.state, members, keys, physics))
        assert runs.member(4) == before
        one = [members[1:2], keys[1:2], physics[1:2]]
        alone = runs.learner.play(runs.state, *one)
        np.testing.assert_array_equal(alone[0][0], results[-1][0][1])
        for e in (1, AT_ONCE + 3):
            one[1] = keys[1:2, e : e + 1]
            alone = runs.learner.play(runs.state, *one)
            assert alone[0] == results[-1][0][1, e]
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # a grid's goal may be found by none
    assert len(np.unique(results[0][0])) > 2 or "convolution" in case


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("case", MOST)
def test_a_member_has_the_same_bits_in_any_company(case: str, stepped: bool) -> None:
    together, steps = _make(case, 40, stepped), _steps(case) // 3
    together.train(steps)
    for which in ([0], [2, 1], [39, 11, 4]):
        some = _make(case, which, stepped)
        some.train(steps)
        for place, i in enumerate(which):
            assert some.differences(together, place, i) == [], i


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("case", MOST)
def test_cutting_a_run_changes_nothing(case: str, stepped: bool) -> None:
    whole, cut, steps = _make(case, 6, stepped), _make(case, 6, stepped), _steps(case)
    unit = whole.learner.granularity(whole.learner.config)
    whole.train(steps)
    for part in (unit, 2 * unit, steps - 4 * unit, unit):
        cut.train(part)
    _equal(whole, cut)


@pytest.mark.parametrize("case", MOST)
def test_cutting_a_run_so_that_interrupts_are_heard_changes_nothing(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = _make(case), _make(case)
    whole.train(_steps(case))
    monkeypatch.setattr(cut.learner, "_took", lambda *_: None)  # pieces stay small
    cut.train(_steps(case))
    _equal(whole, cut)


@pytest.mark.parametrize("case", MOST)
def test_the_number_of_threads_changes_nothing(case: str) -> None:
    one, three = _make(case), _make(case)
    three.learner.num_threads = 3
    for runs in (one, three):
        runs.train(_steps(case))
    _equal(one, three)


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("case", KINDS)
def test_the_order_of_training_populations_with_one_learner_does_not_matter(
    case: str, stepped: bool
) -> None:
    a, b, c = (_make(case, 3, stepped) for _ in range(3))
    other = copy.deepcopy(b.state)
    interval = b.learner.begin_interval(other)
    large = {**b.values, "batch_size": np.full(3, 500.0)}  # needs more memory
    c.values = large
    unit = 50 if case != "ppo" else a.learner.granularity(a.learner.config)
    for _ in range(3):
        a.train(unit)
        b.train(unit)
        b.learner.train(other, large, unit, interval)
        b.learner.signals(other, large, interval)
        c.train(unit)
    _equal(a, b, range(3))
    b.state, b.interval = other, interval
    _equal(c, b, range(3))


@pytest.mark.parametrize(("case", "name"), NAMES)
def test_every_hyperparameter_bites_and_bites_one_member_only(
    case: str, name: str
) -> None:
    a, b = _make(case), _make(case)
    for runs in (a, b):
        if name in NEEDS:
            runs.values[NEEDS[name]][1] = 1
        runs.train(_steps(case) // 3)
    _equal(a, b)
    b.values[name][1] = CHANGED[name]
    for runs in (a, b):
        runs.train(_steps(case) // 3)
    assert "parameters" in a.differences(b, 1)
    _equal(a, b, (0, 2, 3, 4, 5))


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("case", MOST)
def test_members_do_not_feel_what_others_do(case: str, stepped: bool) -> None:
    a, b = _make(case, 6, stepped), _make(case, 6, stepped)
    for runs in (a, b):
        runs.train(_steps(case) // 3)
    for name in CHANGED.keys() & b.values:
        b.values[name][[1, 4]] = CHANGED[name]
    b.state.parameters[4] = np.nan  # and one diverges
    for runs in (a, b):
        runs.train(_steps(case) // 3)
    _equal(a, b, (0, 2, 3, 5))
    assert all("parameters" in a.differences(b, i) for i in (1, 4))


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("case", MOST)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_a_diverged_member_is_noticed_and_alone(
    case: str, stepped: bool, value: float
) -> None:
    runs = _make(case, 4, stepped)
    for name in runs.values:  # neither rates nor windows so small that nothing shows
        runs.values[name][:] = runs.values[name][0]
    runs.train(_steps(case) // 3)
    assert runs.diverged() == [False] * 4
    runs.state.parameters[2] = value
    runs.begin_interval()
    runs.train(_steps(case) // 3)
    assert runs.diverged() == [False, False, True, False]


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("case", MOST)
def test_a_diverged_member_leaves_nothing_behind(case: str, stepped: bool) -> None:
    """Neither in its own next run nor in those that use the same memory."""
    bad = np.array([1])
    runs, fresh = _make(case, 4, stepped), _make(case, 4, stepped)
    runs.train(_steps(case) // 3)
    runs.state.parameters[1] = np.nan
    runs.train(_steps(case) // 3)
    for each in (runs, fresh):
        each.learner.restart(each.state, bad, each.keys[bad], each.physics[bad])
        each.begin_interval()
        each.train(_steps(case))
    assert not any(runs.diverged())
    assert _differences_beside_unseen(runs, fresh, 1, 1) == []


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("case", MOST)
def test_restarted_members_begin_again_and_others_go_on(
    case: str, stepped: bool
) -> None:
    steps = _steps(case) // 3
    runs, undisturbed = _make(case, 4, stepped), _make(case, 4, stepped)
    other = make_runs(
        [7],
        runs.learner.env,
        algorithm=case.partition(", ")[0],
        **(CASES[case] | _one(runs, 2)),
    )
    for each in (runs, undisturbed):
        each.train(steps)
    which = np.array([2])
    runs.learner.restart(runs.state, which, other.keys, other.physics)
    # what lies in the memory is not seen any more, so it may stay
    assert _differences_beside_unseen(runs, other, 2, 0) == []
    for each in (runs, undisturbed):
        each.train(steps)
    other.train(steps)
    assert all(runs.differences(undisturbed, i) == [] for i in (0, 1, 3))
    assert _differences_beside_unseen(runs, other, 2, 0) == []


def _one(runs: Runs, i: int) -> dict[str, float]:
    return {name: values[i] for name, values in runs.values.items()}


def _differences_beside_unseen(a: Runs, b: Runs, i: int, j: int) -> list[str]:
    """Names of what differs, beside transitions that a new run has not written."""
    names, written = a.differences(b, i, j), 0
    leaves = [dict(snapshot.leaves(runs.state)) for runs in (a, b)]
    for name in ("replay.observations", "replay.transitions", "replay.priorities"):
        if name in names:
            mine, theirs = leaves[0][name][i], leaves[1][name][j]
            written = int(a.state.env_steps[i]) // a.learner.fixed.N
            np.testing.assert_array_equal(mine[:, :written], theirs[:, :written])
            names.remove(name)
    return names


@pytest.mark.parametrize("case", MOST)
def test_looking_at_a_run_does_not_change_it(case: str) -> None:
    a, b = _make(case), _make(case)
    for runs in (a, b):
        runs.train(_steps(case) // 3)
    b.learner.signals(b.state, b.values, b.interval)
    b.diverged()
    b.learner.policy(b.state, np.arange(6))(b.state.envs.observations)
    if case[:3] == "dqn":
        b.learner.probe(b.state, b.values, b.keys[:, 0].copy(), 300)
    elif case[:3] == "ppo":
        b.learner.probe(copy.deepcopy(b.state), b.values)
    for runs in (a, b):
        runs.train(_steps(case) // 3)
    _equal(a, b)


def test_members_have_runs_of_their_own() -> None:
    runs = make_runs(6)
    runs.train(50)
    members = [runs.member(i) for i in range(6)]
    for name in ("parameters", "envs.variables", "replay.transitions", "keys"):
        assert len({m[name] for m in members}) == 6, name


@pytest.mark.parametrize("case", ["dqn", "ppo, continuous"])
def test_no_global_randomness_or_setting(case: str) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    _make(case, 2).train(_steps(case))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


# -- other processors ------------------------------------------------------------------


def _digest(case: str) -> str:
    runs, made = _make(case), hashlib.sha256()
    runs.train(_steps(case))
    for i in range(6):
        for array in runs.member(i).values():
            made.update(array)
    return made.hexdigest()[:16]


# each is compiled anew
@pytest.mark.slow
@pytest.mark.parametrize("case", ["dqn", "ppo, normalised"])
def test_bits_do_not_depend_on_the_width_of_vectors(case: str) -> None:
    """Digests here and on a processor without AVX-512 are equal."""
    here = Path(__file__).parent
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; import test_drivers as t\n"
        "print(t._digest(sys.argv[1]))"
    )
    narrow = {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, case, str(here), str(here.parent)],
        env={**os.environ, **narrow},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [_digest(case)], done.stderr
