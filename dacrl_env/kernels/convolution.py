"""A convolution of 3 × 3 over small images, without padding, and its gradient.

Images are (H, W, C), channels last; each position of a window, of which there are
(H − 2) · (W − 2), gives F numbers. Weights are (9C, F) by row, column and channel of
the window. The rows of a window lie in memory as segments of 3C numbers, so that
`jumping_matmul` takes them from where they are.

Sums have the order of rows, columns and channels of a window; in a gradient that of
images and positions.

Letters: B images, H rows, W columns, C channels, F numbers at each position.
"""

from __future__ import annotations

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.products import jumping_matmul, matmul
from dacrl_env.kernels.views import matrix, row_of, vector

SIDE = 3  # of a window, rows and columns


@compiled
def convolve(x, image, w, bias, into):
    """Windows of images times weights, plus biases.

    Args:
        x: (B, H · W · C) images.
        image: (3,) H, W and C.
        w: (9C, F), F a multiple of LINE.
        bias: (F,).
        into: (B, positions · F) written to.
    """
    H, W, C = image[0], image[1], image[2]
    rows, columns, F = H - SIDE + 1, W - SIDE + 1, len(bias)
    for b in range(len(x)):
        for i in range(rows):
            jumping_matmul(
                x, (b * H + i) * W * C, C, 1, SIDE * C, (W - SIDE) * C, w,
                matrix(into, (b * rows + i) * columns * F, columns, F), bias, 0,
            )  # fmt: skip


@compiled
def convolution_gradient(x, image, d, w, bias, ones, zeros, sums):
    """Gradients of weights and biases from those of what `convolve` gave.

    Args:
        x: (B, H · W · C) images.
        image: (3,) H, W and C.
        d: (B, positions · F).
        w: (9C, F) written to.
        bias: (F,) written to.
        ones: (1, B).
        zeros: (positions · F,).
        sums: (1, positions · F) room.
    """
    H, W, C = image[0], image[1], image[2]
    rows, columns, F = H - SIDE + 1, W - SIDE + 1, len(bias)
    for i in range(len(w)):
        row = row_of(i, w)
        for f in range(F):
            row[f] = zeros[f]
    for b in range(len(x)):
        each = matrix(d, b * rows * columns * F, rows * columns, F)
        for i in range(SIDE):
            part = matrix(w, i * SIDE * C * F, SIDE * C, F)
            jumping_matmul(
                x, (b * H + i) * W * C, 1, C, columns, (SIDE - 1) * C, each, part, part,
                F,
            )  # fmt: skip
    matmul(ones, d, sums, zeros)
    for f in range(F):
        bias[f] = zeros[f]
    for i in range(rows * columns):
        at = vector(sums, i * F, F)
        for f in range(F):
            bias[f] += at[f]
