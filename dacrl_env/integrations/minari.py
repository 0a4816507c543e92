"""Outer episodes as a data set of Minari, for offline reinforcement learning.

Minari (https://minari.farama.org) keeps data sets of Gymnasium's environments in one
format, which offline algorithms and their libraries read::

    export("dacrl/DQN-CartPole-v0", "linear-epsilon", "dqn-cartpole/linear-v0", 64)
    data = minari.load_dataset("dqn-cartpole/linear-v0")
    env = data.recover_environment()

An episode is one inner training run. Observations, actions, rewards and terminations
are those of the environment: the same actions after ``env.reset(seed=...)`` with the
episode's seed give them again, to the last bit. Its infos are ``env_steps`` and
``score``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dacrl_env.comparison.evaluation import (
    batches,
    check_made_for,
    check_options,
    suitable_options,
)
from dacrl_env.comparison.given import PolicyLike, checked_seeds, name_of, one
from dacrl_env.comparison.order import task_first
from dacrl_env.core import checks, installed
from dacrl_env.core.blame import blame_if_users
from dacrl_env.core.places import check_folder
from dacrl_env.core.streams import SPLITS
from dacrl_env.core.version import __version__
from dacrl_env.learners.threads import default_threads, granted
from dacrl_env.outer.decisions import tell_intervals
from dacrl_env.outer.env import DynamicConfigEnv
from dacrl_env.outer.vector_env import PopulationEnv, vector_info
from dacrl_env.policies import Policy
from dacrl_env.policies.tuned import on
from dacrl_env.tasks import Task
from dacrl_env.tasks.registration import get_task

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

# what Minari takes of a data set that it does not find out by itself
ABOUT = ("author", "author_email", "code_permalink", "description")


@task_first("policy")
def export(
    task: str | Task,
    policy: PolicyLike,
    dataset_id: str,
    seeds: int | Sequence[int] = range(64),
    split: str = "tuning",
    *,
    about: Mapping[str, str] | None = None,
    num_threads: int | None = None,
    progress: Callable[[int], Any] | None = None,
    **task_kwargs: Any,
) -> MinariDataset:
    """Run a policy once per seed, and keep its episodes as a data set of Minari.

    It is written where Minari has its data sets: ``MINARI_DATASETS_PATH``, or
    ``~/.minari/datasets``. Actions are in the policy's action mode, and as they were
    applied: within the action space, in its precision. Where the options of the
    environment can be written as JSON, the data set has them, so that
    ``recover_environment`` makes it again.

    Args:
        task: id or task.
        policy: as for :func:`dacrl_env.evaluate`.
        dataset_id: ``name-v0``, with namespaces before it if wanted.
        seeds: of the runs, one an episode. A number n is range(n).
        split: "tuning", so that nothing that learns from the data has seen test runs;
            or "test".
        about: what Minari is told beside it: author, author_email, code_permalink,
            description.
        num_threads: members that are trained at a time; None: as many as there are
            cores that this process may use. No result depends on it.
        progress: called with inner environment steps done since its last call.
        **task_kwargs: options of the environment.

    Returns:
        The data set, an episode a seed, in their order.

    Raises:
        ImportError: Minari is not installed.
        ValueError: unknown names or options, a name that is no data set's, or one that
            is taken; before anything is run.
        OSError: the data sets' folder cannot be written; before anything is run.
    """
    check_name(dataset_id)
    task, seeds = get_task(task), checked_seeds(seeds)
    if split not in SPLITS:
        raise ValueError(checks.unknown("split", split, SPLITS))
    told = dict(about or {})
    for key in told:
        if key not in ABOUT:
            raise ValueError(checks.unknown("about", key, ABOUT))
    made = one(policy, "policy")
    name = str(policy) if isinstance(policy, str | os.PathLike) else name_of(made)
    made = on(made, task)
    check_options(task_kwargs)
    check_made_for(made, task, name, task_kwargs)
    tell_intervals(made, name, task, task_kwargs)
    options = {**suitable_options(made, task, task_kwargs), "split": split}
    told.setdefault(
        "description",
        f"{len(seeds)} outer episodes of {task.id} ({split} split) by {name}. "
        "Actions set hyperparameters of a reinforcement-learning run.",
    )
    number = default_threads() if num_threads is None else num_threads
    with (
        granted(checks.whole("num_threads", number)),
        closing(_single(task, options)) as env,
    ):
        known = _described(env)
        episodes = [
            episode
            for batch in batches(seeds)
            for episode in _episodes(made, name, task, batch, options, progress)
        ]
        return _written(dataset_id, episodes, {**known, **told, "algorithm_name": name})


def check_name(dataset_id: str) -> None:
    """Whether a data set of a name can be made.

    Raises:
        ImportError: Minari is not installed.
        ValueError: it is no name, or taken.
        OSError: the data sets' folder cannot be written.
    """
    installed.require("minari", "data sets of Minari need it")
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage import get_dataset_path

    try:
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError):  # a missing version is a TypeError
        raise ValueError(
            f"{dataset_id!r} is no name of a data set of Minari: it ends in a version, "
            "as in linear-v0, and may have namespaces, as in dqn-cartpole/linear-v0"
        ) from None
    path = Path(get_dataset_path(dataset_id))
    if path.exists():
        raise ValueError(
            f"there is a data set {dataset_id} already, in {path}: take another name "
            f"or version, or delete it (minari delete {dataset_id})"
        )
    check_folder(get_dataset_path())


def _episodes(
    policy: Policy,
    name: str,
    task: Task,
    seeds: list[int],
    options: dict[str, Any],
    progress: Callable[[int], Any] | None,
) -> list[EpisodeBuffer]:
    """Episodes of some seeds, as Minari takes them."""
    from minari.data_collector import EpisodeBuffer

    P, everyone = len(seeds), np.ones(len(seeds), bool)
    theirs = getattr(policy, "policy", policy)  # of a fit
    with closing(PopulationEnv(task, P, **options)) as envs:
        population, state = envs.population, envs.population.state
        observations, infos = envs.reset(seed=seeds)
        with blame_if_users(theirs, f"policy {name}, reset()"):
            policy.reset(envs, seeds[0])
        seen: list[list[Any]] = [[row] for row in observations]
        steps: list[list[tuple[Any, float, bool]]] = [[] for _ in seeds]
        shown = {k: [[x] for x in infos[k].tolist()] for k in ("env_steps", "score")}
        running = everyone.copy()
        while running.any():
            before = state.learner.env_steps.copy()
            with blame_if_users(theirs, f"policy {name}, act()"):
                actions = policy.act(observations, infos)
            population.actions.to_values(actions, state.requested)  # is it an action?
            given = _within(actions, envs)
            outcome = envs.advance(population.actions.to_values(given, state.requested))
            observations = population.observation()
            infos = vector_info(population.info(), everyone)
            for i in np.flatnonzero(running):
                seen[i].append(observations[i])
                ended = bool(outcome.ended[i])
                steps[i].append((given[i], float(outcome.rewards[i]), ended))
                for key, values in shown.items():
                    values[i].append(infos[key][i].item())
            if progress is not None:
                done = state.learner.env_steps - before
                progress(int(done[running].sum()))
            running &= ~outcome.ended
    return [
        EpisodeBuffer(
            seed=seeds[i],
            observations=seen[i],
            actions=[action for action, _, _ in steps[i]],
            rewards=[reward for _, reward, _ in steps[i]],
            terminations=[ended for _, _, ended in steps[i]],
            truncations=[False] * len(steps[i]),
            infos={key: values[i] for key, values in shown.items()},
        )
        for i in range(P)
    ]


def _within(actions: Any, envs: PopulationEnv) -> NDArray[Any]:
    """Actions ``(P, …)`` of the action space, which does the same as its clipping."""
    given, space = np.asarray(actions), envs.single_action_space
    if envs.settings.action_mode in ("continuous", "relative"):
        given = np.clip(given, -1.0, 1.0)
    return given.astype(space.dtype).reshape(len(given), *(space.shape or ()))


def _single(task: Task, options: dict[str, Any]) -> gym.Env[Any, Any]:
    """The environment that the data set is of."""
    if task.id in gym.registry:
        return gym.make(task.id, **options)
    return DynamicConfigEnv(task, **options)


def _described(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """What Minari is told of an environment: itself, or its spaces alone."""
    reason = "its task is not registered"
    if env.spec is not None:
        try:
            env.spec.to_json()
        except TypeError as error:
            reason = f"its options cannot be written as JSON: {error}"
        else:
            return {"env": env}
    warnings.warn(
        f"the data set has the spaces of its environment, and cannot make it: {reason}",
        UserWarning,
        stacklevel=3,
    )
    names = ("observation_space", "action_space")
    return {name: getattr(env, name) for name in names}


def _written(
    dataset_id: str, episodes: list[EpisodeBuffer], about: dict[str, Any]
) -> MinariDataset:
    import minari

    with warnings.catch_warnings():
        for missing in ("author", "author_email", "code_permalink", "eval_env"):
            warnings.filterwarnings("ignore", f"`{missing}` is set to None")
        warnings.filterwarnings("ignore", "env_spec is None")
        return minari.create_dataset_from_buffers(
            dataset_id,
            episodes,
            data_format="arrow",
            requirements=[f"dacrl-env=={__version__}"],
            **about,
        )
