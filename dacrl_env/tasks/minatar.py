"""Tasks on MinAtar's five games: DQN with a convolution, PPO on flattened observations.

K. Young and T. Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and
Reproducible Reinforcement Learning Experiments" (arXiv:1903.03176). Each game has a
task with each algorithm, and one that is a tenth as long, where something is learned in
so few steps. Short ones have references of their own, since a good short run is not a
good long one. Asterix has none: four runs each of seven configurations that were chosen
by hand end a tenth of the budget at 0.62 to 0.78, where random actions return 0.49 and
good runs of the whole budget 2 (PPO) and 6 (DQN). Episodes of Freeway always last for
2,500 steps, so that its evaluations and reports take longer than the training of a
short run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from dacrl_env.tasks import measured
from dacrl_env.tasks.instances import Ranges, vary
from dacrl_env.tasks.ranges import DQN_RANGES, PPO_RANGES
from dacrl_env.tasks.task import Instance, Task


class _Game(NamedTuple):
    """A game: what random actions return, and what good runs of each task do.

    The latter were chosen by hand near the best report of one default run of each task:
    tuned runs may exceed them.
    """

    random: float
    dqn: float
    dqn_short: float | None  # None: next to nothing is learned in so few steps
    ppo: float
    ppo_short: float | None
    varied: Ranges  # constants that instances differ in, see `_STICKY`
    about: str


# probability that an action is the one before, 0.1 in the games as they are. Constants
# vary so little that references hold: PPO's short runs end at 5.8 of Breakout where it
# is least and 5.4 where it is most, of SpaceInvaders at 18.0 and 15.5 (means of ten
# instances, a run each). With Seaquest's oxygen between 150 and 260, runs end at 0.56
# and 0.93: more than one reference serves
_STICKY = {"sticky": (0.05, 0.2)}
_WHOLE = frozenset({"shot_interval", "spawn_interval"})
_GAMES = {
    "Breakout": _Game(
        0.39, 10.0, 4.0, 15.0, 8.0, _STICKY, "still learning when it ends"
    ),
    "SpaceInvaders": _Game(
        4.09, 45.0, 20.0, 90.0, 20.0,
        _STICKY | {"shot_interval": (8.0, 13.0)},
        "aliens shoot back",
    ),
    "Asterix": _Game(
        0.49, 6.0, None, 2.0, None,
        _STICKY | {"spawn_interval": (8.0, 13.0)},
        "it gets harder the longer it lasts",
    ),
    "Freeway": _Game(
        0.41, 50.0, 25.0, 35.0, 25.0, _STICKY, "the first crossings come late"
    ),
    "Seaquest": _Game(
        0.10, 3.0, 1.0, 2.0, 1.2, _STICKY, "divers and air, and few rewards"
    ),
}  # fmt: skip
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


def _tasks(name: str, game: _Game) -> list[Task]:
    """The tasks on a game."""
    algorithms = (
        (_DQN, 300_000, game.dqn, game.dqn_short),
        (_PPO, 1_024_000, game.ppo, game.ppo_short),
    )
    found = []
    for own, budget, reference, short_reference in algorithms:
        title, inner_env = own["algorithm"].upper(), f"MinAtar/{name}-v1"
        long = Task(
            id=f"dacrl/{title}-MinAtar-{name}-v0",
            inner_env=inner_env,
            budget=budget,
            random_return=game.random,
            floor_return=-0.1,
            **_scale(inner_env, game, reference),
            description=f"{title} on MinAtar's {name}; {game.about}",
            **own,
        )
        found.append(long)
        if short_reference is None:
            continue
        short = replace(
            long,
            id=f"dacrl/{title}-MinAtar-{name}-short-v0",
            budget=budget // 10,
            **_scale(inner_env, game, short_reference),
            description=f"{title} on MinAtar's {name}, for a tenth of the steps",
        )
        found.append(short)
    return found


def _scale(inner_env: str, game: _Game, reference: float) -> dict[str, Any]:
    """The reference of a task, and its instances, which have it, too."""
    returns = measured.returns(inner_env)

    def instances(split: str) -> tuple[Instance, ...]:
        return vary(game.varied, split, _WHOLE, returns, reference=reference)

    return {
        "reference_return": reference,
        "train_instances": instances("train"),
        "test_instances": instances("test"),
    }


TABLE = tuple(task for name, game in _GAMES.items() for task in _tasks(name, game))
