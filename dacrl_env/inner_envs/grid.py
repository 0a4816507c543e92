"""What grid worlds of 5 × 5 cells have in common.

A place is the number of a cell, row by row from the upper left one. Worlds that change
have two constants: ``offset``, the steps that an environment takes, in all its
episodes, before the first change; and ``period``, the steps from each change to the
next one (`shift.changes`).
"""

from __future__ import annotations

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.random_numbers import below

SIDE = 5
CELLS = SIDE * SIDE
UP, RIGHT, DOWN, LEFT = range(4)
ACTIONS = 4


@compiled
def beside(place, action):
    """The place in a direction, which is the same one at the edge of the grid."""
    if action == UP:
        return place - SIDE if place >= SIDE else place
    if action == DOWN:
        return place + SIDE if place < CELLS - SIDE else place
    if action == LEFT:
        return place - 1 if place % SIDE > 0 else place
    return place + 1 if place % SIDE < SIDE - 1 else place


@compiled
def anywhere_but(drawn, lane, taken):
    """A place other than one that is taken, all as likely."""
    place = below(drawn, lane, CELLS - 1)
    return place + 1 if place >= taken else place


@compiled
def anywhere_but_two(drawn, lane, one, other):
    """A place other than two different ones that are taken, all as likely."""
    place = below(drawn, lane, CELLS - 2)
    if place >= min(one, other):
        place += 1
    return place + 1 if place >= max(one, other) else place
