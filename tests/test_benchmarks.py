"""What the benchmarks measure, and how two measurements are compared."""

import json

import numpy as np
import pytest
import torch
from dacrl_env.benchmarks import compare, scaling, suite, throughput

from dacrl_env.cli import main
from dacrl_env.learners import dqn
from dacrl_env.registration import TASKS
from dacrl_env.settings import resolve

TASK = "dacrl/DQN-CartPole-v0"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(suite, "INTERVAL", 100)


def test_suite_measures_sizes_workers_and_peers(tmp_path, capsys):
    file = tmp_path / "all.json"
    arguments = ["bench", "--all", "--tasks", TASK, "--populations", "1", "4"]
    timing = ["--repeats", "1", "--seconds", "0.01"]
    assert main([*arguments, *timing, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    rows = {(r["program"], r["P"], r["workers"]): r for r in result["rows"]}
    assert {("torch", 1, 1), ("torch", 4, 1), ("torch", 4, 2)} < set(rows)
    assert ("torch", 1, 2) not in rows  # more workers than members
    peer = rows["Stable-Baselines3", 1, 1]
    assert peer["ratio"] == 1.0
    assert peer["megabytes"] is None
    row = rows["torch", 4, 1]
    ratio = row["steps_per_second"] / peer["steps_per_second"]
    assert row["ratio"] == pytest.approx(ratio)  # one turn
    assert 0 < row["share_of_limit"] < 1
    assert row["speedup"] is None
    two = rows["torch", 4, 2]
    speedup = two["steps_per_second"] / row["steps_per_second"]
    assert two["speedup"] == pytest.approx(speedup)
    assert [r["task"] for r in result["phases"]["rows"]] == [TASK]
    out = capsys.readouterr().out
    assert f"| {TASK} | torch | 4 | 2 |" in out
    assert "| gradient |" in out


def test_megabytes_are_those_of_the_state():
    with suite.population(TASK, 2, 1) as (_, state):
        replay = 50_000 * (2 * 4 + 4) * 4 / 1e6  # observation pairs, and four numbers
        assert 2 * replay < suite.megabytes(state) < 2.2 * replay


@pytest.mark.parametrize("task", TASKS)
def test_timed_decisions_divide_the_budget_of_every_task(task):
    settings = resolve(task)
    steps = suite._decision_interval(settings)
    assert settings.budget % steps == 0
    resolve(task, decision_interval=steps)


def test_one_worker_is_pinned_and_everything_is_put_back():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = suite._pinned(torch.get_num_threads)()
        assert (seen, torch.get_num_threads()) == (1, 2)
    finally:
        torch.set_num_threads(threads)


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
    h = next(h for h in dqn.HYPERPARAMETERS if h.name == "batch_size")
    assert sizes.min() >= h.low
    assert sizes.max() <= h.high
    assert np.median(sizes) == pytest.approx((h.low * h.high) ** 0.5, rel=0.5)


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


# -- two files --------------------------------------------------------------------


def _result(steps, ratio=2.0):
    row = {"task": TASK, "program": "torch", "P": 4, "workers": 1}
    return {"rows": [{**row, "steps_per_second": steps, "ratio": ratio}]}


def test_compare_shows_the_change(tmp_path, capsys):
    files = []
    for name, result in (("a", _result(1000.0)), ("b", _result(1500.0, 2.5))):
        files.append(str(tmp_path / name))
        (tmp_path / name).write_text(json.dumps(result))
    compare.main(files)
    last = capsys.readouterr().out.splitlines()[-1]
    expected = "| 1e+03 → 1.5e+03 (× 1.50) | 2 → 2.5 (× 1.25) | – |"
    assert last == f"| {TASK}, torch, P 4, workers 1 {expected}"


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
