"""MinAtar's games as the package ``minatar`` has them, under our random numbers.

The original asks a generator for numbers; here it is given those that ours address, so
that both draw the same and every step can be compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stepping import STEPS

from dacrl_env.core import streams
from dacrl_env.inner_envs.env import CompiledEnv
from dacrl_env.inner_envs.minatar import (
    asterix,
    breakout,
    common,
    freeway,
    seaquest,
    space_invaders,
)

NAMES = {
    "MinAtar/Breakout-v1": "breakout",
    "MinAtar/SpaceInvaders-v1": "space_invaders",
    "MinAtar/Asterix-v1": "asterix",
    "MinAtar/Freeway-v1": "freeway",
    "MinAtar/Seaquest-v1": "seaquest",
}


# -- equal random numbers --------------------------------------------------------------


class Given:
    """Stands where the original has a generator, and gives it numbers of ours."""

    def __init__(self) -> None:
        self._words: list[int] = []

    def are(self, key: np.uint64, counter: int, lanes: list[int]) -> None:
        """What is given next: these lanes of a draw, in this order."""
        counters = np.array([counter], np.int64)
        words = streams.bits(np.array([key]), counters, max(lanes) + 1)
        self._words = words[0, lanes].tolist()

    def rand(self, size: int | None = None) -> Any:
        if size is None:
            return (self._words.pop(0) >> 11) * 2.0**-53
        return np.array([self.rand() for _ in range(size)])

    def randint(self, low: int, high: int | None = None, size: Any = None) -> Any:
        if size is not None:
            return np.array([self.randint(low, high) for _ in range(size)])
        low, high = (0, low) if high is None else (low, high)
        return low + (((self._words.pop(0) >> 32) * (high - low)) >> 32)


class Original:
    """A game of the package ``minatar``, that draws as ours does."""

    def __init__(self, env_id: str) -> None:
        environment = pytest.importorskip("minatar.environment")
        self.game = environment.Environment(NAMES[env_id], sticky_action_prob=0.1)
        self.inner = self.game.env
        self.actions = self.game.minimal_action_set()
        self.random = self.game.random = self.inner.random = Given()

    def reset(self, key: np.uint64, episode: int) -> None:
        self.random.are(key, episode, list(range(16)))
        self.game.reset()
        # the original keeps it from one episode to the next
        self.game.last_action = 0

    def step(self, action: int, key: np.uint64, lifetime: int) -> tuple[float, bool]:
        self.random.are(key, STEPS + lifetime, [0, *self._lanes()])
        reward, over = self.game.act(self.actions[action])
        return float(reward), bool(over)

    def _lanes(self) -> list[int]:
        """In the order in which the game asks."""
        if self.game.env_name != "seaquest":
            return list(range(1, 17))
        enemy = [1, 2, 3] if self.inner.e_spawn_timer == 0 else []
        return [*enemy, 4, 5]

    def state(self) -> NDArray[np.bool_]:
        seen: NDArray[np.bool_] = self.game.state()
        return seen

    def variables(self) -> dict[int, Any]:
        """What it has of our variables, by their places."""
        last = self.actions.index(self.game.last_action)
        read = READ[self.game.env_name]
        return {common.LAST: last, **read(self.inner)}


# -- the original's state as our variables ---------------------------------------------


def rows(cells: NDArray[Any], first: int) -> dict[int, int]:
    """Rows of cells as numbers, from a place on."""
    numbers = (cells != 0) @ (1 << np.arange(10))
    return {first + i: int(n) for i, n in enumerate(numbers)}


def read_breakout(inner: Any) -> dict[int, Any]:
    assert not inner.brick_map[[0, 4, 5, 6, 7, 8, 9]].any()
    return {
        breakout.PADDLE: inner.pos,
        breakout.X: inner.ball_x,
        breakout.Y: inner.ball_y,
        breakout.RIGHTWARDS: [-1, 1, 1, -1][inner.ball_dir],
        breakout.DOWNWARDS: [-1, -1, 1, 1][inner.ball_dir],
        breakout.STRUCK: inner.strike,
        breakout.BEFORE_X: inner.last_x,
        breakout.BEFORE_Y: inner.last_y,
        **rows(inner.brick_map[1:4], breakout.BRICKS),
    }


def read_space_invaders(inner: Any) -> dict[int, Any]:
    return {
        space_invaders.CANNON: inner.pos,
        space_invaders.DIRECTION: inner.alien_dir,
        space_invaders.MOVE_INTERVAL: inner.enemy_move_interval,
        space_invaders.MOVE_TIMER: inner.alien_move_timer,
        space_invaders.SHOT_TIMER: inner.alien_shot_timer,
        space_invaders.RELOAD: inner.shot_timer,
        **rows(inner.alien_map, space_invaders.ALIENS),
        **rows(inner.f_bullet_map, space_invaders.BULLETS),
        **rows(inner.e_bullet_map, space_invaders.BOMBS),
    }


def read_asterix(inner: Any) -> dict[int, Any]:
    found = {
        asterix.X: inner.player_x,
        asterix.Y: inner.player_y,
        asterix.SPAWN_INTERVAL: inner.spawn_speed,
        asterix.SPAWN_TIMER: inner.spawn_timer,
        asterix.MOVE_INTERVAL: inner.move_speed,
        asterix.MOVE_TIMER: inner.move_timer,
        asterix.RAMP_TIMER: inner.ramp_timer,
        asterix.RAMPS: inner.ramp_index,
    }
    for i, thing in enumerate(inner.entities):
        x, _, right, treasure = thing or (asterix.NONE, None, False, False)
        found[asterix.THINGS + i] = x
        found[asterix.RIGHTWARDS + i] = right
        found[asterix.TREASURES + i] = treasure
    return found


def read_freeway(inner: Any) -> dict[int, Any]:
    found = {
        freeway.PLACE: inner.pos,
        freeway.WAIT: inner.move_timer,
        freeway.TIME_LEFT: inner.terminate_timer,
    }
    for i, (x, _, wait, speed) in enumerate(inner.cars):
        found[freeway.CARS + i] = x
        found[freeway.WAITS + i] = wait
        found[freeway.SPEEDS + i] = speed
    return found


def read_seaquest(inner: Any) -> dict[int, Any]:
    found = {
        seaquest.X: inner.sub_x,
        seaquest.Y: inner.sub_y,
        seaquest.RIGHTWARDS: inner.sub_or,
        seaquest.OXYGEN: inner.oxygen,
        seaquest.FULL: 200,
        seaquest.ABOARD: inner.diver_count,
        seaquest.SURFACED: inner.surface,
        seaquest.RELOAD: inner.shot_timer,
        seaquest.SPAWN_INTERVAL: inner.e_spawn_speed,
        seaquest.SPAWN_TIMER: inner.e_spawn_timer,
        seaquest.MOVE_INTERVAL: inner.move_speed,
        seaquest.DIVER_TIMER: inner.d_spawn_timer,
        seaquest.RAMPS: inner.ramp_index,
    }
    for kind, things in (
        (seaquest.SHOTS, inner.f_bullets),
        (seaquest.DIVERS, inner.divers),
        (seaquest.FISH, inner.e_fish),
        (seaquest.SUBS, inner.e_subs),
        (seaquest.TORPEDOES, inner.e_bullets),
    ):
        found[kind] = len(things)
        for i, thing in enumerate(things):
            for field, value in enumerate(thing):
                found[kind + 1 + 5 * i + field] = value
    return found


READ = {
    "breakout": read_breakout,
    "space_invaders": read_space_invaders,
    "asterix": read_asterix,
    "freeway": read_freeway,
    "seaquest": read_seaquest,
}


def check_variables(env: CompiledEnv, ours: NDArray[Any], original: Original) -> None:
    """All of our variables are what the original says; the others are 0."""
    theirs = np.zeros(env.env.variables)
    for place, value in original.variables().items():
        theirs[place] = value
    np.testing.assert_array_equal(ours, theirs)


# -- policies that live long -----------------------------------------------------------


Play = Callable[[Any, np.random.Generator], int]


def play_breakout(inner: Any, rng: np.random.Generator) -> int:
    """Follow the ball."""
    right = inner.ball_dir in (1, 2)
    if inner.ball_y == 8 and inner.ball_dir in (2, 3):
        return 0 if inner.pos == inner.ball_x else 1 if inner.pos > inner.ball_x else 2
    aim = inner.ball_x + (1 if right else -1)
    return 1 if inner.pos > aim else 2 if inner.pos < aim else 0


def play_space_invaders(inner: Any, rng: np.random.Generator) -> int:
    """Fire, and go where no bomb falls."""

    def danger(column: int) -> float:
        if not 0 <= column <= 9:
            return 99.0
        near = sum(bool(inner.e_bullet_map[8 - k, column]) * 0.5**k for k in range(3))
        below = np.flatnonzero(inner.alien_map.any(0))
        return float(10 * near) + 0.1 * float(np.abs(below - column).min())

    stays = danger(inner.pos)
    dangers = [stays, danger(inner.pos - 1), danger(inner.pos + 1)]
    best = int(np.argmin(dangers))
    if dangers[best] >= stays - 0.05 or (stays < 1 and inner.shot_timer == 0):
        return 3
    return best


def play_asterix(inner: Any, rng: np.random.Generator) -> int:
    """Stay out of the way of enemies, and go for treasure."""

    def danger(x: int, y: int) -> float:
        x, y = min(max(x, 0), 9), min(max(y, 1), 8)
        value = 0.0
        for thing in inner.entities:
            if thing is None:
                continue
            at, row, right, treasure = thing
            ahead = (x - at) if right else (at - x)
            if row == y and treasure:
                value -= 1.0 / (1 + abs(x - at))
            elif row == y and 0 <= ahead <= 2:
                value += 10.0 / (1 + ahead)
        return value + 0.01 * abs(x - 4.5)

    x, y = inner.player_x, inner.player_y
    around = [(x, y), (x - 1, y), (x, y - 1), (x + 1, y), (x, y + 1)]
    return int(np.argmin([danger(*place) for place in around]))


def play_freeway(inner: Any, rng: np.random.Generator) -> int:
    """Go up."""
    return 1


def play_seaquest(inner: Any, rng: np.random.Generator) -> int:
    """Collect divers, shoot what is in front, and come up in time."""
    x, y = inner.sub_x, inner.sub_y
    enemies = [*inner.e_fish, *inner.e_subs, *inner.e_bullets]
    near = [e for e in enemies if e[1] == y and abs(e[0] - x) <= 3]
    if near and inner.shot_timer == 0 and y > 0:
        e = near[0]
        if (e[0] > x) == inner.sub_or:
            return 5
    if near and y > 0:
        return 4 if y < 8 and rng.random() < 0.7 else 2
    if inner.diver_count != 0 and (inner.oxygen < 30 or inner.diver_count == 6):
        return 2
    if y == 0:
        return 4
    for diver in inner.divers:
        if diver[1] != y:
            return 4 if diver[1] > y else 2
        return 3 if diver[0] > x else 1
    return int(rng.integers(6))


PLAY: dict[str, Play] = {
    "MinAtar/Breakout-v1": play_breakout,
    "MinAtar/SpaceInvaders-v1": play_space_invaders,
    "MinAtar/Asterix-v1": play_asterix,
    "MinAtar/Freeway-v1": play_freeway,
    "MinAtar/Seaquest-v1": play_seaquest,
}
