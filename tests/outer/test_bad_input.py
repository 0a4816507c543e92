"""Bad input is refused early, with one clear line, and changes nothing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import dacrl_env
from dacrl_env import Choice, Number
from dacrl_env.core.snapshot import leaves
from dacrl_env.outer.actions import ACTION_MODES

DQN = "dacrl/DQN-CartPole-v0"
OPTIONS: dict[str, Any] = {
    "budget": 400,
    "decision_interval": 100,
    "learning_starts": 100,
    "eval_episodes": 2,
}
NAMES = (
    "learning_rate",
    "epsilon",
    "batch_size",
    "gamma",
    "target_update_interval",
    "train_freq",
    "gradient_steps",
    "max_grad_norm",
    "replay_window",
)


def make(**options: Any) -> Any:
    return gym.make(DQN, **{**OPTIONS, **options}).unwrapped


def make_vec(num_envs: int = 2, **options: Any) -> Any:
    return gym.make_vec(DQN, num_envs=num_envs, **{**OPTIONS, **options}).unwrapped


def rows(env: Any) -> dict[str, bytes]:
    """Every bit of a state but for the wall clock."""
    return {
        name: np.asarray(leaf).tobytes()
        for name, leaf in leaves(env.population.state)
        if name != "wall_seconds"
    }


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    assert "environment creator" not in message  # what Gymnasium adds to TypeErrors
    return message


# -- when an environment is made ------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "hyperparameter": ({"hyperparameters": ("lr",)}, ["'lr'", *NAMES]),
    "one of two": ({"hyperparameters": ("epsilon", "lr")}, ["'lr'", *NAMES]),
    "a single string": ({"hyperparameters": "lr"}, ["'lr'", *NAMES]),
    "none": ({"hyperparameters": ()}, ["no hyperparameter", *NAMES]),
    "twice": ({"hyperparameters": ("epsilon", "epsilon")}, ["twice", "epsilon"]),
    "option": (
        {"bogus": 1},
        ["'bogus'", "hyperparameters", "action_mode", "report", "learning_starts"],
    ),
    "action mode": ({"action_mode": "box"}, ["'box'", *ACTION_MODES]),
    "reward": ({"reward": "sum"}, ["'sum'", "progress", "best", "auc", "final"]),
    "split": ({"split": "train"}, ["'train'", "tuning", "test"]),
    "learner": ({"learner": "sb3"}, ["implementation", "'compiled' or 'sb3'"]),
    "implementation": ({"implementation": "jax"}, ["'jax'", "compiled"]),
    "feedback": ({"feedback": "both"}, ["'both'", "eval", "train"]),
    "instances": ({"instances": "all"}, ["'all'", "train", "test"]),
    "instance": ({"instances": ["moon"]}, ["'moon'", "default"]),
    "no instance": ({"instances": []}, ["no instance", "default"]),
    "physical constant": (
        {"instances": [dacrl_env.Instance("a", {"gravitation": 1.0})]},
        ["'gravitation'", "gravity", "half_length"],
    ),
    "fixed": ({"fixed": {"lr": 1}}, ["'lr'", *NAMES]),
    "fixed below": ({"fixed": {"gamma": 0.5}}, ["gamma", "0.5", "0.8", "1.0"]),
    "fixed above": ({"fixed": {"train_freq": 1001}}, ["train_freq", "1001", "1000"]),
    "fixed NaN": ({"fixed": {"gamma": float("nan")}}, ["gamma", "nan"]),
    "fixed infinite": ({"fixed": {"gamma": float("inf")}}, ["gamma", "inf"]),
    "controlled and fixed": (
        {"hyperparameters": ("epsilon", "gamma"), "fixed": {"gamma": 0.9}},
        ["gamma", "controlled", "fixed"],
    ),
    "wider range": (
        {"hyperparameters": (dacrl_env.Number("epsilon", 0.0, 2.0, 0.1),)},
        ["epsilon", "2.0", "[0.0, 1.0]"],
    ),
    "other scale": (
        {"hyperparameters": (dacrl_env.Number("gamma", 0.9, 0.99, 0.95),)},
        ["gamma", "log_complement"],
    ),
    "budget": ({"budget": 0}, ["budget", "0"]),
    "fractional budget": ({"budget": 400.5}, ["budget", "400.5"]),
    "decision interval": ({"decision_interval": -1}, ["decision_interval", "-1"]),
    "eval interval": ({"eval_interval": 0}, ["eval_interval", "0"]),
    "eval episodes": ({"eval_episodes": 0}, ["eval_episodes", "0"]),
    "history": ({"history": 0}, ["history", "0"]),
    "activation": ({"activation": "gelu"}, ["'gelu'", "relu", "tanh"]),
    "width": ({"hidden_sizes": (0,)}, ["0"]),
    "inner environments": ({"num_inner_envs": 0}, ["num_inner_envs"]),
    "learning starts": ({"learning_starts": -1}, ["learning_starts"]),
    "n step": ({"fixed": {"n_step": 0}}, ["n_step", "range"]),
    "n step as a configuration": ({"n_step": 2}, ["n_step", "hyperparameter", "fixed"]),
    "no option": ({"fixed": {"loss": "hubr"}}, ["loss", "hubr", "huber", "mse"]),
    "text for a truth value": ({"fixed": {"double_q": "yes"}}, ["double_q", "yes"]),
    "options that there are not": (
        {"hyperparameters": [Choice("loss", ("mse", "log"), "mse")]},
        ["loss", "log", "huber"],
    ),
    "a number as a choice": (
        {"hyperparameters": [Choice("epsilon", (0.1, 0.2), 0.1)]},
        ["epsilon", "Number", "Choice"],
    ),
    "a choice as a number": (
        {"hyperparameters": [Number("loss", 0, 1, 0)]},
        ["loss", "Choice", "Number"],
    ),
    "replay": ({"replay_capacity": 0}, ["replay_capacity", "0"]),
}


@pytest.mark.filterwarnings(  # Gymnasium warns of render modes before we refuse them
    "ignore:.*render_mode='.*'.*not in the possible render_modes:UserWarning"
)
@pytest.mark.parametrize("mode", ["depth_array", "text", ""])
def test_render_modes_that_there_are_not_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="valid: ansi, rgb_array, None") as caught:
        make(render_mode=mode)
    assert repr(mode) in one_line(caught)
    with pytest.raises(ValueError, match="is not supported for a population"):
        make_vec(render_mode=mode)


@pytest.mark.parametrize(
    "instances",
    [[3], [dacrl_env.Instance("a"), dacrl_env.Instance("a", {"gravity": 5.0})]],
)
def test_instances_that_cannot_be_named_are_refused(instances: Any) -> None:
    with pytest.raises(ValueError, match=r"an instance is a name|names of their own"):
        make(instances=instances)


@pytest.mark.parametrize(
    "reward", [lambda c: c.score.max(), lambda c: c.score[:, None], lambda c: None]
)
def test_rewards_of_another_shape_are_refused(reward: Any) -> None:
    envs = make_vec(reward=reward)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"a value for each member, shape \(\d,\)"):
        envs.step(np.zeros(envs.action_space.shape))


@pytest.mark.parametrize("case", REFUSED)
def test_options_are_refused(case: str) -> None:
    options, words = REFUSED[case]
    for function in (make, make_vec):
        with pytest.raises(ValueError, match=r".") as caught:
            function(**options)
        message = one_line(caught)
        for word in words:
            assert word in message


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"split": ["test"]}, "split"),
        ({"reward": ["auc"]}, "reward"),
        ({"implementation": {}}, "implementation"),
        ({"feedback": ["eval"]}, "feedback"),
        ({"fixed": {"gamma": "high"}}, "gamma"),
    ],
)
def test_options_of_the_wrong_type_are_refused_as_clearly(
    options: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        make(**options)
    one_line(caught)


def test_members_that_nothing_takes_are_told_what_populations_take() -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        make_vec(num_workers=2)
    message = one_line(caught)
    assert "of make_vec also: num_threads, autoreset_mode" in message
    assert "(did you mean 'num_threads'?)" in message
    with pytest.raises(ValueError, match=r"'num_threads' .*; make_vec takes it"):
        make(num_threads=2)


@pytest.mark.parametrize("function", [make, make_vec])
def test_a_hyperparameter_is_no_option(function: Any) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        function(batch_size=32)
    message = one_line(caught)
    assert "fixed={'batch_size': 32}" in message
    assert "hyperparameters=" in message


def test_number_of_members() -> None:
    for number in (0, -1, 1.5):
        with pytest.raises(ValueError, match="num_envs"):
            dacrl_env.PopulationEnv(DQN, num_envs=number)


def test_task() -> None:
    for function in (
        dacrl_env.get_task,
        dacrl_env.DynamicConfigEnv,
        dacrl_env.PopulationEnv,
    ):
        with pytest.raises(ValueError, match="unknown task 'bogus'") as caught:
            function("bogus")
        assert DQN[:-1] in one_line(caught)  # any version


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("a", 2.0, 1.0, 1.5), ["a", "2.0", "1.0", "inverted"]),
        (("a", 1.0, 1.0, 1.0), ["a", "empty"]),
        (("a", float("nan"), 1.0, 1.0), ["a", "nan"]),
        (("a", 0.0, 1.0, 2.0), ["a", "2.0", "outside", "[0.0, 1.0]"]),
        (("a", 0.0, 1.0, float("nan")), ["a", "nan"]),
        (("a", 0.0, 1.0, 0.5, "log"), ["a", "above 0"]),
        (("a", 0.5, 1.1, 0.5, "log_complement"), ["a", "1 or below", "1.1"]),
        (("", 0.0, 1.0, 0.5), ["needs a name"]),
        ((3, 0.0, 1.0, 0.5), ["needs a name, got 3"]),
        (("a", "0", 1.0, 0.5), ["low of a must be a finite number, got '0'"]),
        (("a", 0.0, 1.0, 0.5, "logg"), ["unknown scale 'logg'"]),
        (("a", 0.0, 1.0, 0.5, "log", 1), ["integer of a must be True or False"]),
    ],
)
def test_hyperparameters(fields: tuple[Any, ...], words: list[str]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        dacrl_env.Number(*fields)
    for word in words:
        assert word in one_line(caught)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"random_return": 1.0}, ["all of random_return", "1.0, None and None"]),
        (
            {"random_return": 1.0, "floor_return": 0.0},
            ["all of random_return", "reference_return", "None and 0.0"],
        ),
        (
            {"random_return": 1.0, "reference_return": 1.0, "floor_return": 0.0},
            ["floor < random < reference", "got 0.0, 1.0, 1.0"],
        ),
        (
            {"random_return": 1.0, "reference_return": 2.0, "floor_return": 1.5},
            ["floor < random < reference", "1.5"],
        ),
        (
            {"random_return": float("nan"), "reference_return": 2, "floor_return": 0},
            ["floor < random < reference", "nan"],
        ),
    ],
)
def test_returns_of_instances(fields: dict[str, float], words: list[str]) -> None:
    with pytest.raises(ValueError, match="instance 'moon'") as caught:
        dacrl_env.Instance("moon", {"gravity": 1.6}, **fields)
    for word in words:
        assert word in one_line(caught)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"physics": {"gravity": "9"}}, "physics['gravity'] must be of type float"),
        ({"physics": {"gravity": None}}, "physics['gravity'] must be of type float"),
        ({"physics": {1: 9.0}}, "a name in instance 'moon': physics must be of type"),
        ({"physics": 3}, "physics must be of type Mapping, got 3"),
        ({"random_return": "1"}, "random_return must be of type float or None"),
        ({"name": 3}, "name must be of type str, got 3"),
    ],
)
def test_instances_of_other_types(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        dacrl_env.Instance(**{"name": "moon", **fields})
    assert words in one_line(caught)


# -- tasks ----------------------------------------------------------------------

TASK: dict[str, Any] = {
    "id": "dacrl-tests/Refused-v0",
    "inner_env": "CartPole-v1",
    "algorithm": "dqn",
    "budget": 4000,
    "random_return": 20.0,
    "reference_return": 500.0,
    "floor_return": 0.0,
}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": DQN}, [DQN, "taken"]),
        ({"id": "CartPole-v1"}, ["CartPole-v1", "taken"]),
        ({"algorithm": "sarsa"}, ["'sarsa'", "dqn"]),
        ({"learner": "dqn"}, ["algorithm="]),
        ({"floor_return": 20.0}, ["floor < random < reference", "20.0"]),
        ({"reference_return": 20.0}, ["floor < random < reference", "20.0"]),
        ({"floor_return": float("nan")}, ["floor < random < reference", "nan"]),
        ({"backend": "jax"}, ["'jax'", "auto", "batched", "gymnasium"]),
        (
            {"backend": "batched", "inner_env": "Blackjack-v1"},
            ["'Blackjack-v1'", "CartPole-v1"],
        ),
        ({"budget": 1001}, ["1001", "20"]),
        ({"budget": 0}, ["budget"]),
        ({"decisions": 0}, ["decisions"]),
        ({"stateful": "no"}, ["stateful must be of type bool, got 'no'"]),
        ({"stateful": 0}, ["stateful must be of type bool, got 0"]),
        ({"scale_images": "x"}, ["scale_images must be of type bool"]),
        ({"always_varied": None}, ["always_varied must be of type bool"]),
        ({"train_instances": [1]}, ["train_instances[0]", "Instance, got 1"]),
        ({"test_instances": "test"}, ["test_instances must be of type tuple"]),
        ({"tags": "smoke"}, ["tags must be of type tuple, got 'smoke'"]),
        ({"tags": [1]}, ["tags[0] must be of type str, got 1"]),
        ({"controlled": "gamma"}, ["controlled must be of type tuple or None"]),
        ({"controlled": ("lr",)}, ["unknown hyperparameter 'lr'", "learning_rate"]),
        ({"defaults": {"gamma": "x"}}, ["gamma must be real numbers, got text"]),
        ({"defaults": {"lr": 1}}, ["'lr'", "learning_rate"]),
        ({"defaults": {3: 1}}, ["a name in", "defaults must be of type str, got 3"]),
        ({"ranges": 3}, ["ranges must be of type Mapping, got 3"]),
        ({"ranges": {"lr": (0, 1)}}, ["'lr'", "learning_rate"]),
        ({"inner_env_kwargs": 3}, ["inner_env_kwargs must be of type Mapping"]),
        ({"random_return": "1"}, ["random_return must be of type float or None"]),
        ({"budget": "2000"}, ["budget must be of type int, got '2000'"]),
        ({"budget": 2000.5}, ["budget must be of type int, got 2000.5"]),
        ({"algorithm": 3}, ["algorithm must be of type str, got 3"]),
        ({"configuration": {"foo": 1}}, ["of dqn 'foo'", "hidden_sizes"]),
        ({"configuration": {"hiden_sizes": 1}}, ["did you mean 'hidden_sizes'?"]),
        ({"configuration": {"learning_starts": "a"}}, ["must be of type int"]),
        ({"configuration": {"hidden_sizes": ["a"]}}, ["a hidden size must be"]),
        ({"configuration": {"hidden_sizes": [0]}}, ["hidden size", "0"]),
        ({"budgett": 1}, ["field of a task 'budgett'", "mean 'budget'", "tags"]),
    ],
)
def test_tasks_are_refused(fields: dict[str, Any], words: list[str]) -> None:
    tasks, registry = dict(dacrl_env.TASKS), set(gym.registry)
    with pytest.raises(ValueError, match=r".") as caught:
        dacrl_env.register_task(**{**TASK, **fields})
    for word in words:
        assert word in one_line(caught)
    assert tasks == dacrl_env.TASKS
    assert set(gym.registry) == registry


def test_fields_that_a_task_needs() -> None:
    for name in ("id", "algorithm", "budget"):
        rest = {k: v for k, v in TASK.items() if k != name}
        with pytest.raises(ValueError, match=f"needs id, inner_env.*got no {name}$"):
            dacrl_env.register_task(**rest)


def test_numbers_of_numpy_s_are_numbers() -> None:
    fields = {"budget": np.int64(4000), "random_return": np.float32(20)}
    assert dacrl_env.Task(**{**TASK, **fields}).budget == 4000
    assert dacrl_env.Instance("a", {"gravity": np.float32(5)}).name == "a"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"defaults": {"lr": 1}}, ["'lr'", "learning_rate"]),
        ({"configuration": {"foo": 1}}, ["of dqn 'foo'", "hidden_sizes"]),
        ({"configuration": {"learning_starts": "a"}}, ["must be of type int"]),
        ({"defaults": {"gamma": 2}}, ["gamma", "2"]),
        ({"inner_env": "Pendulum-v1"}, ["Pendulum-v1", "Discrete"]),
        ({"inner_env": "Blackjack-v1"}, ["Blackjack-v1", "Box"]),
    ],
)
def test_tasks_that_cannot_be_made(fields: dict[str, Any], words: list[str]) -> None:
    task = dacrl_env.Task(**{**TASK, **fields})
    with pytest.raises(ValueError, match=r".") as caught:
        dacrl_env.DynamicConfigEnv(task)
    for word in words:
        assert word in one_line(caught)


def test_a_registered_task_works() -> None:
    task = dacrl_env.register_task(**TASK)
    try:
        assert dacrl_env.get_task(TASK["id"]) is task
        assert dacrl_env.register_task(task) == task
        with pytest.raises(ValueError, match=r"fields are given \(budget\)"):
            dacrl_env.register_task(task, budget=4000)
        env = gym.make(TASK["id"], **OPTIONS)
        env.reset(seed=0)
        env.step(env.action_space.sample())
    finally:
        del dacrl_env.TASKS[TASK["id"]], gym.registry[TASK["id"]]


# -- resets -------------------------------------------------------------------------


def test_reset_of_a_single_environment() -> None:
    env, twin = make(), make()
    for each in (env, twin):
        each.reset(seed=0)
        each.step([0, 0, 0])
    before = rows(env)
    for keywords, words in (
        ({"options": {"bogus": 1}}, ["'bogus'", "instance", "snapshot"]),
        ({"options": {"reset_mask": [True]}}, ["'reset_mask'", "instance"]),
        ({"options": {"instance": "moon"}}, ["'moon'", "default"]),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            env.reset(seed=1, **keywords)  # type: ignore[arg-type]
        for word in words:
            assert word in one_line(caught)
        assert rows(env) == before
    for seed in (-1, 1.5, "1", [1]):
        # Gymnasium's own class and words
        with pytest.raises((ValueError, gym.error.Error), match=r"[Ss]eed"):
            env.reset(seed=seed)
        assert rows(env) == before
    env.step([0, 0, 0])
    twin.step([0, 0, 0])
    assert rows(env) == rows(twin)
    for each in (env, twin):
        each.reset()
    assert rows(env) == rows(twin)


def test_reset_of_a_population() -> None:
    envs, twin = make_vec(), make_vec()
    for each in (envs, twin):
        each.reset(seed=0)
        each.step(np.zeros((2, 3)))
    before = rows(envs)
    for keywords, words in (
        ({"options": {"bogus": 1}}, ["'bogus'", "instance", "snapshot", "reset_mask"]),
        ({"options": {"instance": "moon"}}, ["'moon'", "default"]),
        ({"options": {"instance": ["default"]}}, ["2", "1"]),
        ({"options": {"instance": ["default", "moon"]}}, ["'moon'", "default"]),
        ({"options": {"reset_mask": [True]}}, ["reset_mask", "(2,)"]),
        ({"options": {"reset_mask": [1, 0]}}, ["reset_mask", "(2,)"]),
        ({"options": {"reset_mask": [False, False]}}, ["reset_mask"]),
        ({"seed": [1]}, ["2 seeds", "1"]),
        ({"seed": [1, 2, 3]}, ["2 seeds", "3"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": [1, -2]}, ["seed", "-2"]),
        ({"seed": [1, 0.5]}, ["seed", "0.5"]),
        ({"seed": ["1", 2]}, ["seed", "'1'"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            envs.reset(**keywords)
        for word in words:
            assert word in one_line(caught)
        assert rows(envs) == before
    envs.step(np.zeros((2, 3)))
    twin.step(np.zeros((2, 3)))
    assert rows(envs) == rows(twin)
    fresh = make_vec()
    with pytest.raises(ValueError, match="first reset"):
        fresh.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("seed", [2**63, 2**64, 2**128])
def test_seeds_that_are_too_large(seed: int) -> None:
    env, envs = make(), make_vec()
    env.reset(seed=1)
    envs.reset(seed=1)
    before = rows(env), rows(envs)
    for call in (
        lambda: env.reset(seed=seed),
        lambda: envs.reset(seed=seed),
        lambda: envs.reset(seed=[1, seed]),
    ):
        with pytest.raises(ValueError, match="seed"):
            call()
    assert (rows(env), rows(envs)) == before
    env.reset()
    assert env.population.state.seeds.tolist() == [1]


def test_large_seeds() -> None:
    keys = set()
    for seed in (0, 2**31, 2**32, 2**32 + 1, 2**63 - 1):
        env = make()
        env.reset(seed=seed)
        keys.add(env.population.state.learner.keys.tobytes())
    assert len(keys) == 5


def test_forks_are_refused() -> None:
    envs = make_vec()
    envs.reset(seed=0)
    before = rows(envs)
    for parents in ([0], [0, 1, 1], [0, 2], [-1, 0], [0.0, 1.0], [True, False], 0):
        with pytest.raises(ValueError, match="parents"):
            envs.fork(parents)
        assert rows(envs) == before


# -- actions ------------------------------------------------------------------------

RAGGED = [[0.0, 0.0], [0.0]]
BOX = {
    "NaN": [0, float("nan"), 0],
    "infinite": [0, 0, float("inf")],
    "minus infinite": [float("-inf"), 0, 0],
    "too few": [0, 0],
    "too many": [0, 0, 0, 0],
    "empty": [],
    "scalar": 0.5,
    "nested": [[0, 0, 0]],
    "text": "low",
    "texts": ["0", "0", "0"],
    "complex": np.zeros(3, complex),
    "ragged": RAGGED,
    "None": None,
    "with None": [0, None, 0],
    "dict": {"learning_rate": 0},
    "date": np.zeros(3, "datetime64[s]"),
}
JOINT = {
    "negative": -1,
    "too large": 27,
    "fraction": 0.5,
    "NaN": float("nan"),
    "array": [0, 0, 0],
    "text": "0",
    "complex": 1j,
    "None": None,
}
APART = {
    "negative": [0, -1, 0],
    "too large": [0, 3, 0],
    "fraction": [0, 0.5, 0],
    "NaN": [0, float("nan"), 0],
    "scalar": 1,
    "too few": [1, 1],
    "complex": np.ones(3, complex),
    "ragged": RAGGED,
}
BAD = [
    *(("continuous", case, action) for case, action in BOX.items()),
    *(("relative", case, action) for case, action in BOX.items()),
    *(("values", case, action) for case, action in BOX.items()),
    *(("discrete", case, action) for case, action in JOINT.items()),
    *(("multidiscrete", case, action) for case, action in APART.items()),
]
GOOD = {
    "continuous": [0.2, -0.1, 0.3],
    "relative": [0.2, -0.1, 0.3],
    "values": [1e-3, 0.1, 32],
    "discrete": 5,
    "multidiscrete": [0, 1, 2],
}


@pytest.fixture(scope="module", params=ACTION_MODES)
def pair(request: pytest.FixtureRequest) -> Any:
    """Two environments and two populations, where one of each meets bad actions."""
    mode = request.param
    return mode, *(f(action_mode=mode) for f in (make, make, make_vec, make_vec))


def test_bad_actions_leave_the_run_untouched(pair: Any) -> None:
    mode, env, twin, envs, vec_twin = pair
    for each in (env, twin):
        each.reset(seed=1)
        each.step(GOOD[mode])
    for each in (envs, vec_twin):
        each.reset(seed=1)
        each.step(np.array([GOOD[mode]] * 2))
    before, vec_before = rows(env), rows(envs)
    for kind, case, action in BAD:
        if kind != mode:
            continue
        for call in (
            lambda action=action: env.step(action),
            lambda action=action: env.to_config(action),
            lambda action=action: envs.to_config(action),
            lambda action=action: envs.step([GOOD[mode], action]),
            lambda action=action: envs.step(action),
        ):
            with pytest.raises(ValueError, match="action") as caught:
                call()
            one_line(caught)
        assert rows(env) == before, case
        assert rows(envs) == vec_before, case
    for each in (env, twin):
        each.step(GOOD[mode])
    assert rows(env) == rows(twin)
    for each in (envs, vec_twin):
        each.step(np.array([GOOD[mode]] * 2))
    assert rows(envs) == rows(vec_twin)


def test_values_outside_of_the_box_are_clipped() -> None:
    for mode in ("continuous", "relative"):
        env, twin = make(action_mode=mode), make(action_mode=mode)
        for each, action in ((env, [7.0, -1e300, 1.001]), (twin, [1, -1, 1])):
            each.reset(seed=0)
            each.step(action)
        assert rows(env) == rows(twin)


@pytest.mark.parametrize(
    "action",
    [
        [1, 0, 1],
        (1, 0, 1),
        [True, False, True],
        np.array([True, False, True]),
        np.array([1, 0, 1], np.int8),
        np.array([1, 0, 1], np.uint64),
        np.array([1, 0, 1], np.float16),
        np.array([1, 0, 1], np.float32),
        np.array([1, 0, 1], np.float64),
        np.array([1, 0, 1], np.longdouble),
    ],
    ids=lambda a: f"{type(a).__name__} {getattr(a, 'dtype', '')}",
)
def test_any_real_type_is_accepted(action: Any) -> None:
    for mode in ("continuous", "multidiscrete"):
        env = make(action_mode=mode)
        env.reset(seed=0)
        assert env.to_config(action) == env.to_config(np.array([1.0, 0.0, 1.0]))
        applied = env.step(action)[4]["hyperparameters"]
        assert applied["batch_size"] == (256 if mode == "continuous" else 64)


def test_integers_of_any_type_are_discrete_actions() -> None:
    env = make(action_mode="discrete")
    env.reset(seed=0)
    expected = env.to_config(5)
    for action in (np.int64(5), np.uint8(5), 5.0, np.float32(5), np.array(5)):
        assert env.to_config(action) == expected


def test_to_action_is_refused() -> None:
    env = make()
    env.reset(seed=0)
    for config, words in (
        ({"lr": 1}, ["'lr'", "learning_rate"]),
        ({"gamma": 0.9}, ["'gamma'", "learning_rate"]),  # known, but not controlled
        ({"epsilon": 1.5}, ["epsilon", "1.5"]),
        ({"epsilon": float("nan")}, ["epsilon", "nan"]),
        ({"learning_rate": 0.0}, ["learning_rate", "0.0"]),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            env.to_action(config)
        for word in words:
            assert word in one_line(caught)
    for mode in ("discrete", "multidiscrete"):
        with pytest.raises(ValueError, match=mode):
            make(action_mode=mode).to_action({"epsilon": 0.5})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("budget", "budget 10240 would do"),
        ("decision_interval", "decision_interval 2048 or 5120 would do"),
        ("eval_interval", "eval_interval 2048 or 5120 would do"),
    ],
)
def test_an_interval_that_cuts_a_rollout_is_refused(name: str, advice: str) -> None:
    options = {"budget": 20_480, "decision_interval": 10_240, "eval_interval": 10_240}
    options[name] = 5_000
    with pytest.raises(ValueError, match=rf"^{name} 5000 .*one rollout.*\(1024\)") as e:
        gym.make("dacrl/PPO-CartPole-v0", **options)
    assert advice in one_line(e)
