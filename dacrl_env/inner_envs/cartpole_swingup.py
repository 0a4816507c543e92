"""CartPoleSwingup-v0: swing a pole up by moving its cart, and hold it there.

The task ``cartpole-swingup`` of dm_control (Tassa et al. 2018, "DeepMind Control
Suite", arXiv:1801.00690), with its constants, observations, starts and reward, and
with the motion that MuJoCo computes for its model (Todorov, Erez and Tassa 2012,
"MuJoCo: A physics engine for model-based control"). MuJoCo itself is not needed.

Motion. A cart on a slider along x carries a pole on a hinge; the angle is 0 where the
pole stands up, and grows as it falls towards positive x. With the masses m of the cart
and M of the pole, the pole's length 2 L, its moment of inertia I about its middle, and
the coefficients of friction c and d, the equations of motion are::

    (m + M) a + M L cos(angle) b = F u − c v + M L sin(angle) w²
    M L cos(angle) a + (I + M L²) b = M g L sin(angle) − d w

for the action u, velocities v and w, accelerations a and b. The pole is a solid capsule
of radius 0.045 m around its length. One step is one of the classical Runge-Kutta method
of fourth order (RK4), of 0.01 s, as MuJoCo is set up there.

The slider ends at ± 1.8 m. An end is MuJoCo's soft constraint: a force pushes back
while the cart is beyond it, of critical damping and a time constant of 0.08 s. It is
found in closed form, since there is one such force at a time. MuJoCo's solver comes
within 1e-5 m/s of that by default, and as near as numbers allow with ``tolerance="0"``.

Reward of a step, from 0 to 1, by dm_control's ``tolerance`` functions of the state
after it and of the action::

    (1 + cos(angle)) / 2                  the pole is upright
    (1 + 0.1 ** (x / 2 m)²) / 2           the cart is in the middle
    (4 + max(0, 1 − u²)) / 5              the force is small
    (1 + 0.1 ** (w / 5 rad/s)²) / 2       the pole is slow

multiplied. Episodes have 1,000 steps and do not terminate. They start with the cart in
the middle and the pole hanging down, all four variables with normal deviations of 0.01.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import cos, exp_double, sin
from dacrl_env.kernels.random_numbers import draw, normal


class CartPoleSwingup(NamedTuple):
    """Variables: position m, angle rad (0 is upright), their velocities per second."""

    features: int = 5
    actions: int = 0  # continuous: share of the force
    variables: int = 4
    max_episode_steps: int = 1000


ACTION_LOW, ACTION_HIGH = (-1.0,), (1.0,)
PHYSICS = {
    "gravity": 9.81,  # m/s²
    "mass_cart": 1.0,  # kg
    "mass_pole": 0.1,  # kg
    "length": 1.0,  # m, of the pole
    "force": 10.0,  # N, of the action 1
}

_SECONDS = 0.01  # of a step
_RADIUS = 0.045  # m, of the pole
_DAMPING_CART, _DAMPING_POLE = 5e-4, 2e-6  # N s/m, N m s
_DEVIATION = 0.01  # of starts
# an end of the slider: MuJoCo's ``solref`` and ``solimp``
_END = 1.8  # m
_TIME_CONSTANT = 0.08  # s; its damping ratio is 1
_SOFTEST, _HARDEST, _WIDTH = 0.9, 0.95, 0.001  # impedance at 0 m, from 0.001 m on
_END_DAMPING = 2.0 / (_HARDEST * _TIME_CONSTANT)
_END_STIFFNESS = 1.0 / (_HARDEST * _TIME_CONSTANT) ** 2
_LOG_AT_MARGIN = math.log(0.1)  # of what `tolerance` gives at its margin


class _Constants(NamedTuple):
    """What the equations of motion are made of."""

    total: float  # kg, mass of both
    moment: float  # kg m, M L
    inertia: float  # kg m², of the pole about its hinge
    weight: float  # N m, M g L
    push: float  # N
    looseness: float  # 1/kg, of the cart under an upright pole


@compiled
def reset(env, key, episode, physics, variables):
    """Hanging down, nearly at rest."""
    drawn = draw(key, episode)
    for k in range(4):
        variables[k] = _DEVIATION * normal(drawn, k, 4)
    variables[1] += math.pi


@compiled
def step(env, variables, action, physics, drawn):
    """Push with a share of the force, clipped to ± 1, for 0.01 s."""
    share = min(max(action[0], -1.0), 1.0)
    now = _constants(physics, share)
    x, angle, v, w = variables[0], variables[1], variables[2], variables[3]
    half = 0.5 * _SECONDS
    a1, b1 = _accelerations(x, angle, v, w, now)
    v2, w2 = v + half * a1, w + half * b1
    a2, b2 = _accelerations(x + half * v, angle + half * w, v2, w2, now)
    v3, w3 = v + half * a2, w + half * b2
    a3, b3 = _accelerations(x + half * v2, angle + half * w2, v3, w3, now)
    v4, w4 = v + _SECONDS * a3, w + _SECONDS * b3
    a4, b4 = _accelerations(x + _SECONDS * v3, angle + _SECONDS * w3, v4, w4, now)
    sixth = _SECONDS / 6.0
    variables[0] = x + sixth * (v + 2.0 * v2 + 2.0 * v3 + v4)
    variables[1] = angle + sixth * (w + 2.0 * w2 + 2.0 * w3 + w4)
    variables[2] = v + sixth * (a1 + 2.0 * a2 + 2.0 * a3 + a4)
    variables[3] = w + sixth * (b1 + 2.0 * b2 + 2.0 * b3 + b4)
    upright = 0.5 * (1.0 + cos(variables[1]))
    centered = 0.5 * (1.0 + _tolerance(variables[0], 2.0))
    small_control = 0.2 * (4.0 + (1.0 - share * share))
    small_velocity = 0.5 * (1.0 + _tolerance(variables[3], 5.0))
    return upright * small_control * small_velocity * centered, False


@compiled
def _tolerance(x, margin):
    """1 at zero and 0.1 at ± margin, in the form of a Gaussian."""
    distance = x / margin
    return exp_double(_LOG_AT_MARGIN * (distance * distance))


@compiled
def _constants(physics, share):
    """`_Constants` of physical constants (K,) and an action."""
    gravity, mass_cart, mass_pole = physics[0], physics[1], physics[2]
    length, force = physics[3], physics[4]
    moment = mass_pole * 0.5 * length
    # a cylinder and two halves of a ball at its ends, by their shares of the volume
    ends = mass_pole * (4.0 * _RADIUS) / (4.0 * _RADIUS + 3.0 * length)
    middle = (mass_pole - ends) * (3.0 * _RADIUS * _RADIUS + length * length) / 12.0
    ends = ends * (
        0.4 * _RADIUS * _RADIUS + 0.125 * length * (3.0 * _RADIUS + 2.0 * length)
    )
    inertia = middle + ends + moment * 0.5 * length
    total = mass_cart + mass_pole
    looseness = inertia / (total * inertia - moment * moment)
    return _Constants(
        total, moment, inertia, moment * gravity, force * share, looseness
    )


@compiled
def _accelerations(x, angle, v, w, now):
    """Of the cart in m/s² and of the pole in rad/s²."""
    sine, coupling = sin(angle), now.moment * cos(angle)
    on_cart = now.push - _DAMPING_CART * v + now.moment * sine * (w * w)
    on_pole = now.weight * sine - _DAMPING_POLE * w
    determinant = now.total * now.inertia - coupling * coupling
    yielding = now.inertia / determinant  # 1/kg, acceleration of the cart by a force
    a = (now.inertia * on_cart - coupling * on_pole) / determinant
    b = (now.total * on_pole - coupling * on_cart) / determinant
    beyond = abs(x) - _END
    if beyond > 0.0:
        outwards = 1.0 if x > 0.0 else -1.0
        impedance = _impedance(beyond)
        wanted = _END_STIFFNESS * impedance * beyond + _END_DAMPING * (outwards * v)
        softness = (1.0 - impedance) / impedance * now.looseness
        back = max(0.0, (wanted + outwards * a) / (yielding + softness))
        a -= outwards * back * yielding
        b += outwards * back * (coupling / determinant)
    return a, b


@compiled
def _impedance(beyond):
    """How hard an end is where the cart is beyond it: MuJoCo's default ``solimp``."""
    share = min(beyond / _WIDTH, 1.0)
    rest = 1.0 - share
    rise = 2.0 * share * share if share <= 0.5 else 1.0 - 2.0 * rest * rest
    return _SOFTEST + (_HARDEST - _SOFTEST) * rise


@compiled
def observe(env, variables, observation):
    """Position, cosine and sine of the angle, velocities, in single precision."""
    observation[0] = np.float32(variables[0])
    observation[1] = np.float32(cos(variables[1]))
    observation[2] = np.float32(sin(variables[1]))
    observation[3] = np.float32(variables[2])
    observation[4] = np.float32(variables[3])
