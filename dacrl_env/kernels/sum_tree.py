"""A binary tree of sums over weights, to draw numbers in proportion to them.

Node 1 is the root, the children of node k are 2k and 2k + 1, and the weights are the
leaves L … 2L − 1. A change walks from a leaf to the root, a draw from the root to a
leaf. Every sum is that of its two children, so that no rounding error grows.
"""

from __future__ import annotations

import numpy as np

from dacrl_env.kernels.compiling import compiled


def leaves(n: int) -> int:
    """Leaves of a tree of at least n weights: a power of two."""
    return 1 << max(n - 1, 0).bit_length()


@compiled
def change(tree, i, weight):
    """Give place i another weight."""
    at = len(tree) // 2 + i
    tree[at] = weight
    while at > 1:
        at //= 2
        tree[at] = tree[2 * at] + tree[2 * at + 1]


@compiled
def sum_up(tree):
    """Compute all sums anew."""
    for at in range(len(tree) // 2 - 1, 0, -1):
        tree[at] = tree[2 * at] + tree[2 * at + 1]


@compiled
def find(tree, x):
    """The place at which the weights before it, summed, exceed x; one with a weight.

    Args:
        tree: (2L,) with at least one weight above zero.
        x: in [0, sum of all).
    """
    at, L = 1, len(tree) // 2
    while at < L:
        at *= 2
        # rounding must not lead to where there is no weight
        if x >= tree[at] and tree[at + 1] > np.float32(0.0):
            x -= tree[at]
            at += 1
    return at - L
