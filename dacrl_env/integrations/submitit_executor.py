"""Units of work as jobs of Slurm, by submitit; the extra ``slurm``.

A job that is killed, or that its time limit ends, is lost, and begun again as those of
all executors are. One that Slurm preempts is queued again by submitit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dacrl_env.core import checks
from dacrl_env.core.installed import require
from dacrl_env.core.processes import usable_cores

CLUSTERS = ("slurm", "local", "debug")
MOST = 100  # jobs in Slurm's queue at a time
_WAITING = ("PENDING", "REQUEUED", "QUEUED")


class SubmititExecutor:
    """Gives units of work to Slurm, a job each.

    Parameters of jobs are those that submitit's ``AutoExecutor`` takes, as
    ``timeout_min``, ``mem_gb``, ``slurm_partition`` and ``slurm_account``::

        SubmititExecutor(cores=4, timeout_min=60, slurm_partition="short")

    Args:
        cluster: "slurm"; "local": processes of this machine, as many at a time as it
            has cores for; "debug": one after the other in this process.
        folder: of submitit's files, that all nodes see. None: ``jobs`` in the store;
            without a store a folder in the working directory.
        cores: processors of a unit, which trains as many members at a time.
        most: jobs that are queued or run at a time. None: 100, or what this machine has
            cores for.
        timeout_min: minutes that a unit may take. A fit whose time is over goes on from
            its journal in another job, twice at most.
        **parameters: of jobs.

    Raises:
        ImportError: submitit is not installed.
        ValueError: an unknown cluster or parameter, a number that is none, or no Slurm
            on this machine.
    """

    def __init__(
        self,
        cluster: str = "slurm",
        folder: str | os.PathLike[str] | None = None,
        cores: int = 1,
        most: int | None = None,
        timeout_min: int = 240,
        **parameters: Any,
    ) -> None:
        require("slurm", "executor 'submitit' needs submitit")
        if cluster not in CLUSTERS:
            raise ValueError(checks.unknown("cluster", cluster, CLUSTERS))
        self.cluster = cluster
        self.folder = None if folder is None else Path(folder)
        self.cores = checks.whole("cores", cores)
        if most is None:
            most = MOST if cluster == "slurm" else max(1, usable_cores() // self.cores)
        self.most = checks.whole("most", most)
        self.parameters = {
            "timeout_min": checks.whole("timeout_min", timeout_min),
            "name": "dacrl",
            **parameters,
        }
        for name in ("cpus_per_task", "nodes", "tasks_per_node"):
            if name in parameters:
                raise ValueError(
                    f"{name} cannot be given: a unit is one task, which has `cores`"
                )
        with tempfile.TemporaryDirectory() as scratch:  # what is wrong is said early
            self._made(Path(scratch))
        self._executor: Any = None

    @contextmanager
    def opened(self, directory: Path | None) -> Iterator[None]:
        """Ready to submit jobs.

        Args:
            directory: of the store, that all nodes see.
        """
        with ExitStack() as stack:
            folder = self.folder
            if folder is None and directory is not None:
                folder = directory / "jobs"
            if folder is None:
                made = tempfile.TemporaryDirectory(prefix=".dacrl-jobs-", dir=".")
                folder = Path(stack.enter_context(made))
            self._executor = self._made(folder.absolute())
            try:
                yield
            finally:
                self._executor = None

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> JobFuture:
        """Call a function in a job."""
        if self._executor is None:
            raise RuntimeError("it is used within opened()")
        return JobFuture(self._executor.submit(function, *arguments))

    def _made(self, folder: Path) -> Any:
        import submitit

        try:
            made = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        except RuntimeError as error:  # no srun
            raise ValueError(
                f"there is no Slurm on this machine ({error}); cluster=local tries it"
            ) from None
        try:
            made.update_parameters(cpus_per_task=self.cores, **self.parameters)
        # what submitit raises for unknown parameters, and for those of a wrong type
        except (NameError, AssertionError, TypeError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"executor 'submitit': {said}") from None
        return made


class JobFuture:
    """A unit that is a job."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return bool(self._job.done())

    def result(self) -> Any:
        """What the function returned; raises that the job failed."""
        return self._job.result()

    def cancel(self) -> bool:
        """Take the job back, if it has not begun."""
        if str(self._job.state).upper() not in _WAITING:
            return False
        self._job.cancel(check=False)
        return True
