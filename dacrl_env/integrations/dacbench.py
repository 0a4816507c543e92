"""The tasks as a DACBench benchmark.

``DACRLBenchmark`` works with DACBench's own runner, logger, wrappers, agents and plots,
and `register_with_dacbench` lets ``run_dacbench`` find it by name. Made for DACBench
0.5.6.

**Importing DACBench.** Where torch is installed and torchvision is missing or broken,
``import dacbench`` fails: its SGD environment imports torchvision. This module then
imports DACBench without its SGD benchmark, in the state in which DACBench leaves itself
where SGD is not installed. The same holds for its DACBO benchmark, which it imports
wherever SMAC is installed, although that needs more packages. Nothing stays behind in
the interpreter's import system: ``import torchvision`` and ``import
dacbench.envs.sgd`` succeed or fail as they did before. `UNAVAILABLE` names the
benchmarks of DACBench that are not there, and `REASONS` says why.

**Instance files.** CSV with a header, or a JSON list of objects. ``name`` is required
and unique; every other column is a physical constant of the inner environment. A
constant that is left out or empty keeps its default. The row number, from 0, is the
instance's id in DACBench. For CartPole::

    name,gravity,half_length
    earth,,
    moon,1.62,
    long pole,,1.0
"""

from __future__ import annotations

import csv
import functools
import importlib
import importlib.util
import inspect
import json
import sys
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.actions import check_names
from dacrl_env.outer.env import DynamicConfigEnv, check_options
from dacrl_env.outer.settings import Settings, resolve
from dacrl_env.tasks import Choice, Condition, Event, Instance, Knob, Number, Task
from dacrl_env.tasks.registration import (
    ALGORITHMS,
    TASKS,
    get_task,
    load,
    make_inner_env,
)

# what DACBench imports only where a package is installed
_NEEDS = {
    "CMAESBenchmark": "modcma",
    "DACBOBenchmark": "smac",
    "SGDBenchmark": "torchvision",
    "TheoryBenchmark": "uuid",
}
_SGD = "dacbench.envs.sgd"
_SGD_NAMES = ("SGDEnv", "SGDInstance")
# imported where a package is found, whether or not what else they need is there
_FRAGILE = {"SGDBenchmark": _SGD, "DACBOBenchmark": "dacbench.envs.dacbo"}


@contextmanager
def _stand_in(modules: Mapping[str, types.ModuleType | None]) -> Iterator[None]:
    """Entries of ``sys.modules``, put back afterwards as they were."""
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)  # type: ignore[arg-type] # None: cannot be imported
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _loaded(package: str) -> set[str]:
    return {m for m in sys.modules if m == package or m.startswith(f"{package}.")}


def _import_dacbench() -> dict[str, str]:
    """Import DACBench, if need be without some benchmarks; returns why, by name."""
    if sys.modules.get("dacbench") is not None:
        return {}
    if importlib.util.find_spec("dacbench") is None:
        raise ModuleNotFoundError(
            "the integration of DACBench needs it: pip install dacbench",
            name="dacbench",
        )
    torchvision = _loaded("torchvision")

    def forget() -> None:
        """Drop the parts that a failed import leaves behind, also an earlier one's.

        A new package does not get the old parts as attributes.
        """
        for name in _loaded("dacbench") | (_loaded("torchvision") - torchvision):
            del sys.modules[name]

    problems: dict[str, str] = {}
    while True:
        forget()
        try:
            with _stand_in(_without(problems)):
                importlib.import_module("dacbench")
            break
        # a broken torchvision raises whatever its libraries raise
        except Exception as error:
            culprit = _culprit(error)
            if culprit is None or culprit in problems:
                forget()  # all errors are in the traceback
                raise
            problems[culprit] = f"{type(error).__name__}: {error}"
    envs = sys.modules["dacbench.envs"]
    if "SGDBenchmark" in problems:
        for name in _SGD_NAMES:
            vars(envs).pop(name, None)
        envs.__all__[:] = [name for name in envs.__all__ if name not in _SGD_NAMES]
    return problems


def _culprit(error: BaseException) -> str | None:
    """The benchmark whose environment an import of DACBench failed in."""
    trace, modules = error.__traceback__, []
    while trace is not None:
        modules.append(str(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    for benchmark, module in _FRAGILE.items():
        if any(m == module or m.startswith(f"{module}.") for m in modules):
            return benchmark
    return None


def _without(benchmarks: Iterable[str]) -> dict[str, types.ModuleType | None]:
    """Modules that let DACBench be imported as if these could not be installed."""
    modules: dict[str, types.ModuleType | None] = {}
    if "SGDBenchmark" in benchmarks:
        sgd = types.ModuleType(_SGD, "Stands in while dacbench is imported.")
        for name in _SGD_NAMES:
            setattr(sgd, name, None)
        # DACBench looks for torchvision before it imports its SGD benchmark
        modules |= {_SGD: sgd, "torchvision": None}
    if "DACBOBenchmark" in benchmarks:
        modules["smac"] = None  # which it looks for before it imports DACBO
    return modules


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what `UNAVAILABLE` says too, and the rounding of a bound of ToySGD.

    ``catch_warnings`` would also undo the filters that imported packages set.
    """
    filters: Any = warnings.filters
    added = []
    for message, module in (
        (".* not installed", "dacbench"),
        (".*precision lowered", "gymnasium"),
    ):
        warnings.filterwarnings("ignore", message, UserWarning, module)
        added.append(filters[0])
    try:
        yield
    finally:
        for entry in added:
            if entry in filters:
                filters.remove(entry)


with _quiet():
    _problems = _import_dacbench()

from dacbench import AbstractBenchmark, AbstractEnv, benchmarks  # noqa: E402
from dacbench.abstract_benchmark import objdict  # noqa: E402

UNAVAILABLE: tuple[str, ...] = tuple(n for n in _NEEDS if not hasattr(benchmarks, n))
"""Benchmarks of DACBench that could not be imported."""

REASONS: dict[str, str] = {n: f"needs the package {_NEEDS[n]}" for n in UNAVAILABLE}
"""Why, by name."""
for _name, _problem in _problems.items():
    REASONS[_name] += f" ({_problem})"

DEFAULTS: dict[str, Any] = {
    "task": "dacrl/DQN-CartPole-v0",
    "seed": 0,
    "seed_action_space": False,
    "instance_update_func": "round_robin",
}
# keys of a benchmark's configuration that are no options of an environment
_KEYS = (
    *DEFAULTS,
    "instance_set",
    "instance_set_path",
    "test_set",
    "test_set_path",
    "benchmark_info",
    "wrappers",
)
_SCHEMES = ("round_robin", "random", "none")
_RESET_OPTIONS = ("instance", "instance_id", "scheme", "snapshot")

InstanceSet = dict[Any, Instance]


class DACRLEnv(AbstractEnv):
    """The environment of `DACRLBenchmark`: DACBench's shell around one run.

    Spaces, rewards, infos and runs are those of
    :class:`~dacrl_env.outer.env.DynamicConfigEnv`; instances are chosen as in DACBench,
    round robin unless ``instance_update_func`` is ``"random"`` or ``"none"``. An
    episode ends as ``terminated``, when its budget is spent.

    The test set is run with the ``"test"`` split of random streams, from the seed's
    first episode on, so that it shares nothing with training and does not depend on it.

    Args:
        config: of `DACRLBenchmark`, with ``instance_set`` and ``test_set``.

    Raises:
        ValueError: as :func:`dacrl_env.outer.settings.resolve`, or instances that do
            not fit.
    """

    instance_index: int  # where round robin stands, in the current set
    test_instance_index: int

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._task = get_task(config["task"])
        self._options = _environment_options(config)
        self._options.pop("instances", None)
        _check_scheme(config.get("instance_update_func", "round_robin"))
        self._constants = list(make_inner_env(self._task).physics)
        train = _checked_set(config["instance_set"], self._constants)
        test = _checked_set(config["test_set"], self._constants)
        self._run = self._make(train.values(), test=False)
        self._runs = {False: self._run}  # by `test`
        self._started: set[bool] = set()  # which of them began with the current seed
        self._chosen = False  # by name or id, so that the next reset stays
        settings = self._run.settings
        derived = {
            "instance_set": train,
            "test_set": test,
            "observation_space": self._run.observation_space,
            "action_space": self._run.action_space,
            "cutoff": settings.budget // settings.decision_interval,
            "reward_range": (-np.inf, np.inf),
            "benchmark_info": describe(self._run),
        }
        super().__init__(objdict({**config, **derived}))

    def _make(self, instances: Iterable[Instance], test: bool) -> DynamicConfigEnv:
        # an instance that is not from the set takes the place of its namesake
        by_name = {instance.name: instance for instance in instances}
        options = {**self._options, "instances": tuple(by_name.values())}
        if test:
            options["split"] = "test"
        return DynamicConfigEnv(self._task, **options)

    @property
    def dynamic_env(self) -> DynamicConfigEnv:
        """The environment under way, with ``to_action``, ``snapshot`` and so on."""
        return self._run

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a run.

        Args:
            seed: of the run's streams; None: the next episode of the last seed.
            options: at most one of ``"instance"`` (an :class:`dacrl_env.Instance` or
                the name of one in the set), ``"instance_id"`` (its id in the set) and
                ``"snapshot"`` (continue from it); or ``"scheme"``, how to go on in the
                set: ``"round_robin"``, ``"random"`` or ``"none"``.

        Raises:
            ValueError: unknown option, instance or scheme, or a snapshot that does not
                fit.
        """
        options = check_options(options, _RESET_OPTIONS)
        kinds = ("instance", "instance_id", "snapshot")
        chosen = {k: options[k] for k in kinds if options.get(k) is not None}
        if len(chosen) > 1:
            raise ValueError(f"give one of the options {', '.join(chosen)}")
        snapshot = chosen.pop("snapshot", None)
        scheme = options.get("scheme", self.instance_updates)
        _check_scheme(scheme)
        found = self._find(**chosen) if chosen else None
        if seed is not None:
            self.seed(seed, self.config.get("seed_action_space", False))
        if found is not None:
            self.inst_id, self.instance = found
        elif snapshot is None and not self._chosen:
            self.use_next_instance(scheme=scheme)
        self._chosen = False
        run = self._run_with_instance()
        if snapshot is not None:
            observation, info = run.reset(options={"snapshot": snapshot})
            state = run.population.state
            self.initial_seed = int(state.seeds[0])
            self.instance = run.settings.instances[int(state.instances[0])]
            self.inst_id = self._id_of(self.instance)
        else:
            first = self.test not in self._started
            observation, info = run.reset(
                seed=self.initial_seed if first else None,
                options={"instance": self.instance.name},
            )
        self._started.add(self.test)
        self._run = run
        self.c_step = int(run.population.state.decisions[0])
        return observation, info

    def step(
        self, action: Any
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Set hyperparameters and train until the next decision.

        Raises:
            ResetNeeded: before the first reset, or after the end of a run.
            ValueError: an action of the wrong kind; the run is left untouched.
        """
        # DACBench's agents give the only component of a box without its axis
        if self.action_space.shape == (1,) and np.ndim(action) == 0:
            action = np.reshape(action, (1,))
        result = self._run.step(action)
        self.c_step += 1
        return result

    def _run_with_instance(self) -> DynamicConfigEnv:
        """The environment of the current set, made anew for an unknown instance."""
        run = self._runs.get(self.test)
        if run is not None and self.instance in run.settings.instances:
            return run
        made = self._make([*self.instance_set.values(), self.instance], self.test)
        if run is not None:  # go on with the seed's next episode
            made._seed, made._episode = run._seed, run._episode
        self._runs[self.test] = made
        return made

    # -- seeds ------------------------------------------------------------------

    def seed(
        self, seed: int | None = None, seed_action_space: bool = False
    ) -> list[int]:
        """Set the seed of the following episodes; no global generator is touched.

        Args:
            seed: None: from the operating system.
            seed_action_space: also seed what DACBench's random agents sample from.
        """
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        gym.Env.reset(self, seed=int(seed))  # sets np_random
        self.initial_seed = int(seed)
        if seed_action_space:
            self.action_space.seed(self.initial_seed)
        self._started = set()
        return [self.initial_seed]

    # -- instances --------------------------------------------------------------

    def use_next_instance(
        self, instance: Any = None, instance_id: Any = None, scheme: str | None = None
    ) -> None:
        """Choose the instance of the next episode.

        One that is chosen by name or id holds for the next reset, which DACBench's own
        environments forget.

        Args:
            instance: an instance, or a name in the set.
            instance_id: id in the set.
            scheme: where neither is given: ``"round_robin"``, ``"random"``, or
                ``"none"`` and None, which stay.

        Raises:
            ValueError: unknown instance or scheme.
        """
        if instance is not None or instance_id is not None:
            self.inst_id, self.instance = self._find(instance, instance_id)
            self._chosen = True
            return
        _check_scheme(scheme)
        count = len(self.instance_id_list)
        if scheme == "round_robin":
            self.instance_index = (self.instance_index + 1) % count
        elif scheme == "random":
            self.instance_index = int(self.np_random.integers(count))
        else:
            return
        self.inst_id = self.instance_id_list[self.instance_index]
        self.instance = self.instance_set[self.inst_id]

    def set_inst_id(self, inst_id: Any) -> None:
        """Change to the instance with an id; a ValueError lists the valid ones."""
        self.use_next_instance(instance_id=inst_id)
        self.instance_index = self.instance_id_list.index(self.inst_id)

    def set_instance(self, instance: Any) -> None:
        """Change to an instance, or to the one in the set that a name belongs to."""
        self.use_next_instance(instance)

    def set_instance_set(self, inst_set: Mapping[Any, Any]) -> None:
        """Change the current set, id to instance; the next reset goes on in it."""
        super().set_instance_set(_checked_set(inst_set, self._constants))
        self.instance_index %= len(self.instance_id_list)

    def use_test_set(self) -> None:
        """Change to the test set; the next reset begins with it."""
        self._chosen = False
        if not self.test:  # twice would take the test set for the training set
            # which the base class forgets:
            self.training_instance_index = self.instance_index
            self.instance_index = self.test_instance_index
            super().use_test_set()

    def use_training_set(self) -> None:
        """Change back to the training set; the next reset goes on with it."""
        self._chosen = False
        if self.test:
            self.test_instance_index = self.instance_index
            self.instance_index = self.training_instance_index
            super().use_training_set()

    def _find(self, instance: Any = None, instance_id: Any = None) -> tuple[Any, Any]:
        """Id and instance."""
        if instance is None:
            ids = self.instance_id_list
            if instance_id not in ids:
                valid = ", ".join(map(str, ids))
                raise ValueError(f"unknown instance_id {instance_id!r}; valid: {valid}")
            known = ids[ids.index(instance_id)]
            return known, self.instance_set[known]
        if isinstance(instance, str):
            by_name = {i.name: k for k, i in self.instance_set.items()}
            check_names([instance], list(by_name), "instance")
            return by_name[instance], self.instance_set[by_name[instance]]
        if not isinstance(instance, Instance):
            raise ValueError(
                f"an instance is a dacrl_env.Instance or its name, got {instance!r}"
            )
        check_names(instance.physics, self._constants, "physical constant")
        return self._id_of(instance), instance

    def _id_of(self, instance: Instance) -> Any:
        """Id in the current set; the name of an instance that is not in it."""
        for inst_id in self.instance_id_list:
            if self.instance_set[inst_id] == instance:
                return inst_id
        return instance.name


class DACRLBenchmark(AbstractBenchmark):
    """The tasks of this package as a DACBench benchmark.

    Configuration: ``task`` (id), every option of
    :func:`dacrl_env.outer.settings.resolve` (``hyperparameters``, ``action_mode``,
    ``budget``, …), and

    | key | meaning | default |
    | --- | --- | --- |
    | ``seed`` | of the environment; None: from the operating system | 0 |
    | ``seed_action_space`` | also seed what random agents sample from | False |
    | ``instance_update_func`` | ``"round_robin"``, ``"random"`` or ``"none"`` | round robin |
    | ``instance_set_path``, ``test_set_path`` | instance files; relative to the working directory or the configuration file | the task's sets |
    | ``instance_set``, ``test_set`` | id to instance, instead of files | |

    ``benchmark_info`` is filled in: a description for every row of the observation and
    every component of the action.

    Args:
        config_path: JSON file, as `save_config` writes it.
        config: the same as a dictionary.

    Raises:
        ValueError: both are given, or an unknown key or value.
    """  # noqa: E501 - a table

    defaults: Mapping[str, Any] = DEFAULTS

    def __init__(
        self,
        config_path: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config_path, config)
        if self.config is None:  # also for an empty dictionary
            self.load_config({})

    def load_config(self, config: Mapping[str, Any]) -> None:
        """Take over a configuration, completed with the defaults."""
        config = {**self.defaults, **{k: _decode(k, v) for k, v in config.items()}}
        self.dejson_wrappers(config.pop("wrappers", ()))
        self.config = objdict(config)
        self.config.benchmark_info = describe(
            DynamicConfigEnv(self.config.task, **self._checked_options())
        )

    def _checked_options(self) -> dict[str, Any]:
        """Options of the environment; raises what is wrong with the configuration."""
        task = get_task(self.config.task)
        learner = load(ALGORITHMS[task.algorithm])
        options = [*inspect.signature(resolve).parameters]
        options.remove("configuration")
        options += [field.name for field in fields(learner.config_class)]
        check_names(self.config, [*dict.fromkeys((*_KEYS, *options))], "key")
        if "instances" in self.config and not _NO_SET.isdisjoint(self.config):
            raise ValueError("instances and instance_set exclude each other; give one")
        _check_scheme(self.config.instance_update_func)
        return _environment_options(self.config)

    def _settings(self) -> Settings:
        return resolve(self.config.task, **self._checked_options())

    def get_environment(self) -> Any:
        """A new environment of the current configuration, wrapped as registered.

        Raises:
            ValueError: as the constructor, or an instance file that does not fit.
            FileNotFoundError: no such instance file.
        """
        settings = self._settings()
        sets = {k: self._instances(settings, k) for k in ("instance_set", "test_set")}
        env: Any = DACRLEnv({**self.config, **sets})
        self.config.benchmark_info = env.benchmark_info
        for wrap in self.wrap_funcs:
            env = wrap(env)
        return env

    def get_benchmark(self, seed: int | None = 0) -> Any:
        """A new environment of the current configuration, with a seed.

        Unlike DACBench's own benchmarks, it keeps the configuration.
        """
        self.set_seed(seed)
        return self.get_environment()

    def set_seed(self, seed: int | None) -> None:
        """Set the seed of environments made from now on."""
        self.config.seed = None if seed is None else int(seed)

    def set_action_space(self, kind: Any, args: Any) -> None:
        """Not possible; raises a ValueError that says what is."""
        raise ValueError("set action_mode and hyperparameters; the space follows")

    def set_observation_space(self, kind: Any, args: Any, data_type: Any) -> None:
        """Not possible; raises a ValueError that says what is."""
        raise ValueError("set observe_instance and history; the space follows")

    def read_instance_set(self, test: bool = False) -> None:
        """Read a set into the configuration, where it takes precedence over its file.

        There is no need to call this: `get_environment` reads the files.
        """
        kind = "test_set" if test else "instance_set"
        if self.config.get(f"{kind}_path") is not None:
            self.config.pop(kind, None)
        self.config[kind] = self._instances(self._settings(), kind)

    def _instances(self, settings: Settings, kind: str) -> InstanceSet:
        if kind in self.config:
            return dict(self.config[kind])
        path = self.config.get(f"{kind}_path")
        if path is not None:
            return dict(enumerate(read_instances(self._path(path), settings.task)))
        test = kind == "test_set"
        return dict(
            enumerate(settings.task.test_instances if test else settings.instances)
        )

    def _path(self, path: str | Path) -> Path:
        config_path = getattr(self, "config_path", None)
        if config_path is not None and not Path(path).is_file():
            beside = Path(config_path).parent / path
            if beside.is_file():
                return beside
        return Path(path)

    # -- files ------------------------------------------------------------------

    def serialize_config(self) -> dict[str, Any]:
        """The configuration as JSON values.

        Raises:
            ValueError: a value that could not be read back, such as a lambda.
        """
        config = {k: _encode(k, v) for k, v in self.config.items()}
        for key in ("instance_set_path", "test_set_path"):
            if config.get(key) is not None:  # wherever it is read from
                config[key] = str(self._path(config[key]).resolve())
        config["wrappers"] = self.jsonify_wrappers()
        return config

    @classmethod
    def from_json(cls, json_config: str) -> DACRLBenchmark:
        """The benchmark that `to_json` described."""
        return cls(config=json.loads(json_config))

    def jsonify_wrappers(self) -> list[dict[str, Any]]:
        """The registered wrappers with their arguments, as JSON values.

        One that cannot be written, such as one with a logger, is left out with a
        warning.
        """
        described = []
        for wrap in self.wrap_funcs:
            call = (
                wrap if isinstance(wrap, functools.partial) else functools.partial(wrap)
            )
            try:
                described.append(
                    {
                        "wrapper": _encode("wrapper", call.func),
                        "args": _encode("args", call.args),
                        "kwargs": _encode("kwargs", call.keywords),
                    }
                )
            except ValueError as error:
                warnings.warn(f"wrapper not saved: {error}", stacklevel=2)
        return described

    def dejson_wrappers(self, wrapper_list: Iterable[Mapping[str, Any]]) -> None:
        """Register wrappers that `jsonify_wrappers` described."""
        for entry in wrapper_list:
            args = [_decode("args", value) for value in entry["args"]]
            kwargs = {k: _decode(k, v) for k, v in entry["kwargs"].items()}
            wrapper = _decode("wrapper", entry["wrapper"])
            self.wrap_funcs.append(functools.partial(wrapper, *args, **kwargs))


_NO_SET = frozenset(("instance_set", "instance_set_path"))


def register_with_dacbench(
    name: str = "DACRLBenchmark", **config: Any
) -> type[DACRLBenchmark]:
    """Make a benchmark known to DACBench by name, as in ``run_dacbench(bench=[name])``.

    DACBench makes the benchmark itself, without arguments, so its configuration is
    given here. Registering a name again replaces the benchmark.

    Args:
        name: attribute of ``dacbench.benchmarks``.
        **config: what differs from the defaults of `DACRLBenchmark`.

    Returns:
        The class that DACBench finds.

    Raises:
        ValueError: the name belongs to another benchmark, or a wrong configuration.
    """
    taken = getattr(benchmarks, name, None)
    ours = isinstance(taken, type) and issubclass(taken, DACRLBenchmark)
    if taken is not None and not ours:
        raise ValueError(f"dacbench.benchmarks already has another {name}")
    benchmark: type[DACRLBenchmark] = DACRLBenchmark
    if config or name != "DACRLBenchmark":
        given = {k: _decode(k, v) for k, v in config.items()}
        members = {
            "__doc__": f"`DACRLBenchmark` with {given}.",
            "__module__": __name__,
            "defaults": {**DEFAULTS, **given},
        }
        benchmark = types.new_class(
            name, (DACRLBenchmark,), exec_body=lambda body: body.update(members)
        )
    benchmark()  # now, since run_dacbench passes over a benchmark that raises
    setattr(benchmarks, name, benchmark)
    if name not in benchmarks.__all__:
        benchmarks.__all__.append(name)
    return benchmark


def read_instances(path: str | Path, task: str | Task) -> list[Instance]:
    """Instances of a CSV or JSON file; the module's docstring has the format.

    Args:
        path: a name that ends in .json is JSON, any other CSV.
        task: knows the physical constants.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown constants, names that are missing or not unique, values that
            are no finite numbers, or no instance at all; the message has the place.
    """
    path = Path(path)
    constants = list(make_inner_env(get_task(task)).physics)
    try:
        if path.suffix.lower() == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(rows, list):
                raise ValueError("expected a list of objects")
        else:
            # with the byte order mark that spreadsheets write
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        instances = [_instance(i, row, constants) for i, row in enumerate(rows)]
        _checked_set(dict(enumerate(instances)), constants)
    except ValueError as error:
        raise ValueError(f"instance file {path}: {error}") from error
    return instances


def _instance(number: int, row: Any, constants: list[str]) -> Instance:
    where = f"row {number}"
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: expected an object, got {row!r}")
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where} has no name")
    if None in row:
        raise ValueError(f"{where} has more cells than the header")
    check_names(row, ["name", *constants], f"column of {where}:")
    physics = {}
    for key, value in row.items():
        if key == "name" or value is None or value == "":
            continue
        try:
            physics[key] = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {key} is no number: {value!r}") from None
        if not np.isfinite(physics[key]):
            raise ValueError(f"{where}: {key} must be finite, got {value!r}")
    return Instance(name.strip(), physics)


def describe(env: DynamicConfigEnv) -> dict[str, Any]:
    """DACBench's ``benchmark_info`` of an environment."""
    settings = env.settings
    reward = getattr(settings.reward, "__name__", str(settings.reward))
    return {
        "identifier": "DACRL",
        "name": f"{settings.task.id}: {settings.task.description}",
        "reward": reward,
        # They become names of columns, and DACBench's log2dataframe spreads the maximum
        # over the whole episode in columns whose name contains "episode_".
        "state_description": [n.replace("_", " ") for n in env.observation_names],
        "action_description": [h.name for h in settings.controlled],
    }


def _environment_options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in _KEYS}


def _check_scheme(scheme: Any) -> None:
    if scheme is not None:
        check_names([scheme], _SCHEMES, "instance_update_func")


def _checked_set(instances: Mapping[Any, Any], constants: list[str]) -> InstanceSet:
    """Id to instance; raises a ValueError if DACBench could not work with it."""
    for instance in instances.values():
        if not isinstance(instance, Instance):
            raise ValueError(f"expected a dacrl_env.Instance, got {instance!r}")
        check_names(instance.physics, constants, "physical constant")
    names = [instance.name for instance in instances.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"instances of the same name: {', '.join(twice)}")
    if not names:
        raise ValueError("no instance given")
    try:
        sorted(instances)
    except TypeError:
        raise ValueError(
            f"ids of instances must have one type, got {[*instances]}"
        ) from None
    return dict(instances)


def _encode(key: str, value: Any) -> Any:
    """A value of a configuration as JSON values."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Task) and TASKS.get(value.id) is value:
        return value.id
    if isinstance(value, Instance):
        given = {k: v for k, v in vars(value).items() if v is not None}
        return {k: _encode(key, v) for k, v in given.items()}
    if isinstance(value, Knob):
        return asdict(value)
    if isinstance(value, Mapping):
        return {str(k): _encode(key, v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_encode(key, v) for v in value]
    name = getattr(value, "__qualname__", "")
    module = getattr(value, "__module__", "")
    if name and getattr(sys.modules.get(module), name, None) is value:
        return ["function", module, name]  # as DACBench writes them
    raise ValueError(f"{key} cannot be written to a file: {value!r}")


# modules that files of before name otherwise
_MOVED = {"dacrl_env.rewards": "dacrl_env.outer.rewards"}


def _decode(key: str, value: Any) -> Any:
    """Inverse of `_encode`; leaves alone what is not encoded."""
    if key in ("instance_set", "test_set"):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        return {_id(k): _of(Instance, v) for k, v in pairs}
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) == 3 and value[0] == "function":
        return load(f"{_MOVED.get(value[1], value[1])}:{value[2]}")
    if key == "hyperparameters":
        return tuple(_knob(v) if isinstance(v, Mapping) else v for v in value)
    return tuple(_of(Instance, v) if key == "instances" else v for v in value)


def _knob(fields: Mapping[str, Any]) -> Knob:
    """A number, a choice or an event, told apart by its fields."""
    given = dict(fields)
    if given.get("condition"):
        condition = given["condition"]
        options = tuple(condition["options"])
        given["condition"] = Condition(condition["choice"], options)
    if "options" in given:
        given["options"] = tuple(given["options"])
    kind = Number if "low" in given else Choice if "default" in given else Event
    return kind(**given)


def _of(kind: type, value: Any) -> Any:
    return kind(**value) if isinstance(value, Mapping) else value


def _id(key: Any) -> Any:
    """JSON has no integers as keys."""
    return int(key) if isinstance(key, str) and key.isdecimal() else key
