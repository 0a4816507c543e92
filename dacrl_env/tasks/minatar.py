"""Tasks on MinAtar's five games: DQN with a convolution, PPO on flattened observations.

K. Young and T. Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and
Reproducible Reinforcement Learning Experiments" (arXiv:1903.03176). Each game has four
tasks: both algorithms, and of each a short one, whose run takes seconds where that of
the other takes a minute or more. Short ones have references of their own, since a good
short run is not a good long one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dacrl_env.tasks.ranges import DQN_RANGES, PPO_RANGES
from dacrl_env.tasks.task import Task


class _Game(NamedTuple):
    """A game: what random actions return, and what good runs of each task do."""

    random: float
    dqn: float
    dqn_short: float
    ppo: float
    ppo_short: float
    about: str


_GAMES = {
    "Breakout": _Game(
        0.39, 10.0, 5.0, 20.0, 8.0, "balls come back faster than thought"
    ),
    "SpaceInvaders": _Game(4.09, 100.0, 20.0, 100.0, 40.0, "aliens shoot back"),
    "Asterix": _Game(0.49, 10.0, 3.0, 10.0, 3.0, "it gets harder the longer it lasts"),
    "Freeway": _Game(0.41, 50.0, 20.0, 50.0, 20.0, "the first crossings come late"),
    "Seaquest": _Game(0.10, 10.0, 2.0, 10.0, 2.0, "divers and air; reward is rare"),
}
# batch, target updates and first steps as in Young and Tian 2019
_DQN: dict[str, Any] = {
    "algorithm": "dqn",
    "ranges": DQN_RANGES,
    "defaults": {
        "learning_rate": 3e-4,
        "epsilon": 0.05,
        "batch_size": 32,
        "target_update_interval": 1_000,
        "double_q": True,
    },
    "configuration": {
        "hidden_sizes": (128,),
        "conv_channels": 16,
        "learning_starts": 5_000,
    },
}
_PPO: dict[str, Any] = {
    "algorithm": "ppo",
    "ranges": PPO_RANGES,
    "defaults": {
        "learning_rate": 1e-3,
        "batch_size": 128,
        "n_epochs": 4,
        "ent_coef": 0.01,
    },
}


def _tasks(name: str, game: _Game) -> tuple[Task, ...]:
    """The four tasks on a game."""
    common: dict[str, Any] = {
        "inner_env": f"MinAtar/{name}-v1",
        "random_return": game.random,
        "floor_return": -0.1,
    }
    return (
        Task(
            id=f"dacrl/DQN-MinAtar-{name}-v0",
            budget=300_000,
            reference_return=game.dqn,
            description=f"DQN on MinAtar's {name}; {game.about}",
            **common,
            **_DQN,
        ),
        Task(
            id=f"dacrl/DQN-MinAtar-{name}-short-v0",
            budget=30_000,
            reference_return=game.dqn_short,
            description=f"DQN on MinAtar's {name}, for a tenth of the steps",
            **common,
            **_DQN,
        ),
        Task(
            id=f"dacrl/PPO-MinAtar-{name}-v0",
            budget=1_024_000,
            reference_return=game.ppo,
            description=f"PPO on MinAtar's {name}, flattened; {game.about}",
            **common,
            **_PPO,
        ),
        Task(
            id=f"dacrl/PPO-MinAtar-{name}-short-v0",
            budget=102_400,
            reference_return=game.ppo_short,
            description=f"PPO on MinAtar's {name}, for a tenth of the steps",
            **common,
            **_PPO,
        ),
    )


TABLE = tuple(task for name, game in _GAMES.items() for task in _tasks(name, game))
