"""Decisions and evaluations that fit themselves to the run."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest

import dacrl_env
from dacrl_env import get_task
from dacrl_env.cli.commands import main
from dacrl_env.comparison.evaluation import suitable_options
from dacrl_env.outer.decisions import intervals
from dacrl_env.outer.settings import resolve
from dacrl_env.policies import POLICIES, get_policy
from dacrl_env.policies.schedules import SHAPES

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SCHEDULES = [f"{shape}-epsilon" for shape in SHAPES]
CARTPOLE = "dacrl/DQN-CartPole-v0"
PPO = "dacrl/PPO-CartPole-v0"


class Wishing:
    action_mode = "continuous"

    def __init__(self, **wishes: int) -> None:
        vars(self).update(wishes)


def found(task: str, options: dict[str, Any], **wishes: int) -> dict[str, Any]:
    options = suitable_options(Wishing(**wishes), get_task(task), options)  # type: ignore[arg-type]
    return {k: options.get(k) for k in ("decision_interval", "eval_interval")}


@pytest.mark.parametrize(
    ("task", "options", "near", "decision", "evaluation", "note"),
    [
        # what always could be stays
        (CARTPOLE, {}, 100, 500, 2_500, ""),
        (PPO, {}, 100, 1_024, 5_120, ""),
        (CARTPOLE, {"budget": 2_000}, 100, 20, 100, ""),
        (CARTPOLE, {"eval_interval": 1_000}, 100, 500, None, ""),
        # the rest fits itself
        (QUADRATIC, {}, 100, 1, 1, "50 decisions a run instead of 100"),
        (PPO, {"budget": 20_480}, 100, 1_024, 1_024, "20 decisions a run"),
        (CARTPOLE, {"budget": 1_050}, 100, 10, 50, "105 decisions .* every 50 steps"),
        (CARTPOLE, {"budget": 997}, 100, 1, 997, "997 decisions .* every 997 steps"),
        (CARTPOLE, {"budget": 3_000}, 9, 300, 150, "10 decisions"),
        (CARTPOLE, {"eval_interval": 1_250}, 30, 1_250, None, "40 decisions"),
    ],
)
def test_a_number_near_what_is_wished(
    task: str,
    options: dict[str, Any],
    near: int,
    decision: int,
    evaluation: int | None,
    note: str,
) -> None:
    import re

    result = found(task, options, decisions_near=near)
    if task == PPO and not note:
        decision = result["decision_interval"]  # whatever a rollout is
        assert get_task(task).budget // decision == 100
        evaluation = result["eval_interval"]
        assert evaluation == get_task(task).budget // 20
    assert result["decision_interval"] == decision
    assert result["eval_interval"] == (evaluation or options.get("eval_interval"))
    told = intervals(Wishing(decisions_near=near), get_task(task), options).note
    assert bool(told) == bool(note)
    assert re.search(note, told)


@pytest.mark.parametrize("task", [CARTPOLE, QUADRATIC])
@pytest.mark.parametrize("budget", [50, 64, 210, 360, 1_050, 2_048, 9_973])
@pytest.mark.parametrize("near", [1, 7, 100, 1_000])
def test_what_is_found_can_be_made_and_is_nearest(
    task: str, budget: int, near: int
) -> None:
    options = {"budget": budget}
    if task == CARTPOLE:
        options["learning_starts"] = 40
    result = found(task, options, decisions_near=near)
    settings = resolve(task, **options, **result)
    number = budget // settings.decision_interval
    fits = [n for n in range(1, budget + 1) if budget % n == 0]
    usual = budget // get_task(task).decisions
    if usual and budget % usual == 0:
        assert settings.eval_interval == usual
        sizes = {n: budget // n for n in fits}
        fits = [n for n, d in sizes.items() if max(d, usual) % min(d, usual) == 0]
    distance = {n: abs(math.log(n / near)) for n in fits}
    assert distance[number] == min(distance.values())


@pytest.mark.parametrize(
    ("spec", "evaluation"),
    [
        ("linear-epsilon,decisions=16", 3_125),
        ("linear-epsilon,decisions=50", 2_000),
        ("cosine-epsilon,decisions=8", 3_125),
        ("step-epsilon,decisions=1000", 2_500),
        ("combined,epsilon=linear(1,0.1),decisions=40", 2_500),
    ],
)
def test_decisions_alone_are_enough(spec: str, evaluation: int) -> None:
    policy = get_policy(spec)
    options = suitable_options(policy, get_task(CARTPOLE), {})
    settings = resolve(CARTPOLE, **options)
    assert settings.budget // settings.decision_interval == policy.decisions  # type: ignore[attr-defined]
    assert settings.eval_interval == evaluation


@pytest.mark.parametrize(
    ("task", "options", "decisions", "words"),
    [
        (
            CARTPOLE,
            {},
            30,
            ["near 30: 20, 25, 40, 50", "49,980 and 50,010"],
        ),
        (CARTPOLE, {"budget": 997}, 100, ["valid near 100: 1, 997", "900 and 1,000"]),
        (QUADRATIC, {}, 20, ["do not divide a budget of 50", "10, 25", "40 and 60"]),
        (PPO, {"budget": 20_480}, 40, ["into parts of", "valid near 40: ", "20"]),
    ],
)
def test_decisions_that_cannot_be_name_some_that_can(
    task: str, options: dict[str, Any], decisions: int, words: list[str]
) -> None:
    with pytest.raises(ValueError, match="made for") as caught:
        found(task, options, decisions=decisions)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("decisions", [0, -3])
def test_decisions_are_at_least_one(decisions: int) -> None:
    with pytest.raises(ValueError, match="decisions must be at least 1"):
        get_policy(f"linear-epsilon,decisions={decisions}")


def test_intervals_that_are_given_stay() -> None:
    assert found(CARTPOLE, {"decision_interval": 250}, decisions_near=7) == {
        "decision_interval": 250,
        "eval_interval": None,
    }
    assert found(CARTPOLE, {}) == {"decision_interval": None, "eval_interval": None}
    assert found(CARTPOLE, {}, decision_interval=125)["decision_interval"] == 125


@pytest.mark.parametrize(
    "options", [{"budget": "a"}, {"budget": 0}, {"eval_interval": "a"}, {"n_step": "a"}]
)
def test_wrong_options_are_named_as_ever(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        resolve(
            CARTPOLE,
            **suitable_options(
                get_policy("linear-epsilon"), get_task(CARTPOLE), options
            ),
        )


def test_what_was_taken_is_said_once(capsys, tmp_path) -> None:
    spec = "linear,hyperparameter=learning_rate,start=1e-1,end=1e-2"
    with pytest.warns(UserWarning, match="50 decisions a run instead of 100") as caught:
        frame = dacrl_env.evaluate(QUADRATIC, spec, 2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert frame["step"].max() == 50
    with pytest.warns(UserWarning, match="instead of 100") as caught:
        dacrl_env.compare(QUADRATIC, [spec, "default"], 4, batch=2, num_threads=1)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dacrl_env.evaluate(QUADRATIC, f"{spec},decisions=50", 2)
        small = {"budget": 400, "eval_episodes": 1, "learning_starts": 200}
        dacrl_env.evaluate(CARTPOLE, "linear-epsilon", 1, **small)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        line = ["compare", QUADRATIC, "--policies", spec, "--seeds", "2"]
        assert main([*line, "--num-threads", "1", "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize("name", [n for n in POLICIES if n in SCHEDULES])
def test_every_schedule_suits_every_budget(name: str) -> None:
    policy = get_policy(name)
    for budget in (60, 101, 777, 1_024, 4_999):
        options = suitable_options(policy, get_task(CARTPOLE), {"budget": budget})
        resolve(CARTPOLE, learning_starts=40, **options)
