"""What can be known before hours of training: names, options, places, room."""

from __future__ import annotations

import copy
import inspect
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

import numpy as np

from dacrl_env.comparison.evaluation import check_made_for, suitable_options
from dacrl_env.core.blame import blame_if_users, is_users
from dacrl_env.core.checks import unknown
from dacrl_env.core.places import check_folder
from dacrl_env.core.snapshot import leaves
from dacrl_env.methods.trials import rehearse
from dacrl_env.outer.actions import ACTION_MODES
from dacrl_env.outer.settings import resolve
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies import Fitted, Method, Policy
from dacrl_env.tasks import Task

RUN_BYTES = 20_000  # of the rows of a test run, roughly
REPORT_BYTES = 2_000_000  # of tables and figures, roughly


def check_policy(
    policy: Policy, name: str, task: Task, split: str, options: Mapping[str, Any]
) -> None:
    """Let a policy begin a run of the task and decide once; nothing is trained.

    Args:
        policy: is changed by it.
        name: of it.
        task: the task.
        split: "test" or "tuning".
        options: of the environment.

    Raises:
        ValueError: it does not suit the task or the options, or its action is none.
    """
    check_made_for(policy, task, name, options)
    if policy.action_mode not in ACTION_MODES:
        wrong = unknown("action_mode", policy.action_mode, ACTION_MODES)
        raise ValueError(f"policy {name}: {wrong}")
    suitable = {**suitable_options(policy, task, dict(options)), "split": split}
    suitable.pop("num_threads", None)  # nothing is trained
    resolve(task, report=True, **suitable)
    # two, since a shuffled policy goes by what others show
    envs = PopulationEnv(task, 2, **{**suitable, "eval_episodes": 1})
    try:
        observations, infos = envs.reset(seed=0)
        with blame_if_users(policy, f"policy {name}"):
            policy.reset(envs, 0)
            actions = policy.act(observations, infos)
        population = envs.population
        try:
            population.actions.to_values(actions, population.state.requested)
        except ValueError as error:
            raise ValueError(f"policy {name}: {error}") from error
    finally:
        envs.close()


def check_method(
    method: Method,
    name: str,
    task: Task,
    budget: int,
    split: str,
    options: Mapping[str, Any],
) -> None:
    """Ask whether a method can be run, without any training.

    Methods of this package go as far as their first training. A method of the user's
    is asked by its own ``check``, if it has one.

    Args:
        method: the method.
        name: of it.
        task: the task.
        budget: inner environment steps of training.
        split: of the test runs.
        options: of the environment.

    Raises:
        ValueError: what it returns is no fit, it cannot be called as methods are, or it
            says itself what is wrong.
    """
    if not is_dataclass(method):
        raise ValueError(
            f"the method {name!r} is no dataclass, whose fields tell its fits apart"
        )
    _check_signature(method, name, task, options)
    _check_return(method, name)
    tested = {**options, "split": split}
    tested.pop("num_threads", None)
    resolve(task, report=True, **tested)
    check = getattr(method, "check", None)
    if check is not None:
        with blame_if_users(method, f"method {name}"):
            check(task, budget, **options)
    if not is_users(type(method).fit):
        try:
            rehearse(method, task, budget, **options)
        except ValueError as error:
            raise ValueError(f"method {name}: {error}") from error


def _check_signature(
    method: Method, name: str, task: Task, options: Mapping[str, Any]
) -> None:
    try:
        inspect.signature(method.fit).bind(task, 1, 0, None, None, **options)
    except TypeError as error:
        raise ValueError(
            f"the fit of method {name!r} cannot be called as fit(task, budget, seed, "
            f"store, progress, **options of the environment): {error}"
        ) from error


def _check_return(method: Method, name: str) -> None:
    """Raise a ValueError where a method says that it returns something else."""
    try:
        hint = get_type_hints(type(method).fit).get("return", Fitted)
    except (NameError, TypeError, AttributeError):
        return  # not to be read here
    wrong = hint is type(None) or (
        inspect.isclass(hint)
        and hint is not Any
        and not issubclass(hint, Fitted)
        and not issubclass(Fitted, hint)
    )
    if wrong:
        raise ValueError(
            f"method {name!r} says that its fit returns "
            f"{getattr(hint, '__name__', hint)}; it has to return a "
            "dacrl_env.policies.Fitted"
        )


def check_travel(things: Iterable[Any]) -> None:
    """Raise a ValueError for something that cannot be sent to worker processes."""
    import cloudpickle

    for thing in things:
        try:
            cloudpickle.dumps(thing)
        except ValueError:
            raise
        except Exception as error:  # of whatever users' objects hold
            raise ValueError(
                f"{_short(thing)} cannot be sent to worker processes "
                f"({type(error).__name__}: {error}); take "
                "executor='threads'"
            ) from error


def check_copies(objects: Mapping[str, Any]) -> None:
    """Raise a ValueError for an object that has no copies: every unit needs one."""
    for name, thing in objects.items():
        try:
            copy.deepcopy(thing)
        except Exception as error:  # of whatever users' objects hold
            raise ValueError(
                f"{name} cannot be copied ({type(error).__name__}: {error}), and every "
                "unit of work needs one of its own; evaluate() runs it as it is"
            ) from error


def _short(thing: Any) -> str:
    text = " ".join(repr(thing).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


# -- places --------------------------------------------------------------------------


def member_bytes(task: Task, options: Mapping[str, Any]) -> int:
    """What the state of one run takes; so its inner environment can be made, too."""
    envs = PopulationEnv(task, 1, **{**options, "num_threads": 1})
    total = sum(np.asarray(leaf).nbytes for _, leaf in leaves(envs.population.state))
    envs.close()
    return total


def check_room(directory: str | os.PathLike[str], tests: int, journals: int) -> None:
    """Raise an OSError if results cannot be written, or there is no room for them.

    Args:
        directory: of the results.
        tests: runs of policies.
        journals: bytes of the states of runs that are under way at once.
    """
    # the new state is there before the old one goes
    parts = {
        "test runs": tests * RUN_BYTES,
        "the state of fits under way": 2 * journals,
        "tables and figures": REPORT_BYTES,
    }
    needed = sum(parts.values())
    check_folder(directory)
    free = shutil.disk_usage(directory).free
    if free < needed:
        each = ", ".join(f"{n / 1e6:,.1f} for {what}" for what, n in parts.items())
        raise OSError(
            f"{directory} has room for {free / 1e6:,.1f} MB, and this needs roughly "
            f"{needed / 1e6:,.1f} MB: {each}"
        )
