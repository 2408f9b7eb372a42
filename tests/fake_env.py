"""A small environment in NumPy whose observations, agents and invalid cells are whatever a test wants."""

import numpy as np
from gymnasium import spaces

from ridgeline import components
from ridgeline.observations import ACTION_MASK, is_packed, pack, storage_shape_dtype, unpack
from ridgeline.vector import Step, VectorEnv, as_seeds

SHORT = {"trpo": {"num_conjugate_gradient_steps": 2, "num_line_search_steps": 2, "num_value_updates": 2}}


def tiny(algorithm):
    """An algorithm at the size of these tests."""
    return components.find("algorithm", algorithm)(num_envs=4, rollout_length=8, **SHORT.get(algorithm, {}))


class FakeEnv(VectorEnv):
    """Each row counts its steps and is rewarded for action 0; episodes are terminated or truncated at random.

    All that a row does comes from a generator of its own, so it is the same in any population. `skip` is the share of
    cells that are no transition: such a row waits, and its observation is `garbage`, where given, but for the cut of
    rollouts of `rollout_length`.
    """

    name, digest, statistics, max_episode_steps = "fake", "fake", (), 50
    resumes_exactly = True

    def __init__(
        self, observation_space, action_space, num_envs=4, seed=0, num_agents=1, skip=None, garbage=None, ends=0.2,
        rollout_length=8,
    ):  # fmt: skip
        self.observation_space, self.action_space = observation_space, action_space
        self.seeds, self.num_envs, self.num_agents = as_seeds(seed), num_envs, num_agents
        self.skip, self.garbage, self.ends = skip, garbage, ends
        self.rollout_length, self.clock = rollout_length, 0
        self.generators = [np.random.default_rng([s, i]) for s in self.seeds for i in range(num_envs * num_agents)]
        shape, dtype = storage_shape_dtype(observation_space)
        rows = len(self.generators)
        self.count, self.total, self.length = np.zeros(rows, np.int64), np.zeros(rows), np.zeros(rows, np.int64)
        self.awake = np.ones(rows, bool)
        self.observation = np.zeros((rows, *shape), dtype)
        for row in range(rows):
            self.observation[row] = self.observe(row)

    def observe(self, row):
        """A random observation of the row; its first number is the step within the episode."""
        generator, space = self.generators[row], self.observation_space
        if not is_packed(space):
            return self.part(space, generator, row)
        parts = space.spaces if isinstance(space.spaces, dict) else dict(enumerate(space.spaces))
        values = {str(key): self.part(part, generator, row) for key, part in parts.items()}
        if ACTION_MASK in values:
            values[ACTION_MASK] = self.mask(generator, values[ACTION_MASK])
        return pack(space, values)

    def mask(self, generator, like):
        """At least one action of each part is allowed."""
        space = self.action_space
        sizes = [space.n] if isinstance(space, spaces.Discrete) else list(space.nvec)
        allowed = (generator.random(len(like)) < 0.5).astype(like.dtype)
        start = 0
        for size in sizes:
            allowed[start + generator.integers(size)] = 1
            start += size
        return allowed

    def part(self, space, generator, row):
        if isinstance(space, spaces.Discrete):
            return np.asarray(space.start + generator.integers(space.n), space.dtype)
        if isinstance(space, spaces.MultiDiscrete):
            return (space.start + generator.integers(space.nvec)).astype(space.dtype)
        if isinstance(space, spaces.MultiBinary) or space.dtype.kind in "iub":
            high = 2 if isinstance(space, spaces.MultiBinary) else int(space.high.max()) + 1
            return generator.integers(high, size=space.shape).astype(space.dtype)
        value = generator.standard_normal(space.shape).astype(space.dtype)
        value.flat[0] = self.count[row] / 10
        return value

    def step(self, action, out=None):
        rows = self.num_rows
        assert len(action) == rows
        self.clock += 1
        reward, terminated, truncated = np.zeros(rows), np.zeros(rows, bool), np.zeros(rows, bool)
        valid = self.awake.copy()
        observation = np.empty_like(self.observation) if out is None else out
        final_row, final, episode_row, episode = [], [], [], []
        for row, generator in enumerate(self.generators):
            first = action[row].ravel()[0]
            if valid[row]:
                reward[row] = float(first < 0.5) + 0.1 * generator.random()
                draw = generator.random()
                terminated[row], truncated[row] = draw < self.ends / 2, self.ends / 2 <= draw < self.ends
                self.count[row] += 1
                self.total[row] += reward[row]
                self.length[row] += 1
            if truncated[row]:
                final_row.append(row)
                final.append(self.observe(row))
            if terminated[row] or truncated[row]:
                episode_row.append(row)
                episode.append((self.total[row], self.length[row]))
                self.count[row], self.total[row], self.length[row] = 0, 0, 0
            if self.skip is not None:
                self.awake[row] = generator.random() >= self.skip
            observation[row] = self.observe(row)
            if not self.awake[row] and self.garbage is not None and self.clock % self.rollout_length:
                self.fill(observation, row)
        self.observation = observation
        shape = self.observation.shape[1:]
        return Step(
            observation, reward, terminated, truncated, np.array(final_row, np.int64),
            np.array(final, observation.dtype).reshape(-1, *shape), np.array(episode_row, np.int64),
            np.array(episode).reshape(-1, 2), *([] if self.skip is None else [valid]),
        )  # fmt: skip

    def fill(self, observation, row):
        """Every number of the row's observation becomes `garbage`; of whole numbers, 1."""
        parts = unpack(self.observation_space, observation)
        for part in parts.values() if isinstance(parts, dict) else [parts]:
            part[row] = self.garbage if part.dtype.kind == "f" else 1

    def state_dict(self):
        names = ("count", "total", "length", "awake", "observation")
        states = [repr(generator.bit_generator.state).encode().ljust(400) for generator in self.generators]
        return {name: getattr(self, name).copy() for name in names} | {
            "generators": np.frombuffer(b"".join(states), np.uint8).copy()
        }

    def load_state_dict(self, state):
        import ast

        for name in ("count", "total", "length", "awake", "observation"):
            setattr(self, name, state[name].copy())
        for generator, text in zip(self.generators, state["generators"].reshape(-1, 400), strict=True):
            generator.bit_generator.state = ast.literal_eval(text.tobytes().decode().strip())
