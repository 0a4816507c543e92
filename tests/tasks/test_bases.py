"""Tasks that start at the best static configuration known."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from bases_files import entry, own_bases

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.evaluation import evaluate
from dacrl_env.outer.settings import granularity, resolve
from dacrl_env.policies.static import Static
from dacrl_env.tasks import bases, headroom
from dacrl_env.tasks.registration import (
    TASKS,
    check_task,
    get_task,
    listed,
    markdown,
)

CARTPOLE, NEW = "dacrl/DQN-CartPole-v0", "dacrl/DQN-CartPole-v1"
QUADRATIC = "dacrl/NoisyQuadratic-v0"
SHORT: dict[str, Any] = {"budget": 2_000, "eval_episodes": 1, "learning_starts": 100}
STRONG = entry(
    defaults={"learning_rate": 2.3e-3, "double_q": True, "train_freq": 300},
    configuration={"hidden_sizes": [32, 16], "activation": "tanh"},
    controlled=["learning_rate", "checkpoint"],
)


@pytest.fixture
def base(tmp_path):
    with own_bases(tmp_path) as write:
        yield write


# -- those of the package ------------------------------------------------------------


def test_the_package_has_a_file_of_bases():
    assert bases.PATH.is_file()
    bases.stored()


@pytest.mark.parametrize("task", [task.id for task in bases.made()] or [CARTPOLE])
def test_tasks_that_start_at_a_base_can_be_run(task):
    made = get_task(task)
    check_task(made)
    before = get_task(bases.original(task))
    assert resolve(made).decision_interval == resolve(before).decision_interval
    options: dict[str, Any] = {"eval_episodes": 1}
    if made.algorithm == "ppo":
        unit = granularity(made, {})
        options |= {"budget": 4 * unit, "decision_interval": unit}
    elif made.algorithm != "sgd":
        options |= {"budget": 800, "decision_interval": 200, "learning_starts": 100}
    env = gym.make(task, **options)
    _, info = env.reset(seed=0)
    env.step(env.action_space.sample())
    assert np.isfinite(info["score"])
    env.close()


# -- what a base makes ---------------------------------------------------------------


def test_a_base_makes_the_next_version_of_a_task(base):
    base({CARTPOLE: STRONG})
    old, new = get_task(CARTPOLE), get_task(NEW)
    assert old.defaults == {}
    assert new.defaults == STRONG["defaults"]
    assert new.configuration == {"hidden_sizes": (32, 16), "activation": "tanh"}
    assert new.controlled == ("learning_rate", "checkpoint")
    # what actions mean takes the base in; the rest is what it was
    assert new.ranges == {**old.ranges, "train_freq": (1, 300)}
    same = {"inner_env", "budget", "random_return", "train_instances", "description"}
    assert all(getattr(new, name) == getattr(old, name) for name in same)
    check_task(new)
    settings = resolve(NEW)
    assert settings.config.hidden_sizes == (32, 16)
    assert settings.number("learning_rate").default == 2.3e-3


def test_it_begins_where_the_base_is_and_is_the_same_otherwise(base):
    base({CARTPOLE: STRONG})
    policy = Static(STRONG["configuration"], **STRONG["defaults"])
    there = evaluate(CARTPOLE, policy, 3, **SHORT)
    here = evaluate(NEW, "default", 3, hyperparameters=[*policy.config], **SHORT)
    columns = ["seed", "env_steps", "score", "report_score", "flops"]
    assert there[columns].equals(here[columns])
    weak = evaluate(CARTPOLE, "default", 3, **SHORT)
    assert not weak["score"].equals(here["score"])


def test_the_older_version_works_and_is_not_listed(base, capsys):
    base({CARTPOLE: STRONG})
    ids = [task.id for task in listed()]
    assert NEW in ids
    assert CARTPOLE not in ids
    assert ids.index(NEW) == list(TASKS).index(CARTPOLE)
    assert len(ids) == len(TASKS) - 1
    for task in (CARTPOLE, NEW):
        env = gym.make(task, **SHORT)
        assert env.unwrapped.settings.task is get_task(task)
        env.close()
        envs = gym.make_vec(task, num_envs=2, **SHORT)
        envs.reset(seed=0)
        envs.close()
    tables = [line for line in markdown().splitlines() if "|" in line]
    rows = [line.split("|")[1].strip() for line in tables]
    assert rows.count(NEW) == 2  # the table, and that of bases
    assert CARTPOLE not in rows
    assert NEW in headroom.suite("all", listed())
    with pytest.raises(ValueError, match="unknown task") as error:
        get_task("dacrl/DQN-CartPole-v7")
    assert NEW in str(error.value)
    assert f"{CARTPOLE}," not in str(error.value)
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert f"{NEW}: " in out
    assert f"{CARTPOLE}: " not in out
    assert "base               auc 0.500 [0.400, 0.600], from a test" in out
    with pytest.raises(ValueError, match="taken by a task of this package"):
        dacrl_env.register_task(get_task(NEW))


def test_without_bases_all_is_as_in_the_table(base):
    for content in ("", "{}", '{"tasks": {}}'):
        base(content)
        assert listed() == list(TASKS.values())
        assert NEW not in TASKS
        assert bases.shown(CARTPOLE) == "–"
        assert "## Bases" not in markdown()


# -- the file ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "bases.json"),
        ("[1]", "not a JSON object"),
        ('{"tasks": [1]}', "tasks must be an object"),
        ({"dacrl/Nothing-v0": entry()}, "unknown task 'dacrl/Nothing-v0'"),
        ({"own/Toy-v0": entry()}, "unknown task"),
        ({CARTPOLE: 3}, "must be an object"),
        ({CARTPOLE: entry(default={})}, "unknown field 'default'.*mean 'defaults'"),
        ({CARTPOLE: {"defaults": {}}}, "'configuration' is missing"),
        ({CARTPOLE: entry(defaults=[1])}, "defaults must be an object"),
        ({CARTPOLE: entry(defaults={"epsilon": [1]})}, "defaults"),
        ({CARTPOLE: entry(objective="best")}, "unknown objective"),
        ({CARTPOLE: entry(source=" ")}, "source must say"),
        ({CARTPOLE: entry(score=[0.1, 0.2])}, r"score must be \[value, low, high\]"),
        ({CARTPOLE: entry(score=[0.1, 0.3, 0.2])}, "score must be"),
        ({CARTPOLE: entry(score=["a", "b", "c"])}, "score must be"),
        ({CARTPOLE: entry(controlled=[])}, "controlled must be a list of names"),
        ({CARTPOLE: entry(controlled="epsilon")}, "controlled must be"),
    ],
)
def test_damaged_files_are_named(base, content, message):
    text = content if isinstance(content, str) else json.dumps({"tasks": content})
    base(text)
    with pytest.raises(ValueError, match=message) as error:
        bases.stored()
    assert "bases.json: " in str(error.value)


def test_bases_are_kept_beside_those_of_other_tasks(base):
    base({})
    assert bases.keep(QUADRATIC, entry(defaults={"learning_rate": 0.1})).endswith("-v1")
    assert bases.keep(CARTPOLE, STRONG) == NEW
    assert list(bases.stored()) == [CARTPOLE, QUADRATIC]
    # another one takes its place, and what is controlled stays
    bases.keep(CARTPOLE, entry(defaults={"learning_rate": 1e-4}))
    assert bases.stored()[CARTPOLE]["defaults"] == {"learning_rate": 1e-4}
    assert bases.stored()[CARTPOLE]["controlled"] == STRONG["controlled"]
    # of the newer version: what it does not name is that of the base
    bases.keep(NEW, entry(defaults={"epsilon": 0.2}, controlled=["epsilon"]))
    kept = bases.stored()[CARTPOLE]
    assert kept["defaults"] == {"learning_rate": 1e-4, "epsilon": 0.2}
    assert kept["controlled"] == ["epsilon"]
    with pytest.raises(ValueError, match="unknown task"):
        bases.keep("own/Toy-v0", entry())
    with pytest.raises(ValueError, match="score must be"):
        bases.keep(CARTPOLE, entry(score=[1]))
    assert bases.stored()[CARTPOLE] == kept


def test_what_another_process_has_kept_stays(base):
    base({})
    assert not bases.stored()
    bases.PATH.write_text(json.dumps({"tasks": {CARTPOLE: STRONG}}))
    bases.keep(QUADRATIC, entry(defaults={"learning_rate": 0.1}))
    assert list(bases.stored()) == [CARTPOLE, QUADRATIC]


def test_what_an_algorithm_does_not_have_is_no_base(base):
    base({CARTPOLE: entry(defaults={"clip_range": 0.1})})
    with pytest.raises(ValueError, match="unknown hyperparameter 'clip_range'"):
        check_task(get_task(NEW))
    base({CARTPOLE: entry(configuration={"hiden": 3})})
    with pytest.raises(ValueError, match="hiden"):
        check_task(get_task(NEW))


def test_ids_without_a_version_have_none_that_follows():
    assert bases.following("dacrl/X-v9") == "dacrl/X-v10"
    with pytest.raises(ValueError, match="no version"):
        bases.following("dacrl/X")
