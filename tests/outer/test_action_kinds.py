"""What is no array of real numbers is no action, and says which kind it is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from test_copies import bits

import dacrl_env
from dacrl_env import PopulationEnv
from dacrl_env.outer.actions import ACTION_MODES

DQN = "dacrl/DQN-CartPole-v0"
SMALL: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "learning_starts": 50,
    "eval_episodes": 1,
    "hidden_sizes": (8,),
}


def masked(*values: float, hidden: int | None) -> Any:
    mask = [k == hidden for k in range(len(values))]
    return np.ma.MaskedArray(values, mask)


ODD: dict[str, tuple[Any, str]] = {
    "dict": ({"learning_rate": 1e-3}, r"to_action\("),
    "empty dict": ({}, r"to_action\("),
    "masked": (masked(1, 1, 1, hidden=1), "masked"),
    "masked integers": (masked(1, 1, 1, hidden=0).astype(int), "masked"),
    "list with a masked number": ([0, np.ma.masked, 0], "masked"),
    "text": ("low", "got text"),
    "texts": (["0", "0", "0"], "got text"),
    "bytes": (b"0", "got bytes"),
    "None": (None, "got None"),
    "a None": ([0, None, 0], "got None"),
    "objects": (np.array([0, 0, Decimal(1)], object), "got Decimal"),
    "large integers": ([10**400, 0, 0], "got objects"),
    "set": ({0, 1, 2}, "got {0, 1, 2}"),
    "complex": ([0, 0, 1j], "got complex numbers"),
    "dates": (np.zeros(3, "datetime64[s]"), "got dates"),
    "spans": (np.zeros(3, "timedelta64[s]"), "got spans of time"),
    "records": (np.zeros(3, [("a", float)]), "dtype"),
    "ragged": ([[0.0, 0.0], [0.0]], "not an array of numbers"),
    "differentiable": (torch.zeros(3, requires_grad=True), "not an array of numbers"),
}


@pytest.fixture(scope="module", params=ACTION_MODES)
def made(request: pytest.FixtureRequest) -> Any:
    options = {**SMALL, "action_mode": request.param}
    one = dacrl_env.DynamicConfigEnv(DQN, **options)
    many = PopulationEnv(DQN, 2, **options)
    one.reset(seed=0)
    many.reset(seed=0)
    return one, many


@pytest.mark.parametrize("kind", ODD)
def test_odd_kinds_have_one_clear_line(made: Any, kind: str) -> None:
    one, many = made
    action, words = ODD[kind]
    before = bits(one), bits(many)
    for call in (
        lambda: one.step(action),
        lambda: one.to_config(action),
        lambda: many.step([action, action]),
        lambda: many.step(action),
        lambda: many.to_config(action),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "action" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (bits(one), bits(many)) == before


def test_what_holds_numbers_alone_is_taken() -> None:
    env = dacrl_env.DynamicConfigEnv(DQN, **SMALL)
    expected = env.to_config(np.array([1.0, 0.0, -1.0]))
    for action in (
        masked(1, 0, -1, hidden=None),
        [masked(1, hidden=None)[0], 0, -1],
        torch.tensor([1.0, 0.0, -1.0]),
        (np.float16(1), np.int8(0), -1),
        memoryview(np.array([1.0, 0.0, -1.0])),
    ):
        assert env.to_config(action) == expected
    envs = PopulationEnv(DQN, 2, **SMALL)
    envs.reset(seed=0)
    envs.step(np.ma.MaskedArray(np.zeros((2, 3))))


def test_masked_entries_of_a_population_are_refused() -> None:
    envs = PopulationEnv(DQN, 2, **SMALL)
    envs.reset(seed=0)
    actions = np.ma.MaskedArray(np.zeros((2, 3)))
    actions[1, 2] = np.ma.masked
    for given in (actions, list(actions), [actions[0], [0, 0, np.ma.masked]]):
        with pytest.raises(ValueError, match="masked"):
            envs.step(given)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([1e-3], "a dict of names and values"),
        ("learning_rate", "a dict of names and values"),
        (None, "a dict of names and values"),
        ({"learning_rate": "1e-3"}, "learning_rate must be real numbers, got text"),
        ({"learning_rate": None}, "learning_rate must be real numbers, got None"),
        ({"learning_rate": 1j}, "learning_rate must be real numbers, got complex"),
        ({"learning_rate": [1e-3] * 3}, r"learning_rate has shape \(3,\)"),
        ({"learning_rate": np.ma.masked}, "learning_rate must be numbers.*masked"),
    ],
)
def test_values_are_checked_as_actions_are(config: Any, words: str) -> None:
    one = dacrl_env.DynamicConfigEnv(DQN, **SMALL)
    many = PopulationEnv(DQN, 2, **SMALL)
    for call in (one.to_action, many.to_action, many.to_actions):
        with pytest.raises(ValueError, match=words):
            call(config)


@pytest.mark.parametrize("member", [2, -1, 0.5, "0", None, [0]])
def test_members_that_are_none(member: Any) -> None:
    envs = PopulationEnv(DQN, 2, **SMALL)
    for call in (
        lambda: envs.to_action({"epsilon": 0.5}, member=member),
        lambda: envs.to_config([0, 0, 0], member=member),
    ):
        with pytest.raises(ValueError, match="member must be a whole number from 0 to"):
            call()
