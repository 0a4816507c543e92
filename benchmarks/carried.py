"""Whether what a policy is worth here carries over to plain Stable-Baselines3.

    python -m dacrl_env.benchmarks.carried --runs 100 --out carried

Plain DQN models with the default configuration of a task are trained with and without
policies, and so are runs of this package. Runs with the same seed begin alike. Every
run is judged by 20 greedy episodes at each of 20 points and 100 at the end, in
environments of their own. A run is kept when it has ended; those that are there are not
done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from dacrl_env.comparison.evaluation import evaluate
from dacrl_env.comparison.report import summarize
from dacrl_env.comparison.stats import Estimate, mean_interval, paired_difference
from dacrl_env.core.files import write_whole
from dacrl_env.core.version import __version__
from dacrl_env.outer.settings import Settings, resolve
from dacrl_env.policies import get_policy
from dacrl_env.tasks import Number

TASK = "dacrl/DQN-CartPole-v0"
POLICIES = ("freeze-when-good", "pretrained/dqn-cartpole-switch-0")
DEFAULT = "default"
POINTS, EPISODES, LAST = 20, 20, 100
METRICS = ("final", "auc")
COLUMNS = ("task", "budget", "place", "policy", "seed", *METRICS)  # of runs.csv
PLAIN, PACKAGE = "Stable-Baselines3", "dacrl-env"


def carried(
    out: Path,
    seeds: Sequence[int],
    policies: Sequence[str] = POLICIES,
    task: str = TASK,
    budget: int | None = None,
    before: Sequence[Path] = (),
) -> dict[str, Any]:
    """Do what is missing of all runs, and summarise.

    Args:
        out: folder; one file a run.
        seeds: of the runs.
        policies: names or files, each compared with the default configuration.
        task: of DQN, on an environment of Gymnasium.
        budget: environment steps of a run; None: the task's.
        before: tables of runs, ``runs.csv``, which are not done again.

    Returns:
        ``rows``, one a policy, place and metric: mean and paired difference to the
        default with 95 % intervals, and ``runs``, as JSON values.

    Raises:
        ValueError: a task of another algorithm, an unknown policy, no seeds or seeds
            twice, or files of another task or budget.
        OSError: a table that cannot be read.
    """
    settings = resolve(task, implementation="sb3", budget=budget)
    if settings.task.algorithm != "dqn" or settings.task.inner_env not in gym.registry:
        raise ValueError(f"{task} is no task of DQN on an environment of Gymnasium")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be given, each once; got {list(seeds)}")
    for policy in policies:
        get_policy(policy)
    named = {"task": settings.task.id, "budget": settings.budget}
    done = _of_tables(before, named)
    out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in seeds:
        for policy in (DEFAULT, *policies):
            for place, do in ((PLAIN, _plain), (PACKAGE, _package)):
                about = {**named, "place": place, "policy": policy, "seed": seed}
                file = out / f"{_plainly(place)}-{_plainly(policy)}-{seed}.json"
                run = done.get((place, policy, seed)) or _kept(file, about)
                runs.append(run or _done(file, about, do, settings))
    return {
        **named,
        "version": __version__,
        "rows": _rows(runs, policies),
        "runs": runs,
    }


def _plainly(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _of_tables(
    files: Sequence[Path], named: dict[str, Any]
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Runs of tables by place, policy and seed."""
    found = {}
    for file in files:
        table = pd.read_csv(file)
        if missing := [name for name in COLUMNS if name not in table]:
            raise ValueError(f"{file} has no column {', '.join(missing)}")
        for values in table[[*COLUMNS]].itertuples(index=False):
            run = dict(zip(COLUMNS, values, strict=True))
            _check(file, run, named)
            found[run["place"], run["policy"], run["seed"]] = run
    return found


def _check(file: Path, run: dict[str, Any], about: dict[str, Any]) -> None:
    if other := [f"{k} {run[k]!r}" for k in about if run[k] != about[k]]:
        raise ValueError(f"{file} is of {', '.join(other)}; give another one")


def _kept(file: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """A run that is there already."""
    if not file.exists():
        return None
    run: dict[str, Any] = json.loads(file.read_text())
    _check(file, run, about)
    return run


def _done(
    file: Path, about: dict[str, Any], do: Any, settings: Settings
) -> dict[str, Any]:
    """Do a run, and keep it."""
    run = {**about, **do(about["policy"], settings, about["seed"])}
    write_whole(file, json.dumps(run, indent=1).encode())
    told = ", ".join(f"{name} {run[name]:.3f}" for name in METRICS)
    print(
        f"{about['place']}, {about['policy']}, seed {about['seed']}: {told}", flush=True
    )
    return run


# -- one run -------------------------------------------------------------------------


def _package(policy: str, settings: Settings, seed: int) -> dict[str, Any]:
    """A run of this package, with its own DQN."""
    task = settings.task.id
    frame = evaluate(task, policy, [seed], name="it", budget=settings.budget)
    [row] = summarize(frame, POINTS).to_dict("records")
    return {name: float(row[f"report_{name}"]) for name in METRICS}


def _plain(policy: str, settings: Settings, seed: int) -> dict[str, Any]:
    """A run of a plain model of Stable-Baselines3."""
    from dacrl_env.integrations.sb3_callback import DynamicConfigCallback

    model = plain_model(settings, seed)
    judge, steps = _judge(settings, seed)
    callbacks: list[Any] = [judge]
    if policy != DEFAULT:
        callbacks.append(
            DynamicConfigCallback(policy, task=settings.task, seed=seed, split="test")
        )
    model.learn(settings.budget, callback=callbacks)
    scores = settings.task.score(np.array(judge.returns))
    values = [d.values for d in callbacks[-1].decisions] if policy != DEFAULT else []
    return {
        "final": float(scores[-1]),
        "auc": float(scores.mean()),
        "steps": steps,
        "scores": scores.tolist(),
        "values": values,
    }


def plain_model(settings: Settings, seed: int) -> Any:
    """A DQN of Stable-Baselines3 with the default configuration of a task."""
    from stable_baselines3 import DQN

    from dacrl_env.algorithms.sb3 import arguments, dqn_model, setters
    from dacrl_env.algorithms.sb3.dqn import SB3DQN
    from dacrl_env.tasks.registration import make_inner_env

    config: Any = settings.config
    model = DQN(
        env=gym.make(settings.task.inner_env),
        seed=seed,
        buffer_size=SB3DQN.replay_capacity(config, settings.budget),
        learning_starts=config.learning_starts,
        **arguments.of(config, make_inner_env(settings.task)),
    )
    numbers = [h for h in settings.hyperparameters if isinstance(h, Number)]
    values = {h.name: float(h.default) for h in numbers}
    own: Any = {n: v for n, v in values.items() if n in dqn_model.SETTERS}
    setters.apply(model, dqn_model.SETTERS, own, own)
    return model


def _judge(settings: Settings, seed: int) -> tuple[Any, list[int]]:
    """A callback that plays greedy episodes, which change nothing, and when it does."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    budget = settings.budget
    steps = [k * budget // POINTS for k in range(1, POINTS + 1)]
    # episodes side by side, which are not those of training
    first = 1_000_000 + EPISODES * seed
    env = make_vec_env(settings.task.inner_env, n_envs=EPISODES, seed=first)

    class Judge(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.returns: list[float] = []

        def _play(self, episodes: int) -> None:
            mean, _ = evaluate_policy(self.model, env, episodes, deterministic=True)
            self.returns.append(float(np.mean(mean)))

        def _on_step(self) -> bool:
            if self.num_timesteps in steps[:-1]:
                self._play(EPISODES)
            return True

        def _on_training_end(self) -> None:
            self._play(LAST)
            env.close()

    return Judge(), steps


# -- summary -------------------------------------------------------------------------


def _rows(runs: list[dict[str, Any]], policies: Sequence[str]) -> list[dict[str, Any]]:
    """Means, and differences of runs with the same seed.

    Of plain models also what their gain is above half of the package's: ``beyond``.
    """
    rows = []
    for metric, policy in itertools.product(METRICS, (DEFAULT, *policies)):
        scores = {
            (place, name): np.array(
                [r[metric] for r in runs if (r["place"], r["policy"]) == (place, name)]
            )
            for place in (PLAIN, PACKAGE)
            for name in (DEFAULT, policy)
        }
        for place in (PLAIN, PACKAGE):
            mine, base = scores[place, policy], scores[place, DEFAULT]
            row: dict[str, Any] = {"metric": metric, "policy": policy, "place": place}
            row |= {"runs": len(mine), "mean": _told(mean_interval(mine))}
            if policy != DEFAULT and len(mine) > 1:
                row["difference"] = _told(paired_difference(mine, base))
                if place == PLAIN:
                    half = (scores[PACKAGE, policy] - scores[PACKAGE, DEFAULT]) / 2
                    row["beyond"] = _told(paired_difference(mine - base, half))
            rows.append(row)
    return rows


def _told(estimate: Estimate) -> list[float | None]:
    """Value, low and high end; None: too few runs for an interval."""
    return [float(x) if np.isfinite(x) else None for x in estimate]


def render(result: dict[str, Any]) -> str:
    """The summary as a Markdown table."""
    lines = [
        f"{result['task']}, {result['budget']:,} steps, dacrl-env {result['version']}; "
        "mean, difference to the default of the same place and seed, and what is left "
        "of it without half of the package's, with 95 % intervals",
        "",
        "| score | policy | runs in | runs | mean | minus default | beyond half |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['metric']} | {r['policy']} | {r['place']} | {r['runs']} "
        f"| {_shown(r['mean'])} | {_shown(r.get('difference'), '+')} "
        f"| {_shown(r.get('beyond'), '+')} |"
        for r in result["rows"]
    ]
    return "\n".join(lines)


def _shown(numbers: Sequence[float | None] | None, sign: str = "") -> str:
    if numbers is None:
        return ""
    value, *ends = (None if x is None else format(x, f"{sign}.3f") for x in numbers)
    return f"{value}" if None in ends else f"{value} [{', '.join(map(str, ends))}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Program: do the runs, print the table, and write it, them and all about them."""
    parser = argparse.ArgumentParser(
        "carried", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of runs")
    parser.add_argument("--runs", type=int, default=100, help="seeds 0 to RUNS - 1")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of --runs")
    parser.add_argument(
        "--policy",
        nargs="+",
        default=POLICIES,
        help="names or files; with --budget files as '<file>,any_task=True'",
    )
    parser.add_argument("--task", default=TASK)
    parser.add_argument(
        "--budget", type=int, help="steps a run; the task's if left out"
    )
    parser.add_argument(
        "--before",
        type=Path,
        nargs="+",
        default=[],
        help="tables of runs, runs.csv, that count, too, and are not done again",
    )
    given = parser.parse_args(arguments)
    seeds = range(given.runs) if given.seeds is None else given.seeds
    try:
        result = carried(
            given.out, seeds, given.policy, given.task, given.budget, given.before
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    write_whole(given.out / "summary.json", json.dumps(result, indent=1).encode())
    runs = pd.DataFrame(result["runs"])[[*COLUMNS]].round(4)
    write_whole(given.out / "runs.csv", runs.to_csv(index=False).encode())
    write_whole(given.out / "summary.md", (render(result) + "\n").encode())
    print(render(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
