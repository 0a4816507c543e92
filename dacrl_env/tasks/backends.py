"""What makes the inner environment of a task; the table of batched ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dacrl_env.tasks.task import Task


# what steps inside of compiled code
COMPILED_ENVS = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "Pendulum-v1",
    "MountainCarContinuous-v0",
    "MiniGrid-Empty-5x5-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-Empty-6x6-v0",
    "MiniGrid-Empty-8x8-v0",
    "MiniGrid-Empty-Random-5x5-v0",
    "MiniGrid-Empty-Random-6x6-v0",
    "MiniGrid-DoorKey-6x6-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-LavaGapS5-v0",
    "MiniGrid-LavaGapS6-v0",
    "MiniGrid-LavaGapS7-v0",
    "MinAtar/Breakout-v1",
    "MinAtar/SpaceInvaders-v1",
    "MinAtar/Asterix-v1",
    "MinAtar/Freeway-v1",
    "MinAtar/Seaquest-v1",
    # no Gymnasium ids: these exist here alone
    "CartPoleSwingup-v0",
    "TwoColours-v0",
    "SwitchingMDP-v0",
    "FourMDPs-v0",
    "TwoMDPs-v0",
    "DeepSea-v0",
    "DeepSea10-v0",
    "MiniGridLevels-v0",
    "CartPoleShift",
    "PendulumShift",
    "CartPoleSwingupShift",
    "AcrobotReversals",
    "MountainCarReversals",
    "PendulumReversals",
    "DeepSea10Reversals",
)
# whose episodes take place in numbered levels
LEVELLED = ("MiniGridLevels-v0",)
# hyperparameters by which algorithms choose among levels
OF_LEVELS = ("level_replay", "level_temperature", "level_staleness")


def backend_of(task: Task) -> str:
    """What makes a task's inner environment; "none": it has none."""
    if not task.inner_env:
        return "none"
    if task.backend != "auto":
        return task.backend
    batched = task.inner_env in COMPILED_ENVS and not task.inner_env_kwargs
    return "batched" if batched else "gymnasium"


def has_levels(task: Task) -> bool:
    """Whether episodes of a task's inner environment take place in levels."""
    return backend_of(task) == "batched" and task.inner_env in LEVELLED
