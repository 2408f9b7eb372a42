"""What the tests of the economy share: a small world in plain Python, random agents, and scripted ones."""

import numpy as np
from test_envs import SMALL

from ridgeline.environments import make
from ridgeline.envs import economy
from ridgeline.envs.economy import EAT, FOOD, GATHER, HEAT, NUM_BODY, STAY, WOOD
from ridgeline.ground import EAST, NORTH, SOUTH, WEST
from ridgeline.kernel import plain, seed_rows
from ridgeline.observations import ACTION_MASK, random_allowed, unpack
from ridgeline.order_book import ASK, BID, NOTHING, NUM_PRICES
from ridgeline.vector import EVALUATION

reset, step, observe, action_mask, use_body, trade = (
    plain(getattr(economy, name)) for name in ("reset", "step", "observe", "action_mask", "use_body", "trade")
)


class World:
    """One small world: `state`, and after each `step` the arrays `reward` and `terminated`."""

    observe, use_body, trade = staticmethod(observe), staticmethod(use_body), staticmethod(trade)

    def __init__(self, num_agents=12, size=16, seed=0, **parameters):
        structure = economy.Structure(num_agents, size)
        numbers = economy.Parameters()._asdict() | parameters | structure._asdict()
        self.p = type("P", (), numbers)
        self.record = np.zeros(1, economy.State(structure)).view(np.recarray)
        seed_rows(self.record, seed, 0)
        self.state = self.record[0]
        self.generator = np.random.default_rng(seed)
        self.reward, self.terminated = np.zeros(num_agents), np.zeros(num_agents, bool)
        with np.errstate(over="ignore"):
            reset(self.state, self.p)

    def place(self, agent, x, y, kind=None):
        """Put an agent on a tile, and make it a full one of this kind."""
        state, size = self.state, self.p.size
        state.occupant[state.y[agent] * size + state.x[agent]] = NOTHING
        state.x[agent], state.y[agent], state.occupant[y * size + x] = x, y, agent
        if kind is not None:
            state.kind[y * size + x], state.amount[y * size + x] = kind, economy.CAPACITY

    def nothing(self, body=STAY, order=0):
        """Agent 0 does this, the others nothing."""
        action = np.zeros((self.p.num_agents, 2), np.int64)
        action[0] = body, order
        return action

    def restore(self, saved):
        self.record[:] = np.frombuffer(saved, self.record.dtype)

    def step(self, action):
        with np.errstate(over="ignore"):
            return step(self.state, action, self.reward, self.terminated, self.p)

    def mask(self, agent):
        mask = np.full(economy.NUM_BODY + economy.NUM_MARKET, True)
        action_mask(self.state, agent, mask, self.p)
        return mask

    def random_action(self):
        """Uniform among what the mask allows."""
        action = np.zeros((self.p.num_agents, 2), np.int64)
        for agent in range(self.p.num_agents):
            mask = self.mask(agent)
            action[agent, 0] = self.generator.choice(np.flatnonzero(mask[: economy.NUM_BODY]))
            action[agent, 1] = self.generator.choice(np.flatnonzero(mask[economy.NUM_BODY :]))
        return action


def small(num_agents=2, **parameters):
    """A world of two on 16 x 16 tiles."""
    return World(num_agents, 16, **parameters)


# ----------------------------------------------------------------------------------------- compiled worlds, and players


def worlds(num_envs, seed=0, **parameters):
    """Compiled worlds of 8 agents on 16 x 16 tiles."""
    return make("economy", num_envs, seed, EVALUATION, SMALL["economy"] | parameters)


def masks(env):
    """(worlds, agents, entries) of the action mask."""
    mask = unpack(env.observation_space, env.observation)[ACTION_MASK]
    return mask.reshape(env.num_envs, -1, mask.shape[-1])


def random_choice(env):
    """Uniformly random among what is possible."""
    generator = np.random.default_rng(0)
    return lambda: random_allowed(env.action_space, masks(env).reshape(env.num_rows, -1), generator)


def loners(env):
    """Agents that gather the good of which they have less, and trade nothing."""
    return lambda: scripted(env, False)


def traders(env):
    """Agents that gather the good that their identity names, sell what is more than two of it, and buy the other."""
    return lambda: scripted(env, True)


def scripted(env, trading):
    generator, mask = np.random.default_rng(env.state.elapsed[0]), masks(env)
    action = np.zeros((env.num_envs, env.num_agents, 2), np.int64)
    for world, agent in np.argwhere(env.state.away == 0):
        action[world, agent] = Script(env.state[world], agent, mask[world, agent], env.parameters, generator)(trading)
    return action.reshape(env.num_rows, 2)


class Script:
    """What one agent does: it meets its needs first, then gathers."""

    def __init__(self, state, agent, mask, p, generator):
        self.state, self.agent, self.mask, self.size, self.generator = state, agent, mask, p.size, generator

    def __call__(self, trading):
        """The body's action and the order."""
        stock = self.state.stock[self.agent]
        own = FOOD if self.state.identity[self.agent, 0] > 0 else WOOD
        if not trading:
            own = FOOD if stock[FOOD] <= stock[WOOD] else WOOD
        body = EAT if self.mask[EAT] else HEAT if self.mask[HEAT] else self.towards(own)
        return body, self.order(own, FOOD + WOOD - own) if trading else 0

    def order(self, own, other):
        stock, money = self.state.stock[self.agent], self.state.money[self.agent]
        need = (self.state.satiety, self.state.warmth)[other][self.agent]
        if stock[other] < 3 and self.generator.random() < 0.5:
            level = 1 + (need < 0.5) + (need < 0.25) + (money > 30)
            affordable = [low for low in range(level + 1) if self.mask[NUM_BODY + order_number(other, BID, low)]]
            return order_number(other, BID, affordable[-1]) if affordable else 0
        return order_number(own, ASK, max(3 - (stock[own] - 2) // 2, 0)) if stock[own] > 2 else 0

    def towards(self, kind):
        """Gather here, or go to the nearest tile in view that has something, or else to the nearest site."""
        s, size = self.state, self.size
        x, y = int(s.x[self.agent]), int(s.y[self.agent])
        if s.kind[y * size + x] == kind and s.amount[y * size + x] > 0:
            return GATHER if self.mask[GATHER] else STAY
        best, target = 99, None
        for down in range(-2, 3):
            for across in range(-2, 3):
                tile = (y + down) % size * size + (x + across) % size
                distance = abs(down) + abs(across)
                if s.kind[tile] == kind and s.amount[tile] > 0 and s.occupant[tile] == NOTHING and distance < best:
                    best, target = distance, (across, down)
        if target is None:
            site = s.site[s.nearest[y * size + x, kind]]
            target = [(int(d) + size // 2) % size - size // 2 for d in (site[0] - x, site[1] - y)]
        ways = [EAST if target[0] > 0 else WEST] * abs(target[0]) + [SOUTH if target[1] > 0 else NORTH] * abs(target[1])
        way = int(self.generator.choice(ways)) if ways and self.generator.random() < 0.9 else STAY
        return way if way != STAY and self.mask[way] else int(self.generator.integers(NORTH, WEST + 1))


def order_number(good, side, level):
    return 1 + (2 * good + side) * NUM_PRICES + level
