"""What is an image, and how networks see it: as in Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

BRIGHTEST = 255.0  # what images are divided by


def is_image(space: gym.spaces.Box) -> bool:
    """Whether observations are images: Stable-Baselines3's ``is_image_space``.

    Three axes, dtype uint8, values from 0 to 255; which axis has the channels, and how
    many there are, does not matter.
    """
    whole = bool(np.all(space.low == 0) and np.all(space.high == 255))
    return is_image_array(space.shape, space.dtype) and whole


def is_image_array(shape: tuple[int, ...], dtype: Any) -> bool:
    """The same where there is no space, so that all of a byte's values are possible."""
    return len(shape) == 3 and np.dtype(dtype) == np.uint8
