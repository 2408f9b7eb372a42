"""Stochastic: doors that all look alike, of which most open by a push and some by a pull; the best policy is mixed.

Observation
    index  meaning     range
    0      always 1    1
Action: 0 pulls, 1 pushes. The right one opens the door and leads to the next; the wrong one does nothing.
Reward: -1 for every step, the last included. A policy without memory is one number, the probability q of a push. Its
    mean return is -(push / q + pull / (1 - q)), which is best at q = sqrt(push) / (sqrt(push) + sqrt(pull)):
    -(sqrt(push) + sqrt(pull)) ** 2. With 9 and 1 doors: q = 3/4 and -16. Random play: -2 (push + pull) = -20. Always
    the same action: never through, -200, cut by the limit. A policy with memory could do better (by trying each action
    in turns, say).
Start: the first door; the order of the doors is drawn anew in every episode.
End: terminated when the last door opens; truncated at 200 steps. Up to about 20 doors this changes the figures above
    by less than 1e-6.
Parameters: push, pull (how many doors of each kind; at least one of them positive).
Source: the mixed optimum of aliased states: Singh, Jaakkola & Jordan 1994, "Learning without state-estimation in
    partially observable Markovian decision processes". The question, and the best q of 3/4: PufferLib's stochastic.
Differs: PufferLib pays for the frequency of an action itself; here it follows from the task.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype

State = state_dtype(
    push=np.int64,  # doors that are left to push, this one included
    pull=np.int64,
    door=np.int64,  # which action opens this one
    action=np.int64,  # the last one, -1 before the first: for the picture
)

observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 200


class Parameters(NamedTuple):
    push: int = 9
    pull: int = 1


def reset(state, p):
    state.push = p.push
    state.pull = p.pull
    state.action = -1
    next_door(state)


def step(state, action, p):
    state.action = action
    if action == state.door:
        if action == 1:
            state.push -= 1
        else:
            state.pull -= 1
        if state.push + state.pull <= 0:
            return -1.0, True
        next_door(state)
    return -1.0, False


def observe(state, observation, p):
    observation[0] = 1.0


@compiled
def next_door(state):
    state.door = 1 if random_integer(state, state.push + state.pull) < state.push else 0


canvas_size = (640, 160)
frames_per_second = 6


def draw(state, canvas):
    canvas.world(-0.5, 15.5, -0.5, 3.5)
    canvas.fill((250, 250, 247))
    for i in range(state.push + state.pull):
        shut = (146, 100, 60) if i else (202, 152, 101)
        canvas.rectangle(1.4 * i + 1.6, 0.2, 1.4 * i + 2.6, 2.4, shut)
        canvas.circle(1.4 * i + (2.4 if state.door == 1 or i else 1.8), 1.3, 0.08, (241, 196, 15))
    canvas.circle(0.7, 0.7, 0.45, (52, 73, 94))
    if state.action >= 0:
        side = 0.3 if state.action == 1 else -0.3
        canvas.polygon([(0.7 - side, 1.7), (0.7 - side, 2.3), (0.7 + side, 2.0)], (52, 152, 219))
    canvas.text(0.3, 2.8, f"{state.push} to push, {state.pull} to pull", (90, 90, 90), 0.35)
