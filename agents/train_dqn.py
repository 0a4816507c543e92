"""A controller trained by DQN (Mnih et al. 2015, Nature 518).

    python -m dacrl_env.agents.train_dqn dacrl/DQN-CartPole-v0 --budget 5e7 --out tuned

Stable-Baselines3's DQN, unmodified, on a population of inner runs, over the joint
choice of {÷2, hold, ×2} for every hyperparameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecEnv

from .training import Network, Outer, layers_of, main


@dataclass(frozen=True)
class ControllerDQN(Outer):
    """DQN on a population of inner runs.

    Args:
        learning_rate: of Adam.
        batch_size: of a gradient step.
        gradient_steps: for every outer step of the population.
        warm_up: rounds of random actions before the first gradient step.
        buffer_size: transitions kept.
        gamma: discount.
        target_rounds: rounds between two copies to the target network.
        exploration: share of random actions, falling linearly from 1 over the first
            half of training.
        hidden_sizes: of the network.
    """

    action_mode: str = "discrete"
    learning_rate: float = 5e-4
    batch_size: int = 256
    gradient_steps: int = 32
    warm_up: int = 1
    buffer_size: int = 100_000
    gamma: float = 1.0
    target_rounds: float = 0.5
    exploration: float = 0.1
    hidden_sizes: Sequence[int] = (64, 64)

    def build(self, venv: VecEnv, round_steps: int) -> DQN:
        """A model that learns after every outer step."""
        round_size = round_steps * venv.num_envs
        return DQN(
            "MlpPolicy",
            venv,
            learning_rate=self.learning_rate,
            buffer_size=self.buffer_size,
            learning_starts=self.warm_up * round_size,
            batch_size=self.batch_size,
            gamma=self.gamma,
            train_freq=1,
            gradient_steps=self.gradient_steps,
            target_update_interval=max(1, round(self.target_rounds * round_size)),
            policy_kwargs={"net_arch": list(self.hidden_sizes)},
            device="cpu",
        )

    def begin_round(self, model: Any, share: float) -> None:
        """Set the share of random actions."""
        epsilon = max(self.exploration, 1 - 2 * share * (1 - self.exploration))
        model.exploration_schedule = lambda _: epsilon

    def network(self, model: Any) -> Network:
        """The Q-network, whose best action is taken."""
        return "relu", "argmax", layers_of(model.policy.q_net.q_net)


if __name__ == "__main__":
    main(ControllerDQN)
