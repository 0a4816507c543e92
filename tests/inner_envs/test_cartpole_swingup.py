"""CartPole swing-up: what dm_control's task does, and what mechanics say of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stepping import SWINGUP, constants, keys, moved, random_actions, start

from dacrl_env.inner_envs.env import ENVS

# MuJoCo's solver of the force at an end of the slider stops this near to it
SOLVER = 1e-5

# what dm_control 1.0.50 gives on MuJoCo 3.17: position, angle, their velocities, and
# the reward, after some steps of actions 0.8 cos(0.05 k) for k = 0, 1, … from START
START = (0.01, 3.13, -0.02, 0.03)
EPISODE = {
    1: (
        0.0101897323575,
        3.1308741491,
        0.0579454329637,
        0.144807726457,
        2.5020072414e-5,
    ),
    10: (
        0.0462771065198,
        3.18867257584,
        0.730559829947,
        1.10754936513,
        4.69716776312e-4,
    ),
    50: (
        0.560503437775,
        3.67545688801,
        0.896492473548,
        -0.452689108607,
        0.058423449338,
    ),
    100: (0.20100510844, 2.08240147228, -1.45425365973, -2.89138917722, 0.183234224133),
    200: (
        0.622123665517,
        4.39263846037,
        -0.750922478367,
        -0.351172484428,
        0.277453531473,
    ),
    400: (0.256965798523, 3.63451576291, 1.5046822128, 4.41996185928, 0.0331428061349),
    600: (
        0.363635154249,
        3.38446616935,
        -1.50761998333,
        -1.81350397101,
        0.0122723213812,
    ),
    1000: (
        0.144431073661,
        2.51843791163,
        -0.354054242761,
        1.29102764536,
        0.0767337277332,
    ),
}
# the same of single steps: state before it, action, state after it with the reward;
# beyond the ends of the slider from the seventh on
STEPS: list[tuple[tuple[float, ...], float, tuple[float, ...]]] = [
    (
        (0.52, -3.223, -2.754, -7.736),
        0.627,
        (
            0.492784030804,
            -3.29981597332,
            -2.68877395072,
            -7.62492409296,
            0.00270229989682,
        ),
    ),
    (
        (1.568, 1.493, 1.377, 0.698),
        0.87,
        (1.58216439074, 1.50064727491, 1.45590075015, 0.831611644237, 0.272098057288),
    ),
    (
        (1.2, -6.962, 2.144, -7.463),
        0.459,
        (1.22158738191, -7.03725414643, 2.17311266566, -7.5884305248, 0.296156326798),
    ),
    (
        (-1.233, 5.085, 0.249, -3.205),
        -0.155,
        (-1.23059283163, 5.05232630912, 0.232342930328, -3.33008633232, 0.319965596808),
    ),
    (
        (-1.792, -5.26, 1.024, 2.355),
        0.231,
        (-1.78165634694, -5.23591619995, 1.04477805733, 2.46212091334, 0.338530106263),
    ),
    (
        (-0.442, 6.961, 2.885, 2.969),
        0.301,
        (-0.413010753827, 6.99098596772, 2.91286804385, 3.02884970351, 0.588666247432),
    ),
    (
        (1.8004, -1.555, 0.5, 3.544),
        0.051,
        (1.80481831676, -1.5202490949, 0.386478221418, 3.40701486186, 0.20334126681),
    ),
    (
        (-1.8003, -0.198, -0.2, 6.945),
        -0.284,
        (
            -1.80207498646,
            -0.128995775402,
            -0.155809396426,
            6.85850782904,
            0.286433642621,
        ),
    ),
    (
        (1.83, -2.494, 1, -2.593),
        -0.217,
        (
            1.83860459775,
            -2.52198159204,
            0.729935539675,
            -2.99331536342,
            0.0378318258339,
        ),
    ),
    (
        (-1.85, -3.82, 0.3, -6.656),
        0.665,
        (
            -1.84660273902,
            -3.88565974095,
            0.379451177213,
            -6.47559231672,
            0.035064481301,
        ),
    ),
]


def row(state: tuple[float, ...]) -> NDArray[np.float64]:
    """Variables ``(1, 4)``."""
    return np.array([state], np.float64)


def stepped(
    variables: NDArray[np.float64], actions: Any, **changed: Any
) -> tuple[NDArray[Any], ...]:
    """One step from each of some states ``(n, 4)``, see `moved`."""
    env = ENVS[SWINGUP]()
    physics = constants(env, len(variables), **changed)
    return moved(env, variables, np.asarray(actions, float)[:, None], physics)


def states(rng: np.random.Generator, n: int, x: float = 1.7) -> NDArray[np.float64]:
    return rng.uniform([-x, -7, -3, -8], [x, 7, 3, 8], (n, 4))


# -- dm_control -----------------------------------------------------------------


def test_an_episode_is_that_of_dm_control() -> None:
    env, state = start(SWINGUP, 1, 1)
    state.variables[0, 0] = START
    for k in range(1000):
        step = env.step(state, np.full((1, 1, 1), 0.8 * math.cos(0.05 * k)))
        if k + 1 not in EPISODE:
            continue
        x, angle, v, w, reward = EPISODE[k + 1]
        seen = step.observations[0, 0]
        expected = [x, math.cos(angle), math.sin(angle), v, w]
        np.testing.assert_allclose(seen, expected, rtol=2e-7, atol=2e-7)
        assert step.rewards[0, 0] == pytest.approx(reward, rel=1e-9)
        if k < 999:
            ours = state.variables[0, 0]
            np.testing.assert_allclose(ours, [x, angle, v, w], rtol=1e-10, atol=1e-10)
    assert step.done.all()
    assert not step.terminated.any()


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_steps_are_those_of_dm_control(number: int) -> None:
    before, action, (*state, reward) = STEPS[number]
    tolerance = 1e-10 if abs(before[0]) < 1.8 else SOLVER
    after, _, rewards, _ = stepped(row(before), [action])
    np.testing.assert_allclose(after[0], state, rtol=0, atol=tolerance)
    assert rewards[0] == pytest.approx(reward, abs=tolerance)


MODEL = """
<mujoco>
  <option timestep="0.01" integrator="RK4" gravity="0 0 {gravity}" tolerance="0">
    <flag contact="disable"/>
  </option>
  <worldbody>
    <body>
      <joint type="slide" axis="1 0 0" limited="true" range="-1.8 1.8"
        solreflimit="0.08 1" damping="5e-4" name="slider"/>
      <geom type="box" size="0.2 0.15 0.1" mass="{mass_cart}"/>
      <body>
        <joint type="hinge" axis="0 1 0" damping="2e-6"/>
        <geom type="capsule" fromto="0 0 0 0 0 {length}" size="0.045"
          mass="{mass_pole}"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="slider" gear="{force}" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


@pytest.mark.parametrize(
    "changed",
    [{}, *({name: 1.3} for name in ENVS[SWINGUP]().physics), {"length": 0.4}],
    ids=str,
)
def test_any_state_moves_as_in_mujoco(changed: dict[str, float]) -> None:
    mujoco = pytest.importorskip("mujoco")
    env, rng, n = ENVS[SWINGUP](), np.random.default_rng(0), 1000
    physics = {k: v * changed.get(k, 1.0) for k, v in env.physics.items()}
    given = physics | {"gravity": -physics["gravity"]}
    model = mujoco.MjModel.from_xml_string(MODEL.format(**given))
    data = mujoco.MjData(model)
    variables, actions = states(rng, n, 1.9), rng.uniform(-1.5, 1.5, n)
    variables[:100, 0] = 1.8005 * rng.choice([-1, 1], 100)  # only just beyond an end
    after, *_ = stepped(variables, actions, **physics)
    for k in range(n):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = variables[k, :2], variables[k, 2:]
        data.ctrl[0] = actions[k]
        mujoco.mj_step(model, data)
        theirs = [*data.qpos, *data.qvel]
        np.testing.assert_allclose(after[k], theirs, rtol=1e-12, atol=1e-12)
    assert (np.abs(variables[:, 0]) > 1.8).sum() > 100


# -- reward ---------------------------------------------------------------------


def tolerance(x: NDArray[Any], margin: float) -> NDArray[Any]:
    """dm_control's of the bounds (0, 0): a Gaussian that is 0.1 at the margin."""
    scale = np.sqrt(-2 * np.log(0.1))
    return np.exp(-0.5 * (np.abs(x) / margin * scale) ** 2)


def test_rewards_are_the_product_of_four() -> None:
    rng, n = np.random.default_rng(0), 2000
    actions = rng.uniform(-1.5, 1.5, n)
    after, _, rewards, terminated = stepped(states(rng, n, 2.5), actions)
    x, angle, _, w = after.T
    quadratic = np.where(np.abs(actions) < 1, 1 - actions**2, 0)
    product = (1 + np.cos(angle)) / 2 * (4 + quadratic) / 5
    product *= (1 + tolerance(w, 5)) / 2 * (1 + tolerance(x, 2)) / 2
    np.testing.assert_allclose(rewards, product, rtol=1e-12, atol=1e-15)
    assert not terminated.any()


def test_the_best_state_is_worth_one_and_hanging_nothing() -> None:
    upright, hanging = row((0, 0, 0, 0)), row((0, math.pi, 0, 0))
    assert stepped(upright, [0.0])[2] == pytest.approx([1])
    assert stepped(upright, [1.0])[2] == pytest.approx([0.8], abs=1e-2)
    assert stepped(hanging, [0.0])[2] == pytest.approx([0], abs=1e-12)


# -- mechanics ------------------------------------------------------------------


def energy(
    variables: NDArray[np.float64], mass: float = 0.1, length: float = 1.0
) -> NDArray[np.float64]:
    """Kinetic and potential energy in J of cart and pole, mass by mass.

    The pole is cut into slices of a cylinder and of two halves of a ball, each of which
    moves as a whole but for its own turning.
    """
    _, angle, v, w = variables.T
    radius, n = 0.045, 20_000
    edges = np.linspace(-radius, length + radius, n + 1)
    at, thick = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    beyond = np.maximum(np.maximum(-at, at - length), 0)
    square = radius**2 - beyond**2
    masses = square * thick
    masses *= mass / masses.sum()
    first, second = (masses * at).sum(), (masses * (at**2 + square / 4)).sum()
    kinetic = (1 + mass) * v**2 / 2 + first * np.cos(angle) * v * w + second * w**2 / 2
    return kinetic + 9.81 * first * np.cos(angle)


def test_energy_changes_by_what_the_force_does_and_friction_takes() -> None:
    rng = np.random.default_rng(0)
    variables = states(rng, 50, 0.2)
    variables[:, 2] *= 0.1
    expected = energy(variables)
    initial, actions = expected.copy(), rng.uniform(-0.1, 0.1, 50)
    for _ in range(50):
        after, *_ = stepped(variables, actions)
        v, w = (variables[:, 2:] + after[:, 2:]).T / 2
        expected = expected + 10 * actions * (after[:, 0] - variables[:, 0])
        expected -= 0.01 * (5e-4 * v**2 + 2e-6 * w**2)
        variables = after
    assert (np.abs(variables[:, 0]) < 1.8).all()
    assert np.abs(expected - initial).max() > 0.05
    np.testing.assert_allclose(energy(variables), expected, rtol=0, atol=2e-5)


def test_small_swings_have_their_period() -> None:
    """Of a pole that hangs on a cart which is free to move."""
    mass, half, moment = 0.1, 0.5, 0.05
    inertia = 0.0094245927672956 + mass * half**2  # of the capsule about its end
    squared = moment * 9.81 / (inertia - moment**2 / 1.1)
    variables = row((0, math.pi + 1e-3, 0, 0))
    for k in range(300):
        swing = 1e-3 * math.cos(math.sqrt(squared) * 0.01 * k)
        assert variables[0, 1] - math.pi == pytest.approx(swing, abs=2e-6)
        variables = stepped(variables, [0.0])[0]


def test_left_and_right_are_alike() -> None:
    rng, n = np.random.default_rng(0), 500
    variables, actions = states(rng, n, 1.9), rng.uniform(-1.5, 1.5, n)
    after, _, rewards, _ = stepped(variables, actions)
    mirrored, _, same, _ = stepped(-variables, -actions)
    np.testing.assert_array_equal(after, -mirrored)
    np.testing.assert_array_equal(rewards, same)


@pytest.mark.parametrize("side", [-1, 1])
def test_the_slider_ends(side: int) -> None:
    env, state = start(SWINGUP, 1, 1)
    furthest = 0.0
    for _ in range(999):
        step = env.step(state, np.full((1, 1, 1), float(side)))
        furthest = max(furthest, side * float(step.observations[0, 0, 0]))
    assert 1.81 < furthest < 2.2
    assert abs(step.observations[0, 0, 0]) < 2.0
    assert np.isfinite(step.observations).all()


# -- starts and description -----------------------------------------------------


def test_starts_hang_down_with_small_normal_deviations() -> None:
    env = ENVS[SWINGUP]()
    state = env.init(keys(500, 8), constants(env, 500))
    deviations = (state.variables.reshape(4000, 4) - [0, math.pi, 0, 0]) / 0.01
    assert np.abs(deviations.mean(0)).max() < 4 / math.sqrt(4000)
    assert np.abs(deviations.std(0) - 1).max() < 4 / math.sqrt(8000)
    np.testing.assert_allclose((np.abs(deviations) < 1).mean(0), 0.683, atol=0.03)
    r = np.corrcoef(deviations.T)
    assert np.abs(r - np.eye(4)).max() < 4 / math.sqrt(4000)


def test_what_it_says_of_itself() -> None:
    env = ENVS[SWINGUP]()
    assert env.observation_shape == (5,)
    assert env.observation_dtype == np.float32
    assert env.num_actions == 0
    assert (env.action_low, env.action_high) == ([-1.0], [1.0])
    assert env.env.max_episode_steps == 1000


def test_observations_are_position_direction_and_velocities() -> None:
    env, rng = ENVS[SWINGUP](), np.random.default_rng(0)
    variables = states(rng, 200)
    actions = random_actions(env, rng, 200)
    after, seen, *_ = stepped(variables, actions[:, 0])
    x, angle, v, w = after.T
    expected = np.stack([x, np.cos(angle), np.sin(angle), v, w], -1)
    np.testing.assert_allclose(seen, expected, rtol=1e-7, atol=1e-7)
