"""Data sets of Minari: what is in them is what the environment gave."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.core.version import __version__
from dacrl_env.integrations.minari import export

minari = pytest.importorskip("minari")

QUADRATIC = "dacrl/NoisyQuadratic-v0"
DQN = "dacrl/DQN-CartPole-v0"
SMALL: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "learning_starts": 100,
    "eval_episodes": 2,
}
SHORT = {"decision_interval": 10}
LINEAR = "linear,hyperparameter=learning_rate,start=0.1,end=0.01"


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


class Drawn:
    """Actions of a mode at random, some of them outside of the box, in double."""

    def __init__(self, action_mode: str) -> None:
        self.action_mode = action_mode

    def reset(self, envs: Any, seed: int) -> None:
        self.envs, self.generator = envs, np.random.default_rng(seed)

    def act(self, observations: Any, infos: Any) -> Any:
        space, P = self.envs.single_action_space, self.envs.num_envs
        if isinstance(space, gym.spaces.Box):
            return self.generator.uniform(-1.3, 1.3, (P, *space.shape))
        space.seed(int(self.generator.integers(1000)))
        return np.array([space.sample() for _ in range(P)])


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (QUADRATIC, SHORT),
        (DQN, {**SMALL, "hyperparameters": ("learning_rate", "loss")}),
    ],
)
@pytest.mark.parametrize(
    "mode", ["continuous", "relative", "discrete", "multidiscrete"]
)
def test_episodes_are_those_of_stepping_by_hand(
    task: str, mode: str, options: dict[str, Any]
) -> None:
    seeds = [4, 11, 2]
    export(task, Drawn(mode), "drawn-v0", seeds, **options)
    data = minari.load_dataset("drawn-v0")
    assert data.total_episodes == 3
    recovered = data.recover_environment()
    assert recovered.observation_space == data.observation_space
    assert recovered.action_space == data.action_space
    by_hand = dacrl_env.DynamicConfigEnv(
        task, split="tuning", action_mode=mode, **options
    )
    differing = set()
    for seed, episode in zip(seeds, data.iterate_episodes(), strict=True):
        for env in (recovered, by_hand):
            observation, info = env.reset(seed=seed)
            given = [(observation, 0.0, False, info)]
            for action in episode.actions:
                assert data.action_space.contains(action)
                observation, reward, over, truncated, info = env.step(action)
                assert not truncated
                given.append((observation, reward, over, info))
            observations, rewards, ends, infos = zip(*given, strict=True)
            np.testing.assert_array_equal(episode.observations, observations)
            assert episode.observations.dtype == np.float32
            assert episode.rewards.tolist() == list(rewards[1:])
            assert episode.terminations.tolist() == list(ends[1:])
            assert ends[-1]
            assert not episode.truncations.any()
            for key in ("score", "env_steps"):
                assert episode.infos[key].tolist() == [info[key] for info in infos]
        differing.add(episode.observations.tobytes())
    assert len(differing) == 3
    kept = [m["seed"] for m in data.storage.get_episode_metadata(range(3))]
    assert kept == seeds


def test_episodes_are_those_that_are_evaluated() -> None:
    export(QUADRATIC, LINEAR, "mine/linear-v0", 3, "test", **SHORT)
    data = minari.load_dataset("mine/linear-v0")
    frame = dacrl_env.evaluate(QUADRATIC, LINEAR, 3, **SHORT)
    decided = frame[(frame["step"] > 0) & frame["reward"].notna()]
    for seed, episode in enumerate(data.iterate_episodes()):
        rows = decided[decided["seed"] == seed]
        assert episode.rewards.tolist() == rows["reward"].tolist()
        assert episode.actions[:, 0].tolist() == rows["hp/learning_rate"].tolist()
        assert len(episode) == len(rows)


def test_the_other_order_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"write export\(task, policy") as told:
        export("default", QUADRATIC, "old-v0", 1, **SHORT)  # type: ignore[arg-type]
    assert [w.filename for w in told] == [__file__]
    assert minari.load_dataset("old-v0").total_episodes == 1


def test_runs_that_diverge_end_early() -> None:
    class High(Drawn):
        def act(self, observations: Any, infos: Any) -> Any:
            return np.ones((self.envs.num_envs, 1))

    export(QUADRATIC, High("continuous"), "high-v0", 2, decision_interval=1)
    for episode in minari.load_dataset("high-v0").iterate_episodes():
        assert len(episode) < 50
        assert episode.terminations.tolist() == [False] * (len(episode) - 1) + [True]


def test_what_a_data_set_says_of_itself() -> None:
    export(QUADRATIC, "default", "a-v0", 2, about={"author": "me"}, **SHORT)
    about = minari.load_dataset("a-v0").storage.metadata
    assert about["algorithm_name"] == "default"
    assert about["author"] == {"me"}
    assert about["requirements"] == [f"dacrl-env=={__version__}"]
    assert QUADRATIC in about["description"]
    with pytest.raises(ValueError, match="'colour'; valid: author"):
        export(QUADRATIC, "default", "b-v0", 2, about={"colour": "red"})


def test_an_environment_that_cannot_be_written_down_is_left_out() -> None:
    with pytest.warns(UserWarning, match="cannot be written as JSON"):
        export(QUADRATIC, "default", "c-v0", 1, reward=lambda c: c.score, **SHORT)
    own = dataclasses.replace(dacrl_env.get_task(QUADRATIC), id="mine/Quadratic-v0")
    with pytest.warns(UserWarning, match="is not registered"):
        export(own, "default", "d-v0", 1, **SHORT)
    for name in ("c-v0", "d-v0"):
        data = minari.load_dataset(name)
        assert data.total_episodes == 1
        assert data.env_spec is None


# -- refused before anything is run -----------------------------------------------


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any) -> None:
        raise AssertionError("something is run")

    monkeypatch.setattr("dacrl_env.outer.population.Population.start", run)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dataset_id": "taken-v0"}, "there is a data set taken-v0 already"),
        ({"dataset_id": "name"}, "'name' is no name.*linear-v0"),
        ({"dataset_id": "../up-v0"}, "no name"),
        ({"dataset_id": ""}, "no name"),
        ({"dataset_id": "a b-v0"}, "no name"),
        ({"split": "train"}, "unknown split 'train'"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"policy": "defualt"}, "defualt"),
        ({"report": True}, "report cannot be given"),
    ],
)
@pytest.mark.usefixtures("no_runs")
def test_what_is_wrong_is_said_first(
    given: dict[str, Any], words: str, datasets: Path
) -> None:
    (datasets / "taken-v0").mkdir(parents=True)
    right = {"policy": "default", "task": QUADRATIC, "dataset_id": "new-v0", "seeds": 2}
    with pytest.raises(ValueError, match=words):
        export(**{**right, **given})
    assert [path.name for path in datasets.iterdir()] == ["taken-v0"]


def test_the_command_line(
    capsys: Any, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["export", QUADRATIC, LINEAR, "--seeds", "3:6", "--minari", "mine/l-v0"]
    command += ["--decision-interval", "10", "--num-threads", "1"]
    assert main(command) == 0
    assert "3 episodes, 15 decisions: mine/l-v0" in capsys.readouterr().out
    data = minari.load_dataset("mine/l-v0")
    assert data.env_spec.kwargs["split"] == "tuning"
    before = {p: p.stat().st_mtime_ns for p in datasets.rglob("*")}
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "there is a data set mine/l-v0 already" in error
    assert "minari delete mine/l-v0" in error
    assert {p: p.stat().st_mtime_ns for p in datasets.rglob("*")} == before
    monkeypatch.setitem(sys.modules, "minari", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(command) == 2
    assert "pip install 'dacrl-env[minari]'" in capsys.readouterr().err
