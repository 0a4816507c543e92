"""The networks of a configuration, and what is wrong with one."""

from __future__ import annotations

import math
from typing import Any

from dacrl_env.core import checks
from dacrl_env.inner_envs import InnerEnv
from dacrl_env.kernels import dense
from dacrl_env.kernels.convolution import SIDE
from dacrl_env.kernels.dense import Network
from dacrl_env.kernels.views import LINE


def channels(given: float) -> int:
    """Channels of a convolution, checked; 0: there is none.

    Raises:
        ValueError: they are no multiple of LINE.
    """
    number = checks.whole("conv_channels", given, least=0)
    if number % LINE:
        raise ValueError(
            f"conv_channels must be a multiple of {LINE}, or 0 for none, got {number}"
        )
    return number


def check_fourier(config: Any) -> int:
    """The number of Fourier features of a configuration, checked; 0: there are none.

    Args:
        config: with ``fourier_features`` and ``fourier_scale``; perhaps
            ``conv_channels``.

    Raises:
        ValueError: an odd number, a scale that is none, or a convolution beside them.
    """
    features = checks.whole("fourier_features", config.fourier_features, least=0)
    if features % 2:
        raise ValueError(
            f"fourier_features must be even, or 0 for none, got {features}"
        )
    if features and getattr(config, "conv_channels", 0):
        raise ValueError(
            "fourier_features stand in place of an image that conv_channels needs; "
            "set one of them to 0"
        )
    if not 0 < config.fourier_scale < math.inf:
        raise ValueError(
            f"fourier_scale must be above 0 and finite, got {config.fourier_scale}"
        )
    return features


def inputs_of(config: Any, env: InnerEnv) -> int:
    """What networks see of an observation: Fourier features, or all of it."""
    return config.fourier_features or math.prod(env.observation_shape)


def fourier_flops(config: Any, features: int) -> int:
    """Floating-point operations of the features of one observation."""
    return 2 * features * (int(config.fourier_features) // 2)


def image_of(env: InnerEnv) -> tuple[int, ...]:
    """Rows, columns and channels that a convolution in front of a network sees.

    Raises:
        ValueError: observations are no images of at least 3 × 3, channels last.
    """
    shape = tuple(env.observation_shape)
    if len(shape) != 3 or min(shape[:2]) < SIDE:
        raise ValueError(
            "conv_channels needs observations (rows, columns, channels) with at least "
            f"{SIDE} rows and columns, those of this inner environment are {shape}; "
            "pass conv_channels=0"
        )
    if env.has_images and shape[0] < min(shape[1:]):
        raise ValueError(
            f"conv_channels needs images with channels last, those of shape {shape} "
            "seem to have them first; move the axis in a wrapper "
            "(gymnasium.wrappers.TransformObservation), or pass conv_channels=0"
        )
    return shape


def make_network(
    config: Any, env: InnerEnv, outputs: int, inputs: int | None = None
) -> Network:
    """The network that a configuration has for the observations of an environment.

    Args:
        config: with ``hidden_sizes``, ``activation`` and ``conv_channels``.
        env: inner environment.
        outputs: A.
        inputs: what the network sees; None: an observation, flattened.

    Raises:
        ValueError: an unknown activation; a convolution where observations are no
            images.
    """
    if inputs is None:
        inputs = math.prod(env.observation_shape)
    return dense.make_network(
        inputs,
        config.hidden_sizes,
        outputs,
        config.activation,
        image_of(env) if config.conv_channels else None,
        config.conv_channels,
    )
