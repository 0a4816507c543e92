"""What is shown of a run: lines, images, videos."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dacrl_env import Choice, Event, Number
from dacrl_env.outer.rendering import Course

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SIZE = (480, 640, 3)


def make(mode: str | None, **options: Any) -> Any:
    given = {"budget": 6, "decision_interval": 1, **options}
    return gym.make(QUADRATIC, render_mode=mode, **given)


def run(env: Any, decisions: int = 4, seed: int | None = 0) -> list[Any]:
    """What is rendered after the reset and each decision."""
    env.reset(seed=seed)
    seen = [env.render()]
    for k in range(decisions):
        env.step(np.array([0.1 * k], np.float32))
        seen.append(env.render())
    return seen


# -- lines ----------------------------------------------------------------------


def test_a_line_has_what_the_decision_set_and_gave() -> None:
    env = make("ansi")
    _, info = env.reset(seed=0)
    assert env.render() == (
        f"decision 0 of 6, 0 of 6 steps: learning_rate="
        f"{info['hyperparameters']['learning_rate']:.4g} | score {info['score']:.3f}"
    )
    for k in (1, 2):
        _, reward, _, _, info = env.step(np.array([0.2 * k], np.float32))
        assert env.render() == (
            f"decision {k} of 6, {k} of 6 steps: learning_rate="
            f"{info['hyperparameters']['learning_rate']:.4g} | "
            f"score {info['score']:.3f}, reward {reward:+.3f}"
        )
        assert env.render() == env.render()  # looking changes nothing


def test_a_line_says_that_a_run_diverged() -> None:
    env = make("ansi")
    env.reset(seed=0)
    over = False
    while not over:
        _, _, over, _, info = env.step(np.ones(1, np.float32))
    assert info["diverged"]
    assert env.render().endswith(", diverged")
    env.reset()
    assert "diverged" not in env.render()
    assert env.render().startswith("decision 0 of 6, 0 of 6 steps")


KNOBS = (
    Number("rate", 1e-4, 1e-2, 1e-3, "log"),
    Number("size", 1, 5_000, 10, integer=True),
    Choice("loss", ("huber", "mse"), "huber"),
    Number("strength", 0, 1, 0.5),
    Event("reset", (False, True)),
)


def course(*values: dict[str, Any], knobs: Any = KNOBS) -> Course:
    """One with a decision for each of some values, of which the first are at reset."""
    made = Course("mine/$\\bad_$ 名-v0", 400, 4, knobs)
    for k, shown in enumerate(values):
        info = {"env_steps": 100 * k, "score": 0.1 * k, "diverged": False}
        made.add(k, {**info, "hyperparameters": shown}, 0.1 if k else None)
    return made


def test_values_of_every_kind() -> None:
    one = {"rate": 3e-4, "size": 1_200, "loss": "mse", "reset": False}
    assert course(one).line() == (
        "decision 0 of 4, 0 of 400 steps: rate=0.0003 size=1,200 loss=mse | score 0.000"
    )
    two = {"rate": 1e-3, "size": 8, "strength": 0.25, "loss": "huber", "reset": True}
    assert course(one, two).line() == (
        "decision 1 of 4, 100 of 400 steps: rate=0.001 size=8 loss=huber "
        "strength=0.25 reset=True | score 0.100, reward +0.100"
    )
    assert course({}, {"reset": False}).line() == (
        "decision 1 of 4, 100 of 400 steps: – | score 0.100, reward +0.100"
    )
    pictures = [course(*shown).image() for shown in ((one,), (one, two), (two, one))]
    assert len({picture.tobytes() for picture in pictures}) == 3


# -- images ---------------------------------------------------------------------


def test_an_image_is_that_of_the_course_so_far() -> None:
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    images = run(make("rgb_array"))
    for image in images:
        assert image.shape == SIZE
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.min() == 0  # black on
        assert image.max() == 255  # white
    assert len({image.tobytes() for image in images}) == len(images)
    assert plt.get_fignums() == before
    # what was drawn before leaves no trace, also where scores were in another range
    env = make("rgb_array")
    env.reset(seed=0)
    over = False
    while not over:
        over = env.step(np.ones(1, np.float32))[2]
        env.render()
    for again, image in zip(run(env), images, strict=True):
        np.testing.assert_array_equal(again, image)


def test_an_image_of_many_values_has_room() -> None:
    many = [Number(f"value_{k}_{'x' * 40}", 0, 1, 0.5) for k in range(40)]
    shown = course(*[{h.name: k / 4 for h in many} for k in range(5)], knobs=many)
    image = shown.image()
    assert image.shape == SIZE
    edges = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert all((edge == 255).all() for edge in edges)


def test_scores_outside_of_the_usual_are_drawn() -> None:
    made = course({}, {})
    usual = made.image()
    info = {"env_steps": 200, "hyperparameters": {}, "diverged": True}
    made.add(2, {**info, "score": -40.0}, -1.0)
    assert (made.image() != usual).any()


# -- where there is none, and of copies -----------------------------------------


def test_without_a_mode_nothing_is_shown_or_kept() -> None:
    env = make(None)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render_mode"):
        assert env.unwrapped.render() is None
    assert env.unwrapped._course is None


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_rendering_before_a_reset_is_refused(mode: str) -> None:
    with pytest.raises(gym.error.ResetNeeded, match="before render"):
        make(mode).unwrapped.render()


def test_rendering_changes_no_run() -> None:
    runs = []
    for mode in (None, "ansi", "rgb_array"):
        env = make(mode)
        results = [env.reset(seed=1)[0].tobytes()]
        for k in range(4):
            env.render() if mode else None
            observation, reward, *_ = env.step(np.array([0.1 * k], np.float32))
            results += [observation.tobytes(), reward]
        runs.append(results)
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_copies_and_snapshots(mode: str) -> None:
    env = make(mode).unwrapped
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.zeros(1, np.float32))
    shown = env.render()
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    snap = env.snapshot()
    env.step(np.zeros(1, np.float32))
    for twin in twins:
        np.testing.assert_array_equal(twin.render(), shown)
        twin.step(np.zeros(1, np.float32))
        np.testing.assert_array_equal(twin.render(), env.render())
    env.restore(snap)
    assert len(env._course.points) == 1
    assert env._course.line().startswith("decision 2 of 6, 2 of 6 steps")
    env.reset(options={"snapshot": snap})
    assert env._course.line().startswith("decision 2 of 6, 2 of 6 steps")


# -- Gymnasium's tools ----------------------------------------------------------


def test_gymnasium_s_checker_renders() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(None).unwrapped)


def test_frames_are_collected() -> None:
    env = make("rgb_array_list")
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros(1, np.float32))
    assert [frame.shape for frame in env.render()] == [SIZE] * 4
    lines = make("ansi_list")
    lines.reset(seed=0)
    lines.step(np.zeros(1, np.float32))
    told = lines.render()
    assert [line.split(",")[0] for line in told] == [
        "decision 0 of 6",
        "decision 1 of 6",
    ]


@pytest.mark.skipif(
    importlib.util.find_spec("moviepy") is None, reason="RecordVideo needs moviepy"
)
def test_a_video_of_a_run(tmp_path: Path) -> None:
    env = gym.wrappers.RecordVideo(make("rgb_array"), str(tmp_path / "film"))
    env.reset(seed=0)
    while not env.step(np.zeros(1, np.float32))[2]:
        pass
    env.close()
    (film,) = tmp_path.glob("film/*.mp4")
    assert film.stat().st_size > 1_000
