"""A plain model under a policy is the same run as ``implementation="sb3"``.

The model begins as a member does: the same weights, inner environments and states of
generators. From there on ``model.learn`` trains it, and everything is equal to
the last bit: observation rows, scores, values, the weights at the end. What users' runs
have of their own is left out here: threads of torch and denormal numbers as the process
has them, environments of Gymnasium with seeds of their own, rewards that a ``Monitor``
rounds to six digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from sb3_runs import TASKS, inner_of, single
from sb3_runs import globals_kept as _globals_kept  # noqa: F401 (a fixture)
from stable_baselines3 import DQN, PPO, SAC

from dacrl_env.algorithms.sb3 import arguments, setters
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.algorithms.sb3.follower import MODELS
from dacrl_env.algorithms.sb3.off_policy import newest_alone
from dacrl_env.core import random_state, streams
from dacrl_env.core.isolation import inner_context
from dacrl_env.integrations.sb3_callback import DynamicConfigCallback
from dacrl_env.outer.vector_env import PopulationEnv, vector_info
from dacrl_env.tasks.registration import load_learner

SEED = 3
KINDS = {"dqn": DQN, "ppo": PPO, "sac": SAC}


class Looking:
    """Sets values by every observation row, the score, and random numbers."""

    action_mode = "continuous"

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        self.seen: list[Any] = []
        self.key, self.d = envs.policy_keys, len(envs.settings.controlled)
        rows = len(envs.observation_names)
        self.weights = np.random.default_rng(seed).normal(size=(rows, self.d))

    def act(self, observations: Any, infos: Any) -> Any:
        self.seen.append((observations.copy(), infos["score"].copy()))
        drawn = streams.uniforms(self.key, infos["env_steps"], self.d)
        mixed = observations.astype(float)[:, :, None] * self.weights
        return np.tanh(mixed.sum(1) + infos["score"][:, None]) * drawn


def plain(name: str, env: Any, values: dict[str, Any], budget: int) -> Any:
    """A model of Stable-Baselines3 that begins as a member of seed `SEED` does."""
    keys = streams.member_keys("tuning", SEED, 0, 0)[None]
    settings = env.settings
    config, inner = settings.config, inner_of(name)
    random_state.seed_globals(random_state.seed_of(streams.of(keys, "init")[0]))
    venv = MemberEnvs(inner, config.num_inner_envs)
    physics = np.array([[*inner.physics.values()]], float)
    venv.state = inner.init(streams.env_keys(keys, config.num_inner_envs), physics)
    given = arguments.of(config, inner)
    kind: Any = KINDS[name]
    if name == "ppo":
        model = kind(
            env=venv,
            n_steps=config.rollout_length,
            batch_size=config.rollout_length * config.num_inner_envs,
            **given,
        )
    else:
        capacity = load_learner(name, "sb3").replay_capacity(config, budget)
        model = kind(
            env=venv,
            buffer_size=capacity,
            learning_starts=config.learning_starts,
            **given,
        )
        newest_alone(model.replay_buffer)
    model.action_space.seed(random_state.seed_of(streams.of(keys, "init")[0]))
    setters.apply(model, MODELS[name].SETTERS, values, values)
    return model


CHANGING = {
    "dqn": (
        "learning_rate",
        "epsilon",
        "batch_size",
        "gamma",
        "train_freq",
        "gradient_steps",
        "target_update_interval",
        "max_grad_norm",
        "tau",
        "replay_window",
    ),
    "ppo": (
        "learning_rate",
        "clip_range",
        "batch_size",
        "gamma",
        "gae_lambda",
        "n_epochs",
        "ent_coef",
        "vf_coef",
        "max_grad_norm",
        "stop_early",
        "target_kl",
    ),
    "sac": (
        "learning_rate",
        "batch_size",
        "gamma",
        "tau",
        "train_freq",
        "gradient_steps",
        "ent_rule",
        "alpha",
        "target_entropy",
    ),
}


CASES = [("dqn", "eval"), ("ppo", "eval"), slow("sac", "eval"), slow("dqn", "train")]


@pytest.mark.parametrize(("name", "feedback"), CASES)
def test_the_same_run_has_the_same_values(name: str, feedback: str) -> None:
    options = {"hyperparameters": CHANGING[name], "feedback": feedback}
    if name != "ppo":
        options |= {"budget": 240, "decision_interval": 30}
    env = single(name, **options)
    policy: Any = Looking()
    envs = PopulationEnv.around(env.population)
    observation, _ = env.reset(seed=SEED)
    policy.reset(envs, SEED)
    applied, over = [], False
    values = {k: float(v[0]) for k, v in env.population.values().items()}
    while not over:
        info = env.population.info()
        action = policy.act(observation[None], vector_info(info, np.ones(1, bool)))
        at = int(info["env_steps"][0])
        observation, _, over, _, told = env.step(action[0])
        applied.append((at, told["hyperparameters"]))
    wanted, settings = policy.seen, env.settings
    model = plain(name, env, values, settings.budget)
    callback = DynamicConfigCallback(
        policy,
        budget=settings.budget,
        task=TASKS[name],
        hyperparameters=settings.controlled,
        decision_interval=settings.decision_interval,
        eval_interval=settings.eval_interval,
        eval_episodes=settings.eval_episodes,
        feedback=feedback,
        seed=SEED,
    )
    with inner_context(), torch.enable_grad():
        model.learn(settings.budget, callback=callback)
    assert len(applied) > 3
    for (at, theirs), own in zip(applied, callback.decisions, strict=True):
        assert at == own.env_steps
        shown = {n: theirs[n] for n in CHANGING[name] if n in theirs}
        assert shown == own.values
    for (rows, score), (own_rows, own_score) in zip(wanted, policy.seen, strict=True):
        names = env.observation_names
        assert dict(zip(names, rows[0], strict=True)) == dict(
            zip(names, own_rows[0], strict=True)
        )
        assert score == own_score
    end = env.population.state.learner.parameters.numpy()
    assert np.array_equal(end, callback.population.state.learner.parameters.numpy())
