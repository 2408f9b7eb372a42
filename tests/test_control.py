"""cartpole_swingup, reacher and lander: equations of motion against the Lagrangian's, rewards against their formulas
written again, and a scripted pilot that reaches the stated score.
"""

import math
from pathlib import Path

import numpy as np

import ridgeline.kernel
from ridgeline.kernel import define
from ridgeline.vector import CompiledEnv

ENVIRONMENTS = Path(ridgeline.kernel.__file__).with_name("envs")


def make(name: str, num_envs: int, **parameters) -> CompiledEnv:
    return CompiledEnv(define(ENVIRONMENTS / f"{name}.py"), num_envs, seed=0, parameters=parameters)


def first_episodes(env: CompiledEnv, pilot) -> tuple[np.ndarray, np.ndarray]:
    """Return of the first episode of every row, and its last reward."""
    total, last, running = np.zeros(env.num_rows), np.zeros(env.num_rows), np.ones(env.num_rows, bool)
    while running.any():
        step = env.step(pilot(env.observation))
        total += step.reward * running
        last[running] = step.reward[running]
        running &= ~(step.terminated | step.truncated)
    return total, last


# ---------------------------------------------------------------------------------------------------- cartpole swing-up


def swing_up(observation):
    """Pump energy into the pole with the cart's acceleration, then hold it by linear feedback.

    Astrom & Furuta 2000, "Swinging up a pendulum by energy control"; the gains solve the Riccati equation of the
    linearised step with costs 2 x^2 + 0.3 v^2 + 5 angle^2 + 0.3 w^2 + action^2.
    """
    x, v, cosine, sine, w = observation.T.astype(np.float64)
    angle = np.arctan2(sine, cosine)
    hold = 1.18 * x + 1.34 * v + 7.79 * angle + 1.93 * w
    energy = 0.5 * (4 / 3 * 0.1 * 0.25) * w * w + 0.1 * 9.8 * 0.5 * (cosine - 1)
    pump = 1.1 / 10 * (12 * np.sign(energy) * np.minimum(np.abs(energy) * 8, 1) * np.sign(w * cosine) - 4 * x - 2 * v)
    return np.clip(np.where((cosine > 0.9) & (np.abs(w) < 3), hold, pump), -1, 1)[:, None].astype(np.float32)


def test_swingup_obeys_the_lagrangian_and_its_reward():
    """(M + m) x'' + m l (cos t'' - sin t'^2) = F and m l cos x'' + 4/3 m l^2 t'' = m g l sin, solved by NumPy."""
    env, generator, number = make("cartpole_swingup", 1_000), np.random.default_rng(0), 1_000
    x, theta = generator.uniform(-2.6, 2.6, number), generator.uniform(-np.pi, np.pi, number)
    v, w = generator.uniform(-4, 4, (2, number))
    env.state.x, env.state.x_dot, env.state.theta, env.state.theta_dot = x, v, theta, w
    env.state.sine, env.state.cosine = np.sin(theta), np.cos(theta)
    action = generator.uniform(-1.5, 1.5, (number, 1)).astype(np.float32)
    push = np.clip(action[:, 0].astype(np.float64), -1, 1)
    coupling = 0.1 * 0.5 * np.cos(theta)
    matrix = np.array([[np.full(number, 1.1), coupling], [coupling, np.full(number, 4 / 3 * 0.1 * 0.25)]])
    force = np.array([10 * push + 0.05 * np.sin(theta) * w * w, 0.05 * 9.8 * np.sin(theta)])
    x_acceleration, theta_acceleration = np.linalg.solve(matrix.transpose(2, 0, 1), force.T[..., None])[..., 0].T
    v, w = v + 0.02 * x_acceleration, w + 0.02 * theta_acceleration
    x, theta = x + 0.02 * v, theta + 0.02 * w
    step = env.step(action)
    ongoing = ~step.terminated
    assert 500 < ongoing.sum() < number
    np.testing.assert_array_equal(step.terminated, np.abs(x) > 2.4)
    expected = np.stack([x, v, np.cos(theta), np.sin(theta), w], 1)
    np.testing.assert_allclose(env.observation[ongoing], expected[ongoing], atol=2e-6)
    reward = (
        (1 + np.cos(theta)) / 2 * (1 + 0.1 ** ((x / 2) ** 2)) / 2 * (1 + 0.1 ** ((w / 5) ** 2)) / 2 * (1 - push**2 / 5)
    )
    np.testing.assert_allclose(step.reward, reward, rtol=1e-9)


def test_swingup_keeps_its_energy():
    """Without a push, over 3 s: semi-implicit Euler swings around the true energy and does not drift."""
    env = make("cartpole_swingup", 50)
    env.state.theta = theta = np.linspace(1.0, 3.0, 50)
    env.state.sine, env.state.cosine = np.sin(theta), np.cos(theta)

    def energy():
        state = env.state
        kinetic = 0.55 * state.x_dot**2 + 0.05 * np.cos(state.theta) * state.x_dot * state.theta_dot
        return kinetic + 0.1 * 0.25 * 2 / 3 * state.theta_dot**2 + 0.49 * np.cos(state.theta)

    before = energy()
    for _ in range(150):
        env.step(np.zeros((50, 1), np.float32))
    assert np.abs(energy() - before).max() < 0.03


def test_swingup_pilot():
    total, _ = first_episodes(make("cartpole_swingup", 50), swing_up)
    assert total.min() > 420 and total.max() < 500


# -------------------------------------------------------------------------------------------------------------- reacher


def reach(observation):
    """Inverse kinematics (the elbow's side that is nearer), then a critically damped pull on both joints."""
    c1, s1, c2, s2, v, w, x, y, _, _ = observation.T.astype(np.float64)
    shoulder, elbow = np.arctan2(s1, c1), np.arctan2(s2, c2)
    bend = np.arccos(np.clip((x * x + y * y) / 0.5 - 1, -1, 1))
    bend = np.where(elbow < 0, -bend, bend)
    goal = np.arctan2(y, x) - bend / 2  # equal links: the elbow's bend is shared
    error_1 = (goal - shoulder + np.pi) % (2 * np.pi) - np.pi
    error_2 = bend - elbow
    want_1, want_2 = 25 * error_1 - 10 * v, 25 * error_2 - 10 * w
    both = 1 / 12 + 0.125 * c2
    torque_1 = (5 / 12 + 0.25 * c2) * want_1 + both * want_2 + 0.2 * v - 0.125 * s2 * (2 * v + w) * w
    torque_2 = both * want_1 + want_2 / 12 + 0.2 * w + 0.125 * s2 * v * v
    return np.clip(np.stack([torque_1, torque_2], 1), -1, 1).astype(np.float32)


def arm(shoulder, elbow, v, w):
    """Mass matrix (B, 2, 2) and kinetic energy (B,) of two uniform rods of 1 kg and 0.5 m, from their velocities."""

    def velocity_of_centres(v, w):
        first = np.stack([-np.sin(shoulder), np.cos(shoulder)]) * 0.25 * v
        tip = np.stack([-np.sin(shoulder + elbow), np.cos(shoulder + elbow)])
        return first, 2 * first + tip * 0.25 * (v + w)

    def energy(v, w):
        first, second = velocity_of_centres(v, w)
        spin = 0.25 / 12 * (v * v + (v + w) ** 2)
        return 0.5 * ((first**2).sum(0) + (second**2).sum(0) + spin)

    one, other, both = energy(1.0, 0.0), energy(0.0, 1.0), energy(1.0, 1.0)
    coupling = both - one - other
    matrix = np.stack([np.stack([2 * one, coupling], -1), np.stack([coupling, 2 * other], -1)], -2)
    return matrix, energy(v, w)


def test_reacher_obeys_the_lagrangian():
    """M q'' = torque - damping q' - M' q' + dT/dq, with M from the links' velocities and derivatives by differences."""
    env, generator, number, h = make("reacher", 500, time_step=2e-4), np.random.default_rng(0), 500, 1e-5
    shoulder, elbow = generator.uniform(-3, 3, (2, number))
    v, w = generator.uniform(-3, 3, (2, number))
    env.state.shoulder, env.state.elbow, env.state.shoulder_dot, env.state.elbow_dot = shoulder, elbow, v, w
    env.state.cosines[:, 0], env.state.sines[:, 0] = np.cos(shoulder), np.sin(shoulder)
    env.state.cosines[:, 1], env.state.sines[:, 1] = np.cos(elbow), np.sin(elbow)
    action = generator.uniform(-1, 1, (number, 2)).astype(np.float32)
    matrix, _ = arm(shoulder, elbow, v, w)
    (above, high), (below, low) = arm(shoulder, elbow + h, v, w), arm(shoulder, elbow - h, v, w)
    speed = np.stack([v, w], -1)
    change = (above - below) / (2 * h) * w[:, None, None]
    force = action - 0.2 * speed - (change @ speed[..., None])[..., 0]
    force[:, 1] += (high - low) / (2 * h)
    expected = np.linalg.solve(matrix, force[..., None])[..., 0]
    env.step(action)
    measured = (np.stack([env.state.shoulder_dot, env.state.elbow_dot], -1) - speed) / 2e-4
    np.testing.assert_allclose(measured, expected, atol=0.05, rtol=0.01)  # the step is finite


def test_reacher_observation_and_reward():
    env, generator = make("reacher", 2_000), np.random.default_rng(1)
    for _ in range(30):
        action = generator.uniform(-1.3, 1.3, (2_000, 2)).astype(np.float32)
        step = env.step(action)
    c1, s1, c2, s2, _, _, x, y, error_x, error_y = env.observation.T.astype(np.float64)
    tip_x = 0.5 * np.cos(env.state.shoulder) + 0.5 * np.cos(env.state.shoulder + env.state.elbow)
    tip_y = 0.5 * np.sin(env.state.shoulder) + 0.5 * np.sin(env.state.shoulder + env.state.elbow)
    np.testing.assert_allclose(np.stack([error_x, error_y]), [tip_x - x, tip_y - y], atol=1e-6)
    np.testing.assert_allclose([c1, s1], [np.cos(env.state.shoulder), np.sin(env.state.shoulder)], atol=1e-6)
    np.testing.assert_allclose([c2, s2], [np.cos(env.state.elbow), np.sin(env.state.elbow)], atol=1e-6)
    effort = (np.clip(action, -1, 1).astype(np.float64) ** 2).sum(1)
    np.testing.assert_allclose(step.reward, -np.hypot(error_x, error_y) - 0.01 * effort, atol=1e-6)
    radius = np.hypot(x, y)
    assert radius.max() <= 0.9 + 1e-6 and abs((radius < 0.45).mean() - 0.25) < 4 * math.sqrt(3 / 16 / 2_000)


def test_reacher_pilot():
    total, last = first_episodes(make("reacher", 400), reach)
    assert abs(total.mean() - -15.3) < 4 * total.std() / 20
    assert np.quantile(last, 0.05) > -0.02


# --------------------------------------------------------------------------------------------------------------- lander


def land(observation):
    """Lean towards the middle against the drift, and hold a height that is more the farther away; engines by need."""
    x, y, u, v, angle, turn, left, right = observation.T.astype(np.float64)
    lean = np.clip(0.5 * x + 1.0 * u, -0.4, 0.4)
    turning = 0.5 * (lean - angle) - 1.0 * turn
    rising = 0.5 * (0.55 * np.abs(x) - y) - 0.5 * v
    standing = (left + right) > 0
    turning, rising = np.where(standing, 0.0, turning), np.where(standing, -0.5 * v, rising)
    sideways = np.where(turning < -0.05, 3, np.where(turning > 0.05, 1, 0))
    return np.where((rising > np.abs(turning)) & (rising > 0.05), 2, sideways)


def shaping(observation):
    x, y, u, v, angle, _, left, right = observation.T.astype(np.float64)
    return -100 * np.hypot(x, y) - 100 * np.hypot(u, v) - 100 * np.abs(angle) + 10 * left + 10 * right


def test_lander_reward_is_the_change_of_shaping_and_the_fuel():
    env, generator = make("lander", 200), np.random.default_rng(0)
    before, compared = shaping(env.observation), 0
    for _ in range(150):
        action = generator.integers(0, 4, 200)
        step = env.step(action)
        ongoing = ~step.terminated
        expected = shaping(env.observation) - before - np.array([0, 0.03, 0.3, 0.03])[action]
        np.testing.assert_allclose(step.reward[ongoing], expected[ongoing], atol=1e-3)
        before, compared = shaping(env.observation), compared + (~ongoing).sum()
    assert compared > 100


def test_lander_flies_by_newtons_laws():
    """In the air: gravity, thrust along the body's axes, torque of the side engines; three steps of each action."""
    for action, (across, along, turning) in enumerate([(0, 0, 0), (1, 0, 4), (0, 20, 0), (-1, 0, -4)]):
        env = make("lander", 1)
        state = env.state
        state.angle[0] = angle = 0.7
        state.y_dot[0] = 1.0
        u, v, w = state.x_dot[0], 1.0, state.angle_dot[0]
        for _ in range(3):
            u += 0.02 * (across * math.cos(angle) - along * math.sin(angle))
            v += 0.02 * (across * math.sin(angle) + along * math.cos(angle) - 10)
            w += 0.02 * turning
            angle += 0.02 * w
            env.step(np.array([action]))
        np.testing.assert_allclose([state.x_dot[0], state.y_dot[0], state.angle_dot[0]], [u, v, w], atol=1e-12)


def test_lander_stands_on_its_springs_and_rests():
    """Set on its feet: it sinks by g / (2 spring) = 1/12 m, and is landed after half a second at rest."""
    env = make("lander", 1)
    state = env.state
    state.x_dot, state.y_dot, state.angle_dot, state.y = 0.0, 0.0, 0.0, 0.0
    reward = []
    for _ in range(300):
        height = state.y[0]
        step = env.step(np.zeros(1, np.int64))
        reward.append(step.reward[0])
        if step.terminated[0]:
            break
    assert abs(height + 1 / 12) < 0.005
    assert abs(reward[-1] - 100) < 1 and step.episode[0, 2] == 1 and 25 <= step.episode[0, 1] < 100


def test_lander_falls_to_its_death_and_leaves_the_world():
    total, last = first_episodes(make("lander", 50), lambda observation: np.zeros(50, np.int64))
    assert (last < 0).all() and total.mean() < -50
    env = make("lander", 1)
    env.state.x, env.state.x_dot = 9.99, 4.0
    step = env.step(np.zeros(1, np.int64))
    assert step.terminated[0] and step.reward[0] < -95


def test_lander_pilot():
    total, last = first_episodes(make("lander", 200), land)
    assert (last > 95).mean() > 0.98 and abs(total.mean() - 287) < 4 * total.std() / math.sqrt(200)


def test_continuous_engines_are_the_discrete_ones_at_full_power():
    """Same starts, same flights, to the last bit; at part power the thrust and its cost are in proportion."""
    one, other, generator = make("lander", 100), make("lander_continuous", 100), np.random.default_rng(0)
    engines = np.array([[0, 0], [-1, 1], [2, 0.5], [0, -1]], np.float32)  # clipped; half a side engine is none
    for _ in range(120):
        action = generator.integers(0, 4, 100)
        step, twin = one.step(action), other.step(engines[action])
        np.testing.assert_array_equal(step.observation, twin.observation)
        np.testing.assert_allclose(step.reward, twin.reward, rtol=0, atol=1e-12)
    for main, side, along, across in ((0.5, 0, 0.75 * 20, 0), (1e-6, 0, 10, 0), (-1, -0.75, 0, -0.75), (0, 0.49, 0, 0)):
        env = make("lander_continuous", 1)
        before = env.state.copy()
        env.step(np.array([[main, side]], np.float32))
        assert abs(env.state.y_dot[0] - before.y_dot[0] - 0.02 * (along - 10)) < 1e-4
        assert abs(env.state.x_dot[0] - before.x_dot[0] - 0.02 * across) < 1e-6
        assert abs(env.state.angle_dot[0] - before.angle_dot[0] - 0.02 * 4 * across) < 1e-6


def test_lander_continuous_pilot():
    """The same pilot, at full power."""
    engines = np.array([[0, 0], [0, 1], [1, 0], [0, -1]], np.float32)
    total, last = first_episodes(make("lander_continuous", 200), lambda observation: engines[land(observation)])
    assert (last > 95).mean() > 0.98 and abs(total.mean() - 287) < 4 * total.std() / math.sqrt(200)
