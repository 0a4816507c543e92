"""DACBench's own runner, logger, wrappers, agents and plots on our benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from cases import slow
from gymnasium.utils.env_checker import check_env

import dacrl_env
from dacrl_env.outer.actions import ACTION_MODES
from dacrl_env.outer.rewards import RewardContext

TASK = "dacrl/DQN-CartPole-v0"
SMALL = {
    "budget": 2000,
    "decision_interval": 500,
    "eval_episodes": 2,
    "learning_starts": 100,
}
TINY = {**SMALL, "budget": 400, "decision_interval": 100}
EPISODES = 2
CSV = "name,gravity,half_length\nearth,,\nmoon,1.62,\nlong pole,,1.0\n"
TEST_JSON = [{"name": "mars", "gravity": 3.7}, {"name": "heavy", "mass_cart": 5}]


@pytest.fixture(scope="session")
def dac() -> ModuleType:
    """The integration; DACBench is slow to import."""
    import dacrl_env.integrations.dacbench as module

    return module


@pytest.fixture(autouse=True)
def _no_figures() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    """Instance files: training, test."""
    train, test = tmp_path / "train.csv", tmp_path / "test.json"
    train.write_text(CSV)
    test.write_text(json.dumps(TEST_JSON))
    return train, test


def make(dac: Any, **config: Any) -> Any:
    return dac.DACRLBenchmark(config={**TINY, **config}).get_environment()


def run(
    env: Any, seed: int | None = 3, options: Any = None, actions: int = 11
) -> list[Any]:
    """A run under random actions of a seed, as comparable values."""
    rng = np.random.default_rng(actions)
    observation, info = env.reset(seed=seed, options=options)
    results: list[Any] = [(observation.tolist(), info)]
    over = False
    while not over:
        space = env.action_space
        if isinstance(space, gym.spaces.Box):
            action: Any = rng.uniform(space.low, space.high)
        elif isinstance(space, gym.spaces.Discrete):
            action = int(rng.integers(space.n))
        else:
            action = rng.integers(space.nvec)
        observation, reward, terminated, truncated, info = env.step(action)
        info["objectives"].pop("wall_seconds", None)
        results.append((observation.tolist(), reward, terminated, truncated, info))
        over = terminated or truncated
    return results


def frame(log: Path) -> Any:
    from dacbench.logger import load_logs, log2dataframe

    with warnings.catch_warnings():
        # DACBench joins with keywords that pandas 3 deprecates
        warnings.filterwarnings("ignore", "The 'lsuffix'", module="dacbench")
        return log2dataframe(load_logs(log))


def global_states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global one
    return (
        random.getstate(),
        [np.asarray(part).tolist() for part in numpy_state],
        torch.get_rng_state().tolist(),
    )


# -- importing ------------------------------------------------------------------

MOCK = "from unittest.mock import MagicMock\ndatasets = transforms = MagicMock()\n"
TORCHVISIONS = {
    "absent": None,
    "runtime-error": 'raise RuntimeError("operator torchvision::nms does not exist")',
    "import-error": "import torchvision.part\nfrom torchvision.missing import x",
    "works": MOCK,
}
IMPORT = """
import builtins, json, random, sys
import dacrl_env.tasks, numpy, torch
if LEFTOVERS:
    try:
        import dacbench
    except Exception:
        pass
    assert "dacbench" not in sys.modules and "dacbench.wrappers" in sys.modules

def attempt(module):
    try:
        __import__(module)
        return "works"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def foreign(names):
    return sorted(n for n in names if n.split(".")[0] == "torchvision")

def hooks():
    return (list(sys.meta_path), list(sys.path), list(sys.path_hooks),
            builtins.__import__)

def states():
    return (random.getstate(), numpy.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist())

before, random_before = hooks(), states()
vision = foreign(sys.modules)
import dacrl_env.integrations.dacbench as d
import dacbench
print(json.dumps({
    "untouched": before == hooks() and random_before == states(),
    "vision_before": vision,
    "vision_after": foreign(sys.modules),
    "none": sorted(n for n, m in sys.modules.items() if m is None),
    "unspecified": sorted(
        n for n, m in sys.modules.items()
        if n.startswith("dacbench") and m.__spec__ is None
    ),
    "unavailable": d.UNAVAILABLE,
    "reasons": d.REASONS,
    "has_sgd": [hasattr(dacbench.benchmarks, "SGDBenchmark"),
                hasattr(dacbench.envs, "SGDEnv"),
                "SGDEnv" in dacbench.envs.__all__],
    "complete": hasattr(dacbench, "wrappers") and hasattr(dacbench, "abstract_env"),
    "torchvision": attempt("torchvision"),
    "sgd": attempt("dacbench.envs.sgd"),
    "smac": attempt("smac"),
    "others": len(dacbench.benchmarks.__all__),
    "benchmark": d.DACRLBenchmark(config={"budget": 4_000}).config.task,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vision", "leftovers"),
    [
        ("absent", False),
        slow("runtime-error", False),
        slow("import-error", True),
        slow("works", False),
    ],
)
def test_import(vision: str, leftovers: bool, tmp_path: Path) -> None:
    if vision == "absent" and _installed("torchvision"):
        pytest.skip("torchvision is installed here")
    source = TORCHVISIONS[vision]
    expected = "ModuleNotFoundError: No module named 'torchvision'"
    if source is not None:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(source)
        (tmp_path / "torchvision" / "part.py").write_text("")
        expected = {
            "runtime-error": "RuntimeError: operator torchvision::nms does not exist",
            "import-error": "ModuleNotFoundError: No module named "
            "'torchvision.missing'",
            "works": "works",
        }[vision]
    # with warnings as errors, unless DACBench's own import is to fail first
    script = IMPORT.replace("LEFTOVERS", str(leftovers))
    result = subprocess.run(
        [sys.executable, *([] if leftovers else ["-W", "error"]), "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    works = vision == "works"
    assert found["untouched"]
    assert found["none"] == found["unspecified"] == []
    assert found["has_sgd"] == [works] * 3
    assert found["complete"]
    assert found["torchvision"] == found["sgd"] == expected
    assert found["others"] >= 3
    if _installed("smac"):
        assert found["smac"] == "works"
        if not _installed("omegaconf"):  # DACBO needs it and DACBench does not ask
            assert "omegaconf" in found["reasons"]["DACBOBenchmark"]
    assert found["benchmark"] == TASK
    assert ("SGDBenchmark" in found["unavailable"]) is not works
    assert sorted(found["reasons"]) == sorted(found["unavailable"])
    if not works:
        assert found["vision_after"] == found["vision_before"]
        assert expected in found["reasons"]["SGDBenchmark"]
        if not leftovers:
            assert result.stdout.count("\n") == 1, "DACBench had something to say"
            assert result.stderr == ""


def test_another_failure_is_raised(tmp_path: Path) -> None:
    (tmp_path / "ConfigSpace.py").write_text("raise RuntimeError('broken')")
    script = (
        "import sys\n"
        "try:\n    import dacrl_env.integrations.dacbench\n"
        "except RuntimeError as error:\n    print(error)\n"
        "print([n for n, m in sys.modules.items() if n.startswith('dacbench')])\n"
        "print([n for n, m in sys.modules.items() if m is None])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == ["broken", "[]", "[]"]


def test_importing_the_package_imports_no_dacbench() -> None:
    script = (
        "import sys, dacrl_env, dacrl_env.integrations\n"
        "print('dacbench' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def _installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


# -- the same environment ---------------------------------------------------------


@pytest.mark.parametrize("mode", ACTION_MODES)
def test_runs_are_those_of_the_gymnasium_environment(dac: Any, mode: str) -> None:
    env = make(dac, action_mode=mode)
    other = gym.make(TASK, action_mode=mode, **TINY)
    assert env.action_space == other.action_space
    assert env.observation_space == other.observation_space
    expected = run(other, seed=3), run(other, seed=None)
    assert (run(env, seed=3), run(env, seed=None)) == expected
    assert len(expected[0]) == 1 + env.n_steps


def test_gymnasium_s_checker(dac: Any) -> None:
    with warnings.catch_warnings():
        # made without gymnasium.make, as DACBench does
        warnings.filterwarnings("ignore", ".*not having a spec", UserWarning)
        # and with the function that its runner and agents may call
        warnings.filterwarnings("ignore", ".*`seed` function is dropped", UserWarning)
        check_env(make(dac), skip_render_check=True)


def test_it_is_a_dacbench_environment(dac: Any) -> None:
    import dacbench

    benchmark = dac.DACRLBenchmark(config=TINY)
    env = benchmark.get_environment()
    assert isinstance(benchmark, dacbench.AbstractBenchmark)
    assert isinstance(env, dacbench.AbstractEnv)
    assert (env.n_steps, env.c_step) == (4, 0)
    assert env.get_inst_id() == env.inst_id == 0
    assert env.get_instance() == env.instance_set[0] == dacrl_env.Instance("default")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    env.reset()
    assert env.step(env.action_space.sample())[3] is False
    assert env.c_step == 1
    env.close()
    env.reset()
    assert env.c_step == 0


@pytest.mark.parametrize("history", [1, 2])
def test_every_row_is_described(dac: Any, history: int) -> None:
    benchmark = dac.DACRLBenchmark(config={**TINY, "history": history})
    env = benchmark.get_environment()
    info = env.benchmark_info
    rows = info["state_description"]
    assert len(rows) == len(set(rows)) == env.observation_space.shape[0]
    assert info["action_description"] == ["learning_rate", "epsilon", "batch_size"]
    assert benchmark.config.benchmark_info == info
    # DACBench's log2dataframe would replace such columns by their maximum
    assert not [row for row in rows if "episode_" in row]


def test_seeds(dac: Any) -> None:
    env = make(dac, seed=5)
    assert env.initial_seed == 5
    first = run(env, seed=None)  # the configuration's seed
    second = run(env, seed=None)
    assert first != second
    assert run(env, seed=5) == first
    assert run(env, seed=None) == second
    assert env.seed(5) == [5]
    assert run(env, seed=None) == first
    assert run(env, seed=0) != first
    assert env.initial_seed == 0
    assert type(env.initial_seed) is int
    bench = dac.DACRLBenchmark(config=TINY)
    assert run(bench.get_benchmark(seed=np.int64(5)), seed=None) == first
    assert bench.config.seed == 5
    assert bench.get_benchmark().initial_seed == 0
    unseeded = [bench.get_benchmark(seed=None).initial_seed for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_reset_takes_positions(dac: Any) -> None:
    env, other = make(dac), make(dac)
    observation, _ = env.reset(7, {"instance_id": 0})
    expected, _ = other.reset(seed=7, options={"instance_id": 0})
    np.testing.assert_array_equal(observation, expected)
    assert env.initial_seed == 7


def test_seeding_the_action_space(dac: Any) -> None:
    def samples(**config: Any) -> list[int]:
        env = make(dac, action_mode="discrete", seed=1, **config)
        return [int(env.action_space.sample()) for _ in range(8)]

    assert samples(seed_action_space=True) == samples(seed_action_space=True)
    assert samples() != samples()


def test_only_component_may_come_without_its_axis(dac: Any) -> None:
    env, other = (make(dac, hyperparameters=["epsilon"]) for _ in range(2))
    env.reset(seed=1)
    other.reset(seed=1)
    result = env.step(np.float32(0.5))
    expected = other.step(np.array([0.5], np.float32))
    np.testing.assert_array_equal(result[0], expected[0])
    with pytest.raises(ValueError, match="shape"):
        make_reset(dac).step(0.5)


def make_reset(dac: Any) -> Any:
    env = make(dac)
    env.reset()
    return env


# -- DACBench's tools -------------------------------------------------------------


def agents(env: Any) -> dict[str, Any]:
    from dacbench.agents import (
        DynamicRandomAgent,
        GenericAgent,
        RandomAgent,
        StaticAgent,
    )

    return {
        "random": RandomAgent(env),
        "static": StaticAgent(env, env.action_space.sample()),
        "dynamic-random": DynamicRandomAgent(env, 2),
        "generic": GenericAgent(env, lambda env, state: env.action_space.sample()),
    }


def wrapped(env: Any, logger: Any) -> Any:
    from dacbench import wrappers

    for wrapper in (
        wrappers.PerformanceTrackingWrapper,
        wrappers.ActionFrequencyWrapper,
        wrappers.StateTrackingWrapper,
        wrappers.EpisodeTimeWrapper,
    ):
        env = wrapper(env, logger=logger.add_module(wrapper))
    return env


@pytest.mark.parametrize("agent", ["random", "static", "dynamic-random", "generic"])
@pytest.mark.parametrize(
    ("mode", "hyperparameters"),
    [
        ("continuous", None),
        ("relative", ("learning_rate",)),
        ("discrete", None),
        ("multidiscrete", ("epsilon", "gamma")),
    ],
)
def test_runner_logger_wrappers_and_agents(
    dac: Any, mode: str, hyperparameters: Any, agent: str, tmp_path: Path
) -> None:
    from dacbench.logger import Logger
    from dacbench.runner import run_benchmark

    before = global_states()
    size = SMALL if (mode, agent) == ("continuous", "random") else TINY
    config = {**size, "action_mode": mode, "hyperparameters": hyperparameters}
    benchmark = dac.DACRLBenchmark(config=config)
    inner = benchmark.get_benchmark(seed=4)
    rewards, observations, taken = _record(inner)
    logger = Logger("run", tmp_path)
    env = wrapped(inner, logger)
    actor = agents(env)[agent]
    logger.add_benchmark(benchmark)
    logger.add_agent(actor)
    logger.set_env(env)
    last = run_benchmark(env, actor, EPISODES, logger)
    logs = tmp_path / "run"
    logger.write()
    once = frame(logs / "PerformanceTrackingWrapper.jsonl")
    run_benchmark(env, actor, EPISODES, logger)  # twice on one environment
    logger.close()

    returns = [sum(episode) for episode in rewards]
    assert len(returns) == 2 * EPISODES
    assert last == pytest.approx(np.mean([r[-1] for r in rewards[:EPISODES]]))
    overall, by_instance = env.get_performance()
    assert overall == returns
    assert [*by_instance.values()] == [returns]
    performance = frame(logs / "PerformanceTrackingWrapper.jsonl")
    assert performance["overall_performance"].tolist() == returns
    assert once["overall_performance"].tolist() == returns[:EPISODES]
    assert performance["episode"].tolist() == [*range(EPISODES)] * 2
    assert set(performance["instance"]) == {0}
    assert set(performance["seed"]) == {4}

    steps = inner.n_steps
    assert [len(episode) for episode in rewards] == [steps] * (2 * EPISODES)
    states = frame(logs / "StateTrackingWrapper.jsonl")
    described = [f"state_{row}" for row in inner.benchmark_info["state_description"]]
    np.testing.assert_array_equal(states[described].to_numpy(np.float32), observations)
    logged = frame(logs / "ActionFrequencyWrapper.jsonl").filter(like="action")
    flat = np.array([np.ravel(action) for action in taken])
    np.testing.assert_array_equal(logged.to_numpy(flat.dtype), flat)
    times = frame(logs / "EpisodeTimeWrapper.jsonl")
    assert len(times) == 2 * EPISODES * steps
    assert (times["step_duration"] > 0).all()
    assert len(env.get_times()[0]) == 2 * EPISODES
    assert len(env.get_states()) == 2 * EPISODES * (steps + 1)
    assert len(env.get_actions()) == 2 * EPISODES * steps
    written = dac.DACRLBenchmark(config_path=logs / "benchmark.json")
    assert written.config == benchmark.config
    assert global_states() == before


def _record(env: Any) -> tuple[list[list[float]], list[Any], list[Any]]:
    """Rewards by episode, observations and actions of what follows."""
    rewards: list[list[float]] = []
    observations: list[Any] = []
    actions: list[Any] = []
    step, reset = env.step, env.reset

    def recorded_step(action: Any) -> Any:
        result = step(action)
        actions.append(action)
        observations.append(result[0])
        rewards[-1].append(result[1])
        return result

    def recorded_reset(*args: Any, **kwargs: Any) -> Any:
        rewards.append([])
        return reset(*args, **kwargs)

    env.step, env.reset = recorded_step, recorded_reset
    return rewards, observations, actions


@pytest.fixture
def register(dac: Any) -> Iterator[Any]:
    """`register_with_dacbench`, undone afterwards."""
    from dacbench import benchmarks

    before = dict(vars(benchmarks)), list(benchmarks.__all__)
    yield dac.register_with_dacbench
    vars(benchmarks).clear()
    vars(benchmarks).update(before[0])
    benchmarks.__all__[:] = before[1]


def test_run_dacbench_finds_the_benchmark(
    dac: Any, register: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dacbench import benchmarks
    from dacbench.agents import RandomAgent
    from dacbench.runner import run_dacbench

    before = global_states()
    assert register() is dac.DACRLBenchmark is benchmarks.DACRLBenchmark
    register(**TINY)
    assert benchmarks.__all__.count("DACRLBenchmark") == 1
    run_dacbench(tmp_path, RandomAgent, 1, bench=["DACRLBenchmark"], seeds=[0, 3])
    assert "Evaluating DACRLBenchmark" in capsys.readouterr().out
    for seed in (0, 3):
        logs = tmp_path / "DACRLBenchmark" / f"seed_{seed}"
        performance = frame(logs / "PerformanceTrackingWrapper.jsonl")
        assert performance["seed"].tolist() == [seed]
        assert performance["step"].tolist() == [TINY["budget"] // 100 - 1]
        again = dac.DACRLBenchmark(config_path=logs / "benchmark.json")
        assert again.config.seed == seed
        assert again.config.budget == TINY["budget"]
    assert global_states() == before


def test_run_baselines(register: Any, tmp_path: Path) -> None:
    from dacbench.run_baselines import run_policy, run_random, run_static

    name = "EpsilonBenchmark"
    register(name, hyperparameters=["epsilon"], **TINY)
    run_random(tmp_path, name, 1, seeds=[1], fixed=2)
    run_static(tmp_path, name, 0.5, 1, seeds=np.arange(2))
    run_policy(tmp_path, name, 1, lambda env, state: 0.25, seeds=[1])
    runs = ("random_fixed2_1", "static_0.5_0", "static_0.5_1", "optimal_1")
    for run_name in runs:
        logs = tmp_path / name / run_name
        assert len(frame(logs / "PerformanceTrackingWrapper.jsonl")) == 1


def test_registering_what_does_not_work(register: Any) -> None:
    from dacbench import benchmarks

    with pytest.raises(ValueError, match="already has another LubyBenchmark"):
        register("LubyBenchmark")
    with pytest.raises(ValueError, match=r"unknown key 'bugdet' .*; valid: task, "):
        register("Mine", bugdet=400)
    assert not hasattr(benchmarks, "Mine")


@pytest.fixture
def logged(dac: Any, tmp_path: Path) -> Any:
    """Runs a random agent; gives the environment and a data frame by wrapper."""
    import matplotlib as mpl
    from dacbench.logger import Logger
    from dacbench.runner import run_benchmark

    mpl.use("Agg")

    def log(**config: Any) -> tuple[Any, dict[str, Any]]:
        logger = Logger("run", tmp_path)
        env = wrapped(make(dac, **config), logger)
        run_benchmark(env, agents(env)["random"], EPISODES, logger)
        logger.close()
        return env, {f.stem: frame(f) for f in (tmp_path / "run").glob("*.jsonl")}

    with warnings.catch_warnings():
        # DACBench names the ticks of an axis that has not fixed them
        warnings.filterwarnings("ignore", "set_ticklabels", UserWarning)
        yield log


@pytest.mark.slow
def test_plots(logged: Any) -> None:
    from dacbench import plotting

    names = ("learning_rate", "epsilon")
    env, frames = logged(action_mode="relative", hyperparameters=names)
    rows = env.observation_space.shape[0]
    for plot, wrapper, panels in (
        ("plot_performance", "PerformanceTracking", 1),
        ("plot_performance_per_instance", "PerformanceTracking", 1),
        ("plot_step_time", "EpisodeTime", 1),
        ("plot_episode_time", "EpisodeTime", 1),
        ("plot_action", "ActionFrequency", 2),
        ("plot_state", "StateTracking", rows),
    ):
        grid = getattr(plotting, plot)(frames[f"{wrapper}Wrapper"])
        assert len(grid.axes.flat) == panels, plot
    assert rows % 4 > 1  # DACBench draws states in rows % 4 lines; not 0, not 1
    for picture in ("step_time", "episode_time", "action_tracking", "state_tracking"):
        assert getattr(env, f"render_{picture}")().ndim == 3


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_plot_of_one_action(logged: Any, mode: str) -> None:
    from dacbench import plotting

    env, frames = logged(action_mode=mode, hyperparameters=["epsilon"])
    grid = plotting.plot_action(frames["ActionFrequencyWrapper"])
    assert len(grid.axes.flat) == 1
    assert env.render_action_tracking().ndim == 3


def test_more_wrappers(dac: Any) -> None:
    from dacbench import wrappers

    noisy = wrappers.RewardNoiseWrapper(make(dac), noise_function=lambda: 100.0)
    noisy.reset()
    assert noisy.step(noisy.action_space.sample())[1] > 50

    sampled = dacrl_env.Instance("sampled", {"gravity": 5.0})
    env = make(dac)
    sampling = wrappers.InstanceSamplingWrapper(env, sampling_function=lambda: sampled)
    sampling.reset()
    assert env.instance is sampled
    assert env.get_inst_id() == "sampled"
    assert env.dynamic_env.settings.instances[-1] is sampled

    progress = wrappers.PolicyProgressWrapper(
        make(dac, action_mode="discrete"), lambda instance: [13] * 4
    )
    with contextlib.redirect_stdout(None):  # it prints every action
        run(progress)
    assert len(progress.policy_progress) == 1


# -- instances ----------------------------------------------------------------------


def test_instance_sets_from_files(dac: Any, paths: tuple[Path, Path]) -> None:
    train, test = map(str, paths)
    env = make(dac, instance_set_path=train, test_set_path=test)
    assert {k: (i.name, i.physics) for k, i in env.instance_set.items()} == {
        0: ("earth", {}),
        1: ("moon", {"gravity": 1.62}),
        2: ("long pole", {"half_length": 1.0}),
    }
    visited = []
    for _ in range(4):
        env.reset()
        visited.append((env.get_inst_id(), env.instance.name))
    assert visited == [(1, "moon"), (2, "long pole"), (0, "earth"), (1, "moon")]
    env.use_test_set()
    env.use_test_set()  # twice is once
    for expected in [(1, "heavy"), (0, "mars")]:
        env.reset()
        assert (env.get_inst_id(), env.instance.name) == expected
        assert env.dynamic_env.settings.split == "test"
    env.use_training_set()
    env.use_training_set()
    env.reset()
    assert (env.get_inst_id(), env.instance.name) == (2, "long pole")
    assert env.dynamic_env.settings.split == "tuning"
    assert {i.name for i in env.test_set.values()} == {"mars", "heavy"}


def test_instances_bite_and_equal_gymnasium_s(dac: Any, paths: Any) -> None:
    env = make(dac, instance_set_path=str(paths[0]), test_set_path=str(paths[1]))
    every = [*env.instance_set.values(), *env.test_set.values()]
    other = gym.make(TASK, **TINY, instances=every)
    runs = []
    for inst_id, instance in env.instance_set.items():
        runs.append(run(env, 3, {"instance_id": inst_id}))
        assert runs[-1] == run(other, 3, {"instance": instance.name})
        assert env.get_inst_id() == inst_id
    assert runs[0] != runs[1] != runs[2] != runs[0]
    env.use_test_set()
    held_out = gym.make(TASK, **TINY, instances=every, split="test")
    expected = run(held_out, 3, {"instance": "mars"})
    assert run(env, 3, {"instance": "mars"}) == expected


def test_the_test_set_does_not_depend_on_training(dac: Any) -> None:
    env, other = make(dac), make(dac)
    trained = run(env, seed=None), run(env, seed=None)
    env.use_test_set()
    other.use_test_set()
    tested = run(env, seed=None)
    assert tested == run(other, seed=None)
    assert tested not in trained
    env.use_training_set()
    other.use_training_set()
    assert run(other, seed=None) == trained[0]
    fresh = make(dac)
    third = [run(fresh, seed=None) for _ in range(3)][-1]
    assert run(env, seed=None) == third  # training went on where it was


def test_instance_options(dac: Any, paths: tuple[Path, Path]) -> None:
    env = make(dac, instance_set_path=str(paths[0]))
    moon = env.instance_set[1]
    by_id = run(env, 3, {"instance_id": 1})
    assert run(env, 3, {"instance": moon}) == by_id
    assert env.get_inst_id() == 1
    assert run(env, 3, {"instance": "moon"}) == by_id
    # not in the set: another moon, whose name must not bring back the first
    heavier = dacrl_env.Instance("moon", {"gravity": 20.0})
    assert run(env, 3, {"instance": heavier}) != by_id
    assert env.get_inst_id() == "moon"
    assert env.instance == heavier
    assert run(env, 3, {"instance_id": 1}) == by_id
    env.reset(options={"instance_id": 0, "instance": None})
    assert env.instance.name == "earth"
    env.reset(options={"scheme": "none"})
    assert env.instance.name == "earth"
    for choose, argument in (
        (env.set_inst_id, 2),
        (env.set_instance, "long pole"),
        (env.set_instance, env.instance_set[2]),
    ):
        env.reset(options={"instance_id": 0})
        choose(argument)
        assert (env.inst_id, env.instance.name) == (2, "long pole")
        env.reset()  # the choice holds
        assert (env.inst_id, env.instance.name) == (2, "long pole")


def test_an_unknown_instance_does_not_disturb_the_seed(dac: Any) -> None:
    env, other = make(dac), make(dac)
    run(env, seed=5)
    run(other, seed=5)
    guest = dacrl_env.Instance("guest", {"gravity": 20.0})
    assert run(env, None, {"instance": guest}) != run(other, None)  # second episode
    assert run(env, None) == run(other, None)  # third


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instanec": 1}, "unknown reset option 'instanec'; valid: instance, "),
        ({"instance_id": 9}, "unknown instance_id 9; valid: 0"),
        ({"instance": "mars"}, "unknown instance 'mars'; valid: default"),
        ({"instance": 3}, "dacrl_env.Instance or its name, got 3"),
        ({"instance": dacrl_env.Instance("x", {"g": 1.0})}, "'g'; valid: gravity"),
        ({"scheme": "robin"}, "'robin' .*; valid: round_robin, random, none"),
        ({"instance": "default", "instance_id": 0}, "one of the options instance, "),
    ],
)
def test_wrong_options(dac: Any, options: Any, message: str) -> None:
    env = make(dac, seed=5)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=1, options=options)
    assert env.initial_seed == 5
    assert env.instance.name == "default"


def test_random_instances_come_from_the_seed(dac: Any, paths: Any) -> None:
    env = make(
        dac, instance_set_path=str(paths[0]), instance_update_func="random", seed=2
    )

    def visited() -> list[int]:
        ids = []
        for _ in range(12):
            env.reset()
            ids.append(env.get_inst_id())
        return ids

    env.seed(2)
    first = visited()
    env.seed(2)
    assert visited() == first
    assert set(first) == {0, 1, 2}


def test_snapshot(dac: Any, paths: tuple[Path, Path]) -> None:
    env = make(dac, instance_set_path=str(paths[0]))
    env.reset(seed=8, options={"instance": "moon"})
    action = env.action_space.sample()
    env.step(action)
    snapshot = env.dynamic_env.snapshot()
    expected = env.step(action)
    env.reset(seed=1)
    env.reset(options={"snapshot": snapshot})
    assert (env.c_step, env.initial_seed, env.inst_id) == (1, 8, 1)
    result = env.step(action)
    np.testing.assert_array_equal(result[0], expected[0])
    assert result[1] == expected[1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name,g\nx,1\n", "unknown column of row 0: 'g'; valid: name, gra"),
        ("a.csv", "gravity\n1\n", "row 0 has no name"),
        ("a.csv", "name,gravity\nx,strong\n", "row 0: gravity is no number: 'strong'"),
        ("a.csv", "name,gravity\nx,1\ny,nan\n", "row 1: gravity must be finite"),
        ("a.csv", "name,gravity\nx,1,2\n", "row 0 has more cells"),
        ("a.csv", "name,gravity\nx,1\nx,2\n", "of the same name: x"),
        ("a.csv", "name,gravity\n", "no instance given"),
        ("a.json", "{}", "expected a list"),
        ("a.json", "[1]", "row 0: expected an object"),
        ("a.json", '[{"name": 3}]', "row 0 has no name"),
        ("a.json", "[", "Expecting value"),
    ],
)
@pytest.mark.parametrize("key", ["instance_set_path", "test_set_path"])
def test_wrong_instance_files(
    dac: Any, tmp_path: Path, key: str, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        make(dac, **{key: str(path)})
    assert str(path) in str(caught.value)


def test_missing_instance_file(dac: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        make(dac, instance_set_path="nowhere.csv")


def test_byte_order_mark(dac: Any, tmp_path: Path) -> None:
    path = tmp_path / "spreadsheet.csv"
    path.write_text(CSV, encoding="utf-8-sig")
    assert dac.read_instances(path, TASK)[0].name == "earth"


def test_instance_sets_without_files(dac: Any) -> None:
    instances = {
        "a": dacrl_env.Instance("one", {"gravity": 5.0}),
        "b": {"name": "two", "physics": {}},
    }
    env = make(dac, instance_set=instances, test_set=[dacrl_env.Instance("three")])
    assert [env.instance_set[k].name for k in "ab"] == ["one", "two"]
    assert env.test_set[0].name == "three"
    chosen = make(dac, instances=[dacrl_env.Instance("four", {"half_length": 1.0})])
    assert chosen.instance_set[0].name == "four"
    env.set_instance_set({7: dacrl_env.Instance("seven")})
    env.reset()
    assert env.get_inst_id() == 7


# -- configurations -------------------------------------------------------------------


def doubled(context: RewardContext) -> Any:
    """A reward that a file can name."""
    return 2 * (context.score - context.previous_score)


def test_saved_configuration_gives_the_same_runs(
    dac: Any, tmp_path: Path, paths: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {
        **TINY,
        "hyperparameters": (
            "epsilon",
            dacrl_env.Number("learning_rate", 1e-4, 1e-2, 1e-3, "log"),
        ),
        "fixed": {"gamma": 0.95},
        "action_mode": "relative",
        "reward": doubled,
        "hidden_sizes": (16, 16),
        "history": 2,
        "observe_instance": True,
        "seed": np.int64(9),
        "instance_set_path": Path("train.csv"),
        "test_set": {3: dacrl_env.Instance("held out", {"gravity": 4.0}, 30, 40, 0)},
    }
    benchmark = dac.DACRLBenchmark(config=config)
    path = tmp_path / "benchmark.json"
    benchmark.save_config(path)
    monkeypatch.chdir(Path(tmp_path.anchor))
    again = dac.DACRLBenchmark(config_path=path)
    assert dac.DACRLBenchmark.from_json(again.to_json()) == again
    monkeypatch.chdir(tmp_path)
    env, other = benchmark.get_environment(), again.get_environment()
    assert env.observation_space == other.observation_space
    assert env.action_space == other.action_space
    assert env.instance_set == other.instance_set
    assert env.test_set == other.test_set
    assert env.initial_seed == other.initial_seed == 9
    for _ in range(2):
        assert run(env, seed=None) == run(other, seed=None)
        assert env.get_inst_id() == other.get_inst_id()
    env.use_test_set()
    other.use_test_set()
    assert run(env, seed=None) == run(other, seed=None)
    assert env.get_inst_id() == other.get_inst_id() == 3


@pytest.mark.parametrize("mode", ACTION_MODES)
def test_saved_spaces(dac: Any, mode: str, tmp_path: Path) -> None:
    benchmark = dac.DACRLBenchmark(config={**TINY, "action_mode": mode})
    benchmark.save_config(tmp_path / "benchmark.json")
    again = dac.DACRLBenchmark(config_path=str(tmp_path / "benchmark.json"))
    assert again == benchmark
    env, other = benchmark.get_environment(), again.get_environment()
    assert env.action_space == other.action_space
    assert env.observation_space == other.observation_space
    assert "not serializable" not in (tmp_path / "benchmark.json").read_text()


def test_instance_file_beside_the_configuration(dac: Any, paths: Any) -> None:
    path = paths[0].parent / "config.json"
    path.write_text(json.dumps({**TINY, "instance_set_path": paths[0].name}))
    benchmark = dac.DACRLBenchmark(config_path=path)
    assert len(benchmark.get_environment().instance_set) == 3
    benchmark.read_instance_set()
    assert benchmark.config.instance_set[1].name == "moon"
    again = dac.DACRLBenchmark.from_json(benchmark.to_json())
    assert again.config.instance_set == benchmark.config.instance_set


def test_wrappers_are_saved(dac: Any, tmp_path: Path) -> None:
    import functools

    from dacbench.wrappers import PerformanceTrackingWrapper, StateTrackingWrapper

    benchmark = dac.DACRLBenchmark(config=TINY)
    benchmark.register_wrapper(StateTrackingWrapper)
    benchmark.register_wrapper(
        functools.partial(PerformanceTrackingWrapper, performance_interval=2)
    )
    path = tmp_path / "benchmark.json"
    benchmark.save_config(path)
    env = dac.DACRLBenchmark(config_path=path).get_environment()
    assert type(env) is PerformanceTrackingWrapper
    assert env.performance_interval == 2
    assert type(env.env) is StateTrackingWrapper
    benchmark.register_wrapper(functools.partial(StateTrackingWrapper, logger=object()))
    with pytest.warns(UserWarning, match="wrapper not saved: kwargs cannot be"):
        benchmark.save_config(path)
    assert len(dac.DACRLBenchmark(config_path=path).wrap_funcs) == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"bugdet": 400},
            r"'bugdet' \(did you mean 'budget'\?\); valid: task, seed",
        ),
        ({"task": "dacrl/Nothing-v0"}, "unknown task 'dacrl/Nothing-v0' .*; valid: "),
        ({"budget": 1001}, "does not divide"),
        ({"hyperparameters": ["lr"]}, "unknown hyperparameter 'lr'"),
        ({"instance_update_func": "robin"}, "valid: round_robin, random, none"),
        (
            {"instances": "test", "instance_set_path": "train.csv"},
            "exclude each other",
        ),
    ],
)
def test_wrong_configurations(dac: Any, config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dac.DACRLBenchmark(config=config)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"instance_set": {}}, "no instance given"),
        ({"instance_set": {0: 3}}, "expected a dacrl_env.Instance, got 3"),
        (
            {"test_set": [dacrl_env.Instance("x", {"g": 1.0})]},
            "unknown physical constant 'g'",
        ),
        (
            {"test_set": {1: dacrl_env.Instance("a"), "b": dacrl_env.Instance("b")}},
            "must have one type",
        ),
    ],
)
def test_wrong_sets(dac: Any, sets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(dac, **sets)


def test_benchmarks_are_independent(dac: Any) -> None:
    config = dict(TINY)
    first, second = dac.DACRLBenchmark(config=config), dac.DACRLBenchmark(config={})
    first.set_seed(3)
    assert config == TINY
    assert second.config.seed == 0
    assert "budget" not in second.config
    assert dac.DACRLBenchmark().config.task == TASK
    assert first.get_config() is first.config
    with pytest.raises(ValueError, match="Both path to config"):
        dac.DACRLBenchmark("a.json", config)
    with pytest.raises(ValueError, match="action_mode"):
        first.set_action_space("Box", [])
    with pytest.raises(ValueError, match="history"):
        first.set_observation_space("Box", [], float)


def test_rewards_of_ours_go_by_the_module_that_they_were_in_too(dac: Any) -> None:
    written = ["function", "dacrl_env.rewards", "best"]
    assert dac._decode("reward", written) is dacrl_env.outer.rewards.best


def test_what_no_file_can_hold(dac: Any, tmp_path: Path) -> None:
    benchmark = dac.DACRLBenchmark(config={**TINY, "reward": lambda c: c.score})
    with pytest.raises(ValueError, match="reward cannot be written"):
        benchmark.save_config(tmp_path / "benchmark.json")
    assert not (tmp_path / "benchmark.json").exists()
