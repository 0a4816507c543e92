"""A controller trained by PPO (Schulman et al. 2017, arXiv 1707.06347).

    python -m dacrl_env.agents.train_ppo dacrl/DQN-CartPole-v0 --budget 5e7 --out tuned

Stable-Baselines3's PPO, unmodified, on a population of inner runs; a round of training
is one rollout, in which every run is trained from beginning to end. Returns are not
discounted, since runs are short and what counts is their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from .training import Network, Outer, divisor, layers_of, main


@dataclass(frozen=True)
class ControllerPPO(Outer):
    """PPO on a population of inner runs.

    Args:
        learning_rate: of Adam, falling linearly to 0 over all rounds.
        n_epochs: passes over a rollout.
        batch_size: of a minibatch; the largest divisor of the rollout up to it.
        gamma: discount.
        gae_lambda: of generalised advantage estimation.
        clip_range: of the probability ratio.
        ent_coef: weight of the entropy bonus.
        log_std_init: logarithm of the first standard deviation of actions, whose range
            is from −1 to 1.
        hidden_sizes: of actor and critic each.
    """

    learning_rate: float = 1e-3
    n_epochs: int = 10
    batch_size: int = 128
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0
    log_std_init: float = -0.7
    hidden_sizes: Sequence[int] = (32, 32)

    def build(self, venv: VecEnv, round_steps: int) -> PPO:
        """A model whose rollout is one round."""
        return PPO("MlpPolicy", venv, **arguments(self, venv, round_steps))

    def begin_round(self, model: Any, share: float) -> None:
        """Set the learning rate."""
        rate = self.learning_rate * (1 - share)
        model.lr_schedule = lambda _: rate

    def network(self, model: Any) -> Network:
        """The mean of the actor's distribution, cut off at −1 and 1."""
        policy = model.policy
        weights = layers_of(policy.mlp_extractor.policy_net, policy.action_net)
        return "tanh", "clip", weights


def arguments(method: Any, venv: VecEnv, round_steps: int) -> dict[str, Any]:
    """What a method with these fields asks of Stable-Baselines3's PPO."""
    return {
        "learning_rate": method.learning_rate,
        "n_steps": round_steps,
        "batch_size": divisor(round_steps * venv.num_envs, method.batch_size),
        "n_epochs": method.n_epochs,
        "gamma": method.gamma,
        "gae_lambda": method.gae_lambda,
        "clip_range": method.clip_range,
        "ent_coef": method.ent_coef,
        "policy_kwargs": {
            "net_arch": list(method.hidden_sizes),
            "log_std_init": method.log_std_init,
        },
        "device": "cpu",
    }


if __name__ == "__main__":
    main(ControllerPPO)
