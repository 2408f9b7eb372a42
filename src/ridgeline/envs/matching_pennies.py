"""Matching pennies: two players show head or tail at once; one wins where they match, the other where they differ.

Observation
    index  meaning                                                       range
    0      1 for the player who wins by matching, -1 for the other one   -1 or 1
    1      what the player showed in the last round: 1 head, -1 tail     -1 .. 1 (0 in the first round)
    2      what the other one showed                                     -1 .. 1 (0 in the first round)
Action: 0 shows tail, 1 shows head.
Reward: of the matching player `head` for two heads, 1 for two tails, -1 where they differ; of the other one the
    opposite. In the only equilibrium both show head with probability 2 / (head + 3) in every round, whatever was shown
    before: the matching player then wins (head - 1) / (head + 3) per round in the mean, and neither can do better
    against it. With head = 3: one round in three, and 1/3 per round, 10/3 and -10/3 per episode. Random play:
    (head - 1) / 4 per round, 5 and -5 per episode. The mean over both players is 0 however they play.
Start: the first round.
End: terminated after `rounds` rounds.
Parameters: head, rounds. Statistics: heads, how often the player showed head.
Source: von Neumann & Morgenstern 1944, "Theory of games and economic behavior", sections 14 and 18, there with equal
    wins; its name there is matching pennies too.
Differs: two heads pay more, so that random play is not the equilibrium; many rounds, and what was shown is seen.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype

State = state_dtype(shown=(np.int64, (2,)), heads=(np.int64, (2,)), played=np.int64, won=(np.float64, (2,)))

num_agents = 2
observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
action_space = spaces.Discrete(2)
statistics = ("heads",)


class Parameters(NamedTuple):
    head: float = 3.0
    rounds: int = 10


def reset(state, p):
    state.played = 0
    state.shown[:] = 0
    state.heads[:] = 0
    state.won[:] = 0.0


def step(state, action, reward, terminated, p):
    for agent in range(2):
        state.shown[agent] = 1 if action[agent] == 1 else -1
        state.heads[agent] += action[agent] == 1
    gain = (p.head if state.shown[0] == 1 else 1.0) if state.shown[0] == state.shown[1] else -1.0
    reward[0] = gain
    reward[1] = -gain
    state.won[0] += gain
    state.won[1] -= gain
    state.played += 1
    return state.played >= p.rounds


def observe(state, agent, observation, p):
    observation[0] = 1 - 2 * agent
    observation[1] = state.shown[agent]
    observation[2] = state.shown[1 - agent]


canvas_size = (480, 200)
frames_per_second = 3


def draw(state, canvas):
    canvas.world(0.0, 12.0, 0.0, 5.0)
    canvas.fill((250, 250, 247))
    for agent, name in enumerate(("wins by matching", "wins by differing")):
        x = 3.0 + 6.0 * agent
        canvas.text(x - 2.2, 4.3, name, (70, 70, 70), 0.35)
        shown = int(state.shown[agent])
        canvas.circle(x, 2.4, 1.3, ((205, 127, 50), (190, 190, 190), (241, 196, 15))[shown + 1])
        canvas.circle(x, 2.4, 1.1, ((222, 160, 100), (215, 215, 215), (250, 215, 80))[shown + 1])
        canvas.text(x - 0.25, 2.1, ("T", "?", "H")[shown + 1], (60, 60, 60), 0.7)
        canvas.text(x - 1.1, 0.4, f"{state.won[agent]:+.0f}", (70, 70, 70), 0.4)
