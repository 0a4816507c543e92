"""Shares of time by phase: what is charged to what, and that nothing else changes."""

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
from dacrl_env.benchmarks import phases

from dacrl_env.core import snapshot
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.tasks import Task, bases
from dacrl_env.tasks.registration import TASKS

SMALL = {
    "dqn": {"learning_starts": 20, "hidden_sizes": (16,)},
    "ppo": {"num_inner_envs": 2, "rollout_length": 10, "hidden_sizes": (16,)},
}
# whose environments Python steps
STEPPED = "dacrl-tests/DQN-CartPole-v0"
NAMES = {
    "dqn": "dacrl/DQN-CartPole-v0",
    "ppo": "dacrl/PPO-Pendulum-v0",
    "stepped": STEPPED,
}


@pytest.fixture(autouse=True)
def _stepped(monkeypatch):
    task = Task(
        id=STEPPED,
        algorithm="dqn",
        inner_env="CartPole-v1",
        backend="gymnasium",
        budget=400,
        random_return=22.0,
        reference_return=500.0,
        floor_return=0.0,
    )
    monkeypatch.setitem(TASKS, STEPPED, task)


def _options(task, **more):
    learner = SMALL[TASKS[task].algorithm]
    steps = {"budget": 400, "decision_interval": 20, "eval_episodes": 1}
    return {**steps, **learner, **more}


def _functions(population):
    """Functions that the owners of timed ones hold themselves, one by one."""
    owners = [owner for owner, _, _ in phases._boundaries(population)]
    return [
        (number, name, value)
        for number, owner in enumerate(owners)
        for name, value in vars(owner).items()
        if callable(value)
    ]


@pytest.mark.parametrize("task", NAMES.values(), ids=NAMES)
def test_shares_of_every_phase_sum_to_one(task):
    began = time.perf_counter()
    result = phases.measure([task], [2], 0.01, **_options(task, report=True))
    (row,) = result["rows"]
    assert 0 < row["seconds"] < time.perf_counter() - began
    shares = row["shares"]
    assert list(shares) == list(phases.PHASES)
    assert sum(shares.values()) == pytest.approx(1)
    idle = [phase for phase, share in shares.items() if not share > 0]
    if task == STEPPED:
        assert idle == []
        assert shares["environment"] < row["environments"] < 1
    else:
        assert idle == ["environment"]
        assert row["environments"] == 0


def test_a_moment_belongs_to_the_outermost_phase(monkeypatch):
    clock = itertools.count()  # every look at it is a second later
    fake = SimpleNamespace(perf_counter=lambda: float(next(clock)))
    monkeypatch.setattr(phases, "time", fake)
    timer = phases.PhaseTimer()
    environment = timer.timed(lambda: None, "environment")

    def two():
        environment()
        environment()

    environment()
    timer.timed(two, "evaluation")()
    timer.timed(two, "training")()
    totals = timer.totals()
    # a second between any two looks: 1 to the first step, 1 in it, 1 to the
    # evaluation, 5 in it (2 in steps), 1 to the training, 5 in it, 1 to the totals
    expected = {"other": 4, "environment": 1 + 2, "evaluation": 5, "training": 3}
    assert totals == {**dict.fromkeys(phases.PHASES, 0), **expected}
    assert timer.anywhere("environment") == 5


@pytest.mark.parametrize("task", NAMES.values(), ids=NAMES)
def test_instrumentation_is_removed(task):
    env = PopulationEnv(task, 2, **_options(task))
    env.reset(seed=0)
    before = _functions(env.population)
    with phases.instrumented(env.population):
        assert _functions(env.population) != before
        env.step(np.zeros(env.action_space.shape))
    assert _functions(env.population) == before


@pytest.mark.parametrize("task", NAMES.values(), ids=NAMES)
def test_instrumentation_is_removed_when_the_run_raises(task, monkeypatch):
    env = PopulationEnv(task, 2, **_options(task))
    env.reset(seed=0)

    def broken(*args):
        raise RuntimeError("broken")

    monkeypatch.setattr(env.population.learner, "train", broken)
    before = _functions(env.population)
    action = np.zeros(env.action_space.shape)
    with pytest.raises(RuntimeError), phases.instrumented(env.population):
        env.step(action)
    assert _functions(env.population) == before


@pytest.mark.parametrize("task", NAMES.values(), ids=NAMES)
def test_training_is_the_same_bit_for_bit(task):
    def run(timed):
        env = PopulationEnv(task, 3, **_options(task))
        env.reset(seed=5)
        action = np.zeros(env.action_space.shape)
        if timed:
            with phases.instrumented(env.population):
                results = [env.step(action) for _ in range(4)]
        else:
            results = [env.step(action) for _ in range(4)]
        leaves = snapshot.leaves(env.population.state)
        arrays = {name: np.asarray(leaf) for name, leaf in leaves}
        bits = {k: a.tobytes() for k, a in arrays.items() if a.dtype != object}
        del bits["wall_seconds"]
        return bits, [result[0].tobytes() for result in results]

    assert run(timed=True) == run(timed=False)


def test_all_tasks_that_can_be_made_are_measured_by_default(monkeypatch):
    measured = []
    monkeypatch.setattr(phases, "measure_one", lambda task, P, s: measured.append(task))
    phases.measure()
    known = {bases.original(task) for task in measured}
    assert {*NAMES.values(), "dacrl/DQN-MiniGrid-Empty-5x5-v0"} <= known
    assert set(measured) <= set(TASKS)


def test_decisions_are_whole_and_within_a_run():
    task = NAMES["dqn"]
    options = _options(task, budget=100)  # five decisions: one skipped, one left out
    row = phases.measure_one(task, 2, 60.0, **options)
    assert row["decisions"] == 3
    steps = 2 * 3 * 20
    assert row["steps_per_second"] == pytest.approx(steps / row["seconds"])
    assert phases.measure_one(task, 2, 1e-9, **options)["decisions"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([NAMES["dqn"], "x"],), "unknown task 'x'; valid: dacrl/DQN"),
        (([],), "must be a task"),
        ((None, [64, 0]), "must be positive"),
        ((None, []), "must be positive"),
        ((None, [64], 0.0), "must be positive"),
    ],
)
def test_what_cannot_be_measured(arguments, message, monkeypatch):
    monkeypatch.setattr(phases, "measure_one", None)  # it is not come to
    with pytest.raises(ValueError, match=message):
        phases.measure(*arguments)
