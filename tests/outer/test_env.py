"""The single outer environment, over every registered task."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from cases import EVERY_KIND, quick, registered, varied
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import dacrl_env
from dacrl_env.core.streams import PURPOSES, SPLITS, member_keys
from dacrl_env.outer.actions import ACTION_MODES
from dacrl_env.outer.rewards import RewardContext
from dacrl_env.outer.settings import FEEDBACK
from dacrl_env.tasks import REPORT_EPISODES, Event, Number

# the conformance task has no inner environment; baselines/test_quadratic.py tests it
TASKS = sorted(t for t in registered() if dacrl_env.TASKS[t].inner_env)
DQN = "dacrl/DQN-CartPole-v0"
DECISIONS = 4
# feedback has no part in what actions mean: both kinds with one mode
MODES_AND_FEEDBACK = [
    *((mode, "train") for mode in ACTION_MODES),
    ("continuous", "eval"),
]
# what makes a run of 400 steps contain updates, by learner
SMALL: dict[str, dict[str, Any]] = {
    "dqn": {"learning_starts": 100},
    "discrete_sac": {"learning_starts": 100},
    "pipeline": {"rollout_length": 20, "learning_starts": 100},
    "ppo": {"num_inner_envs": 2, "rollout_length": 10},
    "sac": {"learning_starts": 100},
}
EPISODES = 3


def make(task: str = DQN, **options: Any) -> Any:
    small = SMALL.get(dacrl_env.TASKS[task].algorithm, {})
    defaults = {"budget": 400, "decision_interval": 100, "eval_episodes": EPISODES}
    return gym.make(task, **{**defaults, **small, **options}).unwrapped


def run(env: Any, actions: Any = None, seed: int | None = 3) -> list[tuple[Any, ...]]:
    """One whole run: the reset's ``(observation, info)``, then every step's results."""
    results: list[tuple[Any, ...]] = [env.reset(seed=seed)]
    over = False
    while not over:
        action = neutral(env) if actions is None else actions[len(results) - 1]
        results.append(env.step(action))
        over = results[-1][2]
    return results


def neutral(env: Any) -> Any:
    """The action that changes nothing."""
    d = len(env.settings.controlled)
    if env.settings.action_mode == "discrete":
        return (3**d - 1) // 2
    if env.settings.action_mode == "multidiscrete":
        return np.ones(d, np.int64)
    return np.zeros(d, np.float32)


def sampled(env: Any, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(DECISIONS)]


def samples_of(task: str, mode: str, **options: Any) -> dict[str, Any]:
    """Options with which what an action space samples is an action.

    In mode "values" options have numbers, and most of what lies between is refused.
    """
    if mode != "values":
        return {}
    controlled = make(task, **options).settings.controlled
    return {"hyperparameters": [h.name for h in controlled if isinstance(h, Number)]}


def poison(env: Any) -> None:
    """Make the run diverge at its next update."""
    env.population.state.learner.parameters[...] = math.nan


def same(a: Any, b: Any) -> bool:
    """Equal step results, whatever they are nested in; wall clock excepted."""
    if isinstance(a, dict):
        keys = a.keys() - {"wall_seconds"}
        return keys == b.keys() - {"wall_seconds"} and all(
            same(a[k], b[k]) for k in keys
        )
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b)) and type(a) is type(b)


# -- Gymnasium ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "mode", "feedback"), varied(TASKS, MODES_AND_FEEDBACK)
)
def test_gymnasium_checker(task: str, mode: str, feedback: str) -> None:
    more = samples_of(task, mode)
    env = make(task, action_mode=mode, feedback=feedback, **more)
    with warnings.catch_warnings():
        if mode == "values":  # which are neither symmetric nor normalised
            warnings.filterwarnings("ignore", ".*symmetric and normalized", UserWarning)
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_no_warnings(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym.logger, "min_level", 0)  # let every message through
    options = {"budget": 400, "decision_interval": 100, "eval_episodes": EPISODES}
    options |= SMALL.get(dacrl_env.TASKS[task].algorithm, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # where a base has made a newer version
        warnings.filterwarnings("ignore", ".*dacrl/.* is out of date")
        env = gym.make(task, **options)  # with Gymnasium's passive checker
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.close()
        envs = gym.make_vec(task, num_envs=2, **options)
        envs.reset(seed=0)
        envs.step(envs.action_space.sample())
        envs.close()


@pytest.mark.parametrize("mode", ACTION_MODES)
@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_spaces(task: str, mode: str) -> None:
    env = make(task, action_mode=mode)
    controlled = env.settings.controlled
    steps = [3 if isinstance(h, Number) else len(h.options) for h in controlled]
    d = len(controlled)
    expected: gym.Space[Any] = gym.spaces.Box(-1, 1, (d,), np.float32)
    if mode == "discrete":
        expected = gym.spaces.Discrete(math.prod(steps))
    elif mode == "multidiscrete":
        expected = gym.spaces.MultiDiscrete(steps)
    elif mode == "values":
        ends = [
            (h.low, h.high) if isinstance(h, Number) else (0, len(h.options) - 1)
            for h in controlled
        ]
        low, high = np.array(ends, float).T
        expected = gym.spaces.Box(low, high, dtype=np.float64)
    assert env.action_space == expected
    D = len(env.observation_names)
    assert env.observation_space == gym.spaces.Box(-1, 1, (D,), np.float32)
    assert len(set(env.observation_names)) == D
    for h in controlled:
        if isinstance(h, Number):
            assert f"hp/{h.name}" in env.observation_names
        else:
            assert f"hp/{h.name}={h.options[-1]}" in env.observation_names


def test_default_task_has_the_documented_defaults() -> None:
    env = gym.make(DQN).unwrapped
    s = env.settings  # type: ignore[attr-defined]
    assert [h.name for h in s.controlled] == ["learning_rate", "epsilon", "batch_size"]
    assert (s.action_mode, s.split, s.feedback) == ("continuous", "tuning", "eval")
    assert s.eval_episodes == 10
    assert s.budget // s.decision_interval == 20


# -- observations ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "mode", "feedback"), varied(TASKS, MODES_AND_FEEDBACK)
)
def test_observations_stay_within_bounds(task: str, mode: str, feedback: str) -> None:
    more = samples_of(task, mode)
    if dacrl_env.TASKS[task].algorithm == "pipeline":  # another one would not diverge
        more |= {"fixed": {"algorithm": "sac", "features": "fourier"}}
        more |= {"hyperparameters": ["sac.learning_rate", "sac.ent_rule", "reset_head"]}
        more |= samples_of(task, mode, **more)
    env = make(task, action_mode=mode, feedback=feedback, history=2, **more)
    for diverges in (False, True):
        observation, _ = env.reset(seed=4)
        assert env.observation_space.contains(observation)
        for k, action in enumerate(sampled(env)):
            if diverges and k == 2:
                poison(env)
            observation, _, terminated, truncated, info = env.step(action)
            assert env.observation_space.contains(observation)
            assert truncated is False
            assert info["diverged"] is (diverges and k == 2)
            assert terminated is (info["diverged"] or k == DECISIONS - 1)
            if terminated:
                break


@pytest.mark.parametrize("corner", [-1.0, 1.0])
@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_extreme_hyperparameters(task: str, corner: float) -> None:
    names = [h.name for h in make(task).settings.hyperparameters]
    env = make(task, hyperparameters=names, budget=200)
    observation, _ = env.reset(seed=1)
    terminated = False
    while not terminated:
        observation, reward, terminated, _, _ = env.step(np.full(len(names), corner))
        assert env.observation_space.contains(observation)
        assert math.isfinite(reward)


def test_rows_say_what_their_names_promise() -> None:
    env = make()
    row = {name: k for k, name in enumerate(env.observation_names)}
    observation, _ = env.reset(seed=0)
    assert observation[row["progress"]] == -1
    for name in ("return/now", "return/best", "return/since_best"):
        assert observation[row[name]] == -1  # nothing but a first return yet
    assert observation[row["return/slope"]] == 0
    assert observation[row["hp/learning_rate"]] == pytest.approx(0.2)  # 3 of 5 decades
    returns = [env.step([0, 0, 0])[4]["eval_return"]]
    for k in range(2, DECISIONS + 1):
        observation, _, _, _, info = env.step([-1, 1, 1])
        returns.append(info["eval_return"])
        assert observation[row["progress"]] == 2 * k / DECISIONS - 1
        assert observation[row["hp/learning_rate"]] == -1
        assert observation[row["hp/epsilon"]] == 1
        assert observation[row["hp/batch_size"]] == 1
        level = math.copysign(math.log10(1 + abs(returns[-1])) / 8, returns[-1])
        assert observation[row["return/level"]] == pytest.approx(level)
        change = observation[row["return/slope"]]
        assert np.sign(change) == np.sign(returns[-1] - returns[-2])
    assert observation[row["signal/loss"]] > -1
    assert observation[row["signal/update_ratio"]] > -1
    assert observation[row["episode_length"]] > -1


def test_history_stacks_newest_first() -> None:
    plain, stacked = make(), make(history=3)
    D = len(plain.observation_names)
    assert stacked.observation_names[:D] == plain.observation_names
    assert stacked.observation_names[D] == plain.observation_names[0] + "@-1"
    assert stacked.observation_names[-1] == plain.observation_names[-1] + "@-2"
    seen = [result[0] for result in run(plain)]
    for k, result in enumerate(run(stacked)):
        expected = [seen[max(k - age, 0)] for age in range(3)]
        np.testing.assert_array_equal(result[0], np.concatenate(expected))


def test_instances() -> None:
    heavy = dacrl_env.Instance("heavy", {"gravity": 4 * 9.8, "force": 5.0})
    plain = dacrl_env.Instance("plain")
    env = make(instances=[heavy, plain], observe_instance=True)
    row = {name: k for k, name in enumerate(env.observation_names)}
    seen = {}
    for name in ("heavy", "plain"):
        observation, info = env.reset(seed=2, options={"instance": name})
        seen[name] = observation, info["score"]
    heavy_row = seen["heavy"][0]
    assert heavy_row[row["instance/gravity"]] == pytest.approx(1.0)  # log2(4) / 2
    assert heavy_row[row["instance/force"]] == pytest.approx(-0.5)
    assert seen["plain"][0][row["instance/gravity"]] == 0
    assert seen["heavy"][1] != seen["plain"][1]  # and not in the observation alone
    drawn = {env.reset(seed=s)[0][row["instance/force"]] for s in range(12)}
    assert len(drawn) == 2


def test_values_beyond_the_scale_are_clipped() -> None:
    far = dacrl_env.Instance("far", {"gravity": 1e3, "force": 1e-3})
    env = make(instances=[far], observe_instance=True)
    row = {name: k for k, name in enumerate(env.observation_names)}
    observation, _ = env.reset(seed=2)
    assert observation[row["instance/gravity"]] == 1
    assert observation[row["instance/force"]] == -1
    signals = env.population.learner.signals
    for value in (1e30, -1e30, math.inf, -math.inf, math.nan):

        def extreme(*arguments: Any, value: float = value) -> dict[str, Any]:
            return {name: x * 0 + value for name, x in signals(*arguments).items()}

        env.population.learner.signals = extreme
        env.reset(seed=2)
        observation, *_ = env.step(neutral(env))
        assert env.observation_space.contains(observation), value


def test_instance_constants_are_hidden_unless_asked_for() -> None:
    assert not any(n.startswith("instance/") for n in make().observation_names)


# -- rewards and the end ----------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "diverges", "feedback"),
    varied(TASKS, itertools.product([False, True], FEEDBACK)),
)
def test_reward_identities(task: str, diverges: bool, feedback: str) -> None:
    rewards: dict[str, list[float]] = {}
    for mode in ("progress", "best", "auc", "final"):
        env = make(task, reward=mode, feedback=feedback)
        _, info = env.reset(seed=5)
        scores, rewards[mode], terminated = [info["score"]], [], False
        while not terminated:
            if diverges and len(scores) == 3:
                poison(env)
            _, reward, terminated, _, info = env.step(neutral(env))
            assert type(reward) is float
            rewards[mode].append(reward)
            scores.append(info["score"])
    (floor,) = env.population.references().floor_score
    assert info["diverged"] is diverges
    assert len(scores) == (4 if diverges else DECISIONS + 1)
    assert (scores[-1] == floor) == diverges
    assert floor < min(scores[:-1])
    # a diverged run stays at the floor for the rest of its budget
    curve = scores[1:] + [floor] * (DECISIONS + 1 - len(scores))
    area = sum(curve) / DECISIONS
    objectives = info["objectives"]
    assert sum(rewards["progress"]) == pytest.approx(scores[-1] - scores[0])
    assert sum(rewards["best"]) == pytest.approx(max(scores) - scores[0])
    assert min(rewards["best"]) >= 0
    assert sum(rewards["auc"]) == pytest.approx(area)
    assert objectives["auc"] == pytest.approx(area)
    assert rewards["final"][:-1] == [0] * (len(scores) - 2)
    assert rewards["final"][-1] == objectives["final"] == scores[-1]
    assert objectives["best"] == max(scores)


def test_scores_are_the_task_s() -> None:
    env = make()
    task = dacrl_env.get_task(DQN)
    for _, *_, info in run(env):
        assert info["score"] == task.score(info["eval_return"])
    assert task.score(task.random_return) == 0
    assert task.score(task.reference_return) == 1


def test_reward_of_one_s_own() -> None:
    contexts: list[RewardContext] = []

    def reward(context: RewardContext) -> Any:
        contexts.append(context)
        return 10 * context.fraction - context.remaining

    env = make(reward=reward)
    rewards = [step[1] for step in run(env)[1:]]
    np.testing.assert_allclose(rewards, [1.75, 2.0, 2.25, 2.5])
    assert [c.ended[0] for c in contexts] == [False, False, False, True]


@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_stepping_outside_of_a_run(task: str) -> None:
    env = make(task)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(neutral(env))
    with pytest.raises(gym.error.ResetNeeded):
        env.snapshot()
    run(env)
    for _ in range(2):
        with pytest.raises(gym.error.ResetNeeded):
            env.step(neutral(env))
    env.reset()
    poison(env)
    env.step(neutral(env))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(neutral(env))
    env.reset()
    env.step(neutral(env))


# -- infos ------------------------------------------------------------------------

KEYS = {
    "env_steps": int,
    "eval_steps": int,
    "gradient_steps": int,
    "score": float,
    "eval_return": float,
    "train_return": float,
    "hyperparameters": dict,
    "objectives": dict,
    "diverged": bool,
}
OBJECTIVES = {
    "final": float,
    "best": float,
    "auc": float,
    "training_steps": int,
    "evaluation_steps": int,
    "gradient_steps": int,
    "samples": int,
    "flops": int,
}


@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_info(task: str) -> None:
    env = make(task)
    known = {}
    by_name = {h.name: h for h in env.settings.hyperparameters}
    for h in env.settings.hyperparameters:
        needs, active = h.condition, True
        while needs:
            choice = by_name[needs.choice]
            active &= choice.default in needs.options
            needs = choice.condition
        if not active:
            continue
        if isinstance(h, Number):
            known[h.name] = int if h.integer else float
        else:
            known[h.name] = type(h.default)
    results = run(env)
    ended = False
    events = any(isinstance(h, Event) for h in env.settings.controlled)
    keys = KEYS | {"ignored": str} if events else KEYS
    for k, (_, *_, info) in enumerate(results):
        kinds = {key: type(value) for key, value in info.items()}
        assert "train_return" in info or not ended
        ended = "train_return" in info  # once a training episode has ended
        assert {"train_return": float, **kinds} == keys
        assert not (ended and k == 0)
        hyperparameters = info["hyperparameters"]
        assert {n: type(v) for n, v in hyperparameters.items()} == known
        last = k == len(results) - 1
        expected = {**OBJECTIVES, "wall_seconds": float} if last else OBJECTIVES
        objectives = info["objectives"]
        assert {n: type(v) for n, v in objectives.items()} == expected
        assert info["env_steps"] == objectives["training_steps"] == 100 * k
        assert info["eval_steps"] == objectives["evaluation_steps"]
        assert info["gradient_steps"] == objectives["gradient_steps"]
    assert ended == env.population.state.learner.envs.episodes.any()
    assert info["gradient_steps"] > 0
    assert objectives["samples"] > 0
    assert objectives["wall_seconds"] > 0


@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_training_feedback_costs_nothing(task: str) -> None:
    env = make(task, feedback="train")
    results = run(env)
    for _, *_, info in results:
        assert info["eval_steps"] == 0
        assert "eval_return" not in info
        seen = info.get("train_return")
        scores = env.population.references().score
        assert info["score"] == (0 if seen is None else scores(seen))
    assert len(results) == DECISIONS + 1
    ended = env.population.state.learner.envs.episodes.any()
    assert (seen is not None) == ended


# -- actions ------------------------------------------------------------------------

ALL = (
    "learning_rate",
    "epsilon",
    "batch_size",
    "gamma",
    "target_update_interval",
    "train_freq",
    "gradient_steps",
    "max_grad_norm",
    "replay_window",
    "n_step",
    "q_regularisation",
    "tau",
    "priority_alpha",
)
UNIT = st.floats(-1, 1)


@pytest.fixture(scope="module")
def continuous() -> Any:
    return make(hyperparameters=ALL, budget=2000)


@pytest.fixture(scope="module")
def relative() -> Any:
    return make(hyperparameters=ALL, budget=2000, action_mode="relative")


def test_marks_are_exact(continuous: Any) -> None:
    for mark, end in ((-1, "low"), (0, "default"), (1, "high")):
        values = continuous.population.actions.to_values(
            np.full((1, len(ALL)), mark), continuous.population.state.requested
        )
        for h, value in zip(continuous.settings.controlled, values[0], strict=True):
            assert value == getattr(h, end), h.name


def test_the_default_action_is_the_default_configuration(continuous: Any) -> None:
    config = continuous.to_config(np.zeros(len(ALL)))
    assert config == {
        "learning_rate": 1e-3,
        "epsilon": 0.1,
        "batch_size": 64,
        "gamma": 0.99,
        "target_update_interval": 500,
        "train_freq": 4,
        "gradient_steps": 1,
        "max_grad_norm": 10.0,
        "replay_window": 2_000,
        "n_step": 1,
        "q_regularisation": 0.0,
        "tau": 1.0,
        "priority_alpha": 0.0,
    }
    types = [type(v) for v in config.values()]
    numbers = [float, float, int, float, int, int, int, float, int, int]
    assert types == [*numbers, float, float, float]
    halfway = continuous.to_config([-0.5, 0.5, 0.5, 0.5, -1, -0.5, 0, 0.5, *[0] * 5])
    assert halfway["learning_rate"] == pytest.approx(1e-3 * 1e-3**0.5)  # of 1e-6…1e-3
    assert halfway["epsilon"] == pytest.approx(0.55)
    assert halfway["batch_size"] == 128
    assert 1 - halfway["gamma"] == pytest.approx(1e-3)
    assert halfway["train_freq"] == 2
    assert halfway["max_grad_norm"] == pytest.approx(10**1.5)


@settings(deadline=None)
@given(st.lists(UNIT, min_size=len(ALL), max_size=len(ALL)))
def test_continuous_round_trip(continuous: Any, action: list[float]) -> None:
    config = continuous.to_config(action)
    for h in continuous.settings.controlled:
        assert h.low <= config[h.name] <= h.high
    back = continuous.to_action(config)
    assert back.dtype == np.float32
    assert continuous.action_space.contains(back)
    again = continuous.to_config(back)
    for h in continuous.settings.controlled:
        assert again[h.name] == pytest.approx(config[h.name], rel=1e-5, abs=1e-6)
    # where nothing is rounded and the range goes on, the action itself comes back
    for k, h in enumerate(continuous.settings.controlled):
        inside = h.low < config[h.name] < h.high
        if inside and not h.integer:
            assert back[k] == pytest.approx(action[k], abs=1e-4)


@settings(deadline=None)
@given(
    st.lists(UNIT, min_size=len(ALL), max_size=len(ALL)),
    st.lists(UNIT, min_size=len(ALL), max_size=len(ALL)),
)
def test_relative_actions(
    continuous: Any, relative: Any, start: list[float], move: list[float]
) -> None:
    absolute, map_ = continuous.population.actions, relative.population.actions
    current = absolute.to_values([start], absolute.defaults(1))
    held = map_.to_values(np.zeros((1, len(ALL))), current)
    np.testing.assert_array_equal(held, current)
    moved = map_.to_values([move], current)
    for k, h in enumerate(relative.settings.controlled):
        value, now = moved[0, k], current[0, k]
        if h.scale == "linear":
            asked = now + move[k] * (h.high - h.low) / 4
        elif h.scale == "log":
            asked = now * 4 ** move[k]
        else:
            asked = 1 - (1 - now) / 4 ** move[k]
        assert value == pytest.approx(np.clip(asked, h.low, h.high), rel=1e-9)
    there = map_.to_actions(dict(zip(ALL, moved.T, strict=True)), current)
    np.testing.assert_allclose(map_.to_values(there, current), moved, rtol=1e-9)


def test_small_relative_moves_add_up() -> None:
    env = make(action_mode="relative", hyperparameters=("batch_size",))
    env.reset(seed=0)
    sizes = [env.step([0.004])[4]["hyperparameters"]["batch_size"] for _ in range(4)]
    # each move is below half a unit: 64.36, 64.71, 65.07, 65.44
    assert (
        sizes == [round(64 * 4 ** (0.004 * k)) for k in range(1, 5)] == [64, *[65] * 3]
    )


def test_to_config_says_what_a_step_applies() -> None:
    for mode in ACTION_MODES:
        env = make(action_mode=mode, hyperparameters=ALL[:4])
        env.reset(seed=0)
        for action in sampled(env, seed=7):
            promised = env.to_config(action)
            applied = env.step(action)[4]["hyperparameters"]
            assert promised == {name: applied[name] for name in ALL[:4]}


def test_values_are_applied_to_the_last_bit() -> None:
    env = make(action_mode="values", hyperparameters=ALL[:4])
    env.reset(seed=0)
    for h in env.settings.controlled:
        for value in (h.low, h.high, h.default, (h.low + 2 * h.high) / 3):
            action = env.to_action({h.name: value})
            assert action.dtype == np.float64
            expected = {k.name: k.default for k in env.settings.controlled}
            expected[h.name] = round(value) if h.integer else value
            assert env.to_config(action) == expected


def test_a_value_beside_its_range_by_rounding_is_put_on_its_edge() -> None:
    env = make(action_mode="values", hyperparameters=("learning_rate",))
    assert env.to_config([0.1 * (1 + 1e-12)]) == {"learning_rate": 0.1}
    for value in (0.1 * (1 + 1e-6), 0.0, -1e-3, 1e-6 * (1 - 1e-2)):
        with pytest.raises(ValueError, match=r"learning_rate = .* outside its range"):
            env.to_config([value])


def test_discrete_and_multidiscrete_agree() -> None:
    joint, apart = (make(action_mode=m) for m in ("discrete", "multidiscrete"))
    joint.reset(seed=0)
    apart.reset(seed=0)
    for number, digits in enumerate(itertools.product(range(3), repeat=3)):
        assert joint.to_config(number) == apart.to_config(digits)
    assert joint.to_config(0) == pytest.approx(
        {"learning_rate": 5e-4, "epsilon": 0.0, "batch_size": 32}  # ÷ 2 or − 1/8
    )
    assert joint.to_config(26) == pytest.approx(
        {"learning_rate": 2e-3, "epsilon": 0.225, "batch_size": 128}
    )
    numbers = [0, 26, 5, 16]
    digits = [np.unravel_index(n, (3, 3, 3)) for n in numbers]
    assert same(run(joint, numbers), run(apart, digits))


def test_applied_values_are_rounded_and_capped() -> None:
    env = make(
        hyperparameters=("batch_size", "train_freq", "gradient_steps", "learning_rate"),
        replay_capacity=50,
    )
    env.reset(seed=0)
    _, _, _, _, info = env.step([0.3, -1, 1, 0])
    values = info["hyperparameters"]
    assert values["batch_size"] == 50  # the replay's capacity; asked for: 97
    assert values["train_freq"] == 1
    assert values["gradient_steps"] == 4  # 4 × train_freq; asked for: 256
    assert info["gradient_steps"] == 0  # nothing is learned before learning_starts
    _, _, _, _, info = env.step([-0.53, 0.2, 0.9, 0])
    values = info["hyperparameters"]
    assert values["batch_size"] == round(64 / 16**0.53)
    assert values["train_freq"] == round(4 * 64**0.2)
    assert values["gradient_steps"] == 4 * values["train_freq"]
    events = 100 // values["train_freq"]
    assert info["gradient_steps"] == events * values["gradient_steps"]
    assert info["objectives"]["samples"] == (
        info["gradient_steps"] * values["batch_size"]
    )


def test_narrowed_range_and_fixed_values() -> None:
    narrow = dacrl_env.Number("learning_rate", 1e-4, 1e-2, 2e-4, "log")
    env = make(hyperparameters=(narrow,), fixed={"gamma": 0.9, "batch_size": 32})
    env.reset(seed=0)
    ends = [env.to_config([mark])["learning_rate"] for mark in (-1, 0, 1)]
    assert ends == [1e-4, 2e-4, 1e-2]
    values = env.step([0])[4]["hyperparameters"]
    assert (values["gamma"], values["batch_size"]) == (0.9, 32)
    assert values["learning_rate"] == 2e-4
    assert values["epsilon"] == 0.1


# -- seeds ------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "feedback"), varied(TASKS, FEEDBACK))
def test_same_seed_same_run(task: str, feedback: str) -> None:
    env = make(task, feedback=feedback)
    actions = sampled(env)
    first = run(env, actions)
    assert same(run(env, actions), first)
    assert same(run(make(task, feedback=feedback), actions), first)
    assert not same(run(env, actions, seed=4), first)


def test_unseeded_resets_continue() -> None:
    one, other = make(), make()
    one.reset(seed=6)
    second, third = run(one, seed=None), run(one, seed=None)
    other.reset(seed=6)
    other.step([0, 0, 0])  # where the run stood does not matter
    assert same(run(other, seed=None), second)
    assert same(run(other, seed=None), third)
    assert not same(second, third)
    first = run(one, seed=6)
    assert not same(first, second)


@pytest.mark.parametrize("task", quick(TASKS, *EVERY_KIND))
def test_a_diverged_run_leaves_nothing_behind(task: str) -> None:
    env = make(task)
    undisturbed = run(env, seed=2)
    env.reset(seed=1)
    env.step(neutral(env))
    poison(env)
    assert env.step(neutral(env))[4]["diverged"]
    assert same(run(env, seed=2), undisturbed)


def test_zero_is_a_seed() -> None:
    zero = run(make(), seed=0)
    env = make()
    env.reset(seed=5)
    env.reset()
    assert same(run(env, seed=0), zero)
    assert not same(run(env, seed=None), zero)


def test_environments_without_a_seed_differ() -> None:
    assert not same(run(make(), seed=None), run(make(), seed=None))


def test_splits_never_share_a_stream() -> None:
    numbers = itertools.product(SPLITS, range(20), range(4), range(4))
    keys = [tuple(member_keys(*address)) for address in numbers]
    words = {word for row in keys for word in row}
    assert len(words) == len(keys) * len(PURPOSES)
    tuning, test = (make(split=split) for split in ("tuning", "test"))
    starts = {}
    for name, env in (("tuning", tuning), ("test", test)):
        runs = []
        for seed, _ in itertools.product(range(5), range(2)):
            env.reset(seed=seed if not runs or len(runs) % 2 == 0 else None)
            learner = env.population.state.learner
            runs.append(
                (
                    learner.parameters.tobytes(),
                    learner.envs.observations.tobytes(),
                    learner.keys.tobytes(),
                )
            )
        starts[name] = runs
    for kind in zip(*starts["tuning"], *starts["test"], strict=False):
        assert len(set(kind)) == len(kind)
    assert not same(run(tuning, seed=1), run(test, seed=1))


def test_report_is_a_stream_no_policy_sees() -> None:
    plain, reported = (
        make(eval_episodes=REPORT_EPISODES, report=report) for report in (False, True)
    )
    assert same(run(plain), run(reported))
    reports = reported.population.state.reports[0]
    assert np.isfinite(reports).all()
    # as many episodes of the same network, yet other ones
    _, info = plain.reset(seed=3)
    assert reports[0] != info["score"]
    assert np.isnan(plain.population.state.reports).all()


# -- what was found by reading ------------------------------------------------------


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ArithmeticError])
def test_a_step_that_was_interrupted_cannot_be_gone_on_from(failure):
    env = make(decision_interval=200)
    env.reset(seed=3)
    before = env.snapshot()
    train = env.population.learner.train

    def interrupted(*arguments):
        train(*arguments)
        raise failure

    env.population.learner.train = interrupted
    with pytest.raises(failure):
        env.step(neutral(env))
    env.population.learner.train = train
    for _ in range(2):
        with pytest.raises(gym.error.ResetNeeded, match="did not reach its end"):
            env.step(neutral(env))
    env.restore(before)
    results = [env.step(neutral(env)) for _ in range(2)]
    assert results[-1][2]
    assert results[-1][4]["env_steps"] == 400
    env.population.learner.train = interrupted
    env.reset(seed=3)
    with pytest.raises(failure):
        env.step(neutral(env))
    env.population.learner.train = train
    env.reset()
    env.step(neutral(env))


def test_an_action_that_is_refused_interrupts_nothing():
    env = make()
    env.reset(seed=3)
    with pytest.raises(ValueError, match="shape"):
        env.step([0.0])
    env.step(neutral(env))


def test_a_run_of_a_population_is_followed_by_those_of_its_member():
    options = {"budget": 400, "decision_interval": 100, "eval_episodes": EPISODES}
    envs = gym.make_vec(DQN, num_envs=3, **SMALL["dqn"], **options).unwrapped
    envs.reset(seed=5)
    alone = make()
    alone.reset(options={"snapshot": envs.snapshot().select([2])})
    alone.reset()
    envs.reset()
    keys = alone.population.state.learner.keys
    assert (keys[0] == envs.population.state.learner.keys[2]).all()
    # a seed names member 0 again
    alone.reset(seed=5)
    envs.reset(seed=5)
    keys = alone.population.state.learner.keys
    assert (keys[0] == envs.population.state.learner.keys[0]).all()


def test_relative_actions_go_on_from_what_can_be_applied():
    """Else lowering a value that was asked for beyond its cap would do nothing."""
    names = ("gradient_steps", "batch_size")
    env = make(
        hyperparameters=names,
        action_mode="relative",
        replay_capacity=100,
        fixed={"train_freq": 1},
    )
    env.reset(seed=3)
    for _ in range(3):
        most = env.step([1, 1])[4]["hyperparameters"]
    assert most["batch_size"] == 100
    assert most["gradient_steps"] < 64
    less = env.step([-1, -1])[4]["hyperparameters"]
    for name in names:
        assert less[name] < most[name]


def test_the_area_of_a_diverged_run_is_counted_once():
    population = make(feedback="train").population
    one = np.zeros(1, np.int64)
    population.start(one, one, one, one)
    population.state.learner.parameters[:] = math.nan
    areas = []
    for _ in range(3):
        population.advance(population.state.requested.copy())
        areas.append(population.state.auc[0])
    assert population.ended().all()
    assert areas == [areas[0]] * 3
    assert areas[0] == pytest.approx(population.references().floor_score[0])


def test_signals_below_zero_are_told_apart():
    task = "dacrl/PPO-Pendulum-v0"
    env = make(task, budget=400)
    signals = env.population.learner.signals
    shown = []
    for value in (-2.0, -0.2, -0.002, 0.0, 0.002, 0.2, 2.0):
        env.reset(seed=3)

        def given(*arguments, value=value):
            real = signals(*arguments)
            return real | {k: np.full(1, value) for k in ("loss", "entropy")}

        env.population.learner.signals = given
        row = dict(zip(env.observation_names, env.step(neutral(env))[0], strict=True))
        shown.append([row["signal/loss"], row["signal/entropy"]])
    rows = np.array(shown)
    assert (np.diff(rows, axis=0) > 0.01).all()
    np.testing.assert_allclose(rows, -rows[::-1], atol=1e-7)
