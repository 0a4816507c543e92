"""What the benchmarks measure, and how two measurements are compared."""

import json
import os

import numpy as np
import pytest
import torch
from cases import EVERY_KIND, quick, registered
from dacrl_env.benchmarks import compare, peak, scaling, suite, throughput

from dacrl_env.cli.commands import main
from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.kernels import products
from dacrl_env.kernels.compiling import entry
from dacrl_env.learners import dqn, ppo
from dacrl_env.outer.settings import resolve

TASK = "dacrl/DQN-CartPole-v0"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(suite, "INTERVAL", 100)


@pytest.mark.slow
def test_suite_measures_sizes_threads_and_peers(tmp_path, capsys):
    file = tmp_path / "all.json"
    arguments = ["bench", "--all", "--tasks", TASK, "--populations", "1", "4"]
    timing = ["--repeats", "1", "--seconds", "0.01"]
    assert main([*arguments, *timing, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    rows = {(r["program"], r["P"], r["threads"]): r for r in result["rows"]}
    assert {("dacrl-env", 1, 1), ("dacrl-env", 4, 1), ("dacrl-env", 4, 2)} < set(rows)
    assert ("dacrl-env", 1, 2) not in rows  # more threads than members
    peer = rows["Stable-Baselines3", 1, 1]
    assert peer["ratio"] == 1.0
    assert peer["megabytes"] is None
    row = rows["dacrl-env", 4, 1]
    ratio = row["steps_per_second"] / peer["steps_per_second"]
    assert row["ratio"] == pytest.approx(ratio)  # one turn
    assert 0 < row["share_of_peak"] < 1
    assert row["speedup"] is None
    two = rows["dacrl-env", 4, 2]
    assert two["share_of_peak"] is peer["share_of_peak"] is None
    speedup = two["steps_per_second"] / row["steps_per_second"]
    assert two["speedup"] == pytest.approx(speedup)
    assert [r["task"] for r in result["phases"]["rows"]] == [TASK]
    out = capsys.readouterr().out
    assert f"| {TASK} | dacrl-env | 4 | 2 |" in out
    assert "| training | environment |" in out


def test_megabytes_are_those_of_the_state():
    with suite.population(TASK, 2, 1) as (_, env):
        replay = 50_000 * (2 * 4 + 4) * 4 / 1e6  # observation pairs, and four numbers
        assert 2 * replay < suite.megabytes(env.population.state) < 2.2 * replay


@pytest.mark.parametrize("task", quick(registered(), *EVERY_KIND))
def test_timed_decisions_divide_the_budget_of_every_task(task):
    settings = resolve(task)
    steps = suite._decision_interval(settings)
    assert settings.budget % steps == 0
    resolve(task, decision_interval=steps)


def test_one_thread_is_pinned_and_everything_is_put_back():
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    seen = {}

    def program():
        seen["torch"] = torch.get_num_threads()
        if hasattr(os, "sched_getaffinity"):
            seen["cores"] = len(os.sched_getaffinity(0))
        return 7

    torch.set_num_threads(2)
    try:
        assert throughput.pinned(program)() == 7
        assert seen.pop("torch") == 1
        assert set(seen.values()) <= {1}
        assert torch.get_num_threads() == 2
        if hasattr(os, "sched_getaffinity"):
            assert os.sched_getaffinity(0) == cores
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_scaling_measures_time_and_memory(capsys):
    arguments = ["bench", "--scaling", "--tasks", TASK, "--populations", "2", "34"]
    assert main([*arguments, "--repeats", "1", "--seconds", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "× that of P = 2 |" in out
    rows = [line.split("|") for line in out.splitlines() if line[:3] in ("| 2", "| 3")]
    small, large = (float(row[4]) for row in rows)
    assert 32 * 2.4 < large - small < 32 * 4  # of which 2.4 are a replay


def test_random_batch_sizes_cover_the_range():
    sizes = throughput._random_batch_sizes(64)
    low, high = throughput.BATCH_SIZES
    assert sizes.min() >= low
    assert sizes.max() <= high
    assert np.median(sizes) == pytest.approx((low * high) ** 0.5, rel=0.5)


def test_the_peer_takes_every_batch_size_once(monkeypatch):
    from stable_baselines3 import DQN

    taken = []

    def train(self, gradient_steps, batch_size=100):
        taken.append((gradient_steps, batch_size))

    monkeypatch.setattr(DQN, "train", train)
    sizes = np.array([4.0, 9.0, 33.0])
    program = throughput._stable_baselines3_dqn(4, sizes)
    taken.clear()
    assert program() == 12
    assert sorted(taken) == [(1, 4), (1, 9), (1, 33)]


def test_fork_measures_shares_of_an_outer_step(capsys, tmp_path):
    file = tmp_path / "fork.json"
    arguments = ["bench", "--fork", "--tasks", "dacrl/PPO-CartPole-v0"]
    timing = ["--populations", "2", "--repeats", "1"]
    assert main([*arguments, *timing, "--json", str(file)]) == 0
    quarter, everyone = json.loads(file.read_text())["rows"]
    assert quarter["step_milliseconds"] == everyone["step_milliseconds"]
    share = everyone["milliseconds"] / everyone["step_milliseconds"]
    assert everyone["share_of_step"] == pytest.approx(share)
    assert "| 100% of the members forked |" in capsys.readouterr().out


# -- the peak ---------------------------------------------------------------------


def test_chains_are_the_multiply_adds_that_are_counted():
    factor, addend = np.float32(0.5), np.float32(3.0)
    numbers = np.arange(peak.CHAINS, dtype=np.float32)
    for turns in (1, 2, 7):
        expected = numbers.copy()
        for _ in range(turns):
            expected = expected * factor + addend
        found = peak.chains(turns, factor, addend)
        assert found == pytest.approx(float(expected.sum()), rel=1e-6)
        assert peak.operations(turns) == 2 * turns * peak.CHAINS * 16


@entry
def _multiply(a, w, c, start, turns):
    for _ in range(turns):
        products.matmul(a, w, c, start)


@pytest.mark.slow
def test_products_come_near_the_peak_and_not_beyond():
    """The fastest of several, in turns, on a machine that does little else."""
    a, w, c = (np.ones((64, 64), np.float32) for _ in range(3))
    start, best = np.zeros(64, np.float32), {"peak": 0.0, "products": 0.0}

    def multiply():
        _multiply(a, w, c, start, 1000)
        return 1000 * 2 * 64**3

    programs = {"peak": peak.program(), "products": multiply}
    for _ in range(20):
        for name, program in programs.items():
            best[name] = max(best[name], throughput.rate(program, 0.005))
    assert 0.4 < best["products"] / best["peak"] < 1.1


@pytest.mark.parametrize("kind", [dqn.DQN, ppo.PPO])
def test_operations_of_a_step_are_those_of_what_is_learned_from(kind):
    env = ENVS["CartPole-v1"]()
    config = kind.config_class(hidden_sizes=(16,))
    learner = kind(env, env, config, 10_000)
    members = np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(2)])
    state = learner.init(members, np.tile([*env.physics.values()], (2, 1)))
    values = {h.name: np.full(2, h.start) for h in learner.hyperparameters}
    values["batch_size"] = np.array([16.0, 48.0])
    learner.train(state, values, 2_048, learner.begin_interval(state))
    interval = learner.begin_interval(state)
    learner.train(state, values, 2_048, interval)
    act, (sample, _) = learner.flops(values)
    expected = act + sample * interval.samples.mean() / 2_048
    assert peak.of_step(learner, values) == pytest.approx(expected)


def test_what_says_nothing_of_its_products_has_no_share():
    assert peak.of_step(object(), {}) is None
    assert throughput.share_of([1.0], None, [1.0]) is None
    assert throughput.share_of([3.0, 2.0, 9.0], 2.0, [8.0, 8.0, 9.0]) == 0.75


# -- two files --------------------------------------------------------------------


def _result(steps, ratio=2.0):
    row = {"task": TASK, "program": "dacrl-env", "P": 4, "threads": 1}
    return {"rows": [{**row, "steps_per_second": steps, "ratio": ratio}]}


def test_compare_shows_the_change(tmp_path, capsys):
    files = []
    for name, result in (("a", _result(1000.0)), ("b", _result(1500.0, 2.5))):
        files.append(str(tmp_path / name))
        (tmp_path / name).write_text(json.dumps(result))
    compare.main(files)
    last = capsys.readouterr().out.splitlines()[-1]
    expected = "| 1e+03 → 1.5e+03 (× 1.50) | 2 → 2.5 (× 1.25) | – |"
    assert last == f"| {TASK}, dacrl-env, P 4, threads 1 {expected}"


def test_compare_leaves_out_what_only_one_has():
    other = _result(1.0)
    other["rows"][0]["P"] = 8
    with pytest.raises(ValueError, match="no measurement in common"):
        compare.compare(_result(1.0), other)
    both = {"rows": other["rows"] + _result(1.0)["rows"]}
    assert len(compare.compare(both, _result(1.0))) == 1


@pytest.mark.parametrize("content", [None, "", "[]", '{"no": 1}'])
def test_compare_refuses_other_files(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "a").write_text(content)
    with pytest.raises(SystemExit) as stopped:
        compare.main([str(tmp_path / "a"), str(tmp_path / "a")])
    assert stopped.value.code == 2
    assert "no file of 'dacrl bench --json'" in capsys.readouterr().err


def test_scaling_takes_known_tasks():
    with pytest.raises(ValueError, match="valid: dacrl/DQN"):
        scaling.measure("dacrl/None-v0")
