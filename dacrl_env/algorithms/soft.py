"""What soft actor-critic algorithms share: the row, the optimiser, the temperature.

A row of parameters has an actor, two critics and the logarithm of the temperature, one
after the other. The optimiser steps with seven parts of it on their own: body and last
layer of each network, and the temperature. All functions are for one member, p.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels import dense
from dacrl_env.kernels.adam import adam_step
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.dense import Network
from dacrl_env.kernels.functions import exp, log
from dacrl_env.kernels.random_numbers import draw
from dacrl_env.kernels.views import LINE, row_of, vector

ADAM_EPSILON = 1e-8
REST = 4 * LINE  # length of the part of a row that has the log temperature
PARTS = 7
AUTO, SET = range(2)  # options of the temperature's rule
_ANY = np.inf  # gradients are not clipped


def row_length(actor: Network, critic: Network) -> int:
    """Length of a row: actor, two critics, log temperature."""
    return actor.row + 2 * critic.row + REST


def parts_of(actor: Network, critic: Network) -> NDArray[np.int64]:
    """Where the parts of a row begin, and its end: ``(8,)``."""
    lengths = [
        length
        for net in (actor, critic, critic)
        for length in (net.weights[-1], net.row - net.weights[-1])
    ]
    return np.cumsum([0, *lengths, REST])


# -- parts of a row --------------------------------------------------------------------


@compiled
def write_fresh(key, row, fixed):
    """Write fresh networks, and a temperature of 1, to a row."""
    row[:] = np.float32(0.0)
    dense.init_uniform(fixed.actor, key, vector(row, 0, fixed.actor.row))
    for k in range(2):
        at = fixed.actor.row + k * fixed.critic.row
        # each has a draw of its own
        number = draw(key, k + 1)
        dense.init_uniform(fixed.critic, number, vector(row, at, fixed.critic.row))


@compiled
def actor_of(row, fixed):
    """The actor's part of a row."""
    return vector(row, 0, fixed.actor.row)


@compiled
def critic_of(k, row, fixed):
    """The part of critic k of a row."""
    return vector(row, fixed.actor.row + k * fixed.critic.row, fixed.critic.row)


@compiled
def critics_of(row, fixed):
    """The part of both critics of a row."""
    return vector(row, fixed.actor.row, 2 * fixed.critic.row)


@compiled
def rest_of(row, fixed):
    """The part with the log temperature, which is its first number."""
    return vector(row, fixed.actor.row + 2 * fixed.critic.row, REST)


# -- learning --------------------------------------------------------------------------


@compiled
def are_due(p, run):
    """Whether gradient steps are, after a step of all environments, which it counts."""
    fixed, values, state = run.fixed, run.values, run.state
    state.env_steps[p] += fixed.N
    state.since_train[p] += fixed.N
    if state.since_train[p] < values.train_freq[p]:
        return False
    state.since_train[p] = 0
    return state.env_steps[p] > fixed.learning_starts


@compiled
def step(p, first, after, run, memory):
    """A step of the optimiser with some parts of the row; the gradient's norm."""
    fixed, state = run.fixed, run.state
    at = fixed.parts[first]
    n, G = fixed.parts[after] - at, after - first
    row = p * state.parameters.shape[1] + at
    parts = vector(memory.parts, 0, G + 1)
    for k in range(G + 1):
        parts[k] = fixed.parts[first + k] - at
    return adam_step(
        vector(state.parameters, row, n), vector(memory.gradients, at, n),
        vector(state.mean, row, n), vector(state.square, row, n), parts,
        vector(row_of(p, state.part_steps), first, G), run.values.learning_rate[p],
        ADAM_EPSILON, _ANY,
    )  # fmt: skip


@compiled
def temperature_of(p, row, run):
    """The temperature of this step; one that is set is kept as the learned one."""
    values, rest = run.values, rest_of(row, run.fixed)
    if values.ent_rule[p] == SET:
        rest[0] = log(np.float32(values.alpha[p]))
        return np.float32(values.alpha[p])
    return exp(rest[0])


@compiled
def mean_of(values):
    """The mean of a vector."""
    total = np.float32(0.0)
    for b in range(len(values)):
        total += values[b]
    return total / np.float32(len(values))


@compiled
def lesser(x, y):
    """The lesser of two numbers; NaN if the first one is."""
    return y if y < x else x
