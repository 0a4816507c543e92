"""Published configurations are ones that tasks can have."""

from __future__ import annotations

import pytest

from dacrl_env.outer.settings import own_hyperparameters, resolve
from dacrl_env.studies.finalists import published
from dacrl_env.studies.headroom import wide
from dacrl_env.tasks.public import PUBLIC, public
from dacrl_env.tasks.registration import (
    ALGORITHMS,
    TASKS,
    configured,
    get_task,
    load,
)

CARTPOLE = "dacrl/DQN-CartPole-v0"


@pytest.mark.parametrize("key", PUBLIC, ids=" ".join)
def test_they_are_within_what_the_algorithm_has(key):
    algorithm, _ = key
    learner, given = load(ALGORITHMS[algorithm]), PUBLIC[key]
    by_name = {h.name: h for h in learner.hyperparameters}
    for name, value in given.defaults.items():
        by_name[name].codes(value)
    configured(algorithm, learner.config_class, given.configuration)
    assert given.source
    assert all(given.without)


HAVING = [task.id for task in TASKS.values() if public(task) is not None]
# whose decisions are shorter than the rollouts that are published
SHORTER = ("dacrl/PPO-Pendulum-Small-v0", "dacrl/PPO-Pendulum-Small-v1")


@pytest.mark.parametrize("task", [task for task in HAVING if task not in SHORTER])
def test_runs_of_the_tasks_can_have_them(task):
    known = get_task(task)
    settings = resolve(task, **public(known).configuration)
    assert settings.decision_interval == known.budget // known.decisions


@pytest.mark.parametrize("task", SHORTER)
def test_tasks_of_short_decisions_have_the_numbers_alone(task):
    known = get_task(task)
    found, left_out = published(known, [h.name for h in wide(known)], True, {})
    assert [f.name for f in found] == ["public, own configuration"]
    assert [*left_out] == ["public"]
    assert "rollout" in left_out["public"]


def test_nothing_is_published_for_environments_of_our_own():
    assert public(get_task("dacrl/DQN-TwoColours-v0")) is None
    assert public(get_task("dacrl/NoisyQuadratic-v0")) is None
    assert len(HAVING) >= 10


def test_they_are_finalists_with_their_networks_and_with_the_task_s():
    task = get_task(CARTPOLE)
    names = [h.name for h in wide(task)]
    both, left_out = published(task, names, True, {})
    assert not left_out
    assert [f.name for f in both] == ["public", "public, own configuration"]
    assert both[0].policy.configuration == {"hidden_sizes": (256, 256)}
    assert both[1].policy.configuration == {}
    assert both[0].policy.config == both[1].policy.config
    assert both[0].work > 10 * both[1].work > 10
    (own,), _ = published(task, names, False, {})
    assert own.policy.arguments() == both[1].policy.arguments()
    # what the task's default differs in from the algorithm's is told, too
    acrobot = get_task("dacrl/DQN-Acrobot-v0")
    (found,), _ = published(acrobot, names, False, {})
    assert found.policy.config["double_q"] is False
    assert found.policy.config["n_step"] == 1
    all_of_it = own_hyperparameters(acrobot, load(ALGORITHMS["dqn"]).hyperparameters)
    assert set(found.policy.config) < set(all_of_it)


def test_what_is_not_searched_is_not_changed_by_them():
    task = get_task("dacrl/DQN-CartPole-HighReplay-v0")
    names = ["learning_rate", "epsilon", "target_update_interval", "gamma"]
    found, left_out = published(task, names, False, {})
    assert found == []
    assert "train_freq" in left_out["public"]
    assert "not searched" in left_out["public"]
