"""Lookup by name, and what each baseline asks of a population."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from cases import cases, registered

import dacrl_env
from dacrl_env import Number, get_task
from dacrl_env.comparison.evaluation import suitable_options
from dacrl_env.policies import POLICIES, get_method, get_policy, needs
from dacrl_env.policies.schedules import SHAPES, Schedule
from dacrl_env.tasks.rungs import NAMES

TASK = "dacrl/DQN-CartPole-v0"
NEEDS = {name: f"{name},hyperparameter=gamma,start=0.9,end=0.99" for name in SHAPES}
OF_PPO = ("adaptive-kl",)
SPECS = [NEEDS.get(name, name) for name in POLICIES if name not in (*OF_PPO, *NAMES)]


def make(policy, num_envs=3, **options):
    names = ("learning_rate", "epsilon", "batch_size")
    needed = tuple(n for n in needs(policy, "dqn") if n not in names)
    options = {"budget": 2_000, "eval_episodes": 2, **options}
    return gym.make_vec(
        TASK,
        num_envs=num_envs,
        hyperparameters=names + needed,
        action_mode=policy.action_mode,
        **options,
    )


def applied(policy, scores=None, num_envs=3, steps=4):
    """Values that a policy applies, given scores instead of the run's own."""
    envs = make(policy, num_envs, decision_interval=500)
    observations, infos = envs.reset(seed=0)
    policy.reset(envs.unwrapped, 0)
    rows = []
    for k in range(steps):
        infos = dict(infos, env_steps=np.full(num_envs, 500 * k))
        if scores is not None:
            infos["score"] = np.full(num_envs, scores[k])
        actions = policy.act(observations, infos)
        assert actions.shape == envs.action_space.shape
        rows.append(envs.unwrapped.to_config(actions[0]))
    return rows


@pytest.mark.parametrize("spec", SPECS)
def test_every_policy_gives_actions_within_the_space(spec):
    policy = get_policy(spec)
    envs = make(policy)
    observations, infos = envs.reset(seed=3)
    policy.reset(envs.unwrapped, 3)
    for _ in range(2):
        actions = policy.act(observations, infos)
        assert envs.action_space.contains(actions.astype(envs.action_space.dtype))
        observations, _, _, _, infos = envs.step(actions)


REACTIVE = (
    "vdbe", "lr-bandit", "ultho", "checkpoint-when-best", "restart-when-poor",
    "swap-when-fallen", "reset-every", "adaptive-kl",
)  # fmt: skip
WHITE_BOX = ("noise-scale", "meta-gradients", "bmg-epsilon")
OTHERS = ("discrete_sac", "pipeline")
UNFIT = {  # what a policy cannot do, and how it says so
    **{("vdbe", "ppo"): "epsilon", ("vdbe", "sgd"): "epsilon"},
    ("noise-scale", "sgd"): "batch_size",
    ("checkpoint-when-best", "sgd"): "checkpoint",
    ("restart-when-poor", "sgd"): "reset_all",
    ("swap-when-fallen", "sgd"): "swap",
    ("swap-when-fallen", "pipeline"): "learning_rate",
    ("reset-every", "sgd"): "reset_head",
    ("adaptive-kl", "sgd"): "signal/kl",
    ("adaptive-kl", "dqn"): "signal/kl",
    ("meta-gradients", "sgd"): "made for 100 decisions",
    ("bmg-epsilon", "ppo"): "does not know the algorithm 'ppo'",
    ("bmg-epsilon", "sac"): "does not know the algorithm 'sac'",
    ("bmg-epsilon", "sgd"): "does not know the algorithm 'sgd'",
    ("noise-scale", "dacrl/PPO-LunarLander-v0"): "cannot be copied",
    ("meta-gradients", "dacrl/PPO-LunarLander-v0"): "cannot be copied",
    ("vdbe", "sac"): "epsilon",
    ("adaptive-kl", "sac"): "signal/kl",
    ("noise-scale", "sac"): "no differentiable loss",
    ("meta-gradients", "sac"): "does not know the algorithm 'sac'",
    **{("vdbe", name): "epsilon" for name in OTHERS},
    **{("bmg-epsilon", name): f"the algorithm '{name}'" for name in OTHERS},
    **{("adaptive-kl", name): "signal/kl" for name in OTHERS[:1]},
    **{("adaptive-kl", name): "learning_rate" for name in OTHERS[1:]},
    **{("noise-scale", name): "no differentiable loss" for name in OTHERS[:1]},
    **{("noise-scale", name): "batch_size" for name in OTHERS[1:]},
    **{("meta-gradients", name): f"the algorithm '{name}'" for name in OTHERS},
    ("lr-bandit", "pipeline"): "learning_rate",
}


@pytest.mark.parametrize(
    ("task", "spec"), cases(itertools.product(registered(), [*REACTIVE, *WHITE_BOX]))
)
def test_reference_policies_know_every_task_or_say_why_not(spec, task):
    policy, learner = get_policy(spec), get_task(task).algorithm
    unfit = UNFIT.get((spec, task), UNFIT.get((spec, learner)))
    if unfit is not None:
        with pytest.raises(ValueError, match=unfit):
            dacrl_env.evaluate(task, policy, seeds=[0])
        return
    options = {
        "dqn": {"budget": 1_200, "decision_interval": 300, "learning_starts": 100},
        "ppo": {"budget": 1_024, "decision_interval": 256, "rollout_length": 16},
        "sac": {"budget": 400, "decision_interval": 100, "learning_starts": 100},
        "discrete_sac": {
            "budget": 400,
            "decision_interval": 100,
            "learning_starts": 100,
        },
        "pipeline": {
            "budget": 400,
            "decision_interval": 100,
            "learning_starts": 100,
            "rollout_length": 20,
        },
        "sgd": {"decision_interval": 10},
    }[learner]
    options = suitable_options(policy, get_task(task), options | {"feedback": "train"})
    envs = dacrl_env.PopulationEnv(task, 2, **options)
    observations, infos = envs.reset(seed=0)
    policy.reset(envs, 0)
    for _ in range(5):  # past the end of the runs
        actions = policy.act(observations, infos)
        observations, _, _, _, infos = envs.step(actions)


def test_default_applies_the_defaults_exactly():
    rows = applied(get_policy("default"))
    assert rows == [{"learning_rate": 1e-3, "epsilon": 0.1, "batch_size": 64}] * 4


def test_what_was_fitted_can_be_read():
    fitted = dacrl_env.fit("dacrl/NoisyQuadratic-v0", "grid-search", 500)
    rate = fitted.policy.config["learning_rate"]
    assert repr(fitted.policy) == f"Static(learning_rate={rate!r})"
    shown = repr(fitted)
    assert shown.startswith("Fitted(Static(learning_rate=")
    assert shown.endswith(f", {fitted.cost.env_steps:,} training steps)")


def test_static_applies_what_it_was_given():
    policy = get_policy("static,learning_rate=3e-4,gamma=0.95,batch_size=16")
    for row in applied(policy):
        assert row["learning_rate"] == pytest.approx(3e-4, rel=1e-9)
        assert row["gamma"] == pytest.approx(0.95, rel=1e-9)
        assert row["batch_size"] == 16
        assert row["epsilon"] == 0.1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.76, 0.52, 0.04, 0.04]),
        ("exponential", [1.0, 0.04**0.25, 0.04**0.5, 0.04, 0.04]),
        (
            "cosine",
            [1.0, 0.04 + 0.48 * (1 + np.cos(np.pi / 4)), 0.52, 0.04, 0.04],
        ),
        ("step", [1.0, 0.68, 0.36, 0.04, 0.04]),
    ],
)
def test_schedules_by_hand(shape, expected):
    schedule = Schedule(shape, "epsilon", 1.0, 0.04, fraction=0.5)
    at = np.array([0.0, 0.125, 0.25, 0.5, 0.9])
    np.testing.assert_allclose(schedule.values(at), expected, rtol=1e-12)


def test_linear_epsilon_reaches_the_environment():
    rows = applied(get_policy("linear-epsilon,fraction=0.5"), steps=4)
    epsilons = [row["epsilon"] for row in rows]
    np.testing.assert_allclose(epsilons, [1.0, 0.525, 0.05, 0.05], atol=1e-9)
    assert {row["learning_rate"] for row in rows} == {1e-3}


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_any_hyperparameter_can_be_scheduled(shape):
    env = gym.make(TASK).unwrapped
    for h in env.settings.hyperparameters:
        if not isinstance(h, Number):
            with pytest.raises(ValueError, match=f"{h.name} is an? .*, not a number"):
                applied(Schedule(shape, h.name, 0.0, 1.0), num_envs=1)
            continue
        policy = Schedule(shape, h.name, h.low, h.high)
        values = [row[h.name] for row in applied(policy, num_envs=1)]
        assert values[0] == pytest.approx(h.low)
        assert all(a <= b for a, b in itertools.pairwise(values))
        assert values[-1] > values[0]


def test_random_draws_follow_from_the_run_alone():
    def draws(num_envs, seeds):
        policy = get_policy("random")
        envs = make(policy, num_envs)
        observations, infos = envs.reset(seed=seeds)
        policy.reset(envs.unwrapped, seeds[0])
        first = policy.act(observations, infos)
        later = policy.act(observations, dict(infos, env_steps=np.full(num_envs, 100)))
        return first, later

    first, later = draws(3, [5, 6, 7])
    alone, _ = draws(1, [6])
    np.testing.assert_array_equal(first[1:2], alone)
    assert not np.isclose(first, later).any()
    assert len(np.unique(first)) == first.size


def test_freeze_when_good_freezes_and_thaws():
    policy = get_policy("freeze-when-good,threshold=0.5,epsilon=0.2")
    rows = applied(policy, scores=[0.1, 0.5, 0.9, 0.49])
    rates = [row["learning_rate"] for row in rows]
    np.testing.assert_allclose(rates, [1e-3, 1e-6, 1e-6, 1e-3], rtol=1e-9)
    assert [row["epsilon"] for row in rows] == pytest.approx([0.2] * 4)


def test_reduce_on_plateau_waits_and_reduces():
    policy = get_policy("reduce-on-plateau,patience=2,factor=0.1")
    rows = applied(policy, scores=[0.2, 0.1, 0.2, 0.2, 0.2, 0.9, 0.9], steps=7)
    rates = [row["learning_rate"] for row in rows]
    expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)


def test_reduce_on_plateau_starts_over_with_a_new_run():
    policy = get_policy("reduce-on-plateau,patience=1,factor=0.1")
    envs = make(policy)
    observations, infos = envs.reset(seed=0)
    policy.reset(envs.unwrapped, 0)
    policy.act(observations, infos)
    infos = dict(infos, score=np.full(3, -1.0), env_steps=np.array([100, 100, 100]))
    policy.act(observations, infos)
    actions = policy.act(observations, dict(infos, env_steps=np.array([0, 200, 200])))
    rates = [envs.unwrapped.to_config(a)["learning_rate"] for a in actions]
    np.testing.assert_allclose(rates, [1e-3, 1e-5, 1e-5], rtol=1e-9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("defalt", "valid: default, static"),
        ("no_such_module:Policy", "cannot load policy"),
        ("dacrl_env.policies.static:Nothing", "cannot load policy"),
        ("random,speed=3", "arguments: "),
        ("linear-epsilon,fraction", "key=value"),
        ("linear-epsilon,fraction=2", "fraction"),
        ("exponential,hyperparameter=epsilon,start=1,end=0", "positive"),
        ("step,hyperparameter=epsilon,start=1,end=0,stairs=1", "stairs"),
        ("linear", "missing a required argument"),
        ("reduce-on-plateau,factor=2", "factor"),
        ("reduce-on-plateau,patience=0", "patience"),
    ],
)
def test_wrong_policies_say_what_is_right(spec, message):
    with pytest.raises(ValueError, match=message):
        get_policy(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("static,learning_rate=7", "range"),
        ("static,momentum=0.9", "learning_rate, epsilon, batch_size"),
        ("linear,hyperparameter=gamma,start=0.9,end=1.5", "range"),
        ("freeze-when-good,epsilon=-1", "range"),
        ("reduce-on-plateau,learning_rate=5", "range"),
    ],
)
def test_values_out_of_range_come_to_light_before_training(spec, message):
    with pytest.raises(ValueError, match=message):
        dacrl_env.evaluate(TASK, spec, seeds=[0], budget=2_000)


def test_arguments_may_hold_commas_in_brackets():
    method = get_method(
        "random-search,seeds=2,"
        "space={'learning_rate': (1e-5, 1e-2), 'epsilon': [0, 0.2]}"
    )
    space = {"learning_rate": (1e-5, 1e-2), "epsilon": [0, 0.2]}
    assert (method.space, method.seeds) == (space, 2)
