"""Key to door: the key lies in the first room, the door that it opens comes after a long second one.

Observation
    index  meaning                                                                range
    0      1 in the first room                                                    0 or 1
    1      1 in the second room                                                   0 or 1
    2      1 at the door                                                          0 or 1
    3      place in the first room, -1 the key's end, 1 the other; 0 elsewhere    -1 .. 1
    4      the cue of the second room, 0 elsewhere                                -1, 0, 1
    5      share of the room's steps that are over                                0 .. 1
    6..15  1 with the key, -1 without, in the place of the first room, of the     -1, 0, 1
           current eighth of the second, or of the door; 0 elsewhere, and always
           where `visible` = 0
    With `visible` = 1 it is the whole state and a critic can carry the credit; it moves from place to place so that
    what is learned of the key at the door is not taken for true at the beginning. With `visible` = 0 nothing in the
    second room or at the door shows the key, and only a return that reaches back to the first room can.
Action: 0 and 1: left and right in the first room, the answer to a cue of -1 or 1 in the second, leave or open at the
    door.
Reward: nothing in the first room. In the second one `distraction` for each answer that matches the cue, which a fair
    coin draws anew, and uniform noise of standard deviation `noise`. At the door `payment` for opening it with the key.
    Best mean return: payment + delay * distraction; random play: 37/256 * payment + delay * distraction / 2 (a walk
    meets the key with probability 37/128).
Start: the middle of the first room, which has 7 places; the key lies at its left end, 3 steps away.
End: terminated after 8 steps in the first room, `delay` in the second and one at the door. The key is taken between the
    3rd and the 8th step, so it is paid for delay + 1 to delay + 6 steps later. Truncated at 1,033 steps, so delay is
    1 .. 1,024.
Parameters: delay, payment, distraction, noise, visible (1 or 0).
Source: Hung et al. 2019, "Optimizing agent behavior over long time scales by transporting value".
Differs: symbols for pictures, one-dimensional rooms; cues for apples; the key may be shown.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, state_dtype, uniform

PLACES = 7
SEARCH = 8
EIGHTHS = 8

State = state_dtype(elapsed=np.int64, place=np.int64, cue=np.int64, key=np.int64)
statistics = ("key",)

observation_space = spaces.Box(
    np.array([0, 0, 0, -1, -1, 0] + [-1] * (EIGHTHS + 2), np.float32),
    np.ones(8 + EIGHTHS, np.float32),
    dtype=np.float32,
)
action_space = spaces.Discrete(2)
max_episode_steps = 1_033


class Parameters(NamedTuple):
    delay: int = 64
    payment: float = 5.0
    distraction: float = 0.1
    noise: float = 0.3
    visible: int = 1


def reset(state, p):
    state.elapsed = 0
    state.place = PLACES // 2
    state.cue = 0
    state.key = 0


def step(state, action, p):
    reward = 0.0
    if state.elapsed >= SEARCH + p.delay:
        return p.payment * state.key * action, True
    if state.elapsed < SEARCH:
        state.place = min(max(state.place + 2 * action - 1, 0), PLACES - 1)
        if state.place == 0:
            state.key = 1
    else:
        reward = p.noise * symmetric(state)
        if (action == 1) == (state.cue == 1):
            reward += p.distraction
    state.elapsed += 1
    state.cue = 0
    if SEARCH <= state.elapsed < SEARCH + p.delay:
        state.cue = 1 if uniform(state) < 0.5 else -1
    return reward, False


def observe(state, observation, p):
    second, door = state.elapsed >= SEARCH, state.elapsed >= SEARCH + p.delay
    observation[0] = not second
    observation[1] = second and not door
    observation[2] = door
    observation[3] = 0.0 if second else state.place / (PLACES // 2) - 1.0
    observation[4] = state.cue
    observation[5] = (state.elapsed - SEARCH) / p.delay if second else state.elapsed / SEARCH
    for i in range(EIGHTHS + 2):
        observation[6 + i] = 0.0
    if p.visible != 0:
        place = 0
        if door:
            place = EIGHTHS + 1
        elif second:
            place = 1 + EIGHTHS * (state.elapsed - SEARCH) // p.delay
        observation[6 + place] = 2 * state.key - 1


@compiled
def symmetric(state):
    """Uniform with mean 0 and standard deviation 1."""
    return 1.7320508075688772 * (2.0 * uniform(state) - 1.0)


canvas_size = (560, 140)
frames_per_second = 10


def draw(state, canvas):
    canvas.world(-1.0, 15.0, -2.0, 2.0)
    canvas.fill((250, 250, 247))
    if state.elapsed < SEARCH:
        for place in range(PLACES):
            canvas.rectangle(place - 0.45, -0.45, place + 0.45, 0.45, (230, 232, 235))
        canvas.circle(state.place, 0.0, 0.3, (52, 73, 94))
    elif state.cue:
        x, side = 3.0, 1.2 * state.cue
        canvas.polygon([(x - side, 1.0), (x - side, -1.0), (x + side, 0.0)], (52, 152, 219))
    else:
        canvas.rectangle(2.2, -1.2, 3.8, 1.4, (146, 100, 60))
    canvas.text(8.5, -0.4, str(state.elapsed), (90, 90, 90), 0.8)
    canvas.circle(0.0 if not state.key and state.elapsed < SEARCH else 12.5, 0.9, 0.35,
                  (241, 196, 15) if state.key or state.elapsed < SEARCH else (200, 205, 210))  # fmt: skip
