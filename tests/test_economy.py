"""The economy's rules, one by one, and what scripted agents make of them."""

import numpy as np
import pytest
from economy_world import SMALL, World, loners, random_choice, small, traders, worlds

from ridgeline import bench
from ridgeline import order_book as book
from ridgeline.algorithms.ppo import PPO
from ridgeline.envs import economy
from ridgeline.envs.economy import ATTACK, CRAFT, EAT, FOOD, GATHER, LOAD, NUM_BODY, ORE, STAY, TOOL, WOOD
from ridgeline.estimators.gae import GAE
from ridgeline.ground import CAPACITY, EAST, NORTH, SITES, SOUTH, WATER, WEST
from ridgeline.order_book import ASK, BID, NOTHING, NUM_PRICES, PRICES
from ridgeline.policies import MLP
from ridgeline.training import Training

GOODS = np.arange(4)


def set_aside(state):
    """Of the agents (W, G): coins in open bids, and units of each good (W, G, goods) in open asks."""
    is_open = state.offer_good != NOTHING
    bids, asks = is_open & (state.offer_side == BID), is_open & (state.offer_side == ASK)
    return np.where(bids, PRICES[state.offer_level], 0), asks[..., None] & (state.offer_good[..., None] == GOODS)


def amounts(state):
    """Units on the tiles of each kind, (W, kinds)."""
    return np.stack([np.where(state.kind == kind, state.amount, 0).sum(1) for kind in range(4)], 1)


def test_goods_and_coins_are_conserved():
    """Step by step over random play: coins always; goods but for what is made and used; tiles but for what is taken;
    and what an agent pays and gets is what the trades say."""
    env = worlds(4, food_growth=0, wood_growth=0, ore_growth=0, damage=0.4, base_yield=0.8, tool_wear=0.5, hunger=0.01)
    state, choose = env.state, random_choice(env)
    start = amounts(state)
    counts = dict.fromkeys(("robbed", "starved", "trades"), 0)
    for _ in range(190):
        coins = state.money + set_aside(state)[0]
        step = env.step(choose())
        terminated = step.terminated.reshape(state.money.shape)
        bids, asks = set_aside(state)
        assert ((state.money + bids).sum(1) == 8 * env.parameters.coins).all()
        np.testing.assert_array_equal(state.stock.sum(1) + asks.sum(1), state.made - state.used)
        np.testing.assert_array_equal(amounts(state)[:, :3] + state.made[:, :3], start[:, :3])
        assert (state.stock >= 0).all() and (state.stock <= LOAD + 1).all() and (state.money >= 0).all()
        assert (state.offer_good[state.away > 0] == NOTHING).all()
        for world in range(4):
            there = state.occupant[world][state.occupant[world] >= 0]
            np.testing.assert_array_equal(np.sort(there), np.flatnonzero(state.away[world] == 0))
            for buyer, seller, _, price in state.trade[world, : state.num_trades[world]]:
                coins[world, buyer] -= price
                coins[world, seller] += price
            if not terminated[world].any():
                np.testing.assert_array_equal((state.money + bids)[world], coins[world])
        counts["robbed"] += np.sum(terminated & (state.money == 0))
        counts["starved"] += np.sum(terminated & (state.money > 0))
        counts["trades"] += state.num_trades.sum()
    assert min(counts.values()) > 5 and state.made[:, TOOL].sum() > 5 and state.used[:, TOOL].sum() > 5, counts


def test_each_tile_is_of_the_kind_of_the_nearest_site():
    state = small().state
    tile = np.arange(256)
    gap = np.abs(np.stack([tile % 16, tile // 16], 1)[:, None] - state.site)
    distance = (np.minimum(gap, 16 - gap) ** 2).sum(2)
    kind = np.repeat(np.arange(4), SITES)
    nearest = np.array([[np.where(kind == k, distance[i], 999).min() for k in range(4)] for i in tile])
    np.testing.assert_array_equal(nearest[tile, state.kind], nearest.min(1))
    for k in range(3):
        np.testing.assert_array_equal(distance[tile, state.nearest[:, k]], nearest[:, k])
    assert (state.amount[state.kind == WATER] == 0).all()


def test_tiles_grow_at_the_rate_of_their_kind():
    world = small(food_growth=0.5, wood_growth=0.25, ore_growth=0.0)
    state, grown = world.state, np.zeros(4)
    for _ in range(200):
        state.amount[:] = 0
        world.step(world.nothing())
        grown += np.bincount(state.kind, state.amount, 4)
    expected = np.bincount(state.kind, minlength=4) / 16 * [0.5, 0.25, 0, 0] * 200
    assert (np.abs(grown - expected) <= 4 * np.sqrt(expected)).all() and grown[:2].min() > 100
    for _ in range(400):
        world.step(world.nothing())
    assert state.amount[state.kind == FOOD].max() == CAPACITY


def test_hunger_and_cold_by_hand():
    world = small(hunger=0.1, cold=0.25)
    state, p = world.state, world.p
    state.satiety[0], state.warmth[0] = 0.55, 0.3
    world.step(world.nothing())
    assert state.satiety[0] == pytest.approx(0.45) and state.warmth[0] == pytest.approx(0.05)
    assert world.reward[0] == pytest.approx((0.45**0.5 + 0.05**0.5) / 2) and state.health[0] == 1.0
    world.step(world.nothing())
    assert state.warmth[0] == 0.0 and state.health[0] == pytest.approx(1 - economy.HEALING)
    state.satiety[0] = 0.0
    world.step(world.nothing())
    assert state.health[0] == pytest.approx(1 - 3 * economy.HEALING) and world.reward[0] == 0.0
    state.stock[0, FOOD], state.made[FOOD] = 2, 2
    world.step(world.nothing(body=EAT))
    assert state.satiety[0] == pytest.approx(p.meal - 0.1) and state.stock[0, FOOD] == 1 and state.used[FOOD] == 1
    state.satiety[0] = 1.01 - p.meal
    world.step(world.nothing(body=EAT))
    assert state.stock[0, FOOD] == 1, "nobody eats who would waste it"


def test_death_and_birth():
    world = small(away_steps=3)
    state = world.state
    state.health[0], state.satiety[0], state.skill[0], state.money[0] = 0.01, 0.0, 0.9, 5
    state.stock[0], place = 2, state.y[0] * 16 + state.x[0]
    world.step(world.nothing(order=1))
    assert world.terminated.tolist() == [True, False] and world.reward[0] == 0.0
    assert state.occupant[place] == NOTHING and state.stock[0].sum() == 0 and (state.used == 2).all()
    assert state.money[0] == 5 and state.offer_good[0] == NOTHING
    for left in (2, 1, 0):
        assert not economy.alive(state, 0)
        world.step(world.nothing(body=GATHER, order=1))
        assert state.away[0] == left and world.reward[0] == 0.0 and not world.terminated[0]
    assert economy.alive(state, 0) and state.health[0] == 1.0 and state.skill[0].max() <= 0.3
    assert state.occupant[state.y[0] * 16 + state.x[0]] == 0


def test_the_weakest_neighbour_is_attacked_and_robbed():
    world = small(num_agents=3, damage=0.3, effort=0.05)
    state = world.state
    world.place(0, 5, 5)
    world.place(1, 5, 4)
    world.place(2, 6, 5)
    state.health[:] = 1.0, 0.55, 0.5
    state.satiety[:] = 0.8
    state.money[:], state.stock[0], state.stock[2] = (1, 2, 4), (LOAD - 1, 0, 0, 0), (3, 1, 0, 2)
    world.step(world.nothing(body=ATTACK))
    assert state.health[1] == pytest.approx(0.57) and state.health[2] == pytest.approx(0.22)
    assert state.satiety[0] == pytest.approx(0.75 - world.p.hunger)
    world.step(world.nothing(body=ATTACK))
    assert world.terminated.tolist() == [False, False, True]
    assert state.money.tolist() == [5, 2, 0]
    assert state.stock[0].tolist() == [LOAD, 1, 0, 2] and state.used.tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize(("skill", "tool", "chance"), [(0.0, 0, 0.1), (0.5, 0, 0.175), (0.5, 1, 0.35), (1.0, 1, 0.8)])
def test_chance_of_gathering(skill, tool, chance):
    world, taken = small(tool_wear=0.0, base_yield=0.1, skill_yield=0.3), 0
    state = world.state
    world.place(0, 3, 3, kind=ORE)
    for _ in range(600):
        state.skill[0, ORE], state.stock[0], state.amount[3 * 16 + 3] = skill, (0, 0, 0, tool), 1
        state.satiety[:] = state.warmth[:] = 1.0
        world.step(world.nothing(body=GATHER))
        taken += state.stock[0, ORE]
    assert abs(taken - 600 * chance) < 4 * (600 * chance * (1 - chance)) ** 0.5


def test_tools_wear_out():
    world, broken = small(tool_wear=0.2, hunger=0.0, cold=0.0), 0
    world.place(0, 3, 3, kind=ORE)
    for _ in range(300):
        world.state.stock[0], world.state.amount[3 * 16 + 3] = (0, 0, 0, 1), 1
        world.step(world.nothing(body=GATHER))
        broken += world.state.stock[0, TOOL] == 0
    assert abs(broken - 60) < 4 * 48**0.5


def test_skills_grow_with_use_and_fade_otherwise():
    world = small(learning=0.1)
    world.place(0, 3, 3, kind=WOOD)
    world.state.skill[0] = 0.5, 0.2, 0.3, 0.0
    world.step(world.nothing(body=GATHER))
    assert world.state.skill[0] == pytest.approx([0.45, 0.28, 0.27, 0.0])
    world.step(world.nothing())
    assert world.state.skill[0] == pytest.approx([0.45, 0.28, 0.27, 0.0])


@pytest.mark.parametrize(("skill", "tools"), [(0.0, 1), (1.0, 2)])
def test_crafting(skill, tools):
    world = small()
    world.state.stock[0], world.state.skill[0, TOOL] = (1, 2, 1, 0), skill
    world.step(world.nothing(body=CRAFT))
    assert world.state.stock[0].tolist() == [1, 1, 0, tools]


def test_walking_on_the_torus_and_into_others():
    world = small(num_agents=2)
    state = world.state
    state.kind[:] = FOOD
    world.place(0, 0, 0)
    world.place(1, 0, 14)
    for body, place in ((NORTH, (0, 15)), (NORTH, (0, 15)), (WEST, (15, 15)), (SOUTH, (15, 0)), (EAST, (0, 0))):
        world.step(world.nothing(body=body))
        assert (state.x[0], state.y[0]) == place
    state.kind[1] = WATER
    world.step(world.nothing(body=EAST))
    assert (state.x[0], state.y[0]) == (0, 0)


def test_offers_end_after_their_time():
    world = small(offer_steps=3, coins=8)
    world.step(world.nothing(order=1 + 3))  # a bid of 5 coins for a food
    for left in (3, 3, 3, 8):
        assert world.state.money[0] == left
        world.step(world.nothing())


def test_mask_is_what_is_possible():
    """A body or an order that the mask forbids changes nothing; one that it allows changes something."""
    world = World(num_agents=8, tool_wear=0.0)
    for step in range(60):
        world.step(world.random_action())
        agent = step % 8
        if world.state.away[agent] > 0:
            assert np.flatnonzero(world.mask(agent)).tolist() == [STAY, NUM_BODY]
            continue
        world.state.elapsed += 1  # an offer made anew ends later
        mask, before = world.mask(agent), world.state.tobytes()
        assert mask[STAY] and mask[NUM_BODY]
        for body in range(1, NUM_BODY):
            terminated = np.zeros(8, bool)
            with np.errstate(over="ignore"):
                world.use_body(world.state, agent, body, terminated, world.p)
            assert (world.state.tobytes() != before) == mask[body], body
            world.restore(before)
        for order in range(1, economy.NUM_MARKET):
            world.trade(world.state, agent, order - 1, world.p)
            assert (world.state.tobytes() != before) == mask[NUM_BODY + order], order
            world.restore(before)


def test_observation_by_hand():
    world = small(num_agents=2, coins=8)
    state = world.state
    state.kind[:], state.amount[:] = FOOD, 0
    world.place(0, 0, 15)
    world.place(1, 1, 0)
    state.kind[15 * 16 + 14], state.amount[15 * 16 + 14] = WOOD, 2
    state.kind[14 * 16] = WATER
    state.satiety[0], state.warmth[0], state.health[0], state.money[0] = 0.5, 0.25, 0.75, 24
    state.stock[0], state.skill[0], state.identity[0] = (9, 0, 1, 2), (0.1, 0.2, 0.3, 0.4), (0.5, -0.5, 1.0)
    state.site[:], state.nearest[15 * 16] = 0, (0, 1, 2)
    state.site[:3] = (2, 15), (15, 7), (8, 14)
    book.offer(state, 0, WOOD, BID, 3, 99)
    state.stock[1, ORE] = 1
    book.offer(state, 1, ORE, ASK, 0, 99)
    state.value[FOOD], state.volume[FOOD] = 27.0, 2.0
    seen = np.full(economy.observation_space.shape, np.nan, np.float32)
    world.observe(state, 0, seen, world.p)
    own = [0.5, 0.25, 0.75, 19 / 27, 0.5, -0.5, 1.0, 2 / 16, 0, -1 / 16, -0.5, 0.5, -1 / 16, 1, 0, 1 / 9, 2 / 9]
    own += [0.1, 0.2, 0.3, 0.4, 0, 4 / NUM_PRICES, 0, 0, 0.5, 0, 0, 0, 0, 4 / NUM_PRICES, 0, 0, 0, 0, 1 / NUM_PRICES, 0]
    np.testing.assert_allclose(seen[: economy.NUM_OWN], own, rtol=1e-6)
    view = seen[economy.NUM_OWN :].reshape(5, 5, 4)
    expected = np.zeros((5, 5, 4))
    expected[2, 0, WOOD], expected[1, 2, 3], expected[2, 2, 3], expected[3, 3, 3] = 2 / CAPACITY, -1, 1, 1
    np.testing.assert_allclose(view, expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_loners_survive_and_traders_live_better(seed):
    """The same worlds, without and with specialists who sell what they gather; and random play."""
    wellbeing = [scripted(player, seed) for player in (random_choice, loners, traders)]
    assert wellbeing[0] < 0.45 < 0.5 < wellbeing[1] < wellbeing[2] - 0.08, wellbeing


def scripted(player, seed):
    """Mean reward of an agent alive, in the second half of 190 steps."""
    env = worlds(6, seed)
    choose, total, lives = player(env), 0.0, 0
    for time in range(190):
        step = env.step(choose())
        if time >= 95:
            total, lives = total + step.reward.sum(), lives + step.valid.sum()
    return total / lives


def test_the_bench_counts_the_steps_of_each_agent():
    rate = bench.environment("economy", 2, 0.05, SMALL["economy"])["steps_per_second"]
    assert 1e3 < rate < 1e8


@pytest.mark.slow
def test_agents_learn_to_live_and_to_trade():
    """A random agent lives for some 65 steps; after 1.5 million agent-steps three times as long, and with trade."""
    algorithm = PPO(
        num_envs=4, rollout_length=64, num_epochs=3, num_minibatches=8, learning_rate=1e-3, entropy_coef=0.005
    )
    training = Training("economy", algorithm, GAE(), MLP((64, 64), "relu"), total_steps=11_520, num_threads=1)
    while not training.finished:
        metrics = training.iterate()
    training.close()
    assert metrics["episode_length"][0] > 200 and metrics["episode_trades"][0] > 10
