"""A controller with memory, trained by recurrent PPO (extra ``recurrent``).

    dacrl fit dacrl/DQN-CartPole-v0 controller-recurrent-ppo --budget 5e7 --out tuned

RecurrentPPO of sb3-contrib, unmodified: PPO with long short-term memory (Hochreiter and
Schmidhuber 1997) in actor and critic, so that a controller can act by what it has seen
in all of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from dacrl_env.core import installed

from .train_ppo import arguments
from .training import Network, Outer, layers_of, main


@dataclass(frozen=True)
class ControllerRecurrentPPO(Outer):
    """Recurrent PPO on a population of inner runs.

    Args:
        learning_rate: of Adam, falling linearly to 0 over all rounds.
        n_epochs: passes over a rollout.
        batch_size: of a minibatch; the largest divisor of the rollout up to it.
        gamma: discount.
        gae_lambda: of generalised advantage estimation.
        clip_range: of the probability ratio.
        ent_coef: weight of the entropy bonus.
        log_std_init: logarithm of the first standard deviation of actions.
        lstm_size: units of the memory.
        hidden_sizes: after the memory, of actor and critic each.

    Raises:
        ImportError: at `fit`, where sb3-contrib is not installed.
    """

    learning_rate: float = 1e-3
    n_epochs: int = 10
    batch_size: int = 128
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0
    log_std_init: float = -0.7
    lstm_size: int = 32
    hidden_sizes: Sequence[int] = (32,)

    def build(self, venv: VecEnv, round_steps: int) -> Any:
        """A model whose rollout is one round."""
        try:
            from sb3_contrib import RecurrentPPO
        except ImportError as error:
            needed = "controller-recurrent-ppo needs sb3-contrib"
            raise installed.missing("recurrent", needed) from error
        given = arguments(self, venv, round_steps)
        given["policy_kwargs"]["lstm_hidden_size"] = self.lstm_size
        return RecurrentPPO("MlpLstmPolicy", venv, **given)

    def begin_round(self, model: Any, share: float) -> None:
        """Set the learning rate."""
        rate = self.learning_rate * (1 - share)
        model.lr_schedule = lambda _: rate

    def network(self, model: Any) -> Network:
        """Memory, hidden layers and mean of the actor, cut off at −1 and 1."""
        policy, lstm = model.policy, model.policy.lstm_actor
        weights = layers_of(policy.mlp_extractor.policy_net, policy.action_net)
        bias = lstm.bias_ih_l0 + lstm.bias_hh_l0
        weights["lstm/input"] = lstm.weight_ih_l0.detach().numpy().T.copy()
        weights["lstm/hidden"] = lstm.weight_hh_l0.detach().numpy().T.copy()
        weights["lstm/bias"] = bias.detach().numpy().copy()
        return "tanh", "clip", weights


if __name__ == "__main__":
    main(ControllerRecurrentPPO)
