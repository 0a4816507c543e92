"""A controller trained by soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905).

    python -m dacrl_env.agents.train_sac dacrl/DQN-CartPole-v0 --budget 5e7 --out tuned

Stable-Baselines3's SAC, unmodified, on a population of inner runs. Being off-policy, it
makes more of few transitions than PPO: it can learn from each of them many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecEnv

from .training import Network, Outer, layers_of, main


@dataclass(frozen=True)
class ControllerSAC(Outer):
    """SAC on a population of inner runs.

    Args:
        learning_rate: of Adam, for actor, critics and temperature.
        batch_size: of a gradient step.
        gradient_steps: for every outer step of the population.
        warm_up: rounds of random actions before the first gradient step.
        buffer_size: transitions kept.
        gamma: discount.
        tau: of the target networks' moving average.
        ent_coef: temperature: a number, or ``"auto_x"`` to adapt it from x on.
        hidden_sizes: of actor and critics each.
    """

    learning_rate: float = 1e-3
    batch_size: int = 256
    gradient_steps: int = 32
    warm_up: int = 1
    buffer_size: int = 100_000
    gamma: float = 1.0
    tau: float = 0.005
    ent_coef: float | str = "auto_0.1"
    hidden_sizes: Sequence[int] = (64, 64)

    def build(self, venv: VecEnv, round_steps: int) -> SAC:
        """A model that learns after every outer step."""
        return SAC(
            "MlpPolicy",
            venv,
            learning_rate=self.learning_rate,
            buffer_size=self.buffer_size,
            learning_starts=self.warm_up * round_steps * venv.num_envs,
            batch_size=self.batch_size,
            tau=self.tau,
            gamma=self.gamma,
            ent_coef=self.ent_coef,
            train_freq=1,
            gradient_steps=self.gradient_steps,
            policy_kwargs={"net_arch": list(self.hidden_sizes)},
            device="cpu",
        )

    def network(self, model: Any) -> Network:
        """The mean of the actor's distribution before it is squashed, and its tanh."""
        actor = model.policy.actor
        return "relu", "tanh", layers_of(actor.latent_pi, actor.mu)


if __name__ == "__main__":
    main(ControllerSAC)
