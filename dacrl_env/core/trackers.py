"""What is told of fits and runs while they go on: TensorBoard, W&B, MLflow, or yours.

A tracker is anything that is called with a run, a step and values::

    dacrl_env.fit(task, "tpe", 500_000, tracker=print)
    dacrl_env.compare(task, ["default"], 8, tracker=dacrl_env.WandB(project="mine"))

It is told, and never asked: no result depends on it. Of a fit it is told after every
decision of the method's runs, or after every round of a controller. A fit that goes on
from its journal tells what was before once more, and one that is in the store tells
nothing. Of a policy that is evaluated it is told after every decision of every run.

A tracker that raises an error does not end what it watches. A RuntimeWarning has the
error, and it is told no more of that unit of work. Numbers that are not finite are left
out. The global generators of random numbers are put back after each call.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from dacrl_env.core.installed import missing
from dacrl_env.core.isolation import globals_kept

Value = float | int | bool | str


@dataclass(frozen=True)
class TrackedRun:
    """What values belong to.

    Args:
        kind: "fit", or "evaluate".
        task: its id.
        name: of the method or policy, or its label.
        number: of the fit that made the policy; of a fit that is its seed.
        seed: of the inner run that is evaluated; None: a fit, which has many.
    """

    kind: str
    task: str
    name: str
    number: int
    seed: int | None = None

    @property
    def label(self) -> str:
        """In words: ``fit tpe 0``, ``evaluate default 0 seed 3``."""
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.kind} {self.name} {self.number}{seed}"

    @property
    def path(self) -> Path:
        """A folder of its own, relative, with letters that every file system has."""
        seed = () if self.seed is None else (f"seed-{self.seed}",)
        task = self.task.split("/")
        parts = (self.kind, *task, self.name, str(self.number), *seed)
        return Path(*map(_folder, parts))


def _folder(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9,=_-]+", "-", name)[:80].strip("-")
    if safe == name != "":
        return safe
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class Tracker(Protocol):
    """Is told of runs. It may have ``end(run)``, called when a run is over.

    It is sent to worker processes where units of work are; each has a copy then.
    """

    def __call__(self, run: TrackedRun, step: int, values: Mapping[str, Value]) -> Any:
        """Take note of values.

        Args:
            run: that they belong to.
            step: training steps that it has spent; never less than before, until it
                is begun again.
            values: by name. Of a fit: ``score/mean`` and ``score/best`` of the runs of
                a decision, ``score/best_so_far``, ``hp/<name>`` as applied in the best
                of them, ``hp_mean/<name>`` of numbers over all, ``cost/<name>`` so far;
                of a controller what Stable-Baselines3 records, and ``controller/…``.
                Of an evaluation: the columns of its frame.
        """
        ...


def check_tracker(tracker: Any) -> None:
    """Raise a ValueError for something that cannot be told anything; None can."""
    if tracker is not None and (not callable(tracker) or isinstance(tracker, type)):
        raise ValueError(
            "a tracker is called with a run, a step and values, such as "
            f"dacrl_env.TensorBoard(folder); got {tracker!r}"
        )


class Telling:
    """Tells a tracker, as long as it does not fail.

    Args:
        tracker: None: nobody.
        label: of the policy, where that is not its name.
    """

    def __init__(self, tracker: Tracker | None, label: str | None = None) -> None:
        self.tracker, self.label = tracker, label
        self._under_way: dict[TrackedRun, None] = {}

    def tell(self, run: TrackedRun, step: int, values: Mapping[str, Any]) -> None:
        """Tell it numbers and texts; those that are not finite, and None, are left out.

        Numbers of numpy become Python's.
        """
        if self.tracker is None:
            return
        self._under_way[run] = None
        plain = {k: getattr(v, "item", lambda v=v: v)() for k, v in values.items()}
        kept = {k: v for k, v in plain.items() if _is_told(v)}
        self._call(self.tracker, run, int(step), kept)

    def end(self, run: TrackedRun) -> None:
        """Say that a run is over, to trackers that want to know."""
        self._under_way.pop(run, None)
        end = getattr(self.tracker, "end", None)
        if end is not None:
            self._call(end, run)

    def close(self) -> None:
        """Say so of all that are under way."""
        for run in [*self._under_way]:
            self.end(run)

    def _call(self, function: Any, *arguments: Any) -> None:
        try:
            with globals_kept():
                function(*arguments)
        except Exception as error:  # whatever a service or a user's function has
            about, self.tracker = self.tracker, None
            warnings.warn(
                f"the tracker {type(about).__name__} failed and is told no more of "
                f"this; the work goes on: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=3,
            )


def _is_told(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int | str)


_current: ContextVar[tuple[Telling, TrackedRun] | None]
_current = ContextVar("tracked", default=None)


@contextmanager
def tracked(tracker: Tracker | None, run: TrackedRun) -> Iterator[None]:
    """What is told in here is told of a run, which is over afterwards."""
    telling = Telling(tracker)
    token = _current.set(None if tracker is None else (telling, run))
    try:
        yield
    finally:
        _current.reset(token)
        telling.close()


def is_tracked() -> bool:
    """Whether there is anybody to tell."""
    return _current.get() is not None


def tell(step: int, values: Mapping[str, Any]) -> None:
    """Tell values of the run that is `tracked`; nothing if none is."""
    current = _current.get()
    if current is not None:
        telling, run = current
        telling.tell(run, step, values)


class _EachItsOwn:
    """A tracker that has something open for every run, which no copy has."""

    def __init__(self) -> None:
        self._open: dict[TrackedRun, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def __call__(self, run: TrackedRun, step: int, values: Mapping[str, Value]) -> None:
        """Take note of values."""
        if run not in self._open:
            self._open[run] = self._begin(run)
        self._write(self._open[run], step, values)

    def end(self, run: TrackedRun) -> None:
        """Close what is open for a run."""
        if run in self._open:
            self._close(self._open.pop(run))

    def _begin(self, run: TrackedRun) -> Any:
        raise NotImplementedError

    def _write(self, opened: Any, step: int, values: Mapping[str, Value]) -> None:
        raise NotImplementedError

    def _close(self, opened: Any) -> None:
        raise NotImplementedError


class TensorBoard(_EachItsOwn):
    """Writes event files, in a folder for each run.

    Args:
        folder: that ``tensorboard --logdir`` takes.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        if not is_installed("tensorboard"):
            raise missing("tensorboard", "TensorBoard is not installed")
        self.folder = Path(folder)

    def _begin(self, run: TrackedRun) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        # what an earlier attempt at this run has told is hidden
        return SummaryWriter(str(self.folder / run.path), purge_step=0)

    def _write(self, opened: Any, step: int, values: Mapping[str, Value]) -> None:
        for name, value in values.items():
            if isinstance(value, str):
                opened.add_text(name, value, step)
            else:
                opened.add_scalar(name, value, step)

    def _close(self, opened: Any) -> None:
        opened.close()


class WandB(_EachItsOwn):
    """Logs to Weights & Biases, a run of theirs for each run.

    Args:
        **options: of ``wandb.init``: ``project``, ``mode="offline"``, …. Unless they
            are given, ``group`` is the method or policy, ``job_type`` the kind, and
            ``config`` says what the run is.

    Raises:
        ImportError: W&B is not installed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        if not is_installed("wandb"):
            raise missing("wandb", "W&B is not installed")
        self.options = options

    def _begin(self, run: TrackedRun) -> Any:
        import wandb

        about: dict[str, Any] = {"name": run.label, "group": run.name}
        about |= {"job_type": run.kind, "config": asdict(run), "reinit": "create_new"}
        return wandb.init(**{**about, **self.options})

    def _write(self, opened: Any, step: int, values: Mapping[str, Value]) -> None:
        opened.log(dict(values), step=step)

    def _close(self, opened: Any) -> None:
        opened.finish()


class MLflow(_EachItsOwn):
    """Logs to MLflow, a run of theirs for each run: numbers as metrics, texts as tags.

    Args:
        experiment: its name; it is made if there is none.
        tracking_uri: of the server, or a local store such as ``sqlite:///mlflow.db``;
            None: MLflow's own setting.

    Raises:
        ImportError: MLflow is not installed.
    """

    def __init__(
        self, experiment: str = "dacrl-env", tracking_uri: str | None = None
    ) -> None:
        super().__init__()
        if not is_installed("mlflow"):
            raise missing("mlflow", "MLflow is not installed")
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def _begin(self, run: TrackedRun) -> Any:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.tracking_uri)
        known = client.get_experiment_by_name(self.experiment)
        number = (
            client.create_experiment(self.experiment)
            if known is None
            else known.experiment_id
        )
        tags = {name: str(value) for name, value in asdict(run).items()}
        made = client.create_run(number, run_name=run.label, tags=tags)
        return client, made.info.run_id

    def _write(self, opened: Any, step: int, values: Mapping[str, Value]) -> None:
        from mlflow.entities import Metric, RunTag

        client, number = opened
        now = int(1_000 * time.time())
        texts = {name: v for name, v in values.items() if isinstance(v, str)}
        metrics = [
            Metric(name, float(v), now, step)
            for name, v in values.items()
            if name not in texts
        ]
        tags = [RunTag(name, text) for name, text in texts.items()]
        client.log_batch(number, metrics=metrics, tags=tags)

    def _close(self, opened: Any) -> None:
        client, number = opened
        client.set_terminated(number)


def is_installed(module: str) -> bool:
    """Whether a module is there, without importing it."""
    return importlib.util.find_spec(module) is not None


def tensorboard(folder: str | os.PathLike[str]) -> TensorBoard | None:
    """TensorBoard's files, where it is installed; None elsewhere."""
    return TensorBoard(folder) if is_installed("tensorboard") else None
