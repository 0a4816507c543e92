"""What scores are normalised by: the returns of each instance, and their file."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import registered

import dacrl_env
from dacrl_env import Instance
from dacrl_env.cli.commands import main
from dacrl_env.comparison.results import unit_key
from dacrl_env.core.store import canonical
from dacrl_env.inner_envs import shift
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.studies import references
from dacrl_env.tasks import DEFAULT_INSTANCE, measured, registration
from dacrl_env.tasks.registration import TASKS

TASK = "dacrl/DQN-CartPole-v0"
SMALL: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "eval_episodes": 2,
    "learning_starts": 100,
}
# the same physics on three scales; the third is the task's: 22.2 to 500, floor 0
NEAR = Instance("near", {}, random_return=10, reference_return=110, floor_return=-90)
FAR = Instance("far", {}, random_return=20, reference_return=220, floor_return=-80)
PLAIN = Instance("plain")
MEMBERS = ("near", "far", "plain", "far")
RANDOM = np.array([10.0, 20.0, 22.2, 20.0])
REFERENCE = np.array([110.0, 220.0, 500.0, 220.0])
FLOORS = np.array([-1.0, -0.5, -22.2 / 477.8, -0.5])
VARIED = [
    t for t in map(dacrl_env.get_task, registered()) if len(t.train_instances) > 1
]


def started(seed: int = 5, **options: Any) -> Any:
    """Four members with the same streams, on instances of the same physics."""
    given = {"instances": [NEAR, FAR, PLAIN], **SMALL, **options}
    envs: Any = gym.make_vec(TASK, num_envs=4, **given).unwrapped
    _, infos = envs.reset(seed=[seed] * 4, options={"instance": list(MEMBERS)})
    return envs, infos


def scored(returns: Any) -> Any:
    """Scores of the members' returns, by hand."""
    return (np.asarray(returns) - RANDOM) / (REFERENCE - RANDOM)


def step(envs: Any) -> Any:
    return envs.step(np.zeros(envs.action_space.shape))


# -- scores -------------------------------------------------------------------------


def test_members_are_scored_by_their_instances() -> None:
    envs, infos = started(report=True)
    previous = infos["score"]
    for k in range(3):
        assert len(set(infos["eval_return"])) == 1
        np.testing.assert_allclose(infos["score"], scored(infos["eval_return"]))
        assert infos["score"][1] == infos["score"][3] != infos["score"][0]
        observations, rewards, _, _, infos = step(envs)
        # what policies see does not tell of the references
        assert (observations == observations[0]).all()
        np.testing.assert_allclose(rewards, infos["score"] - previous, err_msg=str(k))
        previous = infos["score"]
    reports = envs.population.state.reports[:, :16]  # up to step 300
    returns = reports[2] * (500 - 22.2) + 22.2
    np.testing.assert_allclose(reports.T, [scored([r] * 4) for r in returns])


def test_training_feedback_is_scored_by_the_instance() -> None:
    # no episode ends in four steps: nothing is known, as if the policy were random
    more = {"budget": 80, "decision_interval": 4, "learning_starts": 40}
    envs, infos = started(feedback="train", **more)
    for _ in range(2):
        assert not infos["_train_return"].any()
        np.testing.assert_array_equal(infos["score"], 0)
        np.testing.assert_array_equal(envs.population.state.initial_return, RANDOM)
        observations, *_, infos = step(envs)
        assert (observations == observations[0]).all()
    envs, infos = started(feedback="train")
    *_, infos = step(envs)
    np.testing.assert_allclose(infos["score"], scored(infos["train_return"]))


def test_final_reports_are_scored_by_the_instance() -> None:
    envs, _ = started(report=True, budget=200)
    population = envs.population
    for _ in range(2):
        population.advance(population.actions.defaults(4))
    scores = population.final_report()
    np.testing.assert_allclose(scores, population.state.reports[:, -1])
    np.testing.assert_allclose(
        scores * (REFERENCE - RANDOM) + RANDOM, [scores[0] * 100 + 10] * 4
    )


def test_diverged_members_score_the_floor_of_their_instance() -> None:
    envs, _ = started()
    population = envs.population
    defaults = population.actions.defaults(4)
    for _ in range(2):
        population.advance(defaults)
    before = population.state.score.copy(), population.state.auc.copy()
    population.state.learner.parameters[...] = math.nan
    outcome = population.advance(defaults)
    assert outcome.ended.all()
    np.testing.assert_allclose(population.state.score, FLOORS)
    np.testing.assert_allclose(outcome.rewards, FLOORS - before[0])
    # a step of four has passed, and one is left
    np.testing.assert_allclose(population.state.auc, before[1] + FLOORS / 2)
    np.testing.assert_allclose(population.final_report(), FLOORS)


class Poison:
    """Makes every member diverge."""

    action_mode = "continuous"

    def reset(self, envs: Any, seed: int) -> None:
        self.envs = envs

    def act(self, observations: Any, infos: Any) -> Any:
        self.envs.population.state.learner.parameters[...] = math.nan
        return np.zeros(self.envs.action_space.shape)


def test_evaluate_reports_the_floor_of_the_instance() -> None:
    options = {**SMALL, "budget": 2_000}
    frame = dacrl_env.evaluate(
        TASK, Poison(), seeds=range(8), instances=[NEAR, FAR], **options
    )
    last = frame.groupby("seed").last()
    assert set(last["instance"]) == {"near", "far"}
    assert last["diverged"].all()
    floors = last["instance"].map({"near": -1.0, "far": -0.5})
    np.testing.assert_allclose(last["report_score"], floors)
    np.testing.assert_allclose(last["score"], floors)


def test_changed_references_are_another_unit_of_work() -> None:
    task = dacrl_env.get_task(TASK)
    tasks = [replace(task, test_instances=(i,)) for i in (NEAR, FAR, PLAIN)]
    keys = [canonical(unit_key(t, "default", [0], "test", {})) for t in (task, *tasks)]
    assert len(set(keys)) == 4


# -- what is registered ---------------------------------------------------------------


@pytest.mark.parametrize("task", VARIED, ids=lambda task: task.id)
def test_every_instance_has_measured_returns(task: dacrl_env.Task) -> None:
    known = measured.returns(task.inner_env)
    for instance in (*task.train_instances, *task.test_instances):
        entry = known[instance.name]
        # of these physics, not of what an older version had under that name
        known_as = replace(instance, physics=entry["physics"])
        assert references.lasting(known_as) == references.lasting(instance)
        assert instance.random_return == entry["random"]
        reference = entry.get("reference", task.reference_return)
        assert instance.reference_return == reference
        assert instance.floor_return == entry["floor"]
        assert entry["floor"] < entry["lowest"] <= entry["random"] < reference
        assert entry["floor"] <= task.floor_return
    assert DEFAULT_INSTANCE.random_return is None


@pytest.mark.parametrize("task", VARIED, ids=lambda task: task.id)
def test_the_default_instance_agrees_with_the_task(task: dacrl_env.Task) -> None:
    entry = measured.returns(task.inner_env)["default"]
    span = task.reference_return - task.random_return
    assert abs(entry["random"] - task.random_return) < 0.01 * span
    reference = entry.get("reference", task.reference_return)
    assert abs(reference - task.reference_return) < 0.05 * span


def test_every_compiled_environment_with_instances_has_a_recipe() -> None:
    own = {task.inner_env for task in VARIED} - set(measured.SAME)
    assert own == set(references.RECIPES)
    assert references.RECIPES.keys() <= set(references.varied_envs())


def test_the_bound_of_pendulum_s_floor() -> None:
    task = dacrl_env.get_task("dacrl/PPO-Pendulum-v0")
    worst = 200 * (math.pi**2 + 0.1 * 8**2 + 0.001 * 2**2)
    assert task.floor_return < -worst


# -- the table ------------------------------------------------------------------------


def test_the_table_shows_seconds_where_they_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows() -> dict[str, str]:
        lines = [x for x in registration.markdown().splitlines() if "| dacrl/" in x]
        lines = [x for x in lines if x.count("|") > 9]  # none of the table of bases
        return {x.split(" | ")[0][2:]: x.split(" | ")[9] for x in lines}

    task = registration.listed()[0].id
    entry = {"seconds": 1.5, "population": 64, "processor": "Abacus"}
    monkeypatch.setattr(measured, "seconds", lambda: {task: entry})
    assert rows()[task] == "1.5"
    assert {v for k, v in rows().items() if k != task} == {"–"}
    assert "on Abacus with 64 runs. –" in registration.markdown().replace("\n", " ")
    other = {**entry, "population": 16}
    monkeypatch.setattr(
        measured, "seconds", lambda: {task: entry, "dacrl/PPO-CartPole-v0": other}
    )
    text = registration.markdown().replace("\n", " ")
    assert f"64 runs ({task}); on Abacus with 16 runs (dacrl/PPO-CartPole-v0)" in text
    monkeypatch.setattr(measured, "seconds", dict)
    assert set(rows().values()) == {"–"}
    assert "(not yet)" in registration.markdown()


# -- measuring ------------------------------------------------------------------------


def test_the_pump_reaches_the_goal(tmp_path: Path) -> None:
    path = tmp_path / "references.json"
    arguments = ["references", "dacrl/DQN-MountainCar-v0", "--instances"]
    assert main([*arguments, "--episodes", "30", "--out", str(path)]) == 0
    first = path.read_bytes()
    found = json.loads(first)["instances"]
    assert list(found) == ["MountainCar-v0"]
    returns = found["MountainCar-v0"]["returns"]
    assert len(returns) == 41
    assert returns["default"]["reference"] == -100
    moved = returns["default"]["reached"] - returns["default"]["reference"]
    for name, entry in returns.items():
        assert entry["random"] == entry["lowest"] == -200, name
        assert entry["floor"] == -201
        assert -150 < entry["reached"] < -100
        assert entry["reached"] - entry["reference"] == pytest.approx(moved, abs=0.011)
    # again, into the same file, beside what is in it
    content = json.loads(first)
    content["seconds"] = {TASK: {"seconds": 1.0, "processor": "Abacus"}}
    path.write_text(json.dumps(content))
    assert main([*arguments, "--episodes", "30", "--out", str(path)]) == 0
    assert json.loads(path.read_text()) == content
    assert {p.name for p in tmp_path.iterdir()} == {path.name, f"{path.name}.lock"}


def test_some_instances_are_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "references.json"
    arguments = ["references", "dacrl/DQN-TwoColours-v0", "--instances"]
    arguments += ["--out", str(path)]

    def section() -> Any:
        return json.loads(path.read_text())["instances"]["TwoColours-v0"]

    some = [*arguments, "--only", "test-3", "default", "--episodes"]
    assert main([*some, "20"]) == 0
    assert list(section()["returns"]) == ["default", "test-3"]
    assert main([*arguments, "--episodes", "30"]) == 0
    before = section()
    assert len(before["returns"]) == 41
    assert main([*some, "40"]) == 0
    after = section()
    assert {**after, "returns": None} == {**before, "returns": None}
    assert list(after["returns"]) == list(before["returns"])
    for name, entry in after["returns"].items():
        if name in ("test-3", "default"):
            assert entry["command"].endswith("--episodes 40 --only test-3 default")
            old = before["returns"][name]
            assert set(entry) - set(old) == {"command", "version"}
            assert 0 < abs(entry["random"] - old["random"]) < 2
        else:
            assert entry == before["returns"][name]


def test_full_power_reaches_the_goal() -> None:
    found = references.measure_instances(
        "MountainCarContinuous-v0", 20, say=lambda _: None
    )["returns"]
    assert len(found) == 41
    assert found["default"]["reference"] == 94
    for name, entry in found.items():
        assert entry["lowest"] == pytest.approx(-99.9), name
        assert -34 < entry["random"] < -32, name  # it is the price of a third
        assert 75 < entry["reached"] < entry["reference"] < 98, name


def test_seconds_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, task = tmp_path / "references.json", "dacrl/NoisyQuadratic-v0"
    arguments = ["references", task, "--seconds", "--population", "3"]
    assert main([*arguments, "--out", str(path)]) == 0
    assert f"{task}: " in capsys.readouterr().out
    entry = json.loads(path.read_text())["seconds"][task]
    assert 0 < entry["seconds"] < 10
    assert entry["wall_seconds"] > 0
    assert entry["population"] == 3
    assert entry["processor"]


def test_training_is_judged_on_the_physics_of_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A motor that turns round at once, and one that never does, are both learned."""
    sets = dacrl_env.get_task("dacrl/DQN-CartPoleShift-v0").train_instances[:2]
    monkeypatch.setattr(references, "instances_of", lambda _: (DEFAULT_INSTANCE, *sets))
    trained: dict[str, Any] = {}

    def train(task: Any, instances: Any, runs: int, say: Any) -> Any:
        trained.update(task=task, instances=instances, runs=runs)

    def reached(agents: Any, physics: Any) -> Any:
        trained.update(physics=physics)
        return np.array([499.0, 474.9, 475.0])

    monkeypatch.setattr(references, "train", train)
    monkeypatch.setattr(references, "reached", reached)
    section = references.measure_instances("CartPoleShift", 200, 3, lambda _: None)
    assert trained["task"].algorithm == "ppo"
    assert trained["task"].inner_env == "CartPoleShift"
    assert trained["runs"] == 3
    default, first, _ = trained["instances"]
    assert default == DEFAULT_INSTANCE
    assert first.physics == {**sets[0].physics, "shift_at": 0}
    at = [*ENVS["CartPoleShift"]().physics].index("shift_at")
    assert trained["physics"][:, at].tolist() == [shift.NEVER, 0, 0]
    returns = section["returns"]
    assert [e["reference"] for e in returns.values()] == [500, 474.9, 500]
    # the default instance is that of CartPole-v1, whose agents balance for 500 steps
    assert [e["reached"] for e in returns.values()] == [500, 474.9, 475]
    assert returns["train-0"]["physics"] == sets[0].physics
    # of random actions on the physics after the shift, as on fixed ones
    still = references.make_inner_env(dacrl_env.get_task(TASK))
    shifted = {
        "half_length": 0.5 * sets[0].physics["shift_half_length"],
        "force": 10 * sets[0].physics["shift_force"],
    }
    physics = np.array([[*{**still.physics, **shifted}.values()]] * 2)
    expected = references.random_returns(still, physics, 200)[1].mean()
    assert returns["train-0"]["random"] == pytest.approx(expected, abs=0.01)


MIRRORED = Instance("mirrored", {"force": -10.0})


def train_briefly(runs: int, say: Any = lambda _: None) -> Any:
    task = dacrl_env.get_task("dacrl/PPO-CartPole-v0")
    task = replace(task, configuration={"num_inner_envs": 2, "rollout_length": 10})
    return references.train(task, [PLAIN, MIRRORED], runs, 400, say)


def test_agents_are_trained_on_their_instances() -> None:
    said: list[str] = []
    populations = [*train_briefly(2, said.append), *train_briefly(1, said.append)]
    assert len(said) == 3
    first, second, again = (p.state.learner.parameters for p in populations)
    np.testing.assert_array_equal(first, again)  # by fixed streams
    assert (first != second).any(1).all()
    for population in populations:
        assert (population.state.learner.env_steps == 400).all()
        force = [*population.env.physics].index("force")
        forces = population.state.learner.envs.physics[:, force]
        assert forces.tolist() == [10, -10]


def test_agents_are_compared_on_the_same_episodes() -> None:
    (population,) = train_briefly(1)
    state, key = population.state, references._keys(1)[:, 0]
    state.learner.parameters[1] = state.learner.parameters[0]

    def means(constants: Any, number: int = 0) -> Any:
        members = np.arange(2)
        return references._played(population, members, constants, key, number, 20)

    plain, mirrored = population.physics
    assert means(plain)[0] == means(plain)[1]
    assert means(plain)[0] != means(plain, 1)[0]
    assert means(plain)[0] != means(mirrored)[0]
    assert ((means(plain) > 7) & (means(plain) <= 500)).all()
    state.diverged[1] = True
    assert means(plain)[1] == -np.inf


def test_the_best_agent_is_chosen_and_judged_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # rows: instances, columns: agents, in two populations of three
    chance = [np.array([[1.0, 5, 2], [7, 1, 2]]), np.array([[1.0, 4, 3], [1, 9, 8]])]
    agents: Any = [SimpleNamespace(size=3, means=means) for means in chance]
    judged: list[tuple[Any, ...]] = []

    def played(
        agents: Any, members: Any, constants: Any, key: Any, number: int, episodes: int
    ) -> Any:
        if number == 0:
            assert episodes == 100
            return agents.means[int(constants[0])][members]
        judged.append((agents, *members, *constants, number, episodes))
        return np.array([10.0 * constants[0] + 3])

    monkeypatch.setattr(references, "_played", played)
    best = references.reached(agents, np.array([[0.0], [1.0]]))
    assert best.tolist() == [3, 13]
    assert judged == [(agents[0], 1, 0, 1, 1000), (agents[1], 1, 1, 1, 1000)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which task? valid: dacrl/DQN-CartPole-v"),
        (["dacrl/None-v0", "--seconds"], "valid: dacrl/DQN-CartPole-v"),
        (
            ["dacrl/DQN-MiniGrid-Empty-5x5-v0", "--instances"],
            "no task on 'MiniGrid-Empty-5x5-v0' has sets of instances; there are some "
            "of: CartPole-v1",
        ),
        (["dacrl/NoisyQuadratic-v0", "--instances"], "there are some of: CartPole-v1"),
        ([TASK, "--instances", "--episodes", "0"], "episodes must be at least 1"),
        ([TASK, "--seconds", "--population", "0"], "population must be at least 1"),
        ([TASK, "--runs", "0"], "runs must be at least 1, got 0"),
        (["--instances", "--only", "test-0"], "it needs --instances and a task"),
        ([TASK, "--only", "test-0"], "it needs --instances and a task"),
        (
            [TASK, "--instances", "--only", "test-20"],
            "(did you mean 'test-2'?); valid: default, train-0",
        ),
        (
            ["dacrl/DQN-MountainCar-v0", "--instances", "--only", "test-0"],
            "moved by that of the instance 'default', which must be among those",
        ),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    path = tmp_path / "references.json"
    assert main(["references", *arguments, "--out", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not path.exists()


def test_two_writers_of_one_file_keep_each_other_s_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "references.json"
    ids = list(TASKS)[:4]
    start, write_text = threading.Barrier(len(ids)), references.write_text

    def slowly(*arguments: Any) -> None:
        time.sleep(0.05)  # all have read by then, if they may
        write_text(*arguments)

    def write(name: str) -> None:
        start.wait()
        references.save("seconds", name, {"processor": "one"}, path)

    monkeypatch.setattr(references, "write_text", slowly)
    threads = [threading.Thread(target=write, args=(name,)) for name in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads(path.read_text())["seconds"]) == sorted(ids)
