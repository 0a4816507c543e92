"""Events: what they do to networks, optimiser and replay, and what they leave alone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import dacrl_env
from dacrl_env import Event
from dacrl_env.core.snapshot import Snapshot, leaves
from dacrl_env.tasks.registration import ALGORITHMS, load

DQN, PPO = "dacrl/DQN-CartPole-v0", "dacrl/PPO-CartPole-v0"
EVENTS = {
    DQN: (
        "checkpoint", "swap", "reset_head", "reset_all", "shrink_perturb",
        "clear_replay",
    ),
    PPO: ("checkpoint", "swap", "reset_head", "reset_all", "shrink_perturb"),
}  # fmt: skip
SOFT = ("dacrl/SAC-Pendulum-v0", "dacrl/DiscreteSAC-CartPole-v0")
EACH = [(task, name) for task in EVENTS for name in EVENTS[task]]
SHORT: dict[str, dict[str, Any]] = {
    DQN: {"budget": 800, "decision_interval": 100, "learning_starts": 50},
    PPO: {
        "budget": 512, "decision_interval": 64, "num_inner_envs": 2,
        "rollout_length": 16,
    },
}  # fmt: skip
SHORT |= dict.fromkeys(SOFT, SHORT[DQN])
NETWORKS = ("parameters", "target", "mean", "square")


def make(task: str, num_envs: int = 2, **options: Any) -> Any:
    names = (*EVENTS.get(task, EVENTS[DQN]), "perturb_strength", "learning_rate")
    given = {
        **SHORT[task],
        "hyperparameters": names,
        "action_mode": "values",
        "feedback": "train",
        "hidden_sizes": (16, 16),
        **options,
    }
    envs = gym.make_vec(task, num_envs=num_envs, **given).unwrapped
    envs.reset(seed=3)
    return envs


def step(envs: Any, **config: Any) -> dict[str, Any]:
    info: dict[str, Any] = envs.step(envs.to_actions(config))[4]
    return info


def learner(envs: Any) -> dict[str, NDArray[Any]]:
    return {n: np.array(x) for n, x in leaves(envs.population.state.learner)}


def only(envs: Any, **config: Any) -> dict[str, Any]:
    """Events alone: nothing is trained."""
    population = envs.population
    names = population.names
    values = {n: np.zeros(envs.num_envs) for n in names}
    for name, value in config.items():
        values[name] = np.broadcast_to(np.asarray(value, float), envs.num_envs)
    happened: dict[str, Any] = population.learner.happen(
        population.state.learner, values
    )
    return happened


def head(envs: Any) -> NDArray[np.bool_]:
    """Which numbers of a row belong to last layers."""
    kind = envs.population.learner
    mask = np.zeros(envs.population.state.learner.parameters.shape[1], bool)
    for part in kind.head:
        mask[kind.fixed.parts[part] : kind.fixed.parts[part + 1]] = True
    return mask


def test_the_table_is_that_of_the_algorithms() -> None:
    for task, names in EVENTS.items():
        kind = load(ALGORITHMS[dacrl_env.TASKS[task].algorithm])
        events = [h.name for h in kind.hyperparameters if isinstance(h, Event)]
        assert set(events) == set(names)
        assert not {*events} & {*kind.controlled}


@pytest.mark.parametrize("task", EVENTS)
def test_heads_are_the_last_layers(task: str) -> None:
    envs = make(task)
    fixed, mask = envs.population.learner.fixed, head(envs)
    actor = fixed.net if task == DQN else fixed.actor
    weights = 16 * actor.units[-1]
    assert mask[actor.weights[-1] :][: weights + actor.units[-1]].all()
    assert not mask[: actor.weights[-1]].any()
    if task == PPO:
        critic = fixed.critic
        assert mask[fixed.actor.row + critic.weights[-1] :][: 16 + 1].all()
        assert not mask[fixed.actor.row :][: critic.weights[-1]].any()


@pytest.mark.parametrize("task", EVENTS)
def test_a_head_begins_anew_with_its_optimiser_and_the_body_goes_on(task: str) -> None:
    envs = make(task)
    step(envs), step(envs)
    before, mask = learner(envs), head(envs)
    assert (before["part_steps"] > 0).all()
    only(envs, reset_head=[1, 0])
    after = learner(envs)
    for name in NETWORKS:
        if name in before:
            np.testing.assert_array_equal(after[name][1], before[name][1])
            np.testing.assert_array_equal(after[name][0][~mask], before[name][0][~mask])
    assert (after["mean"][0][mask] == 0).all()
    assert (after["square"][0][mask] == 0).all()
    real = before["parameters"][0] != 0
    moved = after["parameters"][0] != before["parameters"][0]
    # biases of PPO begin at zero
    assert moved[mask & real].mean() > 0.9
    if "target" in after:
        np.testing.assert_array_equal(
            after["target"][0][mask], after["parameters"][0][mask]
        )
    parts = list(envs.population.learner.head)
    others = [k for k in range(after["part_steps"].shape[1]) if k not in parts]
    assert (after["part_steps"][0, parts] == 0).all()
    np.testing.assert_array_equal(
        after["part_steps"][0, others], before["part_steps"][0, others]
    )


@pytest.mark.parametrize("task", EVENTS)
def test_all_begins_anew_as_a_fresh_network_does(task: str) -> None:
    envs = make(task)
    fresh = learner(envs)
    step(envs), step(envs)
    before = learner(envs)
    only(envs, reset_all=[0, 1])
    after = learner(envs)
    assert (after["mean"][1] == 0).all()
    assert (after["square"][1] == 0).all()
    assert (after["part_steps"][1] == 0).all()
    # distributed as at the beginning, with other numbers
    assert after["parameters"][1].std() == pytest.approx(
        fresh["parameters"][1].std(), rel=0.1
    )
    same = (after["parameters"][1] == fresh["parameters"][1]) & (
        fresh["parameters"][1] != 0
    )
    assert not same.any()
    np.testing.assert_array_equal(after["parameters"][0], before["parameters"][0])
    # a later one draws others again
    step(envs)
    only(envs, reset_all=1)
    assert (learner(envs)["parameters"][1] != after["parameters"][1]).mean() > 0.5


@pytest.mark.parametrize("task", EVENTS)
def test_shrinking_goes_part_of_the_way_to_a_fresh_network(task: str) -> None:
    whole, half = make(task), make(task)
    for envs in (whole, half):
        step(envs), step(envs)
    before = learner(half)["parameters"]
    only(whole, reset_all=1)
    only(half, shrink_perturb=1, perturb_strength=[0.25, 1.0])
    fresh, after = learner(whole)["parameters"], learner(half)["parameters"]
    np.testing.assert_allclose(
        after[0], 0.75 * before[0] + 0.25 * fresh[0], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_array_equal(after[1], fresh[1])
    assert (learner(half)["mean"] == 0).all()


@pytest.mark.parametrize("task", EVENTS)
def test_what_was_saved_comes_back_and_the_rest_goes_on(task: str) -> None:
    envs = make(task)
    step(envs)
    saved = learner(envs)
    info = step(envs, checkpoint=["save", "none"])
    assert info["hyperparameters"]["checkpoint"].tolist() == ["save", "none"]
    assert info["ignored"].tolist() == ["", ""]
    step(envs)
    before = learner(envs)
    happened = only(envs, checkpoint=2)
    assert happened["checkpoint"].tolist() == [False, True]  # nothing was saved there
    after = learner(envs)
    for name, now in after.items():
        of_networks = name in (*NETWORKS, "part_steps")
        expected = saved if of_networks else before
        np.testing.assert_array_equal(now[0], expected[name][0], err_msg=name)
        np.testing.assert_array_equal(now[1], before[name][1], err_msg=name)


def test_a_save_comes_before_a_restore_and_that_before_a_swap() -> None:
    envs = make(DQN)
    step(envs)
    before = learner(envs)["parameters"]
    # nothing was saved, which a swap in the same decision does not hide
    told = only(envs, checkpoint=[0, 2], swap=[0, 2])
    assert told["checkpoint"].tolist() == [False, True]
    # a save makes no difference to the first swap
    only(envs, checkpoint=[1, 0], swap=[1, 0])
    after = learner(envs)
    assert (after["parameters"][0] != before[0]).any()
    np.testing.assert_array_equal(after["register.rows"][0, 0], before[0])


def is_of_networks(name: str) -> bool:
    return name in (*NETWORKS, "part_steps")


@pytest.mark.parametrize("task", [*EVENTS, *SOFT])
def test_networks_and_register_change_places(task: str) -> None:
    envs = make(task)
    step(envs)
    first = learner(envs)
    info = step(envs, swap=["copy", "none"])
    assert info["hyperparameters"]["swap"].tolist() == ["copy", "none"]
    step(envs)
    second = learner(envs)
    assert (second["parameters"][0] != first["parameters"][0]).any()
    for before, expected in ((second, first), (first, second)):
        assert only(envs, swap=[2, 0])["checkpoint"].tolist() == [False, False]
        after = learner(envs)
        for name, now in after.items():
            if name.startswith("register"):
                continue
            other = expected if is_of_networks(name) else second
            np.testing.assert_array_equal(now[0], other[name][0], err_msg=name)
            np.testing.assert_array_equal(now[1], second[name][1], err_msg=name)
        kept = [before[n] for n in NETWORKS if n in before]
        for k, row in enumerate(kept):
            np.testing.assert_array_equal(after["register.rows"][0, k], row[0])
        np.testing.assert_array_equal(
            after["register.steps"][0], before["part_steps"][0]
        )
    assert learner(envs)["register.is_saved"].tolist() == [True, False]


@pytest.mark.parametrize("task", [*EVENTS, *SOFT])
def test_the_first_swap_goes_on_with_fresh_networks_or_a_copy(task: str) -> None:
    envs, anew = make(task), make(task)
    for each in (envs, anew):
        step(each)
    before = learner(envs)
    only(envs, swap=[1, 2])
    only(anew, reset_all=1)
    after, fresh = learner(envs), learner(anew)
    for name in (*NETWORKS, "part_steps"):
        if name in after:
            np.testing.assert_array_equal(after[name][0], fresh[name][0])
            np.testing.assert_array_equal(after[name][1], before[name][1])
    assert after["register.is_saved"].all()
    np.testing.assert_array_equal(after["register.rows"][:, 0], before["parameters"])
    # there is something to take now, whichever option it is
    step(envs)
    only(envs, swap=[1, 1])
    np.testing.assert_array_equal(learner(envs)["parameters"], before["parameters"])


@pytest.mark.parametrize("task", EVENTS)
def test_restoring_without_a_save_is_said_and_changes_nothing(task: str) -> None:
    asked, not_asked = make(task), make(task)
    for envs, config in ((asked, {"checkpoint": "restore"}), (not_asked, {})):
        step(envs)
        info = step(envs, **config)
        assert info["hyperparameters"]["checkpoint"].tolist() == ["none"] * 2
        told = "checkpoint" if envs is asked else ""
        assert info["ignored"].tolist() == [told] * 2
    mine, theirs = learner(asked), learner(not_asked)
    assert [n for n in mine if mine[n].tobytes() != theirs[n].tobytes()] == []
    assert step(asked)["ignored"].tolist() == ["", ""]


def test_a_cleared_replay_has_only_what_came_after() -> None:
    envs = make(DQN)
    for _ in range(3):
        step(envs)
    step(envs, clear_replay=[True, False])
    run = envs.population.learner
    state = envs.population.state.learner
    state.replay.observations[:, 0, :300] = np.nan  # what must not be looked at
    values = envs.population.values()
    batch = run.probe(state, values, np.arange(2, dtype=np.uint64), 500)
    assert np.isfinite(batch[0][0]).all()
    assert not np.isfinite(batch[0][1]).all()


@pytest.mark.parametrize(("task", "name"), EACH)
def test_each_bites_at_its_decision_alone_and_in_its_member(
    task: str, name: str
) -> None:
    plain, eventful = make(task, 3), make(task, 3)
    option = {"checkpoint": "restore", "swap": "fresh"}.get(name, True)
    for k in range(5):
        for envs in (plain, eventful):
            config: dict[str, Any] = {}
            if name == "checkpoint" and k == 1:
                config[name] = "save"
            if envs is eventful and k == 3:
                nothing = "none" if name in ("checkpoint", "swap") else False
                config[name] = [nothing, option, nothing]
            step(envs, **config)
        mine, theirs = learner(plain)["parameters"], learner(eventful)["parameters"]
        same = [mine[i].tobytes() == theirs[i].tobytes() for i in range(3)]
        assert same == [True, k < 3, True], k


@pytest.mark.parametrize("task", EVENTS)
def test_registers_are_part_of_snapshots_and_forks(task: str, tmp_path: Any) -> None:
    envs, other = make(task), make(task)
    step(envs)
    step(envs, swap=["copy", "none"])
    step(envs)
    envs.snapshot().save(tmp_path / "snapshot")
    other.restore(Snapshot.load(tmp_path / "snapshot"))
    other.fork([0, 0], shared_streams=True)
    for each in (envs, other):
        info = step(each, checkpoint="restore")
    assert info["ignored"].tolist() == ["", ""]  # the fork has its parent's register
    mine, theirs = learner(envs), learner(other)
    assert [n for n in mine if mine[n][0].tobytes() != theirs[n][0].tobytes()] == []
    parameters = theirs["parameters"]
    assert parameters[0].tobytes() == parameters[1].tobytes()


@pytest.mark.parametrize("task", EVENTS)
def test_a_new_run_has_an_empty_register(task: str) -> None:
    envs = make(task)
    step(envs, checkpoint=["save", "none"], swap=["none", "copy"])
    envs.reset(seed=4)
    assert step(envs, checkpoint="restore")["ignored"].tolist() == ["checkpoint"] * 2


@pytest.mark.parametrize("task", EVENTS)
@pytest.mark.parametrize("name", ["learning_rate", "checkpoint", "swap"])
def test_there_is_a_register_only_where_actions_save(task: str, name: str) -> None:
    envs = make(task, hyperparameters=(name,))
    size = envs.population.state.learner.register.rows.size
    assert (size > 0) == (name != "learning_rate")


def test_events_are_seen_since_when() -> None:
    envs = make(DQN, 1)
    names = list(envs.observation_names)
    rows = [names.index(f"hp/checkpoint={o}") for o in ("save", "restore")]

    def observed(**config: Any) -> list[float]:
        seen: list[float] = envs.step(envs.to_actions(config))[0][0, rows].tolist()
        return seen

    assert observed() == [1, 1]  # never
    assert observed(checkpoint="save") == pytest.approx([2 * 100 / 800 - 1, 1])
    assert observed(checkpoint="restore") == pytest.approx([-0.5, -0.75])


def test_an_event_cannot_be_fixed() -> None:
    with pytest.raises(ValueError, match="reset_all is an event, of which nothing"):
        gym.make(DQN, fixed={"reset_all": True})


@pytest.mark.parametrize("mode", ["continuous", "relative", "multidiscrete"])
def test_they_happen_in_every_mode(mode: str) -> None:
    names = ("learning_rate", "checkpoint", "reset_all")
    env = gym.make(DQN, hyperparameters=names, action_mode=mode, **SHORT[DQN]).unwrapped
    env.reset(seed=0)
    actions = (
        [[1, 1, 0], [1, 2, 1]]
        if mode == "multidiscrete"
        else [[0, 0.9, 0], [0, -0.9, 0.7]]
    )
    for action, expected in zip(
        actions, (("save", False), ("restore", True)), strict=True
    ):
        *_, info = env.step(action)
        told = info["hyperparameters"]
        assert (told["checkpoint"], told["reset_all"]) == expected
