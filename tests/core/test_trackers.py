"""What trackers are told of fits and runs, and what becomes of those that fail."""

from __future__ import annotations

import importlib.util
import pickle
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dacrl_env
from dacrl_env import MLflow, TensorBoard, TrackedRun, WandB
from dacrl_env.cli.commands import main
from dacrl_env.core import trackers

QUADRATIC = "dacrl/NoisyQuadratic-v0"
SHORT = {"decision_interval": 10}  # five decisions a run of 50 steps
LINEAR = "linear,hyperparameter=learning_rate,start=0.1,end=0.01"
RANDOM = "random-search"
CONTROLLER = "controller-ppo,population=4,trials=1,trial_runs=4"

has_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard"
)


class Notes:
    """A tracker that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[TrackedRun, int, dict[str, Any]]] = []
        self.ended: list[TrackedRun] = []

    def __call__(self, run: TrackedRun, step: int, values: Mapping[str, Any]) -> None:
        assert run not in self.ended or self.told[-1][0] == run
        self.told.append((run, step, dict(values)))

    def end(self, run: TrackedRun) -> None:
        self.ended.append(run)


def fit(tracker: Any, method: Any = RANDOM, budget: int = 500, **more: Any) -> Any:
    return dacrl_env.fit(QUADRATIC, method, budget, 3, tracker=tracker, **SHORT, **more)


# -- fits -----------------------------------------------------------------------


def test_a_fit_tells_scores_and_values_of_every_decision() -> None:
    notes = Notes()
    fitted = fit(notes)
    run = TrackedRun("fit", QUADRATIC, RANDOM, 3)
    assert {r for r, _, _ in notes.told} == {run}
    assert notes.ended == [run]
    steps = [step for _, step, _ in notes.told]
    assert steps == sorted(steps)
    assert steps[-1] == fitted.cost.env_steps > 400
    trace = fitted.trace
    groups = trace.groupby(["generation", "step"], sort=False)
    assert len(groups) == len(notes.told)
    best_so_far = -np.inf
    for (_, rows), (_, _, values) in zip(groups, notes.told, strict=True):
        best = rows.loc[rows["score"].idxmax()]
        best_so_far = max(best_so_far, best["score"])
        assert values["score/mean"] == pytest.approx(rows["score"].mean())
        assert values["score/best"] == best["score"]
        assert values["score/best_so_far"] == best_so_far
        assert values["hp/learning_rate"] == best["hp/learning_rate"]
        mean = rows["hp/learning_rate"].mean()
        assert values["hp_mean/learning_rate"] == pytest.approx(mean)
        assert all(type(v) in (float, int) for v in values.values())


@pytest.mark.parametrize("method", [RANDOM, "pbt,population=4", "hyperband"])
def test_a_tracker_changes_no_result(method: str, tmp_path: Path) -> None:
    def disturbing(*told: Any) -> None:
        random.random()
        np.random.seed(7)  # noqa: NPY002 - what users' code does

    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]  # noqa: NPY002
    plain, watched = fit(None, method), fit(disturbing, method)
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[arg-type]  # noqa: NPY002
    pd.testing.assert_frame_equal(plain.trace, watched.trace)
    assert plain.cost == watched.cost
    fit(None, method, store=tmp_path)
    notes = Notes()
    fit(notes, method, store=tmp_path)  # the same key: it is there
    assert notes.told == []


def test_a_fit_that_goes_on_tells_what_was_before(tmp_path: Path) -> None:
    class Stops(Notes):
        def __call__(self, *told: Any) -> None:
            super().__call__(*told)
            if len(self.told) == 3:
                raise KeyboardInterrupt

    whole, cut, again = Notes(), Stops(), Notes()
    method = "pbt,population=4"
    fit(whole, method)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, method, store=tmp_path)
    assert len(cut.ended) == 1
    fit(again, method, store=tmp_path)
    assert again.told == whole.told
    assert len(whole.told) > 4


def test_choices_are_told_as_texts() -> None:
    notes = Notes()
    dacrl_env.fit(
        "dacrl/DQN-CartPole-v0",
        RANDOM,
        200,
        tracker=notes,
        run_budget=100,
        decision_interval=50,
        learning_starts=20,
        eval_episodes=1,
        hyperparameters=("learning_rate", "loss", "double_q"),
    )
    _, _, values = notes.told[-1]
    assert values["hp/loss"] in ("huber", "mse")
    assert values["hp/double_q"] in (True, False)
    assert "hp_mean/loss" not in values


def test_controllers_tell_what_stable_baselines3_records(tmp_path: Path) -> None:
    notes = Notes()
    fitted = fit(notes, CONTROLLER, 2_000, store=tmp_path)
    assert len(notes.told) == len({step for _, step, _ in notes.told}) > 1
    told = {name for _, _, values in notes.told for name in values}
    assert {"train/loss", "controller/return", "controller/trial"} <= told
    assert {"score/mean", "hp_mean/learning_rate"} <= told
    assert notes.told[-1][1] == fitted.cost.env_steps
    # whoever tracks has all; without anybody TensorBoard's files are in the store
    assert not list(tmp_path.rglob("events.out.tfevents.*"))


def test_a_controller_that_goes_on_tells_its_curve_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dacrl_env.agents import training

    class Stops(Notes):
        def __call__(self, *told: Any) -> None:
            super().__call__(*told)
            if len(self.told) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole, cut, again = Notes(), Stops(), Notes()
    fit(whole, CONTROLLER, 1_200)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, CONTROLLER, 1_200, store=tmp_path)
    fit(again, CONTROLLER, 1_200, store=tmp_path)
    assert len(whole.told) > 3
    for mine, before in zip(again.told, whole.told, strict=True):
        assert mine[:2] == before[:2]
        shared = mine[2].keys() & before[2].keys() - {"time/fps", "time/time_elapsed"}
        assert "controller/return" in shared
        expected = {name: before[2][name] for name in shared}
        assert {name: mine[2][name] for name in shared} == pytest.approx(expected)


# -- runs -----------------------------------------------------------------------


def test_evaluations_tell_every_decision_of_every_run() -> None:
    notes = Notes()
    frame = dacrl_env.evaluate(
        QUADRATIC, LINEAR, [5, 9], tracker=notes, **SHORT, name="mine"
    )
    assert len(notes.told) == len(frame)
    for seed in (5, 9):
        run = TrackedRun("evaluate", QUADRATIC, "mine", 0, seed)
        rows = frame[frame["seed"] == seed].to_dict("records")
        told = [(step, values) for r, step, values in notes.told if r == run]
        assert [step for step, _ in told] == [row["env_steps"] for row in rows]
        for row, (_, values) in zip(rows, told, strict=True):
            for name in ("score", "report_score", "hp/learning_rate", "reward"):
                assert values.get(name, np.nan) == pytest.approx(row[name], nan_ok=True)
        assert run in notes.ended
    plain = dacrl_env.evaluate(QUADRATIC, LINEAR, [5, 9], **SHORT, name="mine")
    pd.testing.assert_frame_equal(
        frame.drop(columns="wall_seconds"), plain.drop(columns="wall_seconds")
    )


def test_a_tracker_is_told_the_end_of_runs_that_fail() -> None:
    class Breaks:
        action_mode = "continuous"

        def reset(self, envs: Any, seed: int) -> None:
            pass

        def act(self, observations: Any, infos: Any) -> Any:
            raise ZeroDivisionError

    notes = Notes()
    with pytest.raises(ZeroDivisionError):
        dacrl_env.evaluate(QUADRATIC, Breaks(), 2, tracker=notes, **SHORT)
    assert [run.seed for run in notes.ended] == [0, 1]


class ToFile:
    """A tracker that other processes can have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, run: TrackedRun, step: int, values: Any) -> None:
        with (self.folder / str(run.path).replace("/", "+")).open("a") as file:
            file.write(f"{step} {sorted(values)}\n")


@pytest.mark.parametrize(
    "executor", ["threads", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_comparisons_tell_of_fits_and_runs(executor: str, tmp_path: Path) -> None:
    given = {"seeds": 2, "executor": executor, **SHORT}
    policies = {"one": "default", "a/b": LINEAR}
    tracker = ToFile(tmp_path)
    dacrl_env.compare(QUADRATIC, policies, tracker=tracker, **given)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 4
    assert sum("+one+0+seed-" in name for name in names) == 2
    assert all(name.startswith("evaluate+dacrl+") for name in names)


@pytest.mark.parametrize("tracker", ["tensorboard", 3, TensorBoard, [print]])
def test_what_is_no_tracker_is_refused_before_anything_is_run(tracker: Any) -> None:
    for function in (
        lambda: fit(tracker),
        lambda: dacrl_env.evaluate(QUADRATIC, "default", 1, tracker=tracker),
        lambda: dacrl_env.compare(QUADRATIC, "default", 1, tracker=tracker),
    ):
        with pytest.raises(ValueError, match=r"a tracker is called with.*TensorBoard"):
            function()


# -- trackers that fail ---------------------------------------------------------


def test_a_tracker_that_fails_is_warned_of_once_and_ends_nothing() -> None:
    calls = []

    class Failing:
        def __call__(self, run: TrackedRun, step: int, values: Any) -> None:
            calls.append(step)
            if len(calls) == 3:
                raise ConnectionError("no network")

        def end(self, run: TrackedRun) -> None:
            raise AssertionError("it was told that it is over")

    with pytest.warns(RuntimeWarning, match="Failing failed.*ConnectionError: no net"):
        fitted = fit(Failing())
    assert len(calls) == 3
    assert fitted.cost.env_steps > 400
    pd.testing.assert_frame_equal(fitted.trace, fit(None).trace)
    calls.clear()
    with pytest.warns(RuntimeWarning) as caught:
        dacrl_env.evaluate(QUADRATIC, "default", 3, tracker=Failing(), **SHORT)
    assert len(caught) == 1


def test_a_tracker_that_cannot_end_is_warned_of() -> None:
    class Failing(Notes):
        def end(self, run: TrackedRun) -> None:
            raise OSError("disk full")

    with pytest.warns(RuntimeWarning, match="OSError: disk full"):
        fit(Failing())


def test_a_tracker_is_told_the_end_of_a_fit_that_fails() -> None:
    @dataclass
    class Breaks:
        def fit(
            self, task: Any, budget: int, seed: int, /, *more: Any, **options: Any
        ) -> Any:
            trackers.tell(1, {"score": 1.0, "nan": np.nan, "none": None})
            raise ZeroDivisionError

    notes = Notes()
    with pytest.raises(ZeroDivisionError):
        fit(notes, Breaks())
    assert [values for _, _, values in notes.told] == [{"score": 1.0}]
    assert len(notes.ended) == 1
    trackers.tell(1, {"score": 1.0})  # nobody is told
    assert len(notes.told) == 1


# -- TensorBoard, W&B, MLflow ---------------------------------------------------


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


@has_tensorboard
def test_fits_of_the_command_line_write_tensorboard_s_files(
    tmp_path: Path, capsys: Any
) -> None:
    command = ["fit", QUADRATIC, RANDOM, "--budget", "500", "--out", str(tmp_path)]
    assert main([*command, "--decision-interval", "10"]) == 0
    folder = tmp_path / "tensorboard" / TrackedRun("fit", QUADRATIC, RANDOM, 0).path
    found = events(folder)
    assert {"score/best", "hp/learning_rate"} <= set(found.Tags()["scalars"])
    notes = Notes()
    dacrl_env.fit(QUADRATIC, RANDOM, 500, 0, tracker=notes, **SHORT)
    written = [(e.step, e.value) for e in found.Scalars("score/best")]
    assert [step for step, _ in written] == [step for _, step, _ in notes.told]
    told = [values["score/best"] for _, _, values in notes.told]
    np.testing.assert_allclose([value for _, value in written], told, rtol=1e-6)


@has_tensorboard
def test_a_run_that_is_begun_again_hides_what_it_told_before(tmp_path: Path) -> None:
    tracker, run = TensorBoard(tmp_path), TrackedRun("fit", "t", "m", 0)
    for values in ((1.0, 2.0), (5.0,)):
        for step, value in enumerate(values):
            tracker(run, step, {"score": value, "hp/loss": "mse"})
        tracker.end(run)
        other = pickle.loads(pickle.dumps(tracker))  # with nothing open
        assert other._open == {}
        assert other.folder == tmp_path
    found = events(tmp_path / run.path)
    assert [e.value for e in found.Scalars("score")] == [5.0]


def test_w_and_b(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []

    def init(**options: Any) -> Any:
        log.append(("init", options))
        return SimpleNamespace(
            log=lambda values, step: log.append(("log", values, step)),
            finish=lambda: log.append(("finish",)),
        )

    fake = ModuleType("wandb")
    fake.__spec__ = importlib.util.spec_from_loader("wandb", None)
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    notes = Notes()
    fit(notes)
    fit(WandB(project="mine", group="ours"))
    (_, options), *logs, last = log
    assert last == ("finish",)
    assert options == {
        "project": "mine",
        "group": "ours",
        "name": "fit random-search 3",
        "job_type": "fit",
        "reinit": "create_new",
        "config": {"kind": "fit", "task": QUADRATIC, "name": RANDOM, "number": 3}
        | {"seed": None},
    }
    assert logs == [("log", values, step) for _, step, values in notes.told]


def test_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []

    class Client:
        def __init__(self, tracking_uri: Any) -> None:
            log.append(("client", tracking_uri))

        def get_experiment_by_name(self, name: str) -> Any:
            return None

        def create_experiment(self, name: str) -> str:
            return f"number of {name}"

        def create_run(self, number: str, run_name: str, tags: Any) -> Any:
            log.append(("run", number, run_name, tags["task"]))
            return SimpleNamespace(info=SimpleNamespace(run_id="r"))

        def log_batch(self, run_id: str, metrics: Any, tags: Any) -> None:
            log.append(("log", {m[0]: m[1] for m in metrics}, metrics[0][3], tags))

        def set_terminated(self, run_id: str) -> None:
            log.append(("end", run_id))

    fake, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    fake.__spec__ = importlib.util.spec_from_loader("mlflow", None)
    fake.MlflowClient = Client  # type: ignore[attr-defined]
    entities.Metric = lambda *a: a  # type: ignore[attr-defined]
    entities.RunTag = lambda *a: a  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    notes = Notes()
    fit(notes)
    tracker = MLflow("ours", tracking_uri="sqlite:///x.db")
    fit(tracker)
    client, run, *logs, end = log
    assert client == ("client", "sqlite:///x.db")
    assert run == ("run", "number of ours", "fit random-search 3", QUADRATIC)
    assert end == ("end", "r")
    assert logs == [("log", values, step, []) for _, step, values in notes.told]
    log.clear()
    tracker(notes.told[0][0], 7, {"score": 1, "hp/loss": "mse", "diverged": False})
    assert log[-1] == ("log", {"score": 1.0, "diverged": 0.0}, 7, [("hp/loss", "mse")])


def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trackers, "is_installed", lambda module: False)
    for made, extra in (
        (lambda: TensorBoard("x"), "tensorboard"),
        (WandB, "wandb"),
        (MLflow, "mlflow"),
    ):
        with pytest.raises(ImportError, match=rf"pip install 'dacrl-env\[{extra}\]'"):
            made()
    assert trackers.tensorboard(tmp_path) is None


@pytest.mark.parametrize(
    "name",
    ["tpe", "../up", "a/b", "a b\n", "x" * 300, "", "mine,k=(1,2)", "é", "..", "-"],
)
def test_folders_of_runs_stay_below_and_differ(name: str) -> None:
    path = TrackedRun("fit", QUADRATIC, name, 0).path
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert len(path.parts) == 5
    assert all(0 < len(part) <= 100 and part.isascii() for part in path.parts)
    other = TrackedRun("fit", QUADRATIC, f"{name}!", 0).path
    assert other != path
