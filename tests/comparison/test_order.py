"""The task comes first; calls in the other order work, with one warning."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

import dacrl_env
from dacrl_env.comparison.order import task_first
from dacrl_env.policies import get_method, get_policy
from dacrl_env.tasks.registration import is_task

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SHORT = {"budget": 20, "decision_interval": 10}
OURS = pytest.warns(DeprecationWarning, match="the task comes first")


@pytest.mark.parametrize("name", ["compare", "evaluate", "fit", "compare_suite"])
def test_the_first_argument_is_the_task(name: str) -> None:
    first = next(iter(inspect.signature(getattr(dacrl_env, name)).parameters))
    assert first == ("tasks" if name == "compare_suite" else "task")


@pytest.mark.parametrize("task", [QUADRATIC, "noisy_quadratic", "task"])
@pytest.mark.parametrize("policy", ["default", "object"])
def test_evaluate_takes_the_other_order(task: Any, policy: Any) -> None:
    task = dacrl_env.get_task(QUADRATIC) if task == "task" else task
    policy = get_policy("default") if policy == "object" else policy
    expected = dacrl_env.evaluate(task, policy, 2, name="it", **SHORT)
    calls: list[Callable[[], pd.DataFrame]] = [
        lambda: dacrl_env.evaluate(policy, task, 2, name="it", **SHORT),
        lambda: dacrl_env.evaluate(policy, task=task, seeds=2, name="it", **SHORT),
    ]
    for call in calls:
        with OURS as told:
            frame = call()
        assert [w.filename for w in told] == [__file__]
        pd.testing.assert_frame_equal(
            frame.drop(columns="wall_seconds"), expected.drop(columns="wall_seconds")
        )


@pytest.mark.parametrize("method", ["random-search", "object"])
def test_fit_takes_the_other_order(method: Any) -> None:
    method = get_method("random-search") if method == "object" else method
    expected = dacrl_env.fit(QUADRATIC, method, 100)
    with OURS as told:
        fitted = dacrl_env.fit(method, QUADRATIC, 100)
    assert [w.filename for w in told] == [__file__]
    assert fitted.policy.config == expected.policy.config


def test_keywords_have_no_order() -> None:
    frame = dacrl_env.evaluate(policy="default", seeds=1, task=QUADRATIC, **SHORT)
    assert not frame.empty


@task_first("thing")
def called(task: Any, thing: Any = None, *rest: Any, **options: Any) -> Any:
    return (task, thing, *rest), options


@pytest.mark.parametrize(
    ("arguments", "options", "result"),
    [
        ((QUADRATIC, "default", 1), {}, (QUADRATIC, "default", 1)),
        ((QUADRATIC,), {"thing": "default"}, (QUADRATIC, "default")),
        (("nothing", "default"), {}, ("nothing", "default")),  # says which is wrong
        ((QUADRATIC, QUADRATIC), {}, (QUADRATIC, QUADRATIC)),
        ((QUADRATIC,), {}, (QUADRATIC, None)),
        ((1, 2), {}, (1, 2)),
    ],
)
def test_what_is_in_order_is_left(
    arguments: Any, options: dict[str, Any], result: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert called(*arguments, **options) == (result, {})


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("default", QUADRATIC, 3), {}),
        (("default", "NoisyQuadratic", 3), {}),
        ((object, dacrl_env.get_task(QUADRATIC), 3), {}),
        (("a.module:Rule,text='x:y'", QUADRATIC, 3), {}),
        (("no_such_module:Rule", QUADRATIC, 3), {}),
    ],
)
def test_what_is_not_in_order_changes_places(
    arguments: Any, options: dict[str, Any]
) -> None:
    first, second, last = arguments
    with OURS:
        assert called(*arguments, **options) == ((second, first, last), {})


def test_both_by_position_and_by_name_is_an_error() -> None:
    with pytest.raises(TypeError, match="multiple values"):
        dacrl_env.evaluate("default", task=QUADRATIC, policy="default")


def test_tasks_of_modules(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task_of_order.py").write_text(
        "from dataclasses import replace\n"
        "import dacrl_env\n"
        f"task = dacrl_env.get_task({QUADRATIC!r})\n"
        "dacrl_env.register_task(replace(task, id='OfOrder-v0'))\n"
    )
    (tmp_path / "broken_for_order.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_task("task_of_order:OfOrder-v0")
    assert not is_task("task_of_order:Other-v0")
    assert not is_task("broken_for_order:OfOrder-v0")
    with OURS:
        assert called("default", "task_of_order:OfOrder-v0")[0] == (
            *("task_of_order:OfOrder-v0", "default"),
        )
