"""Measure the returns that scores are normalised by, and what a run costs.

Random: mean return of uniformly random actions. Floor: below the lowest return seen of
random and of constant actions, and below what is possible where a bound is known.
Reference: the task's choice; what runs of the default configuration reach is printed
beside it. For the instances of an inner environment it is what a well-trained agent
reaches on that instance, see `measure_instances`.

What is measured for instances, and the seconds of a run, stand in one generated file,
which :mod:`dacrl_env.tasks.measured` reads.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dacrl_env.comparison.stats import bootstrap_interval
from dacrl_env.core import streams
from dacrl_env.core.checks import unknown
from dacrl_env.core.files import write_text
from dacrl_env.core.version import __version__
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.learners.rollout import Act, play
from dacrl_env.outer.population import Population
from dacrl_env.outer.settings import resolve
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.studies import planners
from dacrl_env.tasks import DEFAULT_INSTANCE, Instance, Task, measured
from dacrl_env.tasks.instances import TIMES
from dacrl_env.tasks.registration import TASKS, get_task, make_inner_env

Floats = NDArray[np.float64]
Say = Callable[[str], None]  # is told of progress
# actions (m, E) or (m, E, A) for observations (m, E, …) at a numbered step, and the
# rows (m,) of the constants that they are of
Agent = Callable[[NDArray[Any], int, NDArray[np.int64]], NDArray[Any]]

_TOGETHER = 1_000  # episodes
_CHOOSING, _JUDGING = 100, 1_000  # episodes, of each agent and of the best one
_NEARLY = 0.95  # of the ceiling: an agent that reaches it could reach the ceiling


# -- one task -----------------------------------------------------------------------


def measure(task: str, episodes: int = 200_000, runs: int = 64) -> dict[str, Any]:
    """Returns of random and constant actions, and of default training runs.

    Args:
        task: id.
        episodes: of random actions, and of each constant action.
        runs: training runs of the default configuration, on the tuning split.

    Returns:
        The figures that `render` prints.

    Raises:
        ValueError: unknown task, or fewer than one episode or run.
    """
    from dacrl_env.comparison.evaluation import evaluate

    _check_counts(episodes=episodes, runs=runs)
    known = get_task(task)
    if not known.inner_env:
        raise ValueError(
            f"{task} has no inner environment to act in; its references are the return "
            "of untrained parameters and that of dacrl_env.baselines.quadratic:Optimal"
        )
    env = make_inner_env(known, reuse=True)
    physics = np.array([list(env.physics.values())], np.float64)
    random = random_returns(env, physics, episodes)[0]
    constant = constant_returns(env, physics, episodes)
    lowest = min(float(returns.min()) for returns in (random, *constant))
    # references are of networks that do not explore
    judged = replace(known, judged_by="evaluation")
    frame = evaluate(judged, "default", range(runs), split="tuning")
    instances = resolve(task).instances
    numbers = {instance.name: i for i, instance in enumerate(instances)}
    scale = known.references(instances).rows(frame["instance"].map(numbers).to_numpy())
    frame["return"] = scale.returns(frame["report_score"])
    reported = frame["return"].dropna()
    final = frame.groupby("seed")["return"].last()
    return {
        "task": known,
        "episodes": episodes,
        "runs": runs,
        "random_mean": float(random.mean()),
        "random_interval": bootstrap_interval(random),
        "lowest": lowest,
        "default_final": float(final.mean()),
        "default_final_interval": bootstrap_interval(final.to_numpy()),
        "default_highest": float(reported.max()),
    }


def render(figures: dict[str, Any]) -> str:
    """The figures beside what the task has registered."""
    task = figures["task"]
    returns = task.returns
    low, high = figures["random_interval"]
    final_low, final_high = figures["default_final_interval"]
    return "\n".join(
        [
            f"{task.id}",
            f"  random     {figures['random_mean']:.2f} [{low:.2f}, {high:.2f}] over "
            f"{figures['episodes']:,} episodes (registered {returns.random:g})",
            f"  lowest     {figures['lowest']:.2f} of random and constant actions "
            f"(registered floor {returns.floor:g})",
            f"  default    {figures['default_final']:.1f} [{final_low:.1f}, "
            f"{final_high:.1f}] at the end of {figures['runs']} runs; highest report "
            f"{figures['default_highest']:.1f} (registered reference "
            f"{returns.reference:g})",
        ]
    )


# -- instances ----------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How the reference of an inner environment's instances is found.

    Args:
        trained: task whose default configuration is trained on every instance; the
            best of all these agents counts.
        ceiling: the most an episode can return. It is the reference where the trained
            agent comes near.
        scripted: instead of training, an agent that knows what to do. Its returns are
            moved by what the task's reference lies above its return on the inner
            environment as it is, so that there the reference is the task's.
        planned: instead of training, makes an agent of constants ``(n, K)``. What it
            returns is the reference.
        stages: what an instance comes to be in a run of the task, of all its constants
            and the task: each in turn is measured, and the means count. None: what it
            is at the end.
        unshifted: inner environment whose default instance is this one's, too: a shift
            that never comes. What was reached there counts: most agents of a shift are
            trained on what is there after it.
        given: the reference is that of each task, on all instances.
        decimals: that returns are rounded to.
        bounded: the task's floor is that of all instances.
    """

    trained: str | None = None
    ceiling: float = math.inf
    scripted: Agent | None = None
    planned: Callable[[Floats], Agent] | None = None
    stages: Callable[[dict[str, float], Task], list[dict[str, float]]] | None = None
    unshifted: str | None = None
    given: bool = False
    decimals: int = 2
    bounded: bool = False


def pump(observations: NDArray[Any], *_: Any) -> NDArray[np.int64]:
    """MountainCar: push in the direction of the velocity, which adds energy."""
    return np.where(observations[..., 1] >= 0, 2, 0)


def full_power(observations: NDArray[Any], *_: Any) -> NDArray[np.float64]:
    """MountainCarContinuous: all of the power, in the direction of the velocity."""
    return np.where(observations[..., 1:] >= 0, 1.0, -1.0)


def worlds_of_a_run(physics: dict[str, float], task: Task) -> list[dict[str, float]]:
    """The worlds that switch in a run of one environment, as constants."""
    after = max(task.budget - physics["offset"], 0)
    count = min(1 + math.ceil(after / physics["period"]), int(physics["worlds"]))
    return [{**physics, "stage": 1.0 + stage} for stage in range(count)]


RECIPES = {
    "CartPole-v1": Recipe(trained="dacrl/PPO-CartPole-v0", ceiling=500.0),
    "Acrobot-v1": Recipe(trained="dacrl/PPO-Acrobot-v0"),
    "MountainCar-v0": Recipe(scripted=pump),
    "MountainCarContinuous-v0": Recipe(scripted=full_power),
    "Pendulum-v1": Recipe(trained="dacrl/PPO-Pendulum-v0"),
    "CartPoleSwingup-v0": Recipe(trained="dacrl/PPO-CartPoleSwingup-v0"),
    "CartPoleShift": Recipe(
        trained="dacrl/PPO-CartPole-v0", ceiling=500.0, unshifted="CartPole-v1"
    ),
    "PendulumShift": Recipe(
        trained="dacrl/PPO-PendulumShift-v0", unshifted="Pendulum-v1"
    ),
    "CartPoleSwingupShift": Recipe(
        trained="dacrl/PPO-CartPoleSwingup-v0", unshifted="CartPoleSwingup-v0"
    ),
    "TwoColours-v0": Recipe(planned=planners.seek),
    "SwitchingMDP-v0": Recipe(planned=planners.plan, stages=worlds_of_a_run),
    "FourMDPs-v0": Recipe(planned=planners.plan, stages=worlds_of_a_run),
    "TwoMDPs-v0": Recipe(planned=planners.plan, stages=worlds_of_a_run),
    "DeepSea-v0": Recipe(planned=planners.dive, decimals=4, bounded=True),
    "DeepSea10-v0": Recipe(planned=planners.dive, decimals=4, bounded=True),
    "LunarLander-v3": Recipe(given=True, bounded=True),
    "MiniGridLevels-v0": Recipe(given=True, decimals=4, bounded=True),
    **{
        f"MinAtar/{game}-v1": Recipe(given=True, bounded=True)
        for game in ("Breakout", "SpaceInvaders", "Asterix", "Freeway", "Seaquest")
    },
}


def instances_of(inner_env: str) -> tuple[Instance, ...]:
    """All instances of the tasks on an inner environment, the default one first.

    Of those of several tasks that differ in the times of changes alone, one.

    Raises:
        ValueError: no task on it has instances, or two of one name differ.
    """
    found = {DEFAULT_INSTANCE.name: DEFAULT_INSTANCE}
    for task in TASKS.values():
        if task.inner_env != inner_env:
            continue
        for instance in (*task.train_instances, *task.test_instances):
            known = found.setdefault(instance.name, instance)
            if lasting(known) != lasting(instance):
                raise ValueError(
                    f"two tasks on {inner_env} have different instances "
                    f"{instance.name!r}; one set of returns cannot serve both"
                )
    if len(found) == 1:
        raise ValueError(
            f"no task on {inner_env!r} has sets of instances; "
            f"there are some of: {', '.join(varied_envs())}"
        )
    return tuple(found.values())


def varied_envs() -> list[str]:
    """Inner environments with sets of instances that have returns of their own."""
    envs = (t.inner_env for t in TASKS.values() if len(t.train_instances) > 1)
    return [name for name in dict.fromkeys(envs) if name not in measured.SAME]


def measure_instances(
    inner_env: str,
    episodes: int = 10_000,
    runs: int = 4,
    say: Say = print,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Random return, reference and floor of every instance of an inner environment.

    Where physics change in the course of a run, all three are those of the physics
    after the change, since what is judged is the end of a run. Runs and episodes draw
    from fixed streams of the tuning split.

    Args:
        inner_env: id of the inner environment.
        episodes: of random actions, and a tenth as many of each constant action.
        runs: training runs on each instance, where agents are trained.
        say: is told of progress.
        only: names of instances; none: all. Trained agents are tried on those alone
            that they, too, are of: worlds that few others are like take more runs.

    Returns:
        A section of the file: how it was measured, and ``returns`` by name of instance.
        The default instance is there for comparison; scores on it use the task's.

    Raises:
        ValueError: no instances, or unknown ones; no recipe, or one that needs the
            default instance, which is not among them; fewer than one episode or run.
    """
    _check_counts(episodes=episodes, runs=runs)
    instances = instances_of(inner_env)
    for name in only:
        if name not in (known := [i.name for i in instances]):
            raise ValueError(unknown(f"instance of {inner_env}", name, known))
    instances = tuple(i for i in instances if not only or i.name in only)
    if inner_env in measured.SAME:
        raise ValueError(
            f"returns on {inner_env} are those on {measured.SAME[inner_env]}: "
            f"measure them there"
        )
    if inner_env not in RECIPES:
        raise ValueError(
            f"no recipe for the reference of {inner_env}; there is one for "
            f"{', '.join(RECIPES)}"
        )
    recipe = RECIPES[inner_env]
    if recipe.scripted is not None and instances[0] is not DEFAULT_INSTANCE:
        raise ValueError(
            f"returns on {inner_env} are moved by that of the instance "
            f"{DEFAULT_INSTANCE.name!r}, which must be among those that are measured"
        )
    task = next(t for t in TASKS.values() if t.inner_env == inner_env)
    env = make_inner_env(task, reuse=True)
    judged = [_at_the_end(i, env) for i in instances]
    every = [{**env.physics, **i.physics} for i in judged]
    stages = [recipe.stages(p, task) if recipe.stages else [p] for p in every]
    physics = np.array([[*stage.values()] for found in stages for stage in found])
    say(f"{inner_env}: {episodes:,} random episodes on {len(instances)} instances")
    counts = np.array([len(found) for found in stages])
    firsts = np.cumsum(counts) - counts
    played = random_returns(env, physics, episodes)
    random = np.add.reduceat(played.mean(1), firsts) / counts
    constant = constant_returns(env, physics, -(-episodes // 10))
    lowest = np.min([returns.min(1) for returns in (played, *constant)], 0)
    lowest = np.minimum.reduceat(lowest, firsts)
    about = {
        "command": f"dacrl references {task.id} --instances --episodes {episodes}",
        "version": __version__,
        "random": f"mean of {episodes} episodes",
    }
    if only:
        about["command"] += f" --only {' '.join(only)}"
    if recipe.stages is not None:
        about["random"] += ", on each of the worlds of a run"
    reference = best = None
    if recipe.given:
        about["reference"] = "that of the task"
    elif recipe.planned is not None:
        played = _returns(env, physics, episodes, recipe.planned(physics))
        reference = best = np.add.reduceat(played.mean(1), firsts) / counts
        about["reference"] = f"{about['random']}, of planners.{recipe.planned.__name__}"
    elif recipe.scripted is not None:
        best = _returns(env, physics, episodes, recipe.scripted).mean(1)
        reference = best + (task.returns.reference - best[0])
        about["reference"] = (
            f"mean of {episodes} episodes of {recipe.scripted.__name__}, "
            f"{task.returns.reference - best[0]:+.2f}"
        )
    else:
        trained = replace(
            get_task(str(recipe.trained)), inner_env=inner_env, backend=task.backend
        )
        agents = train(trained, judged, runs, say=say)
        say(f"{inner_env}: {runs * len(judged)} agents play every instance")
        best = reached(agents, physics)
        if recipe.unshifted is not None and instances[0] is DEFAULT_INSTANCE:
            same = measured.returns(recipe.unshifted)[DEFAULT_INSTANCE.name]
            best[0] = max(best[0], same["reached"])
        near = best >= _NEARLY * recipe.ceiling
        reference = np.where(near, recipe.ceiling, best)
        about["command"] += f" --runs {runs}"
        about["reference"] = (
            f"mean of {_JUDGING} episodes of the best agent on the instance, of "
            f"{runs * len(judged)} that {recipe.trained} trains by default, "
            f"{runs} on each instance"
        )
        if recipe.unshifted is not None:
            about["reference"] += (
                f"; on the default instance no less than on that of {recipe.unshifted}"
            )
        if np.isfinite(recipe.ceiling):
            about["reference"] += (
                f"; {recipe.ceiling:g}, the most there is, where that is at least "
                f"{_NEARLY * recipe.ceiling:g}"
            )
    # possible returns are bounded, and the tasks' floors lie below the bound
    floor = np.minimum(task.returns.floor, np.floor(lowest) - 1)
    if recipe.bounded:
        floor[:] = task.returns.floor
    found = {
        "random": random,
        "reference": reference,
        "floor": floor,
        "reached": best,
        "lowest": lowest,
    }
    returns = {
        instance.name: {
            "physics": dict(instance.physics),
            **{
                name: round(float(values[i]), recipe.decimals)
                for name, values in found.items()
                if values is not None
            },
        }
        for i, instance in enumerate(instances)
    }
    return {**about, "returns": returns}


def train(
    task: Task,
    instances: Sequence[Instance],
    runs: int,
    budget: int | None = None,
    say: Say = print,
) -> list[Population]:
    """Agents trained on each instance by the default configuration of a task.

    Args:
        task: with the learner and its configuration.
        instances: each trains a member of every population.
        runs: populations, of seeds 0, 1, … of the tuning split.
        budget: inner environment steps; None: the task's.
        say: is told of progress.

    Returns:
        The populations at the end of their runs.
    """
    populations = []
    for run in range(runs):
        envs = PopulationEnv(
            task,
            len(instances),
            instances=instances,
            budget=budget,
            feedback="train",  # nobody looks at evaluations
        )
        envs.reset(seed=run, options={"instance": [i.name for i in instances]})
        population = envs.population
        finish(population)
        means = population.references().returns(population.final_report())
        say(
            f"{task.inner_env}: run {run + 1} of {runs} on {len(instances)} instances; "
            f"means from {means.min():.1f} to {means.max():.1f}"
        )
        populations.append(population)
    return populations


def reached(populations: Sequence[Population], physics: Floats) -> Floats:
    """What the best of some agents returns for each row of constants ``(n,)``.

    Default runs end well or badly by chance, so an agent that was trained on similar
    constants may do better than those that were trained on these. The best is chosen by
    100 episodes, the same for all agents, and judged by 1,000 others.

    Args:
        populations: trained agents.
        physics: ``(n, K)``.
    """
    keys = streams.of(_keys(len(physics)), "report")
    result = np.empty(len(physics))
    for i, constants in enumerate(physics):
        means = [
            _played(p, np.arange(p.size), constants, keys[i : i + 1], 0, _CHOOSING)
            for p in populations
        ]
        best = int(np.argmax(np.concatenate(means)))
        number, member = divmod(best, populations[0].size)
        chosen = populations[number], np.array([member])
        result[i] = _played(*chosen, constants, keys[i : i + 1], 1, _JUDGING)[0]
    return result


def _played(
    population: Population,
    members: NDArray[np.int64],
    constants: Floats,
    key: streams.UInts,
    number: int,
    episodes: int,
) -> Floats:
    """Mean returns ``(m,)`` of members that play the same episodes, diverged: −∞."""
    keys = streams.bits(key, np.array([number]), episodes)
    returns, _ = population.learner.play(
        population.state.learner,
        members,
        np.repeat(keys, len(members), 0),
        np.repeat(constants[None], len(members), 0),
    )
    return np.where(population.state.diverged[members], -np.inf, returns.mean(1))


def finish(population: Population) -> None:
    """Advance default runs to their end."""
    defaults = population.actions.defaults(population.size)
    while not population.ended().all():
        population.advance(defaults)


def lasting(instance: Instance) -> dict[str, float]:
    """The physics that returns depend on: all but the times of changes."""
    return {k: v for k, v in instance.physics.items() if k not in TIMES}


def _at_the_end(instance: Instance, env: InnerEnv) -> Instance:
    """The instance with the physics that it shifts to, from the start and for good."""
    if "shift_at" not in env.physics or "shift_at" not in instance.physics:
        return instance
    return replace(instance, physics={**lasting(instance), "shift_at": 0.0})


# -- seconds ------------------------------------------------------------------------


def measure_seconds(
    task: str, population: int = 64, say: Say = print
) -> dict[str, Any]:
    """Processor time of one default run, evaluation and report included.

    Runs take one thread, so this is the wall time on a core that does nothing else. It
    depends less on what else the machine does; wall time is recorded beside it.

    Args:
        task: id.
        population: runs that are trained together; their time is divided by it.
        say: is told of progress.

    Returns:
        An entry of the file.

    Raises:
        ValueError: unknown task, or an empty population.
    """
    _check_counts(population=population)
    envs = PopulationEnv(task, population, report=True)
    began = time.process_time(), time.perf_counter()
    envs.reset(seed=0)
    finish(envs.population)
    seconds = (time.process_time() - began[0]) / population
    wall = (time.perf_counter() - began[1]) / population
    say(
        f"{task}: {seconds:.3g} s a run in a population of {population} "
        f"({wall:.3g} s on the wall)"
    )
    return {
        "seconds": float(f"{seconds:.2g}"),
        "wall_seconds": float(f"{wall:.2g}"),
        "population": population,
        "processor": processor(),
        "numba": version("numba"),
        "version": __version__,
    }


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names or [platform.processor() or platform.machine()])[0].split())


# -- the file -----------------------------------------------------------------------

ABOUT = (
    "Made by `dacrl references --instances` (returns, by inner environment and "
    "instance) and `dacrl references --seconds` (of a run, by task). Scores are 0 at "
    "random and 1 at reference; a diverged run scores the floor. Reached: what the "
    "agents that set the reference returned. Lowest: the lowest return of random and "
    "constant actions. Floors are the tasks' unless something lower was seen. The "
    "default instance is here for comparison: on it, scores use the task's returns."
)


def save(
    section: str, name: str, value: dict[str, Any], path: Path, some: bool = False
) -> None:
    """Put an entry into the file, which is made if need be; the others stay.

    Args:
        section: "instances" or "seconds".
        name: of the inner environment, or of the task.
        value: the entry.
        path: of the file, replaced in one piece; one process at a time does so.
        some: of instances, it has some alone, and the others stay.
    """
    with FileLock(f"{path}.lock"):
        content: dict[str, Any] = {"about": ABOUT, "instances": {}, "seconds": {}}
        if path.exists():
            content |= json.loads(path.read_text(encoding="utf-8"))
        content["about"] = ABOUT
        if some:
            value = _joined(content[section].get(name, {}), value)
        entries = {**content[section], name: value}
        order = varied_envs() if section == "instances" else list(TASKS)
        known = [key for key in order if key in entries]
        content[section] = {key: entries[key] for key in known}
        write_text(path, _text(content) + "\n")


def _joined(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A section with instances measured anew, which tell how they were."""
    about = {name: new[name] for name in ("command", "version")}
    entries = {name: {**entry, **about} for name, entry in new["returns"].items()}
    # without any before, what is said of all is what was measured
    return {**new, **known, "returns": {**known.get("returns", {}), **entries}}


def _text(value: Any, level: int = 0) -> str:
    """JSON with a line for each instance and each task."""
    entry = isinstance(value, dict) and ("physics" in value or "processor" in value)
    if entry or not isinstance(value, dict):
        return json.dumps(value)
    inner = ",\n".join(
        f"{' ' * (level + 1)}{json.dumps(key)}: {_text(item, level + 1)}"
        for key, item in value.items()
    )
    return f"{{\n{inner}\n{' ' * level}}}" if inner else "{}"


# -- episodes -----------------------------------------------------------------------


def _returns(env: InnerEnv, physics: Floats, count: int, agent: Agent) -> Floats:
    """Returns ``(m, count)`` of an agent's episodes, with constants ``(m, K)``."""
    env_keys = streams.of(_keys(len(physics)), "envs")
    returns = []
    for block, start in enumerate(range(0, count, _TOGETHER)):
        width = min(_TOGETHER, count - start)
        keys = streams.bits(env_keys, np.full(len(physics), block), width)
        steps = itertools.count(block * 2**32)

        def policy(rows: NDArray[np.int64], steps: Any = steps) -> Act:
            return lambda observations: agent(observations, next(steps), rows)

        returns.append(play(policy, env, keys, physics)[0])
    return np.concatenate(returns, 1)


def random_returns(env: InnerEnv, physics: Floats, count: int) -> Floats:
    """Returns ``(m, count)`` of uniformly random actions."""
    act_keys = streams.of(_keys(len(physics)), "act")

    def agent(
        observations: NDArray[Any], step: int, rows: NDArray[np.int64]
    ) -> NDArray[Any]:
        m, E = observations.shape[:2]
        counters, keys = np.full(m, step), act_keys[rows]
        if env.num_actions:
            high = np.full(m, env.num_actions)
            return streams.integers(keys, counters, E, high)
        A = len(env.action_low)
        u = streams.uniforms(keys, counters, E * A).reshape(m, E, A)
        return env.action_low + (env.action_high - env.action_low) * u

    return _returns(env, physics, count, agent)


def constant_returns(env: InnerEnv, physics: Floats, count: int) -> list[Floats]:
    """Returns ``(m, count)`` of each action; of continuous ones low, middle, high."""
    actions: list[Any] = list(range(env.num_actions))
    if not actions:
        middle = (env.action_low + env.action_high) / 2
        actions = [env.action_low, middle, env.action_high]

    def agent_of(action: Any) -> Agent:
        return lambda observations, *_: np.broadcast_to(
            action, (*observations.shape[:2], *np.shape(action))
        )

    return [_returns(env, physics, count, agent_of(action)) for action in actions]


def _keys(count: int) -> streams.UInts:
    """Fixed streams ``(count, purposes)`` of the tuning split."""
    return np.stack([streams.member_keys("tuning", 0, i, 0) for i in range(count)])


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
