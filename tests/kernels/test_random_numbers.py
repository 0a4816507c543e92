"""Random numbers of compiled code are those of streams."""

import numpy as np

from dacrl_env.core import streams
from dacrl_env.kernels import random_numbers
from dacrl_env.kernels.compiling import entry


@entry
def _draws(key, counter, lanes, bits, uniforms, integers, normals):
    drawn = random_numbers.draw(key, counter)
    for lane in range(lanes):
        bits[lane] = random_numbers.word(drawn, lane)
        uniforms[lane] = random_numbers.uniform(drawn, lane)
        integers[lane] = random_numbers.below(drawn, lane, 1000)
        normals[lane] = random_numbers.normal(drawn, lane, lanes)


def _box_muller(u: np.ndarray, lanes: int) -> np.ndarray:
    """The formula as numpy has it."""
    half = len(u) // 2
    radius, angle = np.sqrt(-2 * np.log1p(-u[:half])), 2 * np.pi * u[half:]
    pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return np.asarray(pairs[:lanes])


def test_random_numbers_are_those_of_streams() -> None:
    key = np.array([0x123456789ABCDEF], np.uint64)
    for counter, lanes in ((0, 7), (5, 8), (2**41 + 3, 1)):
        at = np.array([counter])
        bits, uniforms = np.empty(lanes, np.uint64), np.empty(lanes)
        integers, normals = np.empty(lanes, np.int64), np.empty(lanes)
        _draws(key[0], counter, lanes, bits, uniforms, integers, normals)
        np.testing.assert_array_equal(bits, streams.bits(key, at, lanes)[0])
        np.testing.assert_array_equal(uniforms, streams.uniforms(key, at, lanes)[0])
        high = np.array([1000])
        np.testing.assert_array_equal(
            integers, streams.integers(key, at, lanes, high)[0]
        )
        expected = _box_muller(streams.uniforms(key, at, 2 * -(-lanes // 2))[0], lanes)
        own = random_numbers.normals(key, at, lanes)[0]
        np.testing.assert_array_equal(own, normals)
        np.testing.assert_allclose(normals, expected, rtol=1e-13, atol=1e-14)
