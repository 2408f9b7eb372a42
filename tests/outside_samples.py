"""Small environments of other APIs for the adapters' tests: agents that die and come back, and a dm_env one."""

from types import SimpleNamespace

import numpy as np
from gymnasium import spaces

ALIVE = {  # step -> who is there after it; three agents of a world of eight steps
    0: "abc", 1: "abc", 2: "ac", 3: "ac", 4: "abc", 5: "bc", 6: "bc", 7: "bc", 8: "",
}  # fmt: skip


class Lives:
    """b dies in step 2 (terminated) and is back after step 4, a is cut off in step 5, the world ends with step 8.

    An agent observes its number, the step and the world's number of resets; its reward is its action, and its number.
    """

    possible_agents = list("abc")  # noqa: RUF012
    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012

    def __init__(self, render_mode=None, differ=False):
        self.differ, self.resets = differ, 0
        self.spaces = {agent: spaces.Discrete(3) for agent in "abc"}

    def observation_space(self, agent):
        return spaces.Box(-np.inf, np.inf, (3 + (self.differ and agent == "c"),), np.float32)

    def action_space(self, agent):
        return self.spaces[agent]

    def _seen(self, agents):
        return {agent: np.array(["abc".index(agent), self.count, self.resets], np.float32) for agent in agents}

    def reset(self, seed=None, options=None):
        self.count, self.agents = 0, list("abc")
        self.resets += 1
        return self._seen("abc"), {agent: {} for agent in "abc"}

    def step(self, actions):
        assert sorted(actions) == sorted(self.agents)
        before, self.count = self.agents, self.count + 1
        self.agents = list(ALIVE[self.count])
        cut = [agent for agent in before if (self.count, agent) == (5, "a") or self.count == 8]
        died = [agent for agent in before if (self.count, agent) == (2, "b")]
        everyone = {*before, *self.agents}
        return (
            self._seen(everyone), {agent: float(actions[agent]) + "abc".index(agent) / 4 for agent in before},
            {agent: agent in died for agent in before}, {agent: agent in cut for agent in before},
            {agent: {} for agent in before},
        )  # fmt: skip

    def render(self):
        return np.full((2, 2, 3), self.count, np.uint8)

    def close(self):
        pass


def parallel_env(**keywords):
    """What PettingZoo's modules call it."""
    return Lives(**keywords)


class Array(SimpleNamespace):
    """A dm_env specification, as far as the adapter looks: dm_env itself is not needed."""


class Countdown:
    """A dm_env environment: the observation counts down from 3 plus the seed; `cut` ends it with discount 1."""

    def __init__(self, seed=0, cut=False):
        self.seed, self.cut = seed % 2, cut

    def observation_spec(self):
        return {
            "left": Array(shape=(), dtype=np.int64, minimum=0, maximum=9),
            "pair": Array(shape=(2,), dtype=np.float64),
        }

    def action_spec(self):
        return Array(shape=(), dtype=np.int32, num_values=4)

    def _step(self, reward, last, discount):
        observation = {"left": self.left, "pair": np.array([self.left, -1.0])}
        return SimpleNamespace(observation=observation, reward=reward, discount=discount, last=lambda: last)

    def reset(self):
        self.left = 3 + self.seed
        return self._step(None, False, None)

    def step(self, action):
        self.left -= 1
        last = self.left == 0
        return self._step(float(action), last, float(not last or self.cut))

    def close(self):
        pass
