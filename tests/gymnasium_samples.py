"""Small Gymnasium environments for the adapter's tests; worker processes import this file too."""

import os
import sys

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv


class Ends(gymnasium.Env):
    """Episodes end in turn: truncated at step 3, terminated at 5, both at 2. Observation: episode, step, random number.

    The same array is written again and again, as many environments in C do.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.episode, self.count = -1, 0
        self.values = np.zeros(3, np.float32)

    def _observe(self):
        self.values[:] = self.episode, self.count, self.np_random.random()
        return self.values

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self._observe(), {"anything": object()}

    def step(self, action):
        self.count += 1
        kind = self.episode % 3
        ended = self.count == (3, 5, 2)[kind]
        return self._observe(), 0.1 * self.count, ended and kind != 0, ended and kind != 1, {"step": self.count}


class Fresh(Ends):
    """Ends with a new array for each observation, as Gymnasium's own SyncVectorEnv needs it."""

    def _observe(self):
        return super()._observe().copy()


class Echo(gymnasium.Env):
    """Observes the action that it got; refuses one outside of its space; terminates at step 4."""

    actions = {  # noqa: RUF012
        "discrete": spaces.Discrete(3, start=5),
        "multi_discrete": spaces.MultiDiscrete([2, 3, 4]),
        "multi_discrete_start": spaces.MultiDiscrete([2, 3], start=[10, -1]),
        "multi_binary": spaces.MultiBinary(3),
        "box": spaces.Box(np.array([0.1, -0.7]), np.array([0.3, 0.7]), dtype=np.float64),
        "matrix": spaces.Box(-1, 1, (2, 2), np.float32),
    }

    def __init__(self, kind):
        self.action_space = self.actions[kind]
        size = int(np.prod(self.action_space.shape)) or 1
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.zero = np.zeros(size, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.zero, {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.count += 1
        observation = np.asarray(action, np.float32).reshape(-1)
        return observation, float(observation.sum()), self.count == 4, False, {}


class Trouble(gymnasium.Env):
    """Does `what` in its third step, in the instance whose first random number is the largest: `reset` tells."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, what="nothing", above=0.0, render_mode=None):
        self.what, self.above, self.render_mode = what, above, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.chosen = 0, self.np_random.random() >= self.above
        if self.what == "reset" and self.chosen:
            raise OSError("no licence\nleft")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        reward: object = 1.0
        if self.count == 3 and self.chosen:
            if self.what == "divide":
                reward = 1 // 0
            elif self.what == "exit":
                os._exit(3)
            elif self.what == "nan":
                reward = float("nan")
            elif self.what == "array":
                reward = np.array([2], np.int64)
            elif self.what == "shape":
                return np.zeros(2, np.float32), 1.0, False, False, {}
            elif self.what == "print":
                print("printed by the environment", flush=True)
            elif self.what == "huge":
                return np.full(1, 1e300), 1.0, False, False, {}
            elif self.what == "modules":
                reward = float("ridgeline" in sys.modules or "torch" in sys.modules)
        return np.zeros(1, np.float32), reward, False, False, {}

    def render(self):
        return np.full((4, 6, 3), 10 * self.count, np.uint8)


class Space(gymnasium.Env):
    """An environment of the given spaces; it cannot be stepped."""

    def __init__(self, observation=None, action=None):
        self.observation_space = observation or spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = action or spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}


class Counters(VectorEnv):
    """A vector environment of its author's: every row counts, one random number for all; truncated at 3."""

    single_observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    single_action_space = spaces.Discrete(2)

    def __init__(self, num_envs, autoreset_mode=None, final=True, max_episode_steps=3):
        self.num_envs, self.final, self.limit = num_envs, final, max_episode_steps
        self.metadata = {} if autoreset_mode is None else {"autoreset_mode": autoreset_mode}

    def _observe(self):
        return np.stack([self.count, np.full(self.num_envs, self.number)], axis=1)

    def reset(self, *, seed=None, options=None):
        assert isinstance(seed, int)  # the contract of gymnasium.vector.VectorEnv
        self.number = np.random.default_rng(seed).random()
        self.count = np.arange(self.num_envs, dtype=np.float64)  # rows are at different steps
        return self._observe(), {}

    def step(self, actions):
        self.count += 1
        truncated = self.count >= self.limit
        info = {"final_obs": self._observe(), "_final_obs": truncated.copy()} if self.final else {}
        self.count[truncated] = 0
        nothing = np.zeros(self.num_envs, np.bool_)
        return self._observe(), actions.astype(np.float64), nothing, truncated, info


def same_step(num_envs, **keywords):
    """A vector environment that resets in the step that ends an episode."""
    return Counters(num_envs, AutoresetMode.SAME_STEP, **keywords)


class Parts(Ends):
    """Ends, whose observation has every kind of part; `tuple`: as a Tuple."""

    def __init__(self, tuple=False, image=False):
        super().__init__()
        self.parts = {
            "image": spaces.Box(0, 255, (2, 3, 3), np.uint8),
            "vector": spaces.Box(-1, 1, (2,), np.float64),
            "discrete": spaces.Discrete(9, start=-2),
            "multi_discrete": spaces.MultiDiscrete([9, 9], start=[1, 0]),
            "multi_binary": spaces.MultiBinary(3),
            "action_mask": spaces.Box(0, 1, (2,), np.int8),
        }
        self.tuple, self.image = tuple, image
        space = spaces.Tuple(self.parts.values()) if tuple else spaces.Dict(self.parts)
        self.observation_space = self.parts["image"] if image else space

    def _observe(self):
        count = int(self.count)
        values = {
            "image": np.arange(18, dtype=np.uint8).reshape(2, 3, 3) + np.uint8(count),
            "vector": np.array([count / 10, super()._observe()[2]], np.float64),
            "discrete": np.int64(count - 2),
            "multi_discrete": np.array([1 + count, self.episode % 9]),
            "multi_binary": np.array([count & 1, 1, count & 2 > 0], np.int8),
            "action_mask": np.array([1, count & 1], np.int8),
        }
        assert all(self.parts[name].contains(value) for name, value in values.items())
        return values["image"] if self.image else tuple(values.values()) if self.tuple else values


def several(num_envs, mode, **keywords):
    """A vector environment in the given autoreset mode: of Parts, or of Ends without keywords."""
    single = (lambda: Parts(**keywords)) if keywords else Fresh
    return gymnasium.vector.SyncVectorEnv([single] * num_envs, autoreset_mode=mode)


def resetting_wrapper():
    """A single environment that spends a step on each reset."""
    return gymnasium.wrappers.Autoreset(Ends())


def missing_mujoco():
    """What gymnasium.make does for HumanoidStandup-v5 without MuJoCo."""
    raise gymnasium.error.DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`')


def missing_module():
    """What gymnasium.make does where an environment's own library is missing."""
    raise ModuleNotFoundError("No module named 'wind_tunnel'", name="wind_tunnel.blades")
