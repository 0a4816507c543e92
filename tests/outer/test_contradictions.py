"""Options that contradict each other, or are not what they look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import slow
from hypothesis import given, settings
from hypothesis import strategies as st

import dacrl_env
from dacrl_env import Number, PopulationEnv
from dacrl_env.core.checks import seed, whole
from dacrl_env.methods.search_space import SearchSpace
from dacrl_env.methods.trials import Trials
from dacrl_env.outer.intervals import Intervals
from dacrl_env.outer.settings import resolve

DQN, PPO, SGD = (
    f"dacrl/{name}-v0" for name in ("DQN-CartPole", "PPO-CartPole", "NoisyQuadratic")
)


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# -- runs in which nothing would be learned ---------------------------------------

NOTHING_LEARNED: dict[str, tuple[str, dict[str, Any]]] = {
    "budget": (DQN, {"budget": 1_000}),
    "below": (DQN, {"budget": 400}),
    "learning_starts": (DQN, {"learning_starts": 50_000}),
    "both": (DQN, {"budget": 2_000, "learning_starts": 2_000.0}),
    "sb3": (DQN, {"budget": 1_000, "implementation": "sb3"}),
    "another task": ("dacrl/DQN-MountainCar-v0", {"learning_starts": 10**6}),
}


@pytest.mark.parametrize("case", NOTHING_LEARNED)
def test_a_budget_not_above_learning_starts(case: str) -> None:
    task, options = NOTHING_LEARNED[case]
    budget = options.get("budget", dacrl_env.TASKS[task].budget)
    calls: list[Callable[[], Any]] = [
        lambda: gym.make(task, **options),
        lambda: gym.make_vec(task, num_envs=2, **options),
        lambda: PopulationEnv(task, 2, num_threads=2, **options),
        lambda: dacrl_env.evaluate(task, "default", range(2), **options),
        lambda: dacrl_env.compare(task, ["default"], range(2), **options),
        lambda: dacrl_env.fit(task, "random-search", 10**6, 0, **options),
        lambda: dacrl_env.fit(task, "controller-ppo", 10**8, 0, **options),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is not above learning_starts") as caught:
            call()
        assert f"budget {budget} " in one_line(caught)


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
def test_a_budget_just_above_learning_starts(implementation: str) -> None:
    env = gym.make(
        DQN,
        budget=400,
        decision_interval=100,
        learning_starts=396,
        eval_episodes=1,
        implementation=implementation,
    )
    env.reset(seed=0)
    infos = [env.step(np.zeros(3))[4] for _ in range(4)]
    assert [info["gradient_steps"] for info in infos] == [0, 0, 0, 1]


# -- hyperparameters --------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"hyperparameters": ["learning_rate=0.1"]}, "unknown hyperparameter"),
    "text of an object": (
        {"hyperparameters": str(Number("epsilon", 0, 1, 0.5))},
        "unknown hyperparameter",
    ),
    "ranges by name": (
        {"hyperparameters": {"learning_rate": (1e-4, 1e-2)}},
        r"list of names, Number, Choice and Event objects.*Number\(name, low",
    ),
    "a set": ({"hyperparameters": {"learning_rate", "epsilon"}}, "in the order"),
    "a number": ({"hyperparameters": 3}, "list of names"),
    "a number in it": ({"hyperparameters": ["epsilon", 3]}, "not 3; valid names"),
    "None in it": ({"hyperparameters": [None]}, "not None; valid names"),
    "a tuple in it": (
        {"hyperparameters": [("epsilon", 0, 1)]},
        r"not \('epsilon', 0, 1\); valid names",
    ),
    "a dict in it": ({"hyperparameters": [{"name": "epsilon"}]}, "not {'name'"),
    "fixed text": ({"fixed": {"gamma": "0.9"}}, "gamma must be a finite number"),
    "fixed truth": ({"fixed": {"train_freq": True}}, "train_freq must be a finite"),
    "fixed None": ({"fixed": {"gamma": None}}, "gamma must be a finite number"),
    "fixed list": ({"fixed": {"gamma": [0.9, 0.99]}}, "gamma must be a finite number"),
    "fixed array": ({"fixed": {"gamma": np.array([0.9])}}, "gamma must be a finite"),
    "fixed object": (
        {"fixed": {"gamma": Number("gamma", 0.9, 0.99, 0.95)}},
        "gamma must be a finite number",
    ),
    "fixed half": ({"fixed": {"train_freq": 2.5}}, "train_freq must be a whole number"),
    "fixed pairs": ({"fixed": [("gamma", 0.9)]}, "fixed must be a dict"),
    "fixed set": ({"fixed": {"gamma"}}, "fixed must be a dict"),
    "observe text": ({"observe_instance": "no"}, "must be True or False, got 'no'"),
    "report number": ({"report": 2}, "report must be True or False, got 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_hyperparameters_and_values(case: str) -> None:
    options, words = WRONG[case]
    for function in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=words) as caught:
            function(DQN, **options)
        one_line(caught)


FIELDS: dict[str, Any] = {"name": "a", "low": 1, "high": 3, "default": 2}
WRONG_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "text low": ({"low": "1e-4"}, "low of a must be a finite number, got '1e-4'"),
    "all text": ({"low": "1", "high": "3", "default": "2"}, "low of a must be"),
    "truth": ({"low": True}, "low of a must be a finite number"),
    "None": ({"high": None}, "high of a must be a finite number"),
    "NaN": ({"default": np.nan}, "default of a must be a finite number"),
    "infinite": ({"high": np.inf}, "high of a must be a finite number"),
    "complex": ({"high": 3j}, "high of a must be a finite number"),
    "range": ({"low": (1, 3)}, r"low of a must be a finite number, got \(1, 3\)"),
    "array": ({"low": np.array([1, 3])}, "low of a must be a finite number"),
    "scale": ({"scale": "logarithmic"}, "unknown scale 'logarithmic'.*log_complement"),
    "no scale": ({"scale": None}, "unknown scale None"),
    "integer": ({"integer": "yes"}, "integer of a must be True or False"),
    "no name": ({"name": ""}, "needs a name"),
    "a name that is none": ({"name": 3}, "needs a name, got 3"),
}


@pytest.mark.parametrize("case", WRONG_FIELDS)
def test_wrong_fields_of_a_hyperparameter(case: str) -> None:
    fields, words = WRONG_FIELDS[case]
    with pytest.raises(ValueError, match=words) as caught:
        Number(**{**FIELDS, **fields})
    one_line(caught)


def test_numbers_of_numpy_are_taken() -> None:
    lo, hi = np.array([1e-4, 1e-2])
    rate = Number("learning_rate", lo, hi, np.float32(1e-3), "log")
    assert [type(x) for x in (rate.low, rate.high, rate.default)] == [float] * 3
    size = Number(
        "batch_size", np.int64(8), np.array(64), np.uint8(32), "log", np.True_
    )
    assert [type(x) for x in (size.low, size.high, size.default)] == [int] * 3
    assert size.integer is True
    env = gym.make(
        DQN,
        hyperparameters=np.array([rate, size, "epsilon"], object),
        fixed={"gamma": np.float64(0.95), "train_freq": np.int8(8)},
    ).unwrapped
    assert env.to_config([1, 1, 0])["learning_rate"] == 1e-2
    for h in (rate, np.str_("epsilon")):  # one alone, as one name alone
        assert gym.make(DQN, hyperparameters=h).action_space.shape == (1,)


# -- ranges and choices -----------------------------------------------------------


def controlled() -> Any:
    return resolve(DQN).controlled


@pytest.mark.parametrize(
    "bounds",
    [
        (1e-4, 1e-2),
        np.array([1e-4, 1e-2]),
        (np.float64(1e-4), np.float32(1e-2)),
        tuple(np.array([1e-4, 1e-2])),
    ],
)
def test_ranges_are_taken(bounds: Any) -> None:
    space = SearchSpace(controlled(), {"learning_rate": bounds})
    (h,) = space.searched
    assert (h.low, h.high) == (1e-4, pytest.approx(1e-2))
    method = replace(
        dacrl_env.get_method("random-search"),  # type: ignore[type-var]
        space={"learning_rate": bounds},
    )
    fitted = method.fit(SGD, 50 * 4, 0, budget=50)
    assert 1e-4 <= fitted.policy.config["learning_rate"] <= 1e-2


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ([32, 128], r"\[32, 128\] for batch_size may be values to choose from"),
        ([32, 64, 128], "may be values to choose from"),
        ({32, 128}, "may be values to choose from"),
        ((32, 64, 128), r"a tuple \(low, high\), got \(32, 64, 128\)"),
        (np.array([[32, 128]]), "a tuple"),
        (64, "a tuple"),
        ("32-128", "a tuple"),
        (("32", "128"), "a bound of batch_size must be a finite number, got '32'"),
        ((32, np.nan), "a bound of batch_size must be a finite number"),
        ((128, 32), "inverted"),
    ],
)
def test_choices_are_not_read_as_ranges(bounds: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        SearchSpace(controlled(), {"batch_size": bounds})
    one_line(caught)


# -- whole numbers ----------------------------------------------------------------

SMALL: dict[str, Any] = {"budget": 400, "decision_interval": 100, "learning_starts": 99}


@pytest.mark.parametrize("number", [float, np.float64, np.int16, np.float32, np.array])
def test_one_rule_for_whole_numbers(number: Callable[[int], Any]) -> None:
    options = {
        "budget": number(400),
        "decision_interval": number(100),
        "eval_interval": number(100),
        "eval_episodes": number(2),
        "history": number(2),
        "learning_starts": number(100),
        "replay_capacity": number(300),
        "fixed": {"n_step": number(2)},
        "num_inner_envs": number(2),
        "hidden_sizes": [number(16), number(8)],
    }
    envs = gym.make_vec(DQN, num_envs=number(2), num_threads=number(1), **options)
    made = envs.unwrapped.settings
    config = made.config
    assert (config.hidden_sizes, config.replay_capacity) == ((16, 8), 300)
    for value in (made.budget, made.history, config.learning_starts, envs.num_envs):
        assert type(value) is int
    envs.reset(seed=0)
    envs.step(np.zeros((2, 3)))


@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
@pytest.mark.parametrize("sizes", [[256.0], (16.0, 8), np.array([16, 8]), [np.int8(4)]])
def test_widths_that_are_whole(sizes: Any, implementation: str) -> None:
    env = gym.make(DQN, hidden_sizes=sizes, implementation=implementation, **SMALL)
    assert env.unwrapped.settings.config.hidden_sizes == tuple(int(n) for n in sizes)
    env.reset(seed=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden_sizes": [2.5]}, "hidden size must be a whole number .* got 2.5"),
        ({"hidden_sizes": ["64"]}, "hidden size must be a whole number .* got '64'"),
        ({"hidden_sizes": [True]}, "hidden size must be a whole number .* got True"),
        ({"hidden_sizes": [64, 0]}, "hidden size must be .* at least 1, got 0"),
        ({"hidden_sizes": [np.nan]}, "hidden size must be a whole number"),
        ({"hidden_sizes": 64}, "hidden_sizes must be of type tuple"),
        ({"hidden_sizes": "64"}, "hidden_sizes must be of type tuple"),
        ({"learning_starts": 99.5}, "learning_starts must be of type int, got 99.5"),
        ({"learning_starts": True}, "learning_starts must be of type int, got True"),
        ({"budget": "400"}, "budget must be a whole number of at least 1, got '400'"),
        ({"budget": True}, "budget must be a whole number of at least 1, got True"),
        ({"budget": 400.5}, "budget must be a whole number"),
        ({"budget": np.inf}, "budget must be a whole number"),
        ({"eval_episodes": np.nan}, "eval_episodes must be a whole number"),
        ({"history": None}, "history must be a whole number"),
        ({"decision_interval": [100]}, "decision_interval must be a whole number"),
    ],
)
def test_what_is_not_whole(options: dict[str, Any], words: str) -> None:
    for function in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=words) as caught:
            function(DQN, **{**SMALL, **options})
        one_line(caught)


@pytest.mark.parametrize("number", [0, -1, 2.5, "2", True, None, np.nan, [2]])
def test_numbers_of_members_and_threads(number: Any) -> None:
    for name in ("num_envs", "num_threads"):
        if (name, number) == ("num_threads", None):
            continue  # as many as there are cores
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            PopulationEnv(SGD, **{name: number})
    with pytest.raises(ValueError, match="a tuning budget must be a whole number"):
        Trials(SGD, number, 0, None)


def test_whole() -> None:
    for value in (3, 3.0, np.int8(3), np.float64(3), np.array(3)):
        assert whole("n", value) == 3
    assert whole("n", 0, least=0) == 0
    assert whole("n", 2**70) == 2**70


# -- seeds ------------------------------------------------------------------------

NO_SEEDS = [2.5, 3.0, "3", True, np.True_, np.nan, -1, 2**63, 1j, b"3", np.float64(3)]


@pytest.mark.parametrize("value", NO_SEEDS)
def test_seeds_that_are_no_whole_numbers(value: Any, tmp_path: Path) -> None:
    from dacrl_env.studies.branching import branching
    from dacrl_env.studies.oracle import oracle

    env, envs = gym.make(SGD, budget=50), PopulationEnv(SGD, 2, budget=50)
    env.reset(seed=0)
    envs.reset(seed=0)
    before = env.unwrapped.population.state.seeds.tolist()
    calls: list[Callable[[], Any]] = [
        lambda: env.unwrapped.reset(seed=value),
        lambda: envs.reset(seed=value),
        lambda: envs.reset(seed=[1, value]),
        lambda: dacrl_env.evaluate(SGD, "default", [0, value]),
        lambda: dacrl_env.compare(SGD, ["default"], [0, value]),
        lambda: dacrl_env.compare(SGD, ["default"], [0, 1], policy_seeds=[value]),
        lambda: dacrl_env.fit(SGD, "random-search", 500, value, budget=50),
        lambda: dacrl_env.get_method("random-search").fit(SGD, 500, value, budget=50),
        lambda: dacrl_env.fit(SGD, "controller-ppo", 10**6, value, budget=50),
        lambda: oracle(SGD, seeds=[0, value], store=tmp_path, budget=50),
        lambda: branching(SGD, seed=value, budget=50),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="seeds must be whole numbers") as caught:
            call()
        assert repr(value) in one_line(caught)
    assert env.unwrapped.population.state.seeds.tolist() == before


def test_seeds_of_numpy_are_taken() -> None:
    env, envs = gym.make(SGD).unwrapped, PopulationEnv(SGD, 2)
    expected = env.reset(seed=3)[0]
    for value in (np.int64(3), np.uint8(3), np.array(3)):
        assert seed(value) == 3
        np.testing.assert_array_equal(env.reset(seed=value)[0], expected)
        envs.reset(seed=value)
        assert envs.population.state.seeds.tolist() == [3, 3]
    for several in (np.array([3, 4]), range(3, 5), (3, np.int8(4)), [3, None]):
        envs.reset(seed=several)
        assert envs.population.state.seeds.tolist()[0] == 3
    frame = dacrl_env.evaluate(SGD, "default", np.arange(2), budget=50)
    assert frame["seed"].unique().tolist() == [0, 1]


# -- what divides what ------------------------------------------------------------


def test_ppo_s_budget_has_advice_that_works() -> None:
    with pytest.raises(ValueError, match="budget 2000 does not divide") as caught:
        gym.make(PPO, budget=2_000)
    message = one_line(caught)
    assert message.endswith("; budget 20480 would do")
    gym.make(PPO, budget=20_480)
    for budget in (1024, 2048):  # what a rollout divides needs a decision_interval
        with pytest.raises(
            ValueError, match=r"; budget 20480, or decision_interval 10"
        ):
            gym.make(PPO, budget=budget)
        gym.make(PPO, budget=budget, decision_interval=1024)


def remedies(message: str) -> Iterator[dict[str, int | None]]:
    """The changes of options that a message says would do."""
    advice = re.search(r"; ([^;]*) would do$", message)
    assert advice, message
    both = re.fullmatch(
        r"budget (\d+) with decision_interval (\d+)( and no eval_interval)?", advice[1]
    )
    if both:
        changed: dict[str, int | None] = {
            "budget": int(both[1]),
            "decision_interval": int(both[2]),
        }
        if both[3]:
            changed["eval_interval"] = None
        yield changed
        return
    for part in advice[1].split(", or "):
        name, _, values = part.partition(" ")
        for value in values.split(" or "):
            yield {name: int(value)}


STEPS = st.integers(1, 3_000)


@settings(max_examples=300, deadline=None)
@given(
    budget=STEPS,
    decision=st.none() | STEPS,
    evaluation=st.none() | STEPS,
    decisions=st.sampled_from([1, 4, 20, 50]),
    unit=st.sampled_from([1, 3, 8, 100, 1024]),
)
def test_every_advice_works(
    budget: int,
    decision: int | None,
    evaluation: int | None,
    decisions: int,
    unit: int,
) -> None:
    options: dict[str, Any] = {
        "budget": budget,
        "decision_interval": decision,
        "eval_interval": evaluation,
    }

    def completed(options: dict[str, Any]) -> tuple[int, int, int]:
        return Intervals(*options.values(), decisions, unit, "a unit").completed()

    try:
        made = completed(options)
    except ValueError as error:
        for change in remedies(str(error)):
            made = completed({**options, **change})
    assert made[0] % made[1] == made[0] % made[2] == made[1] % unit == 0
    assert max(made[1:]) % min(made[1:]) == made[2] % unit == 0


def test_a_report_needs_a_budget_that_works() -> None:
    with pytest.raises(ValueError, match=r"too small to report.*at least (\d+)") as e:
        gym.make(PPO, budget=2048, decision_interval=1024, report=True)
    least = int(re.findall(r"at least (\d+)", one_line(e))[0])
    assert least == 20_480
    gym.make(PPO, budget=least, decision_interval=1024, report=True)


# -- small rows of Stable-Baselines3's --------------------------------------------


class Scalar(gym.Env[Any, Any]):
    """One number is all that is seen."""

    observation_space = gym.spaces.Box(-1, 1, ())
    action_space: Any = gym.spaces.Discrete(2)

    def _seen(self) -> Any:
        return np.float32(self.np_random.uniform(-1, 1))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._seen(), float(action), False, self.t >= 20, {}


class ScalarAction(Scalar):
    """… and done."""

    action_space = gym.spaces.Box(-1, 1, ())


gym.register("dacrl-tests/Scalar-v0", Scalar)
gym.register("dacrl-tests/ScalarAction-v0", ScalarAction)


@pytest.mark.parametrize("implementation", ["compiled", slow("sb3")])
@pytest.mark.parametrize(
    ("inner", "algorithm"),
    [("Scalar", "dqn"), ("Scalar", "ppo"), ("ScalarAction", "ppo")],
)
def test_observations_that_are_single_numbers(
    inner: str, algorithm: str, implementation: str
) -> None:
    task = dacrl_env.Task(
        id="dacrl-tests/Scalars-v0",
        inner_env=f"dacrl-tests/{inner}-v0",
        algorithm=algorithm,
        budget=800,
        decisions=4,
        random_return=0.0,
        reference_return=20.0,
        floor_return=-30.0,
    )
    options = {"learning_starts": 100}
    if algorithm == "ppo":
        options = {"num_inner_envs": 2, "rollout_length": 50}
    env = dacrl_env.DynamicConfigEnv(
        task, implementation=implementation, eval_episodes=1, **options
    )
    env.reset(seed=0)
    for _ in range(4):
        *_, info = env.step(np.zeros(3))
    assert info["gradient_steps"] > 0
    assert not info["diverged"]


@pytest.mark.parametrize(
    "options",
    [
        {"num_inner_envs": 2},
        {"num_inner_envs": 1, "normalize_advantages": False},
        {"num_inner_envs": 4, "hidden_sizes": [8.0]},
    ],
)
@pytest.mark.parametrize("implementation", ["compiled", "sb3"])
def test_rollouts_of_one_step(options: dict[str, Any], implementation: str) -> None:
    env = gym.make(
        PPO,
        rollout_length=1,
        budget=80,
        implementation=implementation,
        feedback="train",
        **options,
    )
    env.reset(seed=0)
    *_, info = env.step(np.zeros(3))
    assert info["gradient_steps"] > 0


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dacrl_env.cli.commands import main

    arguments = [DQN, "--policies", "default", "--seeds", "2"]
    out = ["--out", str(tmp_path / "out"), "--num-threads", "1"]
    for more in (["--run-budget", "1000"], ["--set", "learning_starts=50000"]):
        assert main(["compare", *arguments, *more, *out]) == 2
        error = capsys.readouterr().err
        assert "is not above learning_starts" in error
        assert "Traceback" not in error
