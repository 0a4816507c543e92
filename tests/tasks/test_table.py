"""The table of tasks: what its rows have in common, and what they must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dacrl_env import TASKS
from dacrl_env.tasks.registration import ALGORITHMS, load

SHORT = [task for task in TASKS.values() if "-short-" in task.id]


def test_wide_cartpole_controls_all_that_its_algorithm_has() -> None:
    learner = load(ALGORITHMS["dqn"])
    names = tuple(knob.name for knob in learner.hyperparameters)
    assert TASKS["dacrl/DQN-CartPole-Wide-v0"].controlled == names


@pytest.mark.parametrize("short", SHORT, ids=lambda task: task.id)
def test_short_tasks_are_the_beginning_of_long_ones(short) -> None:
    """All that what is compiled depends on is the same."""
    long = TASKS[short.id.replace("-short-", "-")]
    assert short.budget * 10 == long.budget
    assert short.reference_return <= long.reference_return
    own = ("id", "budget", "reference_return", "description", "tags")
    sets = {
        name: tuple(
            replace(instance, reference_return=short.reference_return)
            for instance in getattr(long, name)
        )
        for name in ("train_instances", "test_instances")
    }
    given = {name: getattr(short, name) for name in own}
    assert short == replace(long, **given, **sets)


def test_minatar_has_each_game_with_each_algorithm() -> None:
    minatar = [task for task in TASKS.values() if "MinAtar" in task.id]
    long = [task for task in minatar if task not in SHORT]
    assert len(long) == len({(t.inner_env, t.algorithm) for t in long}) == 2 * 5
    # in a tenth of the steps nothing is learned of Asterix
    short = {task.id.replace("-short-", "-") for task in SHORT}
    assert {t.id for t in long if t.id not in short} == {
        "dacrl/DQN-MinAtar-Asterix-v0",
        "dacrl/PPO-MinAtar-Asterix-v0",
    }
