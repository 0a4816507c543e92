"""Evaluation episodes: what is left out changes nothing."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dacrl_env.core import streams
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.inner_envs.faults import InnerEnvError
from dacrl_env.learners import rollout

ENV = ENVS["CartPole-v1"]()
PHYSICS = np.tile([*ENV.physics.values()], (6, 1))
KEYS = streams.bits(np.arange(6, dtype=np.uint64) + 1, np.zeros(6, np.int64), 5)
# members that fall soon, and some that balance, by how they lean against the pole
GAINS = np.array([0.0, 3.0, -1.0, 0.3, 3.0, 0.0])


def policy(rows: NDArray[np.int64]) -> rollout.Act:
    gains = GAINS[rows, None]
    return lambda seen: (seen[..., 2] * gains + seen[..., 3] > 0).astype(np.int64)


def test_members_play_as_they_do_alone() -> None:
    returns, steps = rollout.play(policy, ENV, KEYS, PHYSICS)
    assert len(set(returns.max(1))) > 2  # they end at different times
    for i in range(6):
        one = np.array([i])
        alone = rollout.play(
            lambda _, one=one: policy(one),  # type: ignore[misc]
            ENV,
            KEYS[one],
            PHYSICS[one],
        )
        np.testing.assert_array_equal(alone[0][0], returns[i])
        assert alone[1][0] == steps[i]
    # CartPole gives a reward of one each step
    np.testing.assert_array_equal(steps, returns.sum(1))


def test_members_that_are_done_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    work = 0

    def noted(rows: NDArray[np.int64]) -> rollout.Act:
        act = policy(rows)
        asked.append(rows.tolist())

        def counting(observations: NDArray[Any]) -> NDArray[Any]:
            nonlocal work
            assert len(observations) == len(rows)
            work += len(rows)
            return act(observations)

        return counting

    returns, _ = rollout.play(noted, ENV, KEYS, PHYSICS)
    lengths = returns.max(1)
    assert asked[0] == list(range(6))
    for before, after in itertools.pairwise(asked):
        assert set(after) < set(before)
        assert len(after) <= rollout._WORTH_IT * len(before)
    assert lengths.sum() <= work < 0.8 * 6 * lengths.max()


def test_an_episode_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollout, "LONGEST", 100)
    with pytest.raises(
        InnerEnvError, match="not ended after 100 steps; give the inner"
    ):
        rollout.play(policy, ENV, KEYS, PHYSICS)
