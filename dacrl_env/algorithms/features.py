"""What networks see of observations: normalised, or as random Fourier features.

Observations are normalised by the running moments of what was acted on, as with
VecNormalize of Stable-Baselines3: a replay keeps them as they were, and a batch is
normalised by the moments of now.

Random Fourier features are cos 2πBx and sin 2πBx in place of an observation x. B has
normal numbers, is drawn once for a member, and is not trained (Rahimi and Recht 2007,
"Random features for large-scale kernel machines"; without a factor in front, as in
Tancik et al. 2020, "Fourier features let networks learn high frequency functions in low
dimensional domains"; in reinforcement learning, with B learned, Li and Pathak 2021,
"Functional regularization for reinforcement learning via learned Fourier features").

Letters: P members, D observation features, I inputs of the network, K rows of B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dacrl_env.kernels import moments
from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.dense import padded
from dacrl_env.kernels.functions import cos_of_turns, sin_of_turns
from dacrl_env.kernels.products import matmul
from dacrl_env.kernels.random_numbers import draw, normal
from dacrl_env.kernels.views import aligned, matrix, row_of, vector

INIT = 0  # purpose of a member's keys
_DRAW = 2**40  # of B, beyond those of networks


def make_frequencies(P: int, D: int, features: int) -> NDArray[np.float32]:
    """Memory (P, D, whole lines) for transposed B with half as many rows as features.

    Without features it is (P, 0, 0).
    """
    lines = padded(features // 2)
    return aligned(P, D if lines else 0, lines)


def make_turns(B: int, features: int) -> NDArray[np.float32]:
    """Memory (B + 1, whole lines) for Bx of B observations, and a row of zeros."""
    return aligned(B + 1, padded(features // 2))


@compiled
def draw_frequencies(p, run):
    """Write B of member p, which keeps it for all its networks."""
    fixed, table = run.fixed, run.state.frequencies
    D, K = fixed.D, fixed.fourier_features // 2
    drawn = draw(run.state.keys[p, INIT], _DRAW)
    for j in range(K):
        for k in range(D):
            number = fixed.fourier_scale * normal(drawn, j * D + k, K * D)
            table[p, k, j] = np.float32(number)


@compiled
def scaled(observations, fixed, memory):
    """Observations, one after the other, to where networks take inputs, scaled."""
    inputs = vector(memory.inputs, 0, len(observations))
    scale = np.float32(fixed.scale)
    for k in range(len(inputs)):
        inputs[k] = observations[k] * scale


@compiled
def prepare(p, rows, room, run, memory):
    """Make of scaled observations (rows, D) what the network sees (rows, I), in place.

    Args:
        p: number of the member.
        rows: observations.
        room: memory that they lie in, one after the other.
        run: of the population.
        memory: of this thread.
    """
    fixed, state, D = run.fixed, run.state, run.fixed.D
    x = matrix(room, 0, rows, D)
    if fixed.normalize_observations:
        moments.normalised_rows(p, x, state.observation_moments)
    K = fixed.fourier_features // 2
    if K == 0:
        return
    lines = state.frequencies.shape[2]
    turns = matrix(memory.turns, 0, rows, lines)
    zeros = vector(memory.turns, (len(memory.turns) - 1) * lines, lines)
    matmul(x, matrix(state.frequencies, p * D * lines, D, lines), turns, zeros)
    for b in range(rows):
        of_row = row_of(b, turns)
        cosines, sines = vector(room, 2 * b * K, K), vector(room, (2 * b + 1) * K, K)
        for j in range(K):
            cosines[j] = cos_of_turns(of_row[j])
        for j in range(K):
            sines[j] = sin_of_turns(of_row[j])


@compiled
def prepare_batch(p, B, run, memory):
    """`prepare` for a batch that was gathered from a replay."""
    prepare(p, B, memory.inputs, run, memory)
    prepare(p, B, memory.next_inputs, run, memory)


@compiled
def inputs_of(rows, room, fixed):
    """What the network sees (rows, I)."""
    return matrix(room, 0, rows, fixed.net.sizes[0])
