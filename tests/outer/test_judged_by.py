"""Tasks that are judged by their training episodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dacrl_env
from dacrl_env.comparison.report import summarize
from dacrl_env.core.snapshot import leaves
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.studies.branching import branching
from dacrl_env.tasks import REPORT_POINTS, Task

# episodes of CartPole end all the time, those of MountainCar after 200 steps
SHORT: dict[str, Any] = {"budget": 2_000, "learning_starts": 100}
SEEDS = list(range(4))


def judged(task: str = "dacrl/DQN-CartPole-v0", **fields: Any) -> Task:
    return replace(
        dacrl_env.get_task(task), judged_by="training", id="dacrl/Judged-v0", **fields
    )


def ran(task: Task, **options: Any) -> PopulationEnv:
    """The end of runs with the default configuration."""
    envs = PopulationEnv(task, len(SEEDS), **{**SHORT, **options})
    envs.reset(seed=SEEDS)
    while not envs.population.ended().all():
        envs.advance(envs.population.state.requested)
    return envs


def test_a_report_is_the_mean_of_the_training_episodes_since_the_last_one() -> None:
    frame = dacrl_env.evaluate(judged(), "default", SEEDS, **SHORT)
    each = frame[frame["step"] > 0]
    expected = judged().score(each["train_return"])
    np.testing.assert_array_equal(each["report_score"], expected)
    assert each["report_score"].std() > 0
    assert (frame.loc[frame["step"] == 0, "report_score"] == 0).all()
    # and what is observed is the same, for there are as many decisions
    np.testing.assert_array_equal(each["score"], expected)


@pytest.mark.parametrize("interval", [50, 200, 1_000])
def test_reports_do_not_depend_on_when_decisions_are(interval: int) -> None:
    whole = ran(judged(), report=True).population.state.reports
    cut = ran(judged(), report=True, decision_interval=interval).population.state
    np.testing.assert_allclose(cut.reports, whole, rtol=1e-12)
    assert np.isfinite(whole).all()


def test_without_an_episode_a_report_is_that_of_before() -> None:
    # episodes of MountainCar are of 200 steps, until something is learned
    task = judged("dacrl/DQN-MountainCar-v0")
    reports = ran(task, report=True).population.state.reports
    np.testing.assert_array_equal(reports[:, :2], 0.0)
    for point in range(3, REPORT_POINTS + 1, 2):
        np.testing.assert_array_equal(reports[:, point], reports[:, point - 1])


def test_exploring_has_its_price() -> None:
    fixed = {"learning_rate": 1e-3, "train_freq": 1}
    options: dict[str, Any] = {"hyperparameters": ["epsilon"], "fixed": fixed}
    options |= {"budget": 6_000}
    random = dacrl_env.get_policy("static,epsilon=1.0")
    scores = {}
    for by in ("evaluation", "training"):
        frame = dacrl_env.evaluate(
            replace(judged(), judged_by=by), random, SEEDS, **options
        )
        scores[by] = summarize(frame)["report_auc"].mean()
    assert abs(scores["training"]) < 0.02
    assert scores["evaluation"] > 0.1


def test_policies_see_scores_of_training_unless_they_ask_for_others() -> None:
    seen = ran(judged()).population
    assert seen.settings.feedback == "train"
    assert (seen.state.eval_steps == 0).all()
    evaluated = ran(judged(), feedback="eval").population
    assert evaluated.settings.feedback == "eval"
    assert (evaluated.state.eval_steps > 0).all()
    # which changes nothing of what they are judged by
    np.testing.assert_array_equal(evaluated.final_report(), seen.final_report())
    assert PopulationEnv("dacrl/DQN-CartPole-v0", 1).settings.feedback == "eval"


def test_what_a_search_is_told_at_the_end_is_the_last_report() -> None:
    seen, told = ran(judged()), ran(judged(), report=True)
    np.testing.assert_array_equal(
        seen.population.final_report(), told.population.state.reports[:, -1]
    )


@pytest.mark.parametrize("decisions", [1, 3])  # 150 steps are between two points
def test_runs_go_on_from_a_snapshot(decisions: int) -> None:
    options: dict[str, Any] = {**SHORT, "budget": 3_000, "decision_interval": 250}
    whole = ran(judged(), **options).population.state
    first = PopulationEnv(judged(), len(SEEDS), **options)
    first.reset(seed=SEEDS)
    for _ in range(decisions):
        first.advance(first.population.state.requested)
    then = PopulationEnv(judged(), len(SEEDS), **options)
    then.reset(seed=[9, 8, 7, 6])
    then.restore(first.snapshot())
    while not then.population.ended().all():
        then.advance(then.population.state.requested)
    after = dict(leaves(then.population.state))
    for name, leaf in leaves(whole):
        if name != "wall_seconds":
            np.testing.assert_array_equal(after[name], leaf, err_msg=name)


def test_a_snapshot_of_runs_that_are_judged_otherwise_is_refused() -> None:
    envs = PopulationEnv(judged(), 2, **SHORT)
    envs.reset(seed=[1, 2])
    others = PopulationEnv(
        replace(judged(), judged_by="evaluation"), 2, feedback="train", **SHORT
    )
    with pytest.raises(ValueError, match="judged_by"):
        others.restore(envs.snapshot())


def test_a_run_that_diverges_counts_as_the_floor() -> None:
    task = judged()
    with np.errstate(all="ignore"):
        envs = PopulationEnv(task, 2, report=True, **SHORT)
        envs.reset(seed=[1, 2])
        envs.advance(envs.population.state.requested)
        envs.population.state.learner.parameters[0] = np.nan
        while not envs.population.ended().all():
            envs.advance(envs.population.state.requested)
    state = envs.population.state
    assert state.diverged.tolist() == [True, False]
    assert np.isnan(state.reports[0, 2:]).all()
    floor = task.score(task.returns.floor)
    assert envs.population.final_report()[0] == floor


def test_a_return_that_is_no_number_spoils_one_report_alone() -> None:
    task = judged(backend="gymnasium")
    envs = PopulationEnv(task, 2, report=True, feedback="eval", **SHORT)
    envs.reset(seed=[1, 2])
    population = envs.population
    population._bounded = False  # as environments of users may be
    real = population.learner.train

    def train(state: Any, values: Any, steps: int, interval: Any) -> None:
        real(state, values, steps, interval)
        if state.env_steps[0] == 100:
            interval.finished[0, 1] = np.inf  # the sum of returns

    population.learner.train = train
    while not population.ended().all():
        envs.advance(population.state.requested)
    floor = task.score(task.returns.floor)
    assert population.state.reports[0, 1] == floor
    assert np.isfinite(population.state.reports).all()
    assert (population.state.reports[0, 2:] > floor).all()


def test_branching_chooses_and_values_by_training_episodes() -> None:
    task = judged(budget=2_000, decisions=4, configuration={"learning_starts": 100})
    found = branching(
        task, {"learning_rate": 1e-3}, runs=4, configurations=3, streams=2
    )
    assert found.costs["branching"].eval_steps == 0
    gains = found.rows.loc[found.rows["what"] == "per run", "value"]
    assert gains.std() > 0  # some forks are better than others


def test_an_equal_total_budget_is_one_of_training_feedback() -> None:
    made = dacrl_env.compare(
        judged(), seeds=[1, 2], methods=["random-search"], total=True, feedback=None,
        runs=1, tuning_budget=8_000, **SHORT,
    )  # fmt: skip
    assert (made["eval_steps"].dropna() == 0).all()


def test_python_environments_are_judged_by_training_too() -> None:
    task = judged(backend="gymnasium")
    mine = ran(judged(), report=True).population.state.reports
    theirs = ran(task, report=True).population.state.reports
    assert np.isfinite(theirs).all()
    assert theirs.std() > 0
    assert mine.shape == theirs.shape


def test_returns_that_are_measured_are_those_of_networks_that_do_not_explore() -> None:
    def measured(by: str) -> tuple[float, ...]:
        task = Task(
            id="dacrl/Measured-v0",
            inner_env="FourMDPs-v0",
            algorithm="dqn",
            budget=8_000,
            defaults={"gamma": 0.9, "epsilon": 0.5},
            judged_by=by,  # type: ignore[arg-type]
        )
        return tuple(task.returns)

    assert measured("training") == measured("evaluation")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"judged_by": "both"}, "judged_by.*both.*evaluation, training"),
        ({"judged_by": None}, "judged_by"),
        ({"judged_by": "training", "inner_env": ""}, "no inner environment"),
    ],
)
def test_tasks_say_what_is_wrong(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(dacrl_env.get_task("dacrl/DQN-CartPole-v0"), **fields)


def test_runs_too_short_for_all_points_are_judged_at_their_end() -> None:
    # three rollouts: an episode, of 200 steps, ends in the second one alone
    task = judged("dacrl/PPO-Acrobot-v0", inner_env="MountainCar-v0")
    options: dict[str, Any] = {"num_inner_envs": 1, "rollout_length": 120}
    envs = PopulationEnv(task, 2, budget=360, decision_interval=120, **options)
    envs.reset(seed=[1, 2])
    while not envs.population.ended().all():
        envs.advance(envs.population.state.requested)
    state = envs.population.state
    expected = task.score(state.train_return)
    np.testing.assert_array_equal(expected, task.score([-200.0, -200.0]))
    np.testing.assert_array_equal(envs.population.final_report(), expected)
