"""MinAtar's Seaquest: shoot fish and submarines, rescue divers, and come up for air.

What is shot is worth 1. At the surface oxygen is filled up, for one diver aboard; with
six aboard all are set down, for up to 10 as there is oxygen left. Each time the game
gets harder. It is lost when oxygen runs out, when the player comes up without a diver,
or when it meets an enemy or a bullet.

One rule of the original is surprising: setting down six divers takes one more, so that
afterwards there is one diver less than none aboard, with which the player may come up
as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dacrl_env.inner_envs.minatar.common import (
    EDGE,
    MAX_EPISODE_STEPS,
    SIDE,
    USUALLY_STICKY,
    clamped,
    get_harder,
    may_get_harder,
    nothing,
    outside,
    show,
    show_trail,
    taken,
)
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below, uniform

# variables after the last action
(
    X,
    Y,
    RIGHTWARDS,
    OXYGEN,
    FULL,
    ABOARD,
    SURFACED,
    RELOAD,
    SPAWN_INTERVAL,
    SPAWN_TIMER,
    MOVE_INTERVAL,
    DIVER_TIMER,
    RAMPS,
) = range(1, 14)
# then lists of what swims: how many there are, and five variables of each: column, row,
# whether it moves to the right, and the times until it moves and shoots
COLUMN, ROW, RIGHT_OF, MOVE_TIMER, SHOT_TIMER = range(5)
_FIELDS = 5
_FEW, _MANY, _MOST = 4, 32, 44  # room in a list
SHOTS = 14
DIVERS = SHOTS + 1 + _FEW * _FIELDS
FISH = DIVERS + 1 + _FEW * _FIELDS
SUBS = FISH + 1 + _MANY * _FIELDS
TORPEDOES = SUBS + 1 + _MANY * _FIELDS
_END = TORPEDOES + 1 + _MOST * _FIELDS

NOTHING, LEFT, UP, RIGHT, DOWN, FIRE = range(6)  # actions
# channels
(
    FRONT,
    BACK,
    SHOT,
    TRAIL,
    TORPEDO,
    ENEMY_FISH,
    ENEMY_SUB,
    OXYGEN_LEFT,
    DIVERS_ABOARD,
    DIVER,
) = range(10)

_CHANNELS = 10
_CREW = 6  # divers that there is room for
_BARS = 10  # cells of the bar that shows oxygen
_COOL_DOWN = 5.0  # steps between the player's shots
_TORPEDO_INTERVAL = 10.0  # steps that a submarine rests between shots
_DIVER_SPAWN, _DIVER_MOVE = 30.0, 5.0  # steps
_LEAST_MOVE = 2.0  # steps that enemies rest between moves, as hard as it gets

PHYSICS = {
    "sticky": USUALLY_STICKY,  # probability
    "oxygen": 200.0,  # steps under water
    "spawn_interval": 20.0,  # steps between enemies that appear, at first
    "move_interval": 5.0,  # steps that enemies rest between moves, at first
}
_OXYGEN, _SPAWN, _MOVE = 1, 2, 3


class Seaquest(NamedTuple):
    """Variables: last action, player, timers, lists of what swims.

    With the original's constants there is always room in the lists. Where constants
    make enemies live longer than there is room for, no more of them appear.
    """

    features: int = SIDE * SIDE * _CHANNELS
    actions: int = 6
    variables: int = _END
    max_episode_steps: int = MAX_EPISODE_STEPS


@compiled
def reset(env, key, episode, physics, variables):
    """The player at the surface, alone, with all oxygen."""
    for k in range(len(variables)):
        variables[k] = 0.0
    variables[X] = 5.0
    variables[OXYGEN] = variables[FULL] = physics[_OXYGEN]
    variables[SURFACED] = 1.0
    variables[SPAWN_INTERVAL] = variables[SPAWN_TIMER] = physics[_SPAWN]
    variables[MOVE_INTERVAL] = physics[_MOVE]
    variables[DIVER_TIMER] = _DIVER_SPAWN


@compiled
def step(env, variables, action, physics, drawn):
    """Nothing, left, up, right, down, fire (0 to 5)."""
    act = taken(variables, action, physics, drawn)
    if variables[SPAWN_TIMER] <= 0.0:
        _spawn_enemy(variables, drawn)
        variables[SPAWN_TIMER] += variables[SPAWN_INTERVAL]
    if variables[DIVER_TIMER] <= 0.0:
        _spawn_diver(variables, drawn)
        variables[DIVER_TIMER] += _DIVER_SPAWN
    _steer(variables, act)
    reward = _move_shots(variables)
    _move_divers(variables)
    over = False
    for kind in (SUBS, FISH):  # a loop, which is compiled once
        met, hits = _move_enemies(variables, kind)
        over |= met
        reward += hits
    over |= _move_torpedoes(variables)
    for timer in (SPAWN_TIMER, DIVER_TIMER, RELOAD):
        if variables[timer] > 0.0:
            variables[timer] -= 1.0
    over |= variables[OXYGEN] <= 0.0
    if variables[Y] > 0.0:
        variables[OXYGEN] -= 1.0
        variables[SURFACED] = 0.0
    elif variables[SURFACED] == 0.0:
        if variables[ABOARD] == 0.0:
            over = True
        else:
            reward += _surface(variables)
    return reward, over


@compiled
def observe(env, variables, observation):
    """Player, all that swims, and two bars in the last row (10, 10, 10).

    One bar grows from the left with the oxygen that is left, the other one from the
    right with the divers aboard.
    """
    nothing(observation)
    x, y = variables[X], variables[Y]
    show(observation, _CHANNELS, FRONT, y, x)
    back = x - 1.0 if variables[RIGHTWARDS] == 1.0 else x + 1.0
    show(observation, _CHANNELS, BACK, y, back)
    for column in range(_bars(variables)):
        show(observation, _CHANNELS, OXYGEN_LEFT, EDGE, column)
    for i in range(np.int64(variables[ABOARD])):
        show(observation, _CHANNELS, DIVERS_ABOARD, EDGE, EDGE - 1 - i)
    _show_all(variables, SHOTS, SHOT, False, observation)
    _show_all(variables, TORPEDOES, TORPEDO, False, observation)
    _show_all(variables, FISH, ENEMY_FISH, True, observation)
    _show_all(variables, SUBS, ENEMY_SUB, True, observation)
    _show_all(variables, DIVERS, DIVER, True, observation)


@compiled
def _show_all(variables, kind, channel, trails, observation):
    """Show all that is in a list, with trails or without."""
    for i in range(_length(variables, kind)):
        at = _place(kind, i)
        row, column = variables[at + ROW], variables[at + COLUMN]
        show(observation, _CHANNELS, channel, row, column)
        if trails:
            right = variables[at + RIGHT_OF] == 1.0
            show_trail(observation, _CHANNELS, TRAIL, row, column, right)


@compiled
def _bars(variables):
    """Cells of the bar that shows oxygen."""
    left = max(variables[OXYGEN], 0.0)
    return np.int64(np.floor(left * _BARS / variables[FULL]))


# -- lists -----------------------------------------------------------------------------


@compiled
def _length(variables, kind):
    return np.int64(variables[kind])


@compiled
def _place(kind, i):
    """Where the variables of an entry begin."""
    return kind + 1 + i * _FIELDS


@compiled
def _append(variables, kind, room, column, row, right, move_timer, shot_timer):
    """Add an entry to a list that has room."""
    length = _length(variables, kind)
    if length == room:
        return
    at = _place(kind, length)
    variables[at + COLUMN], variables[at + ROW] = column, row
    variables[at + RIGHT_OF] = 1.0 if right else 0.0
    variables[at + MOVE_TIMER], variables[at + SHOT_TIMER] = move_timer, shot_timer
    variables[kind] = length + 1


@compiled
def _remove(variables, kind, i):
    """Take an entry out; those behind it move up, and keep their order."""
    last = _length(variables, kind) - 1
    first, end = _place(kind, i), _place(kind, last)
    for k in range(end - first):
        variables[first + k] = variables[first + _FIELDS + k]
    for k in range(_FIELDS):
        variables[end + k] = 0.0
    variables[kind] = last


@compiled
def _first_at(variables, kind, column, row):
    """The first entry of a list that is in a cell; −1: none is."""
    for i in range(_length(variables, kind)):
        at = _place(kind, i)
        if variables[at + COLUMN] == column and variables[at + ROW] == row:
            return i
    return -1


@compiled
def _meets_player(variables, at):
    """Whether an entry is where the player is."""
    same_column = variables[at + COLUMN] == variables[X]
    return same_column and variables[at + ROW] == variables[Y]


@compiled
def _moves(variables, at):
    """Move an entry by a cell in its direction; whether it is still in the world."""
    variables[at + COLUMN] += 1.0 if variables[at + RIGHT_OF] == 1.0 else -1.0
    return not outside(variables[at + COLUMN])


# -- what happens in a step ------------------------------------------------------------


@compiled
def _spawn_enemy(variables, drawn):
    """Let a fish or a submarine appear; uses lanes 1 to 3.

    None does in a row in which another one comes the other way.
    """
    right, row = uniform(drawn, 1) < 0.5, 1 + below(drawn, 3, EDGE - 1)
    for kind in (FISH, SUBS):
        for i in range(_length(variables, kind)):
            at = _place(kind, i)
            same_way = (variables[at + RIGHT_OF] == 1.0) == right
            if variables[at + ROW] == row and not same_way:
                return
    column = 0.0 if right else EDGE * 1.0
    moves = variables[MOVE_INTERVAL]
    if uniform(drawn, 2) < 1.0 / 3.0:
        shoots = _TORPEDO_INTERVAL
        _append(variables, SUBS, _MANY, column, row, right, moves, shoots)
    else:
        _append(variables, FISH, _MANY, column, row, right, moves, 0.0)


@compiled
def _spawn_diver(variables, drawn):
    """Let a diver appear; uses lanes 4 and 5."""
    right, row = uniform(drawn, 4) < 0.5, 1 + below(drawn, 5, EDGE - 1)
    column = 0.0 if right else EDGE * 1.0
    _append(variables, DIVERS, _FEW, column, row, right, _DIVER_MOVE, 0.0)


@compiled
def _steer(variables, act):
    """What the player does."""
    if act == FIRE:
        if variables[RELOAD] == 0.0:
            right = variables[RIGHTWARDS] == 1.0
            _append(variables, SHOTS, _FEW, variables[X], variables[Y], right, 0.0, 0.0)
            variables[RELOAD] = _COOL_DOWN
    elif act == LEFT:
        variables[X], variables[RIGHTWARDS] = clamped(variables[X] - 1.0), 0.0
    elif act == RIGHT:
        variables[X], variables[RIGHTWARDS] = clamped(variables[X] + 1.0), 1.0
    elif act == UP:
        variables[Y] = clamped(variables[Y] - 1.0)
    elif act == DOWN:  # the last row has the bars
        variables[Y] = min(variables[Y] + 1.0, EDGE - 1.0)


@compiled
def _move_shots(variables):
    """Move the player's shots; how many hit. A fish comes before a submarine."""
    hits = 0.0
    for i in range(_length(variables, SHOTS) - 1, -1, -1):
        at = _place(SHOTS, i)
        if not _moves(variables, at):
            _remove(variables, SHOTS, i)
            continue
        for kind in (FISH, SUBS):
            struck = _first_at(
                variables, kind, variables[at + COLUMN], variables[at + ROW]
            )
            if struck >= 0:
                _remove(variables, kind, struck)
                _remove(variables, SHOTS, i)
                hits += 1.0
                break
    return hits


@compiled
def _move_divers(variables):
    """Take divers aboard, before they move and after it."""
    for i in range(_length(variables, DIVERS) - 1, -1, -1):
        at = _place(DIVERS, i)
        room = variables[ABOARD] < _CREW
        if room and _meets_player(variables, at):
            _remove(variables, DIVERS, i)
            variables[ABOARD] += 1.0
        elif variables[at + MOVE_TIMER] > 0.0:
            variables[at + MOVE_TIMER] -= 1.0
        else:
            variables[at + MOVE_TIMER] = _DIVER_MOVE
            if not _moves(variables, at):
                _remove(variables, DIVERS, i)
            elif room and _meets_player(variables, at):
                _remove(variables, DIVERS, i)
                variables[ABOARD] += 1.0


@compiled
def _move_enemies(variables, kind):
    """Move fish or submarines; whether one met the player, how many met a shot.

    A submarine whose time it is shoots even if it was hit in the same step.
    """
    met, hits = False, 0.0
    for i in range(_length(variables, kind) - 1, -1, -1):
        at = _place(kind, i)
        met |= _meets_player(variables, at)
        moves, gone = variables[at + MOVE_TIMER] <= 0.0, False
        if moves:
            variables[at + MOVE_TIMER] += variables[MOVE_INTERVAL]
            gone = not _moves(variables, at)
        else:
            variables[at + MOVE_TIMER] -= 1.0
        column, row = variables[at + COLUMN], variables[at + ROW]
        if moves and not gone:
            if _meets_player(variables, at):
                met = True
            else:
                shot = _first_at(variables, SHOTS, column, row)
                if shot >= 0:
                    _remove(variables, SHOTS, shot)
                    gone = True
                    hits += 1.0
        if kind == SUBS:
            if variables[at + SHOT_TIMER] <= 0.0:
                variables[at + SHOT_TIMER] += _TORPEDO_INTERVAL
                right = variables[at + RIGHT_OF] == 1.0
                _append(variables, TORPEDOES, _MOST, column, row, right, 0.0, 0.0)
            else:
                variables[at + SHOT_TIMER] -= 1.0
        if gone:
            _remove(variables, kind, i)
    return met, hits


@compiled
def _move_torpedoes(variables):
    """Move what submarines have shot; whether any of it met the player."""
    met = False
    for i in range(_length(variables, TORPEDOES) - 1, -1, -1):
        at = _place(TORPEDOES, i)
        met |= _meets_player(variables, at)
        if not _moves(variables, at):
            _remove(variables, TORPEDOES, i)
        else:
            met |= _meets_player(variables, at)
    return met


@compiled
def _surface(variables):
    """Come up with divers aboard; what those who are set down are worth."""
    reward = 0.0
    if variables[ABOARD] == _CREW:
        variables[ABOARD] = 0.0
        reward = _bars(variables) * 1.0
    variables[ABOARD] -= 1.0
    variables[OXYGEN], variables[SURFACED] = variables[FULL], 1.0
    if may_get_harder(variables, SPAWN_INTERVAL, MOVE_INTERVAL, _LEAST_MOVE):
        get_harder(variables, SPAWN_INTERVAL, MOVE_INTERVAL, _LEAST_MOVE, RAMPS)
    return reward
