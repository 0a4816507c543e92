"""Agents that know the rules return what can be returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stepping import constants, keys

from dacrl_env.cli.commands import main
from dacrl_env.inner_envs import switching
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.studies import planners, references
from dacrl_env.tasks import measured
from dacrl_env.tasks.registration import get_task

N = 200


def played(env_id: str, planner: Any, **changed: Any) -> dict[str, NDArray[Any]]:
    """Returns ``(P, N)`` of one episode each, and all rewards ``(T, P, N)``."""
    env = ENVS[env_id]()
    P = max(np.size(value) for value in changed.values())
    physics = constants(env, P, **changed)
    state, agent = env.init(keys(P, N), physics), planner(physics)
    rewards, returns = [], np.full((P, N), np.nan)
    while np.isnan(returns).any():
        step = env.step(state, agent(state.observations, len(rewards), np.arange(P)))
        rewards.append(np.where(np.isnan(returns), step.rewards, 0))
        over = step.done & np.isnan(returns)
        returns[over] = step.returns[over]
    return {"returns": returns, "rewards": np.stack(rewards)}


def test_seek_takes_the_good_object_and_never_the_other() -> None:
    found = played("TwoColours-v0", planners.seek, good=np.array([1, 2]))
    assert found["rewards"].min() == -0.04
    # an object is 3.3 steps away on average; a way around costs two more at most
    assert 25 < found["returns"].mean() < 29
    gap = np.diff(found["returns"].mean(1))
    assert abs(gap) < 5 * found["returns"].std() / np.sqrt(N / 2)


def test_ways_are_the_shortest_that_avoid_a_cell() -> None:
    ways = planners._ways()
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        other, target, place = rng.choice(25, 3, replace=False).tolist()
        seen = {place: 0}
        for cell in (queue := [place]):  # breadth first
            for dy, dx in moves:
                y, x = cell // 5 + dy, cell % 5 + dx
                to = 5 * y + x
                if 0 <= y < 5 and 0 <= x < 5 and to != other and to not in seen:
                    seen[to] = seen[cell] + 1
                    queue.append(to)
        steps, cell = 0, place
        while cell != target:
            dy, dx = moves[ways[other, target, cell]]
            cell += 5 * dy + dx
            steps += 1
            assert cell != other
        assert steps == seen[target]


def test_plan_is_better_than_any_other_policy_nearby() -> None:
    numbers = np.arange(1.0, 13.0)
    best = played("SwitchingMDP-v0", planners.plan, first=numbers)["returns"].mean(1)
    assert (best > 8).all()
    rng = np.random.default_rng(0)
    actions = planners.best_of(switching.describe(numbers))
    for _ in range(10):
        changed = np.where(rng.random(actions.shape) < 0.2, actions + 1, actions) % 4

        def other(physics: Any, changed: Any = changed) -> Any:
            return lambda seen, _, rows: changed[rows[:, None], seen.argmax(-1)]

        worse = played("SwitchingMDP-v0", other, first=numbers)["returns"].mean(1)
        assert (worse < best + 0.5).all()


@pytest.mark.parametrize("env_id", ["DeepSea-v0", "DeepSea10-v0"])
def test_dive_finds_the_treasure(env_id: str) -> None:
    sizes, mappings = np.array([10, 20, 15]), np.array([42, 1, 99_999])
    found = played(env_id, planners.dive, size=sizes, mapping=mappings)
    assert found["returns"] == pytest.approx(0.99)


def test_returns_of_an_instance_are_means_over_the_worlds_of_a_run(
    tmp_path: Path,
) -> None:
    path, task = tmp_path / "references.json", "dacrl/DQN-FourMDPs-v0"
    arguments = ["references", task, "--instances", "--episodes", "50"]
    assert main([*arguments, "--out", str(path)]) == 0
    section = json.loads(path.read_text())["instances"]["FourMDPs-v0"]
    assert "each of the worlds of a run, of planners.plan" in section["reference"]
    assert len(section["returns"]) == 41
    instance = get_task(task).test_instances[3]
    worlds = {"first": instance.physics["first"] + np.arange(4)}
    best = played("FourMDPs-v0", planners.plan, **worlds)["returns"].mean()
    entry = section["returns"][instance.name]
    assert entry["reference"] == pytest.approx(best, abs=1.2)
    assert entry["reached"] == entry["reference"]
    registered = measured.returns("FourMDPs-v0")[instance.name]
    assert registered["random"] == pytest.approx(entry["random"], abs=0.6)
    # by more than chance they differ from those of the first world alone
    first = played("FourMDPs-v0", planners.plan, first=worlds["first"][:1])
    assert abs(first["returns"].mean() - best) > 2


def test_the_worlds_of_a_run_are_those_that_it_meets() -> None:
    task = get_task("dacrl/DQN-SwitchingMDPs-v0")
    env = ENVS[task.inner_env]()
    physics = {**env.physics, "period": 30_000.0, "offset": 20_000.0, "first": 7.0}

    def stages(**changed: float) -> list[float]:
        every = references.worlds_of_a_run({**physics, **changed}, task)
        assert all(w["first"] == 7 and w["period"] == 30_000 for w in every)
        return [w["stage"] for w in every]

    last = task.budget - 1
    lifetimes = np.arange(0, last, 100)
    row = np.repeat([[*physics.values()]], len(lifetimes), 0)
    met = env.init(keys(len(row), 1), row, lifetimes).physics[:, switching.STAGE]
    assert stages() == sorted({*met.tolist()})
    assert stages(worlds=3.0) == [1, 2, 3]
    assert stages(offset=1e12) == [1]
