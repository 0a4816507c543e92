"""The convolution in front of this package's networks, for Stable-Baselines3's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from dacrl_env.kernels.convolution import SIDE


class ConvolutionalFront(BaseFeaturesExtractor):
    """A convolution of 3 × 3 without padding, its activation, all positions flattened.

    The positions follow each other, with all channels of each, as in
    :mod:`dacrl_env.kernels.dense`.

    Args:
        observation_space: images with channels last, or first where
            Stable-Baselines3 has moved them.
        image: (H, W, C) of the inner environment's observations.
        channels: what there is at each position.
        activation_fn: class of the activation.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        image: Sequence[int],
        channels: int,
        activation_fn: type[torch.nn.Module],
    ) -> None:
        H, W, C = image
        positions = (H - SIDE + 1) * (W - SIDE + 1)
        super().__init__(observation_space, positions * channels)
        # VecTransposeImage leaves a cube as it is
        self.channels_last = observation_space.shape == (H, W, C)
        self.convolution = torch.nn.Conv2d(C, channels, SIDE)
        self.activation = activation_fn()

    def forward(self, observations: Tensor) -> Tensor:
        """Features (B, positions · channels) of images (B, …)."""
        x = observations.movedim(-1, 1) if self.channels_last else observations
        features: Tensor = self.activation(self.convolution(x)).movedim(1, -1)
        return features.flatten(1)
