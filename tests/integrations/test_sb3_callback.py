"""Policies of this package set hyperparameters of plain models while these train."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import quick, slow
from sb3_runs import globals_kept, inner_of, keys_of, make, physics_of

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies import get_policy
from dacrl_env.policies.schedules import Schedule
from dacrl_env.policies.static import Static
from dacrl_env.tasks.registration import get_task

sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.callbacks import (  # noqa: E402
    BaseCallback,
    CheckpointCallback,
)
from stable_baselines3.common.logger import configure  # noqa: E402

from dacrl_env.algorithms.sb3.follower import Follower  # noqa: E402
from dacrl_env.integrations.sb3_callback import DynamicConfigCallback  # noqa: E402

__all__ = ["globals_kept"]
SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 3}
REPLAY = {"learning_starts": 40, "buffer_size": 400, "batch_size": 8, **SMALL}
OPTIONS: dict[str, dict[str, Any]] = {
    "dqn": {"target_update_interval": 50, **REPLAY},
    "ppo": {"n_steps": 40, "batch_size": 20, "n_epochs": 2, **SMALL},
    "sac": REPLAY,
}
ENVS = {"dqn": "CartPole-v1", "ppo": "CartPole-v1", "sac": "Pendulum-v1"}
TASKS = {
    "dqn": "dacrl/DQN-CartPole-v0",
    "ppo": "dacrl/PPO-CartPole-v0",
    "sac": "dacrl/SAC-Pendulum-v0",
}
RETURNS = {"random": 0.0, "reference": 500.0, "floor": -1.0}
N = 5  # decisions of a run of 200 steps


def model_of(name: str, env: Any = None, **options: Any) -> Any:
    kind = getattr(sb3, name.upper())
    given = copy.deepcopy({**OPTIONS[name], **options})  # models change it
    return kind("MlpPolicy", env or ENVS[name], **given)


def learned(name: str, policy: Any, model: Any = None, **options: Any) -> Any:
    """A callback after a run of 200 steps."""
    model = model or model_of(name)
    given = {"eval_episodes": 1, "decision_interval": 40, "feedback": "train"}
    callback = DynamicConfigCallback(policy, **{**given, **options})
    model.learn(200, callback=callback)
    return callback


def rows(callback: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(d.env_steps, d.values) for d in callback.decisions]


def weights(model: Any) -> list[bytes]:
    tensors = model.policy.state_dict().values()
    return [tensor.numpy().tobytes() for tensor in tensors]


# -- the same as the package's own runs ----------------------------------------------


def own_rows(name: str, policy: Any, hyperparameters: Any) -> list[Any]:
    """Steps and values of the same run as an environment."""
    shape: dict[str, Any] = {"learning_starts": 40, "replay_capacity": 400}
    if name == "ppo":
        shape = {"num_inner_envs": 1, "rollout_length": 40}
    envs = PopulationEnv(
        TASKS[name],
        1,
        implementation="sb3",
        action_mode=policy.action_mode,
        hyperparameters=hyperparameters,
        budget=200,
        decision_interval=40,
        eval_episodes=1,
        hidden_sizes=(8,),
        **shape,
    )
    observation, infos = envs.reset(seed=0)
    policy.reset(envs, 0)
    found = []
    for _ in range(N):
        at = int(infos["env_steps"][0])
        stepped = envs.step(policy.act(observation, infos))
        observation, infos = stepped[0], stepped[4]
        ended = "final_info" in infos
        shown = (infos["final_info"] if ended else infos)["hyperparameters"]
        values = {h.name: float(shown[h.name][0]) for h in hyperparameters}
        found.append((at, values))
    return found


@pytest.mark.parametrize("name", quick(TASKS, "dqn", "ppo"))
@pytest.mark.parametrize("kind", ["schedule", slow("static"), "random"])
def test_values_and_steps_are_those_of_the_environment(name: str, kind: str) -> None:
    makes: dict[str, Any] = {
        "schedule": lambda: Schedule("cosine", "learning_rate", 1e-3, 1e-4),
        "static": lambda: Static(learning_rate=2e-4, gamma=0.95),
        "random": lambda: get_policy("random"),
    }
    names = {
        "schedule": ("learning_rate",),
        "static": ("learning_rate", "gamma"),
        "random": ("learning_rate", "batch_size", "gamma"),
    }[kind]
    callback = learned(name, makes[kind](), hyperparameters=names, task=TASKS[name])
    controlled = callback.population.settings.controlled  # from the model's values
    assert rows(callback) == own_rows(name, makes[kind](), controlled)
    assert [at for at, _ in rows(callback)] == [0, 40, 80, 120, 160]


@pytest.mark.parametrize("name", quick(TASKS, "dqn", "ppo"))
def test_signals_are_those_of_a_member_with_the_same_model(name: str) -> None:
    runs = make(name)
    runs.train(64)
    learner, state = runs.learner, runs.state
    with torch.no_grad():
        expected = learner.signals(state, runs.values, runs.interval)
        with learner.members.loaded(state, 0) as model:
            follower = Follower(model, name, inner_of(name), None, ())  # type: ignore[arg-type]
            own = follower.init(keys_of([0]), physics_of(inner_of(name), 1))
            own.env_steps[:] = state.env_steps
            own.gradient_steps[:] = state.gradient_steps
            found = follower.signals(own, runs.values, runs.interval)
            np.testing.assert_array_equal(own.parameters, state.parameters)
    assert found.keys() == expected.keys() == set(learner.signal_names)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert follower.flops(runs.values) == learner.flops(runs.values)


@pytest.mark.parametrize("name", quick(TASKS, "dqn", "ppo"))
def test_looking_on_changes_nothing(name: str) -> None:
    alone = model_of(name)
    alone.learn(200)
    model = model_of(name)  # seeds the generators that all use
    rate = float(model.learning_rate)
    options = {"feedback": "eval", "decision_interval": 40, "eval_interval": 40}
    callback = learned(name, Static(learning_rate=rate), model, **options)
    assert len(callback.decisions) == N
    assert weights(model) == weights(alone)
    assert model.num_timesteps == alone.num_timesteps
    assert model._n_updates == alone._n_updates > 0


# -- what is set ---------------------------------------------------------------------


def test_values_of_dqn_are_set_wherever_the_model_keeps_them() -> None:
    model = model_of("dqn")
    config: dict[str, Any] = {
        "learning_rate": 2e-4,
        "epsilon": 0.3,
        "batch_size": 16,
        "gamma": 0.9,
        "train_freq": 8,
        "gradient_steps": 3,
        "target_update_interval": 70,
        "tau": 0.5,
        "max_grad_norm": 4.0,
    }
    learned("dqn", Static(**config), model)
    assert model.policy.optimizer.param_groups[0]["lr"] == 2e-4
    assert model.learning_rate == model.lr_schedule(0.5) == 2e-4
    assert model.exploration_rate == model.exploration_schedule(0.1) == 0.3
    assert model.train_freq.frequency == 8
    for name in config.keys() - {"learning_rate", "epsilon", "train_freq"}:
        assert getattr(model, name) == config[name], name
    # steps at 48, 56, ... 200, with training events after learning_starts alone
    assert model._n_updates == 20 * 3


def test_values_of_ppo_are_set_wherever_the_model_keeps_them() -> None:
    model = model_of("ppo")
    config: dict[str, Any] = {
        "clip_range": 0.1,
        "gae_lambda": 0.8,
        "gamma": 0.9,
        "ent_coef": 0.01,
    }
    learned("ppo", Static(**config, n_epochs=3, vf_coef=0.7), model)
    assert model.clip_range(0.3) == 0.1
    assert model.rollout_buffer.gae_lambda == model.gae_lambda == 0.8
    assert model.rollout_buffer.gamma == model.gamma == 0.9
    assert (model.ent_coef, model.vf_coef, model.n_epochs) == (0.01, 0.7, 3)
    assert model._n_updates == 5 * 3


def test_values_of_sac_are_set_wherever_the_model_keeps_them() -> None:
    model = model_of("sac", ent_coef=0.2)
    learned("sac", Static(alpha=0.5, tau=0.01, learning_rate=2e-4), model)
    assert model.ent_coef_tensor.item() == 0.5
    assert model.tau == 0.01
    for optimizer in (model.actor.optimizer, model.critic.optimizer):
        assert optimizer.param_groups[0]["lr"] == 2e-4


def test_what_is_not_set_stays_the_models_own() -> None:
    model = model_of("dqn", exploration_fraction=0.9)
    plain = model.exploration_schedule
    learned("dqn", Static(learning_rate=2e-4), model)
    assert model.exploration_schedule is plain
    assert (model.batch_size, model.gamma) == (8, 0.99)


def test_freezing_follows_from_scores() -> None:
    options: dict[str, Any] = {"returns": {**RETURNS, "reference": 20.0}}
    callback = learned("dqn", "freeze-when-good,threshold=0.8", **options)
    scores = [d.score for d in callback.decisions]
    rates = [d.values["learning_rate"] for d in callback.decisions]
    assert min(scores) < 0.8 <= max(scores)
    lowest = callback.population.settings.number("learning_rate").low
    for score, rate in zip(scores, rates, strict=True):
        assert rate == (lowest if score >= 0.8 else 1e-4)


def test_scores_are_logged(tmp_path: Path) -> None:
    model = model_of("dqn")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    callback = learned("dqn", "linear-epsilon", model)
    model.logger.close()
    with (tmp_path / "progress.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["dacrl/decision"]]
    *told, last = lines
    assert [int(line["dacrl/decision"]) for line in told] == [*range(1, N + 1)]
    for line, decision in zip(told, callback.decisions, strict=True):
        assert float(line["dacrl/hp/epsilon"]) == decision.values["epsilon"]
        assert float(line["dacrl/score"]) == decision.score
    assert float(last["dacrl/score"]) == callback.population.state.score[0]


# -- runs ----------------------------------------------------------------------------


def test_a_run_may_be_learned_in_parts(tmp_path: Path) -> None:
    whole = model_of("dqn")
    options: dict[str, Any] = {"budget": 200, "hyperparameters": ["epsilon"]}
    once = learned("dqn", "linear-epsilon", whole, **options)
    model = model_of("dqn")  # seeds the generators that all use
    callback = DynamicConfigCallback(
        "linear-epsilon", decision_interval=40, feedback="train", **options
    )
    saving = CheckpointCallback(60, str(tmp_path))
    model.learn(100, callback=[callback, saving])
    model.learn(100, callback=callback, reset_num_timesteps=False)
    assert rows(callback) == rows(once)
    assert weights(model) == weights(whole)
    assert not {"train", "collect_rollouts"} & vars(model).keys()
    [saved] = tmp_path.iterdir()
    sb3.DQN.load(saved)  # what is saved knows nothing of the callback


@pytest.mark.parametrize("by", ["evaluation", "training"])
def test_what_a_task_is_judged_by_is_what_is_seen(by: str) -> None:
    task = replace(get_task(TASKS["ppo"]), judged_by=by, id="dacrl/Judged-v0")
    callback = learned("ppo", "default", task=task, feedback=None)
    state = callback.population.state
    assert (state.eval_steps[0] > 0) == (by == "evaluation")
    seen = state.eval_return if by == "evaluation" else state.train_return
    np.testing.assert_allclose(state.score, task.score(seen))


def test_an_environment_for_evaluations_that_is_given_is_used() -> None:
    task = replace(get_task(TASKS["ppo"]), judged_by="training", id="dacrl/Judged-v0")
    given = {"eval_env": ENVS["ppo"], "feedback": None}
    callback = learned("ppo", "default", task=task, **given)
    assert callback.population.state.eval_steps[0] > 0


def test_progress_is_a_share_of_the_budget() -> None:
    ended = learned("dqn", "linear-epsilon", budget=120, decision_interval=None)
    assert len(ended.decisions) == 100
    shares = [d.env_steps / 120 for d in ended.decisions]
    expected = [max(1 - 0.95 * share / 0.2, 0.05) for share in shares]
    found = [d.values["epsilon"] for d in ended.decisions]
    assert found == pytest.approx(expected)


class Breaking(BaseCallback):
    """A parameter is no number any more after 100 steps."""

    def _on_step(self) -> bool:
        if self.num_timesteps == 100:
            with torch.no_grad():
                next(iter(self.model.q_net.parameters())).fill_(np.nan)  # type: ignore[attr-defined]
        return True


def test_a_diverged_model_is_left_alone() -> None:
    model = model_of("dqn")
    callback = DynamicConfigCallback(
        "random", decision_interval=40, feedback="train", returns=RETURNS
    )
    with pytest.warns(UserWarning, match="diverged before step 120"):
        model.learn(200, callback=[callback, Breaking()])
    assert callback.population.state.diverged[0]
    assert [d.env_steps for d in callback.decisions] == [0, 40, 80]
    assert callback.population.state.score[0] == RETURNS["floor"] / 500.0


# -- what is refused -----------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another algorithm": ("dqn", {"task": TASKS["ppo"]}, "algorithm ppo.*DQN-CartPole"),
    "another action space": (
        "dqn",
        {"task": "dacrl/DQN-Acrobot-v0"},
        r"Discrete\(2\).*3 discrete actions",
    ),
    "unknown": (
        "dqn",
        {"hyperparameters": ["clip_range"]},
        "cannot set clip_range.*valid: learning_rate",
    ),
    "what compiled algorithms alone set": (
        "dqn",
        {"hyperparameters": ["n_step"]},
        "cannot set n_step",
    ),
    "too short": ("ppo", {"budget": 20}, "budget 20 is below one decision.*40"),
    "nothing is learned": ("dqn", {"budget": 40}, "learning_starts 40"),
    "no multiple": ("ppo", {"decision_interval": 50}, "must be a multiple of 40"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_when_training_starts(case: str) -> None:
    name, options, match = REFUSED[case]
    model = model_of(name)
    with pytest.raises(ValueError, match=match):
        model.learn(200, callback=DynamicConfigCallback("random", **options))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"budget": -5}, "budget"),
        ({"eval_episodes": 0}, "eval_episodes"),
        ({"feedback": "both"}, "feedback.*eval.*train"),
        ({"split": "train"}, "split"),
        ({"returns": {"random": 0.0}}, "random, reference, floor"),
    ],
)
def test_refused_at_once(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DynamicConfigCallback("random", **options)


def test_other_models_and_their_own_environment_are_refused() -> None:
    a2c = sb3.A2C("MlpPolicy", "CartPole-v1", device="cpu")
    with pytest.raises(ValueError, match="DQN, PPO, SAC; this model is a A2C"):
        a2c.learn(10, callback=DynamicConfigCallback("random"))
    model = model_of("dqn")
    callback = DynamicConfigCallback("random", model.get_env())
    with pytest.raises(ValueError, match="the model trains in"):
        model.learn(200, callback=callback)


def test_an_environment_without_a_task_is_told_a_task_of_the_algorithm() -> None:
    model = sb3.PPO("MlpPolicy", "MountainCar-v0", device="cpu")
    with pytest.raises(ValueError, match=r"MountainCar-v0, .*task='dacrl/PPO"):
        model.learn(10, callback=DynamicConfigCallback("random"))


# -- schedules of their own ----------------------------------------------------------


@pytest.mark.parametrize("shape", ["linear", "exponential", "cosine", "step"])
def test_schedules_are_schedules_of_theirs(shape: str, tmp_path: Path) -> None:
    schedule = Schedule(shape, "learning_rate", 1e-3, 1e-5, fraction=0.8)
    theirs = schedule.to_sb3()
    for remaining in (1.0, 0.7, 0.2, 0.0):
        assert theirs(remaining) == schedule.values(np.array([1.0 - remaining]))[0]
    model = model_of("ppo", learning_rate=theirs)
    model.learn(80)
    used = model.policy.optimizer.param_groups[0]["lr"]
    assert used == theirs(1 - 80 / 80)  # of the last update
    model.save(tmp_path / "model")
    assert sb3.PPO.load(tmp_path / "model").lr_schedule(0.5) == theirs(0.5)


def test_what_models_have_no_schedule_of_is_refused() -> None:
    with pytest.raises(
        ValueError, match="learning_rate, clip_range, epsilon, not of g"
    ):
        Schedule("linear", "gamma", 0.9, 0.99).to_sb3()
