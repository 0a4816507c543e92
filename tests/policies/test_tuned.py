"""Tuned policies by a name that every task reads its own way."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from bases_files import entry, own_bases, own_policies

import dacrl_env
import dacrl_env.comparison.comparison
from dacrl_env import TASKS
from dacrl_env.cli.commands import main
from dacrl_env.core import installed
from dacrl_env.core.store import Store
from dacrl_env.policies import Cost, Fitted, get_policy, save_fitted
from dacrl_env.policies.static import Static
from dacrl_env.policies.switch import Switch
from dacrl_env.policies.tuned import Tuned, check_kept, place, tuned
from dacrl_env.tasks import headroom
from dacrl_env.tasks.registration import get_task, listed
from dacrl_env.tasks.rungs import NAMES

CARTPOLE, QUADRATIC = "dacrl/DQN-CartPole-v0", "dacrl/NoisyQuadratic-v0"
SHORT: dict[str, Any] = {
    "budget": 400, "decision_interval": 100, "eval_episodes": 1,
    "learning_starts": 100,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch, no_bases):
    (tmp_path / "own").mkdir()
    return own_policies(tmp_path / "own", monkeypatch)


def put(task: str, policy: Any, rung: str = "static-tuned") -> None:
    settings = {} if "Quadratic" in task else SHORT
    fitted = Fitted(policy, Cost(7), task=task, settings=settings)
    save_fitted(fitted, place(task, rung), {})


def applied(task: str, name: str, **options: Any) -> set[float]:
    frame = dacrl_env.evaluate(task, name, 2, **options)
    assert set(frame["policy"]) == {name}
    return set(frame["hp/learning_rate"].dropna())


def test_files_are_named_by_task_and_rung(folder):
    assert (
        place(CARTPOLE, "static-tuned") == folder / "dqn-cartpole-v0-static-tuned.json"
    )
    own = place("own/Toy-v3", "freeze-tuned")
    assert own.name == "own-toy-v3-freeze-tuned.json"
    put(CARTPOLE, Static(learning_rate=0.01))
    put(CARTPOLE, Switch(0.5, {"epsilon": 0.1}, {"epsilon": 0.0}), "freeze-tuned")
    assert tuned(CARTPOLE) == ["static-tuned", "freeze-tuned"]
    assert tuned(QUADRATIC) == []


def test_one_name_means_the_better_rule_of_each_task(folder, tmp_path, monkeypatch):
    switch = Switch(0.5, {"learning_rate": 0.25}, {"learning_rate": 0.25})
    put(QUADRATIC, switch, "switch-tuned")
    put(QUADRATIC, Static(learning_rate=0.125), "freeze-tuned")
    monkeypatch.setattr(headroom, "PATH", tmp_path / "headroom.json")
    headroom.measured.cache_clear()
    with pytest.raises(ValueError, match=f"{QUADRATIC} has no rule-tuned policy"):
        dacrl_env.evaluate(QUADRATIC, "rule-tuned", 2)
    for rung, rate in (("switch-tuned", 0.25), ("freeze-tuned", 0.125)):
        headroom.keep(QUADRATIC, {"best": ["static-tuned", rung]})
        assert applied(QUADRATIC, "rule-tuned") == {rate}
    assert tuned(QUADRATIC) == ["freeze-tuned", "switch-tuned", "rule-tuned"]
    headroom.keep(QUADRATIC, {"best": ["static-tuned", "restart-tuned"]})
    assert "rule-tuned" not in tuned(QUADRATIC)
    headroom.measured.cache_clear()


def test_a_task_that_starts_at_a_base_has_those_of_the_one_before(
    folder, tmp_path, monkeypatch
):
    new = "dacrl/NoisyQuadratic-v1"
    put(QUADRATIC, Static(learning_rate=0.125), "open-loop-tuned")
    put(QUADRATIC, Static(learning_rate=0.5), "freeze-tuned")
    monkeypatch.setattr(headroom, "PATH", tmp_path / "headroom.json")
    headroom.measured.cache_clear()
    gains = {"state": [0.2, 0.1, 0.3], "best": ["open-loop-tuned", "freeze-tuned"]}
    headroom.keep(QUADRATIC, gains)
    with own_bases(tmp_path) as base:
        base({QUADRATIC: entry(defaults={"learning_rate": 0.25})})
        assert tuned(new) == ["open-loop-tuned", "freeze-tuned", "rule-tuned"]
        assert applied(new, "default") == {0.25}
        assert applied(new, "open-loop-tuned") == {0.125}
        assert applied(new, "open-loop-tuned,any_task=True") == {0.125}
        assert applied(new, "rule-tuned") == {0.5}
        assert headroom.tags_of(get_task(new)) == ("state",)
        assert headroom.suite("state", listed()) == [new]
        # its own, where there are any
        put(new, Static(learning_rate=0.0625), "open-loop-tuned")
        headroom.keep(new, {"state": [0.0, -0.1, 0.1]})
        assert applied(new, "open-loop-tuned") == {0.0625}
        assert headroom.tags_of(get_task(new)) == ("smoke",)
    headroom.measured.cache_clear()


def test_a_base_with_static_configuration_is_another_task_to_them(folder, tmp_path):
    put(CARTPOLE, Static(learning_rate=0.125), "open-loop-tuned")
    with own_bases(tmp_path) as base:
        base({CARTPOLE: entry(configuration={"hidden_sizes": [8]})})
        assert tuned("dacrl/DQN-CartPole-v1") == []
        assert tuned(CARTPOLE) == ["open-loop-tuned"]


def test_each_task_has_its_own(folder):
    put(CARTPOLE, Static({"hidden_sizes": [8]}, learning_rate=0.01, double_q=True))
    put(QUADRATIC, Static(learning_rate=0.125))
    assert applied(CARTPOLE, "static-tuned", **SHORT) == {0.01}
    assert applied(QUADRATIC, "static-tuned") == {0.125}
    frame = dacrl_env.compare(QUADRATIC, ["default", "static-tuned"], 2)
    assert set(frame["tuning_env_steps"]) == {0, 7}
    options = {QUADRATIC: {}, CARTPOLE: SHORT}
    suite = dacrl_env.compare_suite(
        [QUADRATIC, CARTPOLE], "static-tuned", 2, task_options=options
    )
    rates = suite.groupby("task")["hp/learning_rate"].max()
    assert rates.to_dict() == {CARTPOLE: 0.01, QUADRATIC: 0.125}
    # an object, and one with a label, too
    policies = {"tuned": get_policy("static-tuned")}
    labelled = dacrl_env.compare(QUADRATIC, policies, 2)
    assert set(labelled["hp/learning_rate"].dropna()) == {0.125}


def test_it_brings_its_static_configuration_along(folder):
    small = {"hidden_sizes": [8]}
    put(CARTPOLE, Static(small))
    mine = dacrl_env.evaluate(CARTPOLE, "static-tuned", 2, **SHORT)
    same = dacrl_env.evaluate(CARTPOLE, "default", 2, hidden_sizes=(8,), **SHORT)
    assert mine["report_score"].equals(same["report_score"])
    large = dacrl_env.evaluate(CARTPOLE, "default", 2, **SHORT)
    assert mine["flops"].max() < large["flops"].max()


def test_by_hand_it_is_that_of_the_environment(folder):
    put(QUADRATIC, Static(learning_rate=0.125))
    policy = get_policy("static-tuned")
    envs = dacrl_env.PopulationEnv(QUADRATIC, 2, action_mode=policy.action_mode)
    observations, infos = envs.reset(seed=0)
    policy.reset(envs, 0)
    assert (policy.act(observations, infos) == 0.125).all()
    envs.close()


def test_what_is_missing_is_said_with_what_makes_it(folder, tmp_path, capsys):
    put(QUADRATIC, Static(learning_rate=0.125))
    put(CARTPOLE, Static(), "checkpoint-tuned")
    with pytest.raises(ValueError, match=f"{CARTPOLE} has no static-tuned") as error:
        dacrl_env.compare(CARTPOLE, "static-tuned", 2)
    for words in (
        "it has checkpoint-tuned;",
        f"static-tuned is there for {QUADRATIC};",
        f"dacrl tune-static {CARTPOLE} --out DIR --keep",
    ):
        assert words in str(error.value)
    with pytest.raises(ValueError, match=r"no tuned one; .*there for no task"):
        dacrl_env.evaluate("dacrl/DQN-Acrobot-v0", "freeze-tuned", 2)
    line = ["--seeds", "2", "--out", str(tmp_path / "out")]
    assert main(["evaluate", CARTPOLE, "open-loop-tuned", *line]) == 2
    assert f"dacrl headroom {CARTPOLE} --out DIR --keep" in capsys.readouterr().err
    # in a suite such pairs can be left out
    both = ["--tasks", QUADRATIC, CARTPOLE, "--policies", "static-tuned"]
    assert main(["compare", *both, *line]) == 2
    assert "does not suit the task" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"static-tuned.* is a policy, no method"):
        dacrl_env.fit(QUADRATIC, "static-tuned", 500)


def test_files_of_other_tasks_and_damaged_ones_are_refused(folder):
    put(QUADRATIC, Static(learning_rate=0.125))
    path = place(QUADRATIC, "static-tuned")
    place(CARTPOLE, "static-tuned").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=f"is of {QUADRATIC}, not of {CARTPOLE}"):
        dacrl_env.evaluate(CARTPOLE, "static-tuned", 2)
    path.write_text(path.read_text().replace("0.125", "0.25"))
    with pytest.raises(ValueError, match="checksum"):
        dacrl_env.evaluate(QUADRATIC, "static-tuned", 2)


def test_runs_are_those_it_was_tuned_for_unless_it_is_told(folder):
    put(CARTPOLE, Static(learning_rate=0.01))
    other = SHORT | {"budget": 800}
    with pytest.raises(ValueError, match="was made for runs with budget 400"):
        dacrl_env.evaluate(CARTPOLE, "static-tuned", 2, **other)
    assert applied(CARTPOLE, "static-tuned,any_task=True", **other) == {0.01}


def test_a_store_tells_files_of_different_content_apart(folder, tmp_path):
    store, seen = tmp_path / "store", []
    for rate in (0.125, 0.25, 0.125):
        put(QUADRATIC, Static(learning_rate=rate))
        frame = dacrl_env.compare(QUADRATIC, "static-tuned", 2, store=store)
        seen.append(set(frame["hp/learning_rate"].dropna()))
    assert seen == [{0.125}, {0.25}, {0.125}]
    assert len(list(Store(store))) == 2


def test_keeping_one_does_not_make_other_results_old(tmp_path, monkeypatch):
    place = tmp_path / "pretrained"
    place.mkdir()
    find_spec = importlib.util.find_spec

    def found(name: str) -> Any:
        spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
        return spec if name == "dacrl_env.agents" else find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    before = installed.version.__wrapped__()
    (place / "dqn-cartpole-v0-static-tuned.json").write_text("{}")
    assert installed.version.__wrapped__() == before
    (place / "dqn-cartpole-switch-0.json").write_text("{}")
    assert installed.version.__wrapped__() != before


# -- those of the package ------------------------------------------------------------

KEPT = [(task, rung) for task in TASKS for rung in tuned(task)]


@pytest.mark.parametrize(("task", "rung"), KEPT or [(QUADRATIC, "default")])
def test_policies_of_the_package_suit_their_tasks(task, rung):
    dacrl_env.comparison.comparison.check(task, rung, 2)


def test_unknown_rungs_and_results_that_cannot_be_kept():
    assert all(isinstance(get_policy(rung), Tuned) for rung in NAMES)
    with pytest.raises(ValueError, match="unknown rung 'static'"):
        Tuned("static")
    check_kept(get_task(CARTPOLE), {"hyperparameters": ["epsilon"]})
    with pytest.raises(ValueError, match=r"of runs as the task has them.*budget"):
        check_kept(get_task(CARTPOLE), {"budget": 400})
    own = replace(get_task(CARTPOLE), id="own/Task-v0")
    with pytest.raises(ValueError, match="own/Task-v0 is no task of this package"):
        check_kept(own, {})
