"""What the tests of the economy share: a small world in plain Python, random agents, and scripted ones."""

import numpy as np

from ridgeline import ground
from ridgeline.envs import economy
from ridgeline.envs.economy import EAT, FOOD, GATHER, HEAT, STAY, WOOD
from ridgeline.kernel import plain, seed_rows
from ridgeline.order_book import ASK, BID, NOTHING, NUM_PRICES

reset, step, observe, action_mask, use_body, trade = (
    plain(getattr(economy, name)) for name in ("reset", "step", "observe", "action_mask", "use_body", "trade")
)
neighbour, is_free = plain(ground.neighbour), plain(ground.is_free)


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

    def scripted_action(self, trading):
        action = np.zeros((self.p.num_agents, 2), np.int64)
        for agent in np.flatnonzero(self.state.away == 0):
            action[agent] = self.script(agent, trading)
        return action

    def script(self, agent, trading):
        """Body and order of an agent that meets its needs first. A loner gathers what it has less of; a trader gathers
        the good that its identity names, sells what it has more than two of, and buys the other."""
        s, mask = self.state, self.mask(agent)
        own = FOOD if s.identity[agent, 0] > 0 else WOOD
        other = FOOD + WOOD - own
        if not trading:
            own = FOOD if s.stock[agent, FOOD] <= s.stock[agent, WOOD] else WOOD
        body = EAT if mask[EAT] else HEAT if mask[HEAT] else self.towards(agent, own)
        if not trading:
            return body, 0
        need = (s.satiety, s.warmth)[other][agent]
        if s.stock[agent, other] < 3 and self.generator.random() < 0.5:
            level = 1 + (need < 0.5) + (need < 0.25) + (s.money[agent] > 30)
            affordable = [low for low in range(level + 1) if mask[self.order(other, BID, low)]]
            return body, self.order(other, BID, affordable[-1]) - economy.NUM_BODY if affordable else 0
        if s.stock[agent, own] > 2:
            level = max(3 - (s.stock[agent, own] - 2) // 2, 0)
            return body, self.order(own, ASK, level) - economy.NUM_BODY
        return body, 0

    @staticmethod
    def order(good, side, level):
        """The place of an order in the mask."""
        return economy.NUM_BODY + 1 + (2 * good + side) * NUM_PRICES + level

    def towards(self, agent, kind):
        """Gather here, or go to the nearest tile in view that has something, or else to the nearest site."""
        s, size = self.state, self.p.size
        x, y = int(s.x[agent]), int(s.y[agent])
        if s.kind[y * size + x] == kind and s.amount[y * size + x] > 0:
            return GATHER if s.stock[agent, kind] < economy.LOAD else STAY
        best, target = 99, None
        for down in range(-2, 3):
            for across in range(-2, 3):
                tile = (y + down) % size * size + (x + across) % size
                if s.kind[tile] == kind and s.amount[tile] > 0 and s.occupant[tile] == NOTHING:
                    if abs(down) + abs(across) < best:
                        best, target = abs(down) + abs(across), (across, down)
        if target is None:
            site = s.site[s.nearest[y * size + x, kind]]
            target = [(int(d) + size // 2) % size - size // 2 for d in (site[0] - x, site[1] - y)]
        ways = [2 if target[0] > 0 else 4] * abs(target[0]) + [3 if target[1] > 0 else 1] * abs(target[1])
        way = int(self.generator.choice(ways)) if ways and self.generator.random() < 0.9 else 0
        if way and is_free(s, neighbour(y * size + x, way, size)):
            return way
        return int(self.generator.integers(1, 5))


def small(num_agents=2, **parameters):
    """A world of two on 16 x 16 tiles."""
    return World(num_agents, 16, **parameters)
