"""Write a new environment file: small, whole, commented, and ready to train."""

import keyword
import sys
from pathlib import Path

TEMPLATE = '''"""{title}: fly a drone to a beacon that appears somewhere else when it is reached.

Observation
    index  meaning                                            range
    0      x of the drone, 0 at the left, 1 at the right      0 .. 1
    1      y, 0 at the bottom, 1 at the top                   0 .. 1
    2      velocity to the right, in 1 / 20 per step          -1 .. 1
    3      velocity upwards, likewise                         -1 .. 1
    4      x from the drone to the beacon                     -1 .. 1
    5      y from the drone to the beacon                     -1 .. 1
Action: 0 nothing, 1 pushes left, 2 pushes right, 3 pushes down, 4 pushes up.
Reward: 1 for a beacon reached.
Start: drone and beacon at random places, the drone at rest.
End: terminated when the drone leaves the field; truncated at 200 steps.
Source: written by `ridgeline new-env`.
Differs: it is yours to change.
Version: 1
"""

# Train it, look at it, play it yourself:
#     ridgeline train {name}.py --steps 500000 --out runs/{name}
#     ridgeline watch runs/{name} --environment {name}.py
#     ridgeline play {name}.py

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, state_dtype, uniform

# Everything that ONE instance remembers. A field is a NumPy type, or (type, shape) for an array:
# trail=(np.float64, (8, 2)). Ridgeline runs thousands of instances; you never write that loop.
State = state_dtype(
    x=np.float64,
    y=np.float64,
    velocity_x=np.float64,
    velocity_y=np.float64,
    beacon_x=np.float64,
    beacon_y=np.float64,
    reached=np.int64,
)

# What the policy sees and does. `observe` below must write every number of the observation.
observation_space = spaces.Box(np.array([0, 0, -1, -1, -1, -1], np.float32), np.ones(6, np.float32), dtype=np.float32)
action_space = spaces.Discrete(5)

# The time limit. It is not an ending of the task: Ridgeline asks the critic what would have followed.
max_episode_steps = 200

# Fields of State to report when an episode ends, in metrics.jsonl as episode_reached.
statistics = ("reached",)

# Plain numbers at the top of the file are constants, and fast.
MAX_SPEED = 0.05


class Parameters(NamedTuple):
    """Numbers that `--environment.push 0.01` changes without a new compilation: the `p` of every function."""

    push: float = 0.005
    radius: float = 0.08


def reset(state, p):
    """Begin an episode: set EVERY field, for the instance has played before."""
    state.x = uniform(state)  # random numbers come from the instance's own stream: give the function `state`
    state.y = uniform(state)
    state.velocity_x = 0.0
    state.velocity_y = 0.0
    state.reached = 0
    place_beacon(state)


def step(state, action, p):
    """One decision; returns (reward, terminated). Terminated only where the task itself is over."""
    if action == 1:
        state.velocity_x -= p.push
    elif action == 2:
        state.velocity_x += p.push
    elif action == 3:
        state.velocity_y -= p.push
    elif action == 4:
        state.velocity_y += p.push
    state.velocity_x = min(max(state.velocity_x, -MAX_SPEED), MAX_SPEED)
    state.velocity_y = min(max(state.velocity_y, -MAX_SPEED), MAX_SPEED)
    state.x += state.velocity_x
    state.y += state.velocity_y
    if not (0.0 <= state.x <= 1.0 and 0.0 <= state.y <= 1.0):
        state.x = min(max(state.x, 0.0), 1.0)  # the last observation lies in the space too
        state.y = min(max(state.y, 0.0), 1.0)
        return 0.0, True
    if abs(state.x - state.beacon_x) < p.radius and abs(state.y - state.beacon_y) < p.radius:
        state.reached += 1
        place_beacon(state)
        return 1.0, False
    return 0.0, False


def observe(state, observation, p):
    """Write the observation. Numbers of a size around 1 are learned from most easily."""
    observation[0] = state.x
    observation[1] = state.y
    observation[2] = state.velocity_x / MAX_SPEED
    observation[3] = state.velocity_y / MAX_SPEED
    observation[4] = state.beacon_x - state.x
    observation[5] = state.beacon_y - state.y


# A helper of the three functions above carries @compiled. Inside there are numbers, arrays of State, `if`, loops, math.
@compiled
def place_beacon(state):
    state.beacon_x = 0.1 + 0.8 * uniform(state)
    state.beacon_y = 0.1 + 0.8 * uniform(state)


# The picture, for watch and play: ordinary Python, in your own units, y upwards. Leave it out if you need none.
canvas_size = (360, 360)
frames_per_second = 20


def draw(state, canvas):
    canvas.world(-0.05, 1.05, -0.05, 1.05)
    canvas.fill((30, 36, 52))
    canvas.rectangle(0, 0, 1, 1, (44, 54, 78))
    canvas.circle(state.beacon_x, state.beacon_y, 0.07, (96, 84, 40))
    canvas.circle(state.beacon_x, state.beacon_y, 0.035, (250, 204, 72))
    for side in (-1, 1):
        canvas.line(state.x, state.y, state.x + 0.05 * side, state.y + 0.015, (190, 200, 215), 0.012)
        canvas.circle(state.x + 0.05 * side, state.y + 0.02, 0.018, (120, 200, 240))
    canvas.circle(state.x, state.y, 0.025, (236, 240, 245))
    canvas.text(0.02, 0.95, f"reached {state.reached}", (190, 200, 215), 0.035)
'''


class NameTaken(ValueError):
    """A file that cannot be written; one line with the reason and the way out."""


def new_environment(name: str, folder: Path) -> Path:
    """Write `folder`/NAME.py, a whole environment with comments, and return its path.

    Raises: NameTaken where the name is no module name, hides a module of Python, or the file exists.
    """
    stem = name.removesuffix(".py")
    if not stem.isidentifier() or keyword.iskeyword(stem) or stem != stem.lower():
        raise NameTaken(f"{name!r} is no name for an environment; use lower-case letters, digits and _, like my_game")
    if stem in sys.stdlib_module_names:
        raise NameTaken(f"{stem}.py would hide Python's own module {stem}; choose another name")
    path = folder / f"{stem}.py"
    try:
        with open(path, "x", encoding="utf-8") as file:
            title = stem.replace("_", " ").strip().capitalize() or stem
            file.write(TEMPLATE.replace("{title}", title).replace("{name}", stem))
    except FileExistsError:
        raise NameTaken(f"{path} exists; choose another name, or remove it first") from None
    except OSError as error:
        raise NameTaken(f"{path} cannot be written: {error.strerror}") from None
    return path
