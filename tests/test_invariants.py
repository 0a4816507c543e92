"""Invariants 1 to 7 of the design, at the level of the outer environment."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from cases import EVERY_KIND, OFTEN, cases, quick, registered, slow, varied
from threadpoolctl import threadpool_limits

import dacrl_env
from dacrl_env.algorithms.replay import CONTINUES, DONE, REWARD
from dacrl_env.core import isolation
from dacrl_env.core.snapshot import Snapshot, is_opaque, leaves
from dacrl_env.inner_envs.gymnasium_adapter import needs_box2d
from dacrl_env.outer import reports
from dacrl_env.outer.settings import own_hyperparameters
from dacrl_env.tasks import Number
from dacrl_env.tasks.backends import OF_LEVELS
from dacrl_env.tasks.registration import ALGORITHMS, load

# the conformance task has no inner environment; baselines/test_quadratic.py tests it
TASKS = sorted(t for t in registered() if dacrl_env.TASKS[t].inner_env)
# their inner environments cannot be saved
UNSAVED = [t for t in TASKS if needs_box2d(dacrl_env.TASKS[t].inner_env)]
SAVED = [t for t in TASKS if t not in UNSAVED]


def installed(task: str) -> bool:
    """Whether what a task needs is there."""
    return task not in UNSAVED or importlib.util.find_spec("Box2D") is not None


DQN = "dacrl/DQN-CartPole-v0"
# what makes a run of 400 steps contain updates, by learner; intervals of 20 divide
SMALL: dict[str, dict[str, Any]] = {
    "dqn": {"learning_starts": 100},
    "ppo": {"num_inner_envs": 2, "rollout_length": 10},
    "sac": {"learning_starts": 100},
    "discrete_sac": {"learning_starts": 100},
    "pipeline": {"rollout_length": 20, "learning_starts": 100},
}


@pytest.fixture(autouse=True)
def _short_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few episodes: some environments are stepped one by one."""
    monkeypatch.setattr(reports, "REPORT_EPISODES", 2)
    monkeypatch.setattr(reports, "FINAL_REPORT_EPISODES", 4)


def options_of(task: str, **options: Any) -> dict[str, Any]:
    small = SMALL.get(dacrl_env.TASKS[task].algorithm, {})
    defaults = {"budget": 400, "decision_interval": 100, "eval_episodes": 2}
    return {**defaults, **small, **options}


def make(task: str = DQN, **options: Any) -> Any:
    return gym.make(task, **options_of(task, **options)).unwrapped


def make_vec(task: str = DQN, num_envs: int = 3, **options: Any) -> Any:
    return gym.make_vec(
        task, num_envs=num_envs, **options_of(task, **options)
    ).unwrapped


def rows(state: Any, i: int | None = None) -> dict[str, Any]:
    """Every bit of a state, or of one member; wall clock and objects excepted."""
    return {
        name: np.asarray(leaf if i is None else leaf[i]).copy()
        for name, leaf in leaves(state)
        if name != "wall_seconds" and not is_opaque(leaf)
    }


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    assert a.keys() == b.keys()
    return [n for n in a if a[n].tobytes() != b[n].tobytes()]


def learned(env: Any) -> dict[str, Any]:
    return rows(env.population.state.learner)


def hyperparameters(task: str) -> tuple[Any, ...]:
    known = dacrl_env.TASKS[task]
    every = load(ALGORITHMS[known.algorithm]).hyperparameters
    return tuple(own_hyperparameters(known, every).values())


def binding(task: str, name: str) -> Any:
    """A value that surely changes what is learned: an end of the range, an option."""
    h = next(h for h in hyperparameters(task) if h.name == name)
    if isinstance(h, Number):
        return h.high if h.default == h.low else h.low
    if name == "checkpoint":
        return "restore"
    return next(o for o in h.options if o != h.default)


# without these another value could not be told from the default
NEEDS: dict[str, dict[str, Any]] = {
    "tau": {"target_update_interval": 50},
    "priority_beta": {"priority_alpha": 0.7},
    "epsilon": {"epsilon": 0.5},
    "exploration": {"epsilon": 0.5},
    "hold_exponent": {"exploration": "ez-greedy", "epsilon": 0.5},
    "perturb_strength": {"shrink_perturb": True},
    "drift_alpha": {"drift": "dpo", "learning_rate": 3e-3},
    "drift_beta": {"drift": "dpo", "learning_rate": 3e-3},
    "alpha": {"ent_rule": "set"},
    "desired_kl": {"lr_rule": "kl-adaptive"},
    "stop_early": {"learning_rate": 1e-2},
    "target_kl": {"stop_early": True, "learning_rate": 3e-3},
    "level_temperature": {"level_replay": 1, "level_temperature": 100},
    "level_staleness": {"level_replay": 1, "level_staleness": 1},
    # gradients stay large, with rewards that are rare, too
    "max_grad_norm": {"learning_rate": 1e-5, "q_regularisation": 0.5},
    "checkpoint": {},  # saved at the decision before
}


def needs_of(task: str, name: str | None) -> dict[str, Any]:
    """What a hyperparameter needs to have an effect, of what the algorithm has.

    Those of one algorithm of a pipeline have its name in front, and need it.
    """
    known, prefix, own = {h.name for h in hyperparameters(task)}, "", name or ""
    of_algorithm = "." in own
    if of_algorithm:
        prefix, _, own = own.partition(".")
    needs = {f"{prefix}.{k}" if of_algorithm else k: v for k, v in needed(own).items()}
    needs |= {"algorithm": prefix} if of_algorithm else {}
    return {k: v for k, v in needs.items() if k in known}


def needed(name: str) -> dict[str, Any]:
    """`NEEDS` of a hyperparameter, if any."""
    return NEEDS.get(name, {})


def long_enough(name: str) -> dict[str, Any]:
    """Options of runs in which a hyperparameter binds from the third decision on."""
    if name.endswith("replay_window"):  # its smallest value is 1,000 transitions
        return {"budget": 2_400, "decision_interval": 600}
    if name in OF_LEVELS:  # levels are replayed once many are seen
        return {"budget": 24_000, "decision_interval": 6_000}
    return {}


def rhythms(task: str) -> dict[str, float]:
    """Values that no decision interval is a multiple of: counters are then not 0."""
    odd = {
        "dqn": {"train_freq": 7, "target_update_interval": 33, "gradient_steps": 3},
        "sac": {"train_freq": 7, "gradient_steps": 3},
        "discrete_sac": {"train_freq": 7, "gradient_steps": 3},
        "pipeline": {"dqn.train_freq": 7, "dqn.target_update_interval": 33},
    }
    known = dacrl_env.TASKS[task]
    own = odd.get(known.algorithm, {})
    return {k: v for k, v in own.items() if k not in (known.controlled or ())}


# -- 1: actions bite ----------------------------------------------------------------

KNOBS = [(task, h.name) for task in TASKS for h in hyperparameters(task)]


def acted(task: str, name: str | None, needs: str | None = None, **options: Any) -> Any:
    """What is learned and applied where one action differs from the others, if any.

    Args:
        task: id.
        name: what it sets.
        needs: the hyperparameter whose needs all actions keep.
        options: of the environment.
    """
    names = [h.name for h in hyperparameters(task)]
    options = {"feedback": "train", "action_mode": "values", **options}
    env = make(task, hyperparameters=names, **options)
    env.reset(seed=1)
    history = []
    for k in range(4):
        config = needs_of(task, needs)
        if needs == "checkpoint" and k == 1:
            config[needs] = "save"
        if name and k == 2:
            config[name] = binding(task, name)
        _, _, _, _, info = env.step(env.to_action(config))
        history.append((learned(env), info["hyperparameters"]))
    return history


kept_acted = cache(acted)  # the run without is the same for all hyperparameters


def differs(a: Any, b: Any) -> bool:
    """Whether two applied values do; those that are inactive are none."""
    return bool(a != b)


@pytest.mark.parametrize(("task", "name"), cases(KNOBS))
def test_actions_bite(task: str, name: str) -> None:
    names = [h.name for h in hyperparameters(task)]
    needs = name if name in NEEDS or needs_of(task, name) else None
    plain = kept_acted(task, None, needs, **long_enough(name))
    changed = acted(task, name, needs, **long_enough(name))
    for k, (before, after) in enumerate(zip(plain, changed, strict=True)):
        asked = [n for n in names if differs(before[1].get(n), after[1].get(n))]
        assert name in asked or k != 2
        # a choice may also give others a meaning
        depend = {h.name for h in hyperparameters(task) if h.condition}
        assert not {*asked} - {name} - depend if k == 2 else not asked
        bitten = "parameters" in differing(before[0], after[0])
        assert bitten == (k >= 2), f"{name} at step {k}"


@cache
def fixed_at(task: str, other: str, fixed: tuple[Any, ...], **options: Any) -> Any:
    """Parameters of a run with pairs of name and value fixed; kept, as `kept_acted`."""
    options = {"feedback": "train", "fixed": dict(fixed), **options}
    env = make(task, hyperparameters=[other], **options)
    env.reset(seed=1)
    for _ in range(3):
        env.step([0])
    return learned(env)["parameters"]


# of events nothing is fixed, and this is a number of an event
FIXABLE = [
    (task, h.name)
    for task in TASKS
    for h in hyperparameters(task)
    if h.held and h.name != "perturb_strength"
]


@pytest.mark.parametrize(("task", "name"), cases(FIXABLE))
def test_fixed_values_bite(task: str, name: str) -> None:
    taken = {name, *needs_of(task, name)}
    other = next(h.name for h in hyperparameters(task) if h.name not in taken)
    needs = tuple(needs_of(task, name).items())
    plain, changed = (
        fixed_at(task, other, (*needs, *fixed), **long_enough(name))
        for fixed in ((), ((name, binding(task, name)),))
    )
    assert not np.array_equal(plain, changed)


# -- 2: cutting changes nothing, evaluation disturbs nothing -----------------------


# what networks are and see, beside the defaults of tasks
CONFIGURED: dict[str, tuple[str, dict[str, Any]]] = {
    "normalised": (DQN, {"normalize_observations": True}),
    "fourier": (DQN, {"normalize_observations": True, "fourier_features": 20}),
    "convolution": (
        "dacrl/DQN-MiniGrid-Empty-5x5-v0",
        {"conv_channels": 16, "normalize_observations": True},
    ),
    "convolutions": ("dacrl/PPO-MiniGrid-DoorKey-5x5-v0", {"conv_channels": 16}),
    "fourier of ppo": (
        "dacrl/PPO-CartPole-v0",
        {"normalize_observations": True, "fourier_features": 20},
    ),
}


@pytest.mark.parametrize(("task", "odd"), varied(TASKS, [False, True]))
def test_cutting_changes_nothing(task: str, odd: bool) -> None:
    check_cuts(task, odd)


@pytest.mark.parametrize("name", CONFIGURED)
def test_cutting_changes_nothing_in_any_configuration(name: str) -> None:
    task, config = CONFIGURED[name]
    check_cuts(task, True, **config)


def check_cuts(task: str, odd: bool, **config: Any) -> None:
    runs = {}
    fixed = rhythms(task) if odd else None
    # relative: the values set at the first decision are held in all later ones
    options = {"action_mode": "relative", "feedback": "train", "fixed": fixed}
    options |= config
    for interval in (100, 20):
        env = make(task, decision_interval=interval, **options)
        env.reset(seed=2)
        states = []
        for k in range(400 // interval):
            action = np.full(len(env.settings.controlled), 0.3 if k == 0 else 0.0)
            _, _, terminated, _, info = env.step(action)
            if info["env_steps"] % 100 == 0:
                states.append(learned(env))
        assert terminated
        runs[interval] = states
    for coarse, fine in zip(runs[100], runs[20], strict=True):
        assert differing(coarse, fine) == []


VARIATIONS: dict[str, dict[str, Any]] = {
    "more episodes": {"eval_episodes": 7},
    "more often": {"eval_interval": 20},
    "less often": {"eval_interval": 200},
    "report": {"report": True},
    "no evaluation": {"feedback": "train"},
    "other reward": {"reward": "auc"},
}


def evaluated(task: str, variation: str | None) -> list[dict[str, Any]]:
    """What is learned in a run whose evaluation varies, or does not."""
    env = make(task, **(VARIATIONS[variation] if variation else {}))
    env.reset(seed=3)
    history = [learned(env)]
    for k in range(4):
        env.step(np.full(len(env.settings.controlled), 0.1 * k))
        history.append(learned(env))
    return history


kept_evaluated = cache(evaluated)


@pytest.mark.parametrize(("task", "variation"), varied(TASKS, VARIATIONS))
def test_evaluation_never_disturbs_training(task: str, variation: str) -> None:
    pairs = zip(kept_evaluated(task, None), evaluated(task, variation), strict=True)
    for k, (plain, other) in enumerate(pairs):
        assert differing(plain, other) == [], k


# -- 3: members are independent -----------------------------------------------------


# a pair is another matter than five for the products of a lone member of a block
PAIRS = [(t, n) for t, n in KNOBS if n.endswith(("batch_size", "gamma"))]


@pytest.mark.parametrize(
    ("task", "name", "P"),
    cases([(*k, 5) for k in KNOBS] + [(*k, 2) for k in PAIRS]),
)
def test_members_do_not_notice_each_other(task: str, name: str, P: int) -> None:
    names = [h.name for h in hyperparameters(task)]
    outcomes = []
    for changed in (False, True):
        # evaluation knows nothing of what was changed: with two knobs is enough
        feedback = "eval" if (task, name) in PAIRS else "train"
        options = {"budget": 300, "feedback": feedback, **long_enough(name)}
        envs = make_vec(task, P, hyperparameters=names, **options)
        envs.reset(seed=4)
        for k in range(2):
            actions, at = envs.to_actions(needs_of(task, name)), names.index(name)
            # different values side by side
            actions[:, at] = np.linspace(0, 0.2, P)
            if changed and k:
                actions[1, at] = envs.to_actions({name: binding(task, name)})[1, at]
            _, rewards, *_ = envs.step(actions)
        state = envs.population.state
        outcomes.append([{**rows(state, i), "reward": rewards[i]} for i in range(P)])
    for i in range(P):
        different = differing(outcomes[0][i], outcomes[1][i])
        assert bool(different) == (i == 1), (i, different)


@pytest.mark.parametrize("task", quick(TASKS, *OFTEN))
def test_alone_and_in_a_population(task: str) -> None:
    seeds = [5, 6, 7]
    envs = make_vec(task, budget=2000)
    observations, infos = envs.reset(seed=seeds)
    singles = [make(task, budget=2000) for _ in seeds]
    for i, one in enumerate(singles):
        observation, info = one.reset(seed=seeds[i])
        np.testing.assert_array_equal(observation, observations[i])
        assert info["score"] == infos["score"][i]
    actions = np.linspace(-0.2, 0.2, 3)
    actions = np.tile(actions[:, None], (1, envs.action_space.shape[1]))
    for _ in range(2):
        observations, rewards, _, _, infos = envs.step(actions)
        for i, one in enumerate(singles):
            observation, reward, _, _, info = one.step(actions[i])
            np.testing.assert_allclose(observation, observations[i], atol=1e-3)
            assert reward == pytest.approx(rewards[i], abs=1e-3)
            assert info["gradient_steps"] == infos["gradient_steps"][i]
            alone = one.population.state.learner.parameters[0]
            among = envs.population.state.learner.parameters[i]
            np.testing.assert_allclose(alone, among, rtol=1e-3, atol=1e-4)


# -- 4: snapshot, continue = continue -----------------------------------------------


def play(env: Any, actions: Any) -> list[Any]:
    """States after each action."""
    states = []
    for action in actions:
        env.step(action)
        states.append(rows(env.population.state))
    return states


def plan(envs: Any, steps: int) -> Any:
    return np.random.default_rng(0).uniform(
        -0.4, 0.4, (steps, *envs.action_space.shape)
    )


@pytest.mark.parametrize("task", quick(SAVED, *OFTEN))
def test_snapshot_continues_in_memory(task: str) -> None:
    check_snapshots(task)


@pytest.mark.parametrize("name", CONFIGURED)
def test_snapshot_continues_in_any_configuration(name: str) -> None:
    task, config = CONFIGURED[name]
    check_snapshots(task, **config)


def check_snapshots(task: str, **config: Any) -> None:
    envs = make_vec(task, fixed=rhythms(task), **config)
    envs.reset(seed=8)
    actions = plan(envs, 6)  # over the autoreset, too
    play(envs, actions[:2])
    snap, here = envs.snapshot(), rows(envs.population.state)
    straight = play(envs, actions[2:])
    assert differing(straight[0], straight[1]) != []
    other = make_vec(task, fixed=rhythms(task), **config)
    for target in (envs, other):
        target.restore(snap)
        assert differing(rows(target.population.state), here) == []
        for a, b in zip(play(target, actions[2:]), straight, strict=True):
            assert differing(a, b) == []
    # a member of its own, in a population of one
    one = make(task, fixed=rhythms(task), **config)
    one.reset(options={"snapshot": snap.select([1])})
    observation, *_ = one.step(actions[2, 1])
    expected = straight[0]["observation"][1, 0]
    np.testing.assert_allclose(observation, expected, atol=1e-3)


CONTINUE = """
import sys, json
import gymnasium as gym, numpy as np, torch
import dacrl_env
torch.set_num_threads(1)
for folder, (task, options) in json.loads(sys.argv[1]).items():
    envs = gym.make_vec(task, num_envs=3, **options).unwrapped
    envs.restore(dacrl_env.Snapshot.load(f"{folder}/before"))
    for action in np.load(f"{folder}/actions.npy"):
        envs.step(action)
    envs.snapshot(exact=False).save(f"{folder}/after")
"""


@pytest.mark.parametrize("tasks", [EVERY_KIND, slow(TASKS)], ids=["few", "all"])
def test_snapshots_continue_in_another_process(
    tasks: Sequence[str], tmp_path: Path
) -> None:
    straight, given = {}, {}
    for i, task in enumerate(t for t in TASKS if t in tasks and installed(t)):
        folder = tmp_path / str(i)
        folder.mkdir()
        options = options_of(task, fixed=rhythms(task))
        envs = make_vec(task, **options)
        envs.reset(seed=9)
        actions = plan(envs, 3)  # not to the end, where all would begin anew
        play(envs, actions[:2])
        snap = envs.snapshot(exact=task in SAVED)
        snap.save(folder / "before")
        if task in UNSAVED:
            envs.restore(snap)  # begins new inner episodes, here as there
        np.save(folder / "actions.npy", actions[2:])
        straight[str(folder)] = play(envs, actions[2:])[-1]
        given[str(folder)] = (task, options)
    subprocess.run([sys.executable, "-c", CONTINUE, json.dumps(given)], check=True)
    for folder, expected in straight.items():
        arrays = dict(Snapshot.load(f"{folder}/after").arrays)
        del arrays["wall_seconds"]
        assert differing(expected, arrays) == [], given[folder][0]


@pytest.mark.parametrize("task", quick(UNSAVED, *UNSAVED[:1]))
def test_what_cannot_be_saved_keeps_its_learner(task: str, tmp_path: Path) -> None:
    envs, twin, other = (make_vec(task, fixed=rhythms(task)) for _ in range(3))
    actions = plan(envs, 6)  # over the autoreset, too
    for each in (envs, twin):
        each.reset(seed=8)
        play(each, actions[:2])
    before = rows(envs.population.state)
    for refused in (
        envs.snapshot,
        lambda: envs.fork([0, 0, 2]),
        lambda: envs.fork([0, 0, 2], shared_streams=True),
    ):
        with pytest.raises(dacrl_env.SnapshotNotSupported, match="exact=False"):
            refused()
    envs.snapshot(exact=False).save(tmp_path / "snap")
    # what was refused or saved has left no trace: the run goes on
    assert differing(rows(envs.population.state), before) == []
    straight = play(twin, actions[2:])
    for a, b in zip(play(envs, actions[2:]), straight, strict=True):
        assert differing(a, b) == []

    snap = Snapshot.load(tmp_path / "snap")
    episode = ("observations", "returns", "lengths", "episodes")
    for target in (envs, other):
        target.restore(snap)
        after = rows(target.population.state)
        # the episodes that were left are closed in the replay
        changed = set(differing(after, before)) - {"learner.replay.transitions"}
        assert changed <= {f"learner.envs.{n}" for n in episode}
        begun = after["learner.envs.episodes"] - before["learner.envs.episodes"]
        assert (begun == 1).all()
        assert (after["learner.envs.lengths"] == 0).all()
    # from there on both continue alike, bit for bit
    for a, b in zip(*(play(e, actions[2:]) for e in (envs, other)), strict=True):
        assert differing(a, b) == []
        assert "learner.parameters" in differing(a, before)


@pytest.mark.parametrize("task", quick(SAVED, *OFTEN))
def test_forks(task: str) -> None:
    check_forks(task)


@pytest.mark.parametrize("name", CONFIGURED)
def test_forks_in_any_configuration(name: str) -> None:
    task, config = CONFIGURED[name]
    check_forks(task, **config)


def check_forks(task: str, **config: Any) -> None:
    envs, twin = (make_vec(task, fixed=rhythms(task), **config) for _ in range(2))
    actions = plan(envs, 3)
    actions[2] = actions[2, 0]  # equal from the fork on
    for each in (envs, twin):
        each.reset(seed=10)
        play(each, actions[:2])
    envs.fork(np.arange(3))
    assert differing(*(rows(e.population.state) for e in (envs, twin))) == []
    snap = envs.snapshot()
    identity = ("seeds", "seed_members", "episodes")

    envs.fork([0, 0, 2], shared_streams=True)
    child, parent = (rows(envs.population.state, i) for i in (1, 0))
    assert set(differing(child, parent)) <= set(identity)
    play(envs, actions[2:])
    play(twin, actions[2:])
    child, parent = (rows(envs.population.state, i) for i in (1, 0))
    assert set(differing(child, parent)) <= set(identity)
    for i in (0, 2):  # parents and bystanders do not notice
        ours, theirs = (rows(e.population.state, i) for e in (envs, twin))
        assert differing(ours, theirs) == []

    envs.restore(snap)
    envs.fork([0, 0, 2])
    child, parent = (rows(envs.population.state, i) for i in (1, 0))
    keys = {n for n in child if n.endswith("keys")}
    assert len(keys) > 1  # the learner's and the environments'
    assert set(differing(child, parent)) <= {*identity, *keys}
    assert not np.isin(child["learner.keys"], parent["learner.keys"]).any()
    play(envs, actions[2:])
    child, parent = (rows(envs.population.state, i) for i in (1, 0))
    assert "learner.parameters" in differing(child, parent)
    for i in (0, 2):
        ours, theirs = (rows(e.population.state, i) for e in (envs, twin))
        assert differing(ours, theirs) == []


def test_siblings_of_a_fork_differ_and_keep_their_names() -> None:
    envs = make_vec()
    envs.reset(seed=11)
    envs.step(np.zeros((3, 3)))
    envs.fork([0, 0, 0])
    keys = envs.population.state.learner.keys
    assert len(np.unique(keys)) == keys.size
    envs.step(np.zeros((3, 3)))
    parameters = envs.population.state.learner.parameters
    assert not np.array_equal(parameters[1], parameters[2])
    assert envs.population.state.seed_members.tolist() == [0, 1, 2]
    envs.fork([2, 1, 0])  # simultaneous: a swap
    swapped = envs.population.state.learner.parameters
    assert not np.array_equal(swapped[0], swapped[2])


# -- 5: budgets are exact -----------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "options"),
    varied(
        TASKS,
        [
            {},
            {"decision_interval": 400},
            {"decision_interval": 20, "eval_interval": 100},
            {"eval_interval": 20},
            {"report": True},
            {"feedback": "train"},
        ],
    ),
)
def test_steps_asked_for_taken_and_reported_agree(
    task: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make(task, **options)
    state, counted = env.population.state.learner, 0
    step = env.population.env.step

    def counting(state: Any, actions: Any) -> Any:
        nonlocal counted
        counted += actions.size
        return step(state, actions)

    def taken() -> int:
        """Steps of training environments, compiled ones or others."""
        lifetime = getattr(state.envs, "lifetime", None)
        return counted if lifetime is None else int(lifetime.sum())

    monkeypatch.setattr(env.population.env, "step", counting)
    env.reset(seed=12)
    terminated = False
    while not terminated:
        before = taken()
        _, _, terminated, _, info = env.step(np.zeros(env.action_space.shape))
        assert taken() - before == env.settings.decision_interval
        assert info["env_steps"] == info["objectives"]["training_steps"] == taken()
    assert taken() == 400


def test_every_evaluation_step_is_charged() -> None:
    env = make(eval_interval=50)
    _, info = env.reset(seed=13)
    # a CartPole episode's return is its number of steps
    charged = env.settings.eval_episodes * info["eval_return"]
    assert info["eval_steps"] == charged
    assert env.population.state.evaluations[0] == 1
    returns = []
    evaluate = env.population.play

    def remembering(*arguments: Any) -> Any:
        results = evaluate(*arguments)
        returns.append(results[0].sum())
        return results

    env.population.play = remembering
    _, _, _, _, info = env.step([0, 0, 0])
    assert len(returns) == 2
    assert info["eval_steps"] == charged + sum(returns)
    assert info["objectives"]["evaluation_steps"] == info["eval_steps"]


def test_gradient_steps_and_samples_are_counted() -> None:
    env = make(hyperparameters=("batch_size",))
    env.reset(seed=14)
    counts = [env.step([mark])[4] for mark in (0, 0, 1, -1)]
    # every 4 steps, after the first 100
    assert [c["gradient_steps"] for c in counts] == [0, 25, 50, 75]
    assert [c["objectives"]["samples"] for c in counts] == [
        0,
        25 * 64,
        25 * (64 + 256),
        25 * (64 + 256 + 4),
    ]
    flops = [c["objectives"]["flops"] for c in counts]
    steps = [c["env_steps"] + c["eval_steps"] for c in counts]
    act = 2 * (4 * 64 + 64 * 64 + 64 * 2)  # a multiply and an add per weight
    assert flops[0] == steps[0] * act
    learn = 4 * act - 2 * 4 * 64  # two forward and two backward, but for the input's
    assert flops[1] == steps[1] * act + 25 * 64 * learn


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 1010, "decision_interval": None}, ["budget 1010", "20", "1020"]),
        ({"decision_interval": 150}, ["budget 400", "150", "450"]),
        ({"decision_interval": 800}, ["budget 400", "800"]),
        ({"eval_interval": 150}, ["budget 400", "eval_interval", "150"]),
        ({"eval_interval": 80}, ["decision_interval 100", "eval_interval 80"]),
        (
            {"num_inner_envs": 3},
            ["budget 400", "3", "budget 396 with decision_interval 99 would do"],
        ),
        (
            {"num_inner_envs": 8},
            ["decision_interval 100", "8", "decision_interval 80 or 200 would do"],
        ),
    ],
)
def test_what_does_not_divide_is_refused(
    options: dict[str, Any], words: list[str]
) -> None:
    for function in (make, make_vec):
        with pytest.raises(ValueError, match=words[0]) as caught:
            function(**options)
        for word in words:
            assert word in str(caught.value)


def test_a_restored_run_keeps_to_its_budget() -> None:
    env = make()
    env.reset(seed=15)
    env.step([0, 0, 0])
    at_100 = env.snapshot()
    env.step([0, 0, 0])
    at_200 = env.snapshot()
    coarser = make(decision_interval=200, eval_interval=100)
    coarser.restore(at_200)
    _, _, terminated, _, info = coarser.step([0, 0, 0])
    assert terminated
    assert info["env_steps"] == 400
    # from step 100, decisions every 200 steps would end at 500
    coarser.reset(seed=1)
    before = rows(coarser.population.state)
    with pytest.raises(dacrl_env.SnapshotError, match="decision_interval"):
        coarser.restore(at_100)
    assert differing(rows(coarser.population.state), before) == []


def test_a_run_that_is_over_does_not_go_on() -> None:
    env = make()
    env.reset(seed=16)
    for _ in range(4):
        env.step([0, 0, 0])
    over = env.snapshot()
    other = make()
    other.restore(over)
    with pytest.raises(gym.error.ResetNeeded):
        other.step([0, 0, 0])
    with pytest.raises(dacrl_env.SnapshotError, match="over"):
        make_vec(num_envs=1).restore(over)


# -- 6: terminated is not truncated -------------------------------------------------


class Line(gym.Env[np.ndarray, int]):
    """Counts steps. Half of the episodes terminate at 3, the others never do."""

    observation_space = gym.spaces.Box(-1, 100, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.now = np.array([0, self.np_random.integers(2)], np.float32)
        return self.now.copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.now[0] += 1
        terminated = bool(self.now[1] == 1 and self.now[0] == 3)
        return self.now.copy(), 1.0, terminated, False, {}


@pytest.fixture
def line() -> Iterator[str]:
    inner, outer = "dacrl-tests/Line-v0", "dacrl-tests/DQN-Line-v0"
    gym.register(inner, entry_point=Line, max_episode_steps=5)
    dacrl_env.register_task(
        id=outer,
        inner_env=inner,
        algorithm="dqn",
        budget=400,
        random_return=4.0,
        reference_return=5.0,
        floor_return=0.0,
    )
    yield outer
    del dacrl_env.TASKS[outer], gym.registry[inner], gym.registry[outer]


@pytest.mark.parametrize("N", [1, 2])
def test_truncation_is_not_termination(line: str, N: int) -> None:
    env = make(
        line, num_inner_envs=N, budget=80, decision_interval=40, learning_starts=60
    )
    env.reset(seed=17)
    for _ in range(2):
        env.step([0, 0, 0])
    state = env.population.state.learner
    replay = state.replay
    observations, transitions = replay.observations[0], replay.transitions[0]
    assert observations.shape[:2] == (N, 80 // N)
    before, after = observations[:, :, 0], observations[:, :, 1]
    terminated = (after[..., 0] == 3) & (after[..., 1] == 1)
    truncated = after[..., 0] == 5
    assert terminated.any()
    assert truncated.any()
    # no row leads from an episode's end to the start of the next one
    np.testing.assert_array_equal(after[..., 0], before[..., 0] + 1)
    np.testing.assert_array_equal(after[..., 1], before[..., 1])
    np.testing.assert_array_equal(transitions[..., CONTINUES], ~terminated)
    np.testing.assert_array_equal(transitions[..., DONE], terminated | truncated)
    assert (transitions[..., REWARD] == 1).all()
    done = transitions[:, :-1, DONE] == 1
    starts = np.where(done, 0, after[:, :-1, 0])
    np.testing.assert_array_equal(before[:, 1:, 0], starts)
    engine = env.population
    values = dict(zip(engine.names, engine.state.applied.T, strict=True))
    values["gamma"] = np.full(1, 0.9)
    key = np.ones(1, np.uint64)
    *_, ends, discounts, _ = env.population.learner.probe(state, values, key, 200)
    stopped = (ends[..., 0] == 3) & (ends[..., 1] == 1)
    assert (ends[..., 0] == 5).any()
    expected = np.where(stopped, 0, np.float32(0.9))
    np.testing.assert_array_equal(discounts, expected)


def test_truncation_in_the_compiled_cartpole() -> None:
    env = make(budget=100, decision_interval=50, num_inner_envs=2, learning_starts=60)
    env.reset(seed=18)
    envs = env.population.state.learner.envs
    envs.lengths[0, 0] = 495  # as if the pole had been up for so long
    env.step([0, 0, 0])
    memory = env.population.state.learner.replay
    rows_of_first = memory.transitions[0, 0, :25]
    after = memory.observations[0, 0, :25, 1]
    assert rows_of_first[:5, DONE].tolist() == [0, 0, 0, 0, 1]
    assert rows_of_first[:5, CONTINUES].tolist() == [1] * 5
    assert np.abs(after[4]).max() > 0.06  # where it was, no new start
    assert np.abs(memory.observations[0, 0, 5, 0]).max() <= 0.05
    # every other end is a pole that fell
    both = memory.transitions[0, :, :25]
    ends = memory.observations[0, :, :25, 1]
    fell = (np.abs(ends[..., 2]) > 12 * np.pi / 180) | (np.abs(ends[..., 0]) > 2.4)
    assert fell.any()
    np.testing.assert_array_equal(both[..., CONTINUES], ~fell)


# -- 7: nothing global --------------------------------------------------------------


def global_state() -> tuple[Any, ...]:
    name, words, *rest = np.random.get_state()  # noqa: NPY002 - the global generator
    return (
        random.getstate(),
        (name, words.tobytes(), *rest),  # type: ignore[union-attr]
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        blas_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        denormals_are_zero(),
        np.geterr(),
    )


def denormals_are_zero() -> bool:
    smallest = sys.float_info.min
    return smallest / 2 == 0.0


def blas_threads() -> list[int]:
    """Of what multiplies numpy's matrices; not of libraries that were loaded later."""
    return [library.get_num_threads() for library in isolation._shared()]


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator
    torch.manual_seed(seed)


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("task", quick(TASKS, *OFTEN))
def test_no_global_randomness_or_settings(task: str) -> None:
    final = []
    for seed in (1, 2):
        seed_everything(seed)
        before = global_state()
        env, envs = make(task, report=True), make_vec(task)
        env.reset(seed=0)
        envs.reset(seed=0)
        for _ in range(2):
            env.step(np.zeros(env.action_space.shape))
            envs.step(np.zeros(envs.action_space.shape))
        if task in SAVED:
            envs.fork([1, 1, 2])
        envs.restore(envs.snapshot(exact=task in SAVED))
        assert global_state() == before
        final.append((rows(env.population.state), rows(envs.population.state)))
    for a, b in zip(*final, strict=True):
        assert differing(a, b) == []


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
def test_global_settings_survive_an_error(
    implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make(implementation=implementation, feedback="train")
    env.reset(seed=0)
    before, during = global_state(), []

    def failing(*_: Any, **__: Any) -> None:
        during.append(
            (
                torch.get_num_threads(),
                set(blas_threads()) - {1},
                torch.is_grad_enabled(),
                denormals_are_zero(),
            )
        )
        raise RuntimeError("on purpose")

    of_torch = implementation == "sb3"
    owner = env.population.learner.members if of_torch else env.population.env
    monkeypatch.setattr(owner, "stretch" if of_torch else "observe", failing)
    with pytest.raises(RuntimeError, match="on purpose"):
        env.step(np.zeros(env.action_space.shape))
    # our own code asks for nothing
    as_outside = (2, set(blas_threads()) - {1}, True, denormals_are_zero())
    assert during == [(1, set(), True, True) if of_torch else as_outside]
    assert global_state() == before


def test_disabled_gradients_stay_disabled() -> None:
    env = make()
    with torch.no_grad():
        env.reset(seed=0)
        env.step([0, 0, 0])
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("task", quick(TASKS, *OFTEN))
def test_results_do_not_depend_on_global_settings(task: str) -> None:
    outcomes = []
    for dtype, threads in ((torch.float32, 1), (torch.float64, 2)):
        before = torch.get_num_threads()
        try:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            with threadpool_limits(threads, user_api="blas"):
                env = make(task)
                env.reset(seed=1)
                for _ in range(4):
                    env.step(np.zeros(env.action_space.shape))
            outcomes.append(rows(env.population.state))
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_num_threads(before)
    assert differing(*outcomes) == []
