"""The tasks that come with the package: one table, and what its rows share."""

from __future__ import annotations

from typing import Any

from dacrl_env.tasks import measured, minatar
from dacrl_env.tasks.instances import NONE, TIMES, Ranges, vary
from dacrl_env.tasks.knobs import Option
from dacrl_env.tasks.ranges import DQN_RANGES, PPO_RANGES
from dacrl_env.tasks.task import Task

_CARTPOLE = {
    "half_length": (0.25, 1.0),
    "gravity": (4.9, 19.6),
    "force": (7.0, 14.0),
    "mass_pole": (0.05, 0.4),
}
_ACROBOT = {
    "link_length_1": (0.7, 1.4),
    "link_mass_1": (0.7, 1.4),
    "link_mass_2": (0.7, 1.4),
}
_MOUNTAIN_CAR = {"force": (0.0009, 0.0013), "gravity": (0.0022, 0.0028)}
_SWINGUP = {
    "gravity": (7.0, 12.0),
    "mass_cart": (0.7, 1.4),
    "mass_pole": (0.07, 0.2),
    "length": (0.7, 1.3),
    "force": (8.0, 12.0),
}
_MOUNTAIN_CAR_CONTINUOUS = {"power": (0.001, 0.0016), "gravity": (0.0022, 0.0028)}
_PENDULUM = {"gravity": (7.0, 12.0), "mass": (0.7, 1.3), "length": (0.7, 1.3)}
# the cart's motor turns round, the pole changes: what was learned is wrong
_CARTPOLE_SHIFT = {
    "shift_at": (15_000, 35_000),
    "shift_force": (-1.4, -0.7),
    "shift_half_length": (0.5, 2.0),
}
_PENDULUM_SHIFT = {
    "shift_at": (8_000, 18_000),  # steps of each of 8 environments
    "shift_gravity": (0.4, 0.8),
    "shift_mass": (1.2, 1.8),
    "shift_length": (1.0, 1.4),
}
_SWINGUP_SHIFT = {
    "shift_at": (20_000, 35_000),
    "shift_force": (-1.3, -0.8),
    "shift_length": (0.8, 1.25),
}
# times are steps of each environment, where there are several
_TWO_COLOURS = {"period": (10_000, 40_000), "offset": (10_000, 40_000)}
# in runs that were looked at, DQN's score levels off some thousands of steps after most
# changes; periods of 20,000 and more would take runs of several times the budget
_WORLDS = {
    "period": (8_000, 16_000),
    "offset": (6_000, 16_000),
    "first": (1e4, 1e8),  # number of the first world
}
# sizes up to 20 are possible; no configuration of DQN is known that finds the treasure
# of the larger ones within the budget. Where an action means the same everywhere,
# single runs found it at sizes 10, 15 and 20, with and without held exploration
_DEEP_SEA = {"size": (8, 14), "mapping": (1, 1e6)}
_SMALL_DEEP_SEA = {"size": (6, 10), "mapping": (1, 1e6)}
_LEVELS = {"first": (1e3, 1e8)}  # number of the first layout
_WHOLE = TIMES | {"period", "offset", "first", "size", "mapping"}
# LunarLander counts as solved at a return of 200, and tuned schedules of PPO reach 240
# (docs/dynamics.md)
_LANDER_REFERENCE = 250.0
# it has no ceiling, and distance and tumbling cost without limit: scripts that
# climb under full thrust for most of the 1,000 steps and then spin return −25,000, one
# that fires the main engine alone −9,700
_LANDER_FLOOR = -30_000.0
# Gymnasium takes gravity between −12 and 0; where it pulls by 8 or less, such scripts
# return −28,500 and below
_LANDER = {"gravity": (-11.9, -8.5)}

# as many updates as DQN has
_DISCRETE_SAC = {"learning_rate": 1e-3, "batch_size": 64, "train_freq": 4}
_PIPELINE_RANGES = {
    **{f"dqn.{name}": ends for name, ends in DQN_RANGES.items()},
    **{f"ppo.{name}": ends for name, ends in PPO_RANGES.items()},
}

# what is learned becomes wrong: what to do about it is among the knobs
_RELEARNING = ("epsilon", "learning_rate", "replay_window", "clear_replay", "reset_all")
# many updates a step, of which the first ones are learned too well (Nikishin et al.
# 2022, arXiv:2205.07802); what helps are resets
_HIGH_REPLAY = {"train_freq": 1, "gradient_steps": 4}
_RESETS = ("learning_rate", "reset_head", "reset_all", "shrink_perturb")
# all that DQN has, in the order it has it
_EVERY_KNOB = (
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
    "double_q",
    "loss",
    "q_regularisation",
    "tau",
    "priority_alpha",
    "priority_beta",
    "exploration",
    "hold_exponent",
    "checkpoint",
    "swap",
    "reset_head",
    "reset_all",
    "shrink_perturb",
    "perturb_strength",
    "clear_replay",
)
_SMALL: dict[str, Any] = {"hidden_sizes": (32, 32)}
# small tasks begin at the best static configuration that a first look found
_DQN_SMALL: dict[str, Option] = {
    "learning_rate": 0.013,
    "batch_size": 43,
    "train_freq": 8,
    "target_update_interval": 100,
    "loss": "mse",
}
_DQN_ACROBOT_SMALL: dict[str, Option] = {
    "learning_rate": 0.002,
    "batch_size": 32,
    "n_step": 4,
    "target_update_interval": 150,
    "double_q": True,
    "loss": "mse",
    "exploration": "ez-greedy",
    "hold_exponent": 1.0,
}
# rates this high, of rewards of many steps, find the goal in nearly every run
_DQN_MOUNTAIN_CAR_SMALL: dict[str, Option] = {
    "learning_rate": 0.02,
    "batch_size": 32,
    "n_step": 8,
    "target_update_interval": 350,
    "loss": "mse",
    "exploration": "ez-greedy",
    "hold_exponent": 1.5,
}
_DQN_SMALL_SHIFT = _DQN_SMALL | {"n_step": 2, "replay_window": 3_000}
_DQN_WORLDS = {
    "epsilon": 0.5,
    "gamma": 0.95,
    "target_update_interval": 200,
    "train_freq": 2,
    "replay_window": 1_000,
}


def _on(
    inner_env: str,
    ranges: Ranges,
    returns: tuple[float, float, float],
    backend: str = "auto",
    always_varied: bool = False,
    apart: Ranges = NONE,
) -> dict[str, Any]:
    """Fields of a task on an inner environment with sets of instances.

    Args:
        inner_env: id.
        ranges: of constants that instances differ in.
        returns: those that score 0 and 1, and that of a diverged run.
        backend: as of the task.
        always_varied: as of the task, whose backend is then "batched".
        apart: see `vary`.
    """
    random, reference, floor = returns
    of_instances = measured.returns(inner_env)
    return {
        "inner_env": inner_env,
        "random_return": random,
        "reference_return": reference,
        "floor_return": floor,
        "backend": "batched" if always_varied else backend,
        "always_varied": always_varied,
        "train_instances": vary(
            ranges, "train", _WHOLE, of_instances, apart, reference
        ),
        "test_instances": vary(ranges, "test", _WHOLE, of_instances, apart, reference),
    }


_ON_CARTPOLE = _on("CartPole-v1", _CARTPOLE, (22.2, 500.0, 0.0))
_ACROBOT_RETURNS = (-499.0, -75.0, -501.0)
_ON_ACROBOT = _on("Acrobot-v1", _ACROBOT, _ACROBOT_RETURNS)


def _acrobot_reversals(steps: tuple[float, float]) -> dict[str, Any]:
    """Acrobot whose actions are reversed each so many steps, by instance."""
    return _on(
        "AcrobotReversals",
        _ACROBOT,
        _ACROBOT_RETURNS,
        always_varied=True,
        apart={"shift_at": steps, "shift_period": steps},
    )


_ON_MOUNTAIN_CAR = _on("MountainCar-v0", _MOUNTAIN_CAR, (-200.0, -100.0, -201.0))
_ON_TWO_COLOURS = _on(
    "TwoColours-v0", _TWO_COLOURS, (-3.85, 26.7, -50.0), always_varied=True
)
_ON_SWITCHING_MDPS = _on(
    "SwitchingMDP-v0", _WORLDS, (-0.8, 18.95, -11.0), always_varied=True
)
_ON_FOUR_MDPS = _on("FourMDPs-v0", _WORLDS, (-0.8, 18.95, -11.0), always_varied=True)
_TWO_TIMES = {"period": (5_000, 9_000), "offset": (5_000, 9_000)}
_ON_TWO_MDPS = _on(
    "TwoMDPs-v0", _WORLDS | _TWO_TIMES, (-0.8, 18.95, -11.0), always_varied=True
)
_SMALL_DEEP_SEA_RETURNS = (-0.005, 0.99, -0.01)
_ON_SMALL_DEEP_SEA = _on(
    "DeepSea10-v0", _SMALL_DEEP_SEA, _SMALL_DEEP_SEA_RETURNS, always_varied=True
)
_ON_CARTPOLE_REVERSALS = _on(
    "CartPoleShift",
    _CARTPOLE_SHIFT | {"shift_at": (5_000, 9_000)},
    (22.2, 500.0, 0.0),
    always_varied=True,
    apart={"shift_period": (5_000, 9_000)},
)
_ON_PENDULUM = _on("Pendulum-v1", _PENDULUM, (-1230.0, -150.0, -3300.0))
_ON_PENDULUM_REVERSALS = _on(
    "PendulumReversals",
    _PENDULUM,
    (-1230.0, -150.0, -3300.0),
    always_varied=True,
    apart={"shift_at": (7_000, 12_000), "shift_period": (7_000, 12_000)},
)
_ON_LUNAR_LANDER = _on(
    "LunarLander-v3", _LANDER, (-183.5, _LANDER_REFERENCE, _LANDER_FLOOR)
)
_ON_SWINGUP = _on(
    "CartPoleSwingup-v0", _SWINGUP, (27.6, 850.0, -1.0), backend="batched"
)

_DQN_REVERSALS: dict[str, Any] = {
    "algorithm": "dqn",
    "ranges": DQN_RANGES,
    "decisions": 40,
    "controlled": ("learning_rate", "epsilon", "replay_window"),
    "configuration": _SMALL,
}
_DQN_SMALL_WORLDS: dict[str, Any] = {
    "algorithm": "dqn",
    "ranges": DQN_RANGES,
    "controlled": _RELEARNING,
    "defaults": _DQN_WORLDS | {"gamma": 0.9, "train_freq": 4, "batch_size": 32},
    "configuration": _SMALL,
}
_PPO_WIDE_ENTROPY = PPO_RANGES | {"ent_coef": (0.0, 0.5)}
_PPO_WORLDS = {"gamma": 0.9, "ent_coef": 0.2, "n_epochs": 4}
_PPO_ROLLOUTS = {"num_inner_envs": 2, "rollout_length": 256}
_PPO_SMALL: dict[str, Any] = {
    "algorithm": "ppo",
    "ranges": _PPO_WIDE_ENTROPY,
    "budget": 65_536,
    "decisions": 32,
    "controlled": ("ent_coef", "learning_rate", "reset_all"),
    "configuration": _PPO_ROLLOUTS | _SMALL,
}
_PPO_TURNS = _PPO_SMALL | {
    "decisions": 64,
    "controlled": ("ent_coef", "learning_rate", "swap"),
}
_PPO_PENDULUM_REVERSALS = {
    "learning_rate": 3e-3,
    "gamma": 0.9,
    "gae_lambda": 0.9,
    "ent_coef": 0.05,
}
_DISCRETE_SAC_RELEARNING: dict[str, Any] = {
    "algorithm": "discrete_sac",
    "budget": 40_000,
    "decisions": 40,
    "controlled": ("learning_rate", "target_entropy", "swap"),
    "configuration": _SMALL,
}
_DISCRETE_SAC_QUICK = {
    "learning_rate": 2e-3,
    "batch_size": 16,
    "train_freq": 2,
    "tau": 0.05,
    "n_step": 3,
    "target_entropy": 0.3,
    "replay_window": 1_000,
}
_DQN_TWO_COLOURS: dict[str, Any] = {
    **_ON_TWO_COLOURS,
    "algorithm": "dqn",
    "ranges": DQN_RANGES,
    "budget": 200_000,
    "decisions": 100,
    "controlled": _RELEARNING,
    # those of two layers of 64 hardly learn anew after a swap
    "configuration": {"hidden_sizes": (128,)},
}
_PPO_TWO_COLOURS: dict[str, Any] = {
    **_ON_TWO_COLOURS,
    "algorithm": "ppo",
    "ranges": _PPO_WIDE_ENTROPY,
    "controlled": ("ent_coef", "learning_rate", "reset_all"),
}
_PPO_SWITCHING: dict[str, Any] = {
    "algorithm": "ppo",
    "ranges": _PPO_WIDE_ENTROPY,
    "budget": 98_304,
    "decisions": 64,
    "controlled": ("ent_coef", "learning_rate", "reset_all"),
    "defaults": {"learning_rate": 0.01, **_PPO_WORLDS},
    "configuration": _PPO_ROLLOUTS | _SMALL,
}

TABLE = (
    Task(
        id="dacrl/DQN-CartPole-v0",
        **_ON_CARTPOLE,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=50_000,
        description="DQN on CartPole; good runs forget again",
    ),
    Task(
        id="dacrl/DQN-CartPole-Wide-v0",
        **_ON_CARTPOLE,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=50_000,
        controlled=_EVERY_KNOB,
        description="DQN on CartPole; all of its numbers, choices and events",
    ),
    Task(
        id="dacrl/DQN-CartPole-Small-v0",
        **_ON_CARTPOLE,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=20_000,
        defaults=_DQN_SMALL | {"n_step": 4},
        configuration=_SMALL,
        description="DQN on CartPole in 20,000 steps, with smaller networks",
    ),
    Task(
        id="dacrl/DQN-Acrobot-v0",
        **_ON_ACROBOT,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=100_000,
        defaults={"target_update_interval": 1_000, "double_q": True, "n_step": 3},
        description="DQN on Acrobot; nearly solved by default",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/DQN-Acrobot-Small-v0",
        **_ON_ACROBOT,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=30_000,
        defaults=_DQN_ACROBOT_SMALL,
        configuration=_SMALL,
        description="DQN on Acrobot in 30,000 steps, with smaller networks",
    ),
    Task(
        id="dacrl/DQN-MountainCar-v0",
        **_ON_MOUNTAIN_CAR,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=120_000,
        description="DQN on MountainCar; the first success is hard to find",
    ),
    Task(
        id="dacrl/DQN-MountainCar-Held-v0",
        **_ON_MOUNTAIN_CAR,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=120_000,
        controlled=("learning_rate", "epsilon", "hold_exponent", "n_step"),
        # rewards of several steps tell of the goal before it is forgotten again
        defaults={
            "epsilon": 0.2,
            "target_update_interval": 200,
            "n_step": 3,
            "exploration": "ez-greedy",
            "hold_exponent": 1.5,
        },
        description="DQN on MountainCar; random actions are held, for how long",
    ),
    Task(
        id="dacrl/DQN-MountainCar-Small-v0",
        **_ON_MOUNTAIN_CAR,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=60_000,
        defaults=_DQN_MOUNTAIN_CAR_SMALL,
        configuration=_SMALL,
        description="DQN on MountainCar in 60,000 steps, with smaller networks",
    ),
    Task(
        id="dacrl/DQN-MiniGrid-Empty-5x5-v0",
        inner_env="MiniGrid-Empty-5x5-v0",
        scale_images=False,  # codes of objects, colours and states
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=50_000,
        random_return=0.2,
        reference_return=0.95,
        floor_return=-0.01,
        defaults={
            "learning_rate": 3e-4,
            "epsilon": 0.3,
            "target_update_interval": 1_000,
            "double_q": True,
            "n_step": 3,
        },
        description="DQN on an empty room, seen in part",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/DQN-MiniGrid-DoorKey-5x5-v0",
        inner_env="MiniGrid-DoorKey-5x5-v0",
        scale_images=False,  # codes of objects, colours and states
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=100_000,
        random_return=0.035,
        reference_return=0.95,
        floor_return=-0.01,
        defaults={
            "learning_rate": 3e-4,
            "epsilon": 0.3,
            "target_update_interval": 1_000,
            "double_q": True,
            "n_step": 3,
        },
        description="DQN on a room with key and door; exploration matters",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/DQN-CartPoleShift-v0",
        **_on("CartPoleShift", _CARTPOLE_SHIFT, (22.2, 500.0, 0.0), always_varied=True),
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=50_000,
        controlled=("learning_rate", "epsilon", "replay_window"),
        # with all that came before the shift in the replay, no learning rate and no
        # epsilon makes up for it
        defaults={"replay_window": 5_000},
        description="DQN on CartPole whose motor is reversed at an unknown time",
    ),
    Task(
        id="dacrl/DQN-CartPoleShift-Small-v0",
        **_on(
            "CartPoleShift",
            _CARTPOLE_SHIFT | {"shift_at": (7_500, 17_500)},
            (22.2, 500.0, 0.0),
            always_varied=True,
        ),
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=25_000,
        decisions=25,
        controlled=("learning_rate", "epsilon", "replay_window"),
        defaults=_DQN_SMALL_SHIFT,
        configuration=_SMALL,
        description="DQN-CartPoleShift in half of the steps, with smaller networks",
    ),
    Task(
        id="dacrl/DQN-CartPoleReversals-Small-v0",
        **_on(
            "CartPoleShift",
            _CARTPOLE_SHIFT | {"shift_at": (6_000, 12_000)},
            (22.2, 500.0, 0.0),
            always_varied=True,
            apart={"shift_period": (6_000, 12_000)},
        ),
        **_DQN_REVERSALS,
        budget=40_000,
        defaults=_DQN_SMALL_SHIFT,
        description="DQN on CartPole whose motor is reversed again and again, untold",
    ),
    Task(
        id="dacrl/DQN-AcrobotReversals-Small-v0",
        **_acrobot_reversals((6_000, 12_000)),
        **_DQN_REVERSALS,
        budget=40_000,
        defaults=_DQN_ACROBOT_SMALL | {"replay_window": 3_000},
        description="DQN on Acrobot whose motor is reversed again and again, untold",
    ),
    Task(
        id="dacrl/DQN-MountainCarReversals-Small-v0",
        **_on(
            "MountainCarReversals",
            _MOUNTAIN_CAR,
            (-200.0, -100.0, -201.0),
            always_varied=True,
            apart={"shift_at": (12_000, 24_000), "shift_period": (12_000, 24_000)},
        ),
        **_DQN_REVERSALS,
        budget=60_000,
        defaults=_DQN_MOUNTAIN_CAR_SMALL | {"replay_window": 5_000},
        description="DQN on MountainCar whose motor is reversed now and again, untold",
    ),
    Task(
        id="dacrl/DQN-TwoColours-v0",
        **_DQN_TWO_COLOURS,
        defaults=_DQN_WORLDS | {"gamma": 0.9, "replay_window": 10_000},
        description="DQN takes one of two objects; which one is good swaps untold",
    ),
    Task(
        id="dacrl/DQN-TwoColours-Lifelong-v0",
        **_DQN_TWO_COLOURS,
        judged_by="training",
        defaults=_DQN_WORLDS
        | {
            "gamma": 0.9,
            "replay_window": 3_000,
            "learning_rate": 1e-3,
            "epsilon": 0.4,
        },
        description="DQN-TwoColours, judged by the episodes it learns from",
    ),
    Task(
        id="dacrl/DQN-SwitchingMDPs-v0",
        **_ON_SWITCHING_MDPS,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=100_000,
        decisions=100,
        controlled=_RELEARNING,
        defaults=_DQN_WORLDS,
        configuration={"hidden_sizes": (64,)},
        description="DQN in a small maze that is a new one from time to time, untold",
    ),
    Task(
        id="dacrl/DQN-SwitchingMDPs-Small-v0",
        **_ON_SWITCHING_MDPS,
        **_DQN_SMALL_WORLDS,
        budget=64_000,
        decisions=64,
        description="DQN-SwitchingMDPs in fewer steps, with smaller networks",
    ),
    Task(
        id="dacrl/DQN-FourMDPs-v0",
        **_ON_FOUR_MDPS,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=100_000,
        decisions=100,
        controlled=_RELEARNING,
        defaults=_DQN_WORLDS,
        configuration={"hidden_sizes": (64,)},
        description="DQN in four small mazes that take turns, untold",
    ),
    Task(
        id="dacrl/DQN-DeepSea-v0",
        **_on("DeepSea-v0", _DEEP_SEA, (-0.005, 0.99, -0.01), always_varied=True),
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=100_000,
        decisions=100,
        controlled=("epsilon", "exploration", "hold_exponent", "learning_rate"),
        defaults={"batch_size": 32, "target_update_interval": 200},
        description="DQN dives for a treasure that one sequence of actions finds",
    ),
    Task(
        id="dacrl/DQN-DeepSea-Small-v0",
        **_ON_SMALL_DEEP_SEA,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=25_000,
        decisions=25,
        controlled=("epsilon", "exploration", "hold_exponent", "learning_rate"),
        defaults={"batch_size": 32, "target_update_interval": 200, "epsilon": 0.4},
        configuration=_SMALL,
        description="DQN dives in smaller seas; a quarter of the runs find nothing",
    ),
    Task(
        id="dacrl/DQN-CartPole-HighReplay-v0",
        **_ON_CARTPOLE,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=20_000,
        controlled=_RESETS,
        defaults=_HIGH_REPLAY,
        description="DQN on CartPole with four updates a step, and resets",
    ),
    Task(
        id="dacrl/DQN-Acrobot-HighReplay-v0",
        **_ON_ACROBOT,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=30_000,
        controlled=_RESETS,
        defaults=_HIGH_REPLAY,
        description="DQN on Acrobot with four updates a step, and resets",
    ),
    Task(
        id="dacrl/DQN-LunarLander-v0",
        **_ON_LUNAR_LANDER,
        algorithm="dqn",
        ranges=DQN_RANGES,
        budget=100_000,
        defaults={"learning_rate": 6.3e-4},
        description="DQN on LunarLander, one environment at a time; needs Box2D",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/PPO-CartPole-v0",
        **_ON_CARTPOLE,
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=102_400,
        description="PPO on CartPole; solved by default",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/PPO-Acrobot-v0",
        **_ON_ACROBOT,
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=204_800,
        description="PPO on Acrobot",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/PPO-Pendulum-v0",
        **_ON_PENDULUM,
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=204_800,
        defaults={"learning_rate": 1e-3, "gamma": 0.9},
        description="PPO on Pendulum, continuous actions",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/PPO-CartPoleSwingup-v0",
        **_ON_SWINGUP,
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=204_800,
        description="PPO on dm_control's cart-pole swing-up, continuous actions",
    ),
    Task(
        id="dacrl/PPO-MiniGrid-DoorKey-5x5-v0",
        inner_env="MiniGrid-DoorKey-5x5-v0",
        scale_images=False,  # codes of objects, colours and states
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=204_800,
        random_return=0.035,
        reference_return=0.95,
        floor_return=-0.01,
        description="PPO on a room with key and door; exploration matters",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/PPO-MiniGridLevels-v0",
        **_on("MiniGridLevels-v0", _LEVELS, (0.116, 0.95, -0.01), backend="batched"),
        scale_images=False,  # codes of objects, colours and states
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=409_600,
        controlled=("learning_rate", "ent_coef", "level_replay", "level_temperature"),
        defaults={
            "learning_rate": 1e-3,
            "batch_size": 128,
            "gae_lambda": 0.9,
            "n_epochs": 4,
            "ent_coef": 0.01,
        },
        description="PPO on levels of rooms, judged on others; which to train on",
    ),
    Task(
        id="dacrl/PPO-PendulumShift-v0",
        **_on(
            "PendulumShift",
            _PENDULUM_SHIFT,
            (-1230.0, -150.0, -3300.0),
            always_varied=True,
        ),
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=204_800,
        defaults={"learning_rate": 1e-3, "gamma": 0.9},
        description="PPO on Pendulum whose physics change at an unknown time",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/PPO-TwoColours-v0",
        budget=307_200,
        decisions=100,
        defaults={"learning_rate": 1e-3, **_PPO_WORLDS},
        configuration=_PPO_ROLLOUTS,
        **_PPO_TWO_COLOURS,
        description="PPO takes one of two objects; which one is good swaps untold",
    ),
    Task(
        id="dacrl/PPO-TwoColours-Small-v0",
        budget=98_304,
        decisions=64,
        defaults={"learning_rate": 2e-3, **_PPO_WORLDS},
        configuration=_PPO_ROLLOUTS | _SMALL,
        **_PPO_TWO_COLOURS,
        description="PPO-TwoColours in a third of the steps, with smaller networks",
    ),
    Task(
        id="dacrl/PPO-TwoColours-Lifelong-Small-v0",
        budget=98_304,
        decisions=64,
        judged_by="training",
        defaults={"learning_rate": 2e-3, **_PPO_WORLDS, "ent_coef": 0.1},
        configuration=_PPO_ROLLOUTS | _SMALL,
        **_PPO_TWO_COLOURS | {"controlled": _PPO_TURNS["controlled"]},
        description="PPO takes one of two objects, judged by what it learns from",
    ),
    Task(
        id="dacrl/PPO-SwitchingMDPs-Small-v0",
        **_ON_SWITCHING_MDPS,
        **_PPO_SWITCHING,
        description="PPO in a small maze that is a new one from time to time, untold",
    ),
    Task(
        id="dacrl/PPO-FourMDPs-Small-v0",
        **_ON_FOUR_MDPS,
        **_PPO_SWITCHING,
        description="PPO in four small mazes that take turns, untold",
    ),
    Task(
        id="dacrl/PPO-TwoMDPs-Small-v0",
        **_ON_TWO_MDPS,
        **_PPO_TURNS,
        defaults={"learning_rate": 0.003, **_PPO_WORLDS},
        description="PPO in two small mazes that take turns, untold",
    ),
    Task(
        id="dacrl/PPO-TwoMDPs-Lifelong-Small-v0",
        **_ON_TWO_MDPS,
        **_PPO_TURNS,
        judged_by="training",
        defaults={"learning_rate": 0.003, **_PPO_WORLDS, "ent_coef": 0.1},
        description="PPO in two small mazes, judged by what it learns from",
    ),
    Task(
        id="dacrl/DQN-TwoMDPs-Small-v0",
        **_ON_TWO_MDPS,
        **_DQN_SMALL_WORLDS,
        budget=48_000,
        decisions=48,
        description="DQN in two small mazes that take turns, untold",
    ),
    Task(
        id="dacrl/PPO-CartPoleReversals-Small-v0",
        **_ON_CARTPOLE_REVERSALS,
        **_PPO_TURNS,
        defaults={"learning_rate": 0.003, "ent_coef": 0.05},
        description="PPO on CartPole whose motor is reversed again and again, untold",
    ),
    Task(
        id="dacrl/PPO-CartPoleReversals-Lifelong-Small-v0",
        **_ON_CARTPOLE_REVERSALS,
        **_PPO_TURNS,
        judged_by="training",
        defaults={"learning_rate": 0.003, "ent_coef": 0.02},
        description="PPO on CartPole with reversals, judged by what it learns from",
    ),
    Task(
        id="dacrl/PPO-Pendulum-Small-v0",
        **_ON_PENDULUM,
        **_PPO_SMALL
        | {
            "budget": 32_768,
            "controlled": ("learning_rate", "ent_coef", "n_epochs"),
        },
        defaults={"learning_rate": 3e-3, "gamma": 0.9, "n_epochs": 20},
        description="PPO on Pendulum, in so few steps that it has to learn fast",
    ),
    Task(
        id="dacrl/PPO-PendulumReversals-Small-v0",
        **_ON_PENDULUM_REVERSALS,
        **_PPO_TURNS,
        defaults=_PPO_PENDULUM_REVERSALS,
        description="PPO on Pendulum whose motor is reversed again and again, untold",
    ),
    Task(
        id="dacrl/PPO-PendulumReversals-Lifelong-Small-v0",
        **_ON_PENDULUM_REVERSALS,
        **_PPO_TURNS,
        judged_by="training",
        defaults=_PPO_PENDULUM_REVERSALS,
        description="PPO on Pendulum with reversals, judged by what it learns from",
    ),
    Task(
        id="dacrl/PPO-DeepSea-Small-v0",
        **_ON_SMALL_DEEP_SEA,
        **_PPO_SMALL,
        defaults={"learning_rate": 1e-3, "n_epochs": 4, "ent_coef": 0.01},
        description="PPO dives for a treasure; half of the runs settle without it",
    ),
    Task(
        id="dacrl/PPO-DeepSea-Lifelong-Small-v0",
        **_ON_SMALL_DEEP_SEA,
        **_PPO_SMALL,
        judged_by="training",
        defaults={"learning_rate": 3e-3, "n_epochs": 4, "ent_coef": 0.1},
        description="PPO dives for a treasure, judged by the dives it learns from",
    ),
    Task(
        id="dacrl/PPO-DeepSeaReversals-Small-v0",
        **_on(
            "DeepSea10Reversals",
            _SMALL_DEEP_SEA,
            _SMALL_DEEP_SEA_RETURNS,
            always_varied=True,
            apart={"shift_at": (12_000, 24_000), "shift_period": (12_000, 24_000)},
        ),
        **_PPO_SMALL,
        defaults={"learning_rate": 1e-3, "n_epochs": 4, "ent_coef": 0.2},
        description="PPO dives for a treasure; now and then left is right, untold",
    ),
    Task(
        id="dacrl/PPO-AcrobotReversals-Small-v0",
        **_acrobot_reversals((9_000, 18_000)),
        **_PPO_SMALL,
        defaults={"learning_rate": 8e-3, "ent_coef": 0.03},
        description="PPO on Acrobot whose motor is reversed again and again, untold",
    ),
    Task(
        id="dacrl/PPO-LunarLander-v0",
        **_ON_LUNAR_LANDER,
        algorithm="ppo",
        ranges=PPO_RANGES,
        budget=204_800,
        defaults={"gamma": 0.999, "gae_lambda": 0.98, "ent_coef": 0.01},
        description="PPO on LunarLander, one environment at a time; needs Box2D",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/SAC-Pendulum-v0",
        **_ON_PENDULUM,
        algorithm="sac",
        budget=20_000,
        defaults={"learning_rate": 1e-3, "batch_size": 64},
        description="SAC on Pendulum; solved by default",
        tags=("smoke",),
    ),
    Task(
        id="dacrl/SAC-MountainCarContinuous-v0",
        **_on(
            "MountainCarContinuous-v0", _MOUNTAIN_CAR_CONTINUOUS, (-33.3, 94.0, -101.0)
        ),
        algorithm="sac",
        budget=20_000,
        defaults={"learning_rate": 1e-3, "batch_size": 64},
        # an action that is drawn anew each step never comes to the goal, and what
        # stands still loses nothing
        configuration={"learning_starts": 3_000, "held_starts": 32},
        description="SAC on MountainCar, any share of the motor's power",
    ),
    Task(
        id="dacrl/SAC-CartPoleSwingup-v0",
        **_ON_SWINGUP,
        algorithm="sac",
        budget=60_000,
        defaults={"learning_rate": 1e-3, "batch_size": 64},
        description="SAC on a cart that swings its pole up",
    ),
    Task(
        id="dacrl/SAC-CartPoleSwingupShift-v0",
        **_on(
            "CartPoleSwingupShift",
            _SWINGUP_SHIFT,
            (27.6, 850.0, -1.0),
            always_varied=True,
        ),
        algorithm="sac",
        budget=60_000,
        controlled=("learning_rate", "replay_window", "clear_replay", "reset_all"),
        defaults={
            "learning_rate": 1e-3,
            "batch_size": 64,
            "replay_window": 5_000,
        },
        description="SAC on a cart whose motor is reversed at an unknown time",
    ),
    *minatar.TABLE,
    Task(
        id="dacrl/DiscreteSAC-CartPole-v0",
        **_ON_CARTPOLE,
        algorithm="discrete_sac",
        budget=50_000,
        defaults=_DISCRETE_SAC,
        description="SAC with discrete actions on CartPole",
    ),
    Task(
        id="dacrl/DiscreteSAC-TwoMDPs-Small-v0",
        **_ON_TWO_MDPS,
        **_DISCRETE_SAC_RELEARNING,
        defaults=_DISCRETE_SAC_QUICK
        | {"learning_rate": 3e-3, "train_freq": 4, "gamma": 0.9},
        description="Discrete SAC in two small mazes that take turns, untold",
    ),
    Task(
        id="dacrl/DiscreteSAC-CartPoleReversals-Small-v0",
        **_ON_CARTPOLE_REVERSALS,
        **_DISCRETE_SAC_RELEARNING,
        defaults=_DISCRETE_SAC_QUICK,
        description="Discrete SAC on CartPole whose motor is reversed again and again",
    ),
    Task(
        id="dacrl/Pipeline-CartPole-v0",
        **_ON_CARTPOLE,
        algorithm="pipeline",
        ranges=_PIPELINE_RANGES,
        budget=51_200,
        defaults={f"sac.{name}": x for name, x in _DISCRETE_SAC.items()},
        description="DQN, PPO or SAC on CartPole, on features that are chosen, too",
    ),
    Task(
        id="dacrl/Pipeline-Acrobot-v0",
        **_ON_ACROBOT,
        algorithm="pipeline",
        ranges=_PIPELINE_RANGES,
        budget=102_400,
        defaults={f"sac.{name}": x for name, x in _DISCRETE_SAC.items()},
        description="DQN, PPO or SAC on Acrobot, on features that are chosen, too",
    ),
    Task(
        id="dacrl/NoisyQuadratic-v0",
        inner_env="",
        algorithm="sgd",
        budget=50,
        decisions=50,
        random_return=0.4,  # of untrained parameters
        reference_return=3.89,  # of the optimal policy
        floor_return=-6.5,
        description="SGD on a noisy quadratic: the optimal learning rate is known",
    ),
    Task(
        id="dacrl/JumpingQuadratic-v0",
        inner_env="",
        algorithm="sgd",
        budget=200,
        decisions=40,
        random_return=0.33,  # of untrained parameters
        reference_return=2.78,  # of the policy that is optimal for the next step
        floor_return=-6.5,
        defaults={"learning_rate": 0.2},
        configuration={
            "curvature": (-0.2, 0.2),
            "noise": (-1.0, -0.5),
            "jump_period": (30, 100),
        },
        description="SGD on a noisy quadratic whose minimum jumps, which is not told",
    ),
)
