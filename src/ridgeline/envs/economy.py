"""Economy: a hundred agents gather, craft, fight and trade on a map that grows back; prices are what they agree on.

Observation
    index     meaning                                                                range
    0..2      satiety, warmth, health                                                0 .. 1
    3         coins m, as m / (m + `coins`)                                          0 .. 1
    4..6      three random numbers of this life, by which equals can differ          -1 .. 1
    7..12     where the nearest grass, forest and rock have their middle: x and y    -1 .. 1
              in 16 tiles, cut off
    13..16    stock of food, wood, ore, tools, in units of 9                         0 .. 1
    17..20    skill in gathering food, wood and ore, and in crafting                 0 .. 1
    21..24    the own open offer of each good: level / 8, negative for an ask        -1 .. 1
    25..28    price of each good / 27                                                0 .. 1
    29..32    level of the best bid / 8; 0 without one                               0 .. 1
    33..36    level of the best ask / 8; 0 without one                               0 .. 1
    37..136   5 x 5 tiles, from the north-west, row by row: food, wood and ore on    -1 .. 1
              the tile / 3, and 1 for an agent, -1 for water
    action_mask: which entries of the two parts of the action are possible.
Action: two parts. The body: 0 stays, 1..4 goes north, east, south, west, 5 gathers, 6 eats a food, 7 burns a wood, 8
    crafts a tool of a wood and an ore, 9 attacks the adjacent agent with the least health. The market: 0 nothing;
    1 + 16 good + 8 side + level offers one unit, side 0 a bid, 1 an ask, at the price 1, 2, 3, 5, 8, 12, 18 or 27.
Reward: (√satiety + √warmth) / 2 of each step; nothing for trade. Mean per step of life: random play 0.38; the tests'
    scripts 0.53 (loners who gather what they lack) and 0.75 (specialists who trade); PPO after 45 CPU-seconds 0.74.
Start: a random map of a torus; agents on random tiles, satiety and warmth 0.8, skills below 0.3, `coins` each.
End: an agent's episode is terminated by its death; it is born again after `away_steps`. Everything is truncated at
    `num_steps`. docs/economy.md has the rules.
Structure: num_agents, size (of the map in tiles), num_steps (of a world). Parameters: see below.
Source: ours; the idea of Suarez et al. 2019, "Neural MMO", arXiv:1903.00784, and Zheng et al. 2020, "The AI Economist",
    arXiv:2004.13332; the market of Gode & Sunder 1993.
Differs: from both in that prices come from an open order book alone, and in skills that grow and fade.
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline import ground
from ridgeline import order_book as book
from ridgeline.ground import CAPACITY, WATER, neighbour, shortest
from ridgeline.kernel import compiled, random_integer, state_dtype, uniform
from ridgeline.order_book import ASK, BID, NOTHING, NUM_PRICES, PRICES

FOOD, WOOD, ORE, TOOL = 0, 1, 2, 3  # goods; the first three are also the kinds of ground that hold them
NUM_GOODS = 4
STAY, NORTH, EAST, SOUTH, WEST, GATHER, EAT, HEAT, CRAFT, ATTACK = range(10)
NUM_BODY = 10
NUM_MARKET = 1 + NUM_GOODS * 2 * NUM_PRICES

LOAD = 8  # units of a good that an agent can gather, make or order; one more by an order that is filled or withdrawn
HEALING = 0.02  # of health per step without hunger and cold; lost for each of the two
RADIUS = 2  # of the view
NUM_OWN = 37
DIAMETER = 2 * RADIUS + 1


class Structure(NamedTuple):
    num_agents: int = 128
    size: int = 40  # of the map, in tiles
    num_steps: int = 1000  # of a world


class Parameters(NamedTuple):
    food_growth: float = 0.4  # probability that a tile drawn grows one unit
    wood_growth: float = 0.4
    ore_growth: float = 0.4
    hunger: float = 0.022  # per step
    cold: float = 0.022
    meal: float = 0.25  # satiety of a unit of food, warmth of a unit of wood
    base_yield: float = 0.1  # probability of a unit without skill
    skill_yield: float = 0.3  # more of it with full skill
    learning: float = 0.02  # how far one use moves a skill to 1, and the others to 0
    tool_wear: float = 0.05  # probability that a tool breaks in a use
    damage: float = 0.15  # of an attack, to health
    effort: float = 0.05  # of an attack, from satiety
    coins: int = 8  # of an agent at the start of the world
    offer_steps: int = 20  # after which an offer is withdrawn
    away_steps: int = 20  # between death and birth


def num_agents(structure):
    return structure.num_agents


def max_episode_steps(structure):
    return structure.num_steps


def State(structure):
    count = structure.num_agents
    return state_dtype(
        elapsed=np.int64,
        **ground.map_of(count, structure.size),
        away=(np.int32, (count,)),  # steps until birth; 0: alive
        health=(np.float64, (count,)),
        satiety=(np.float64, (count,)),
        warmth=(np.float64, (count,)),
        skill=(np.float64, (count, NUM_GOODS)),
        identity=(np.float32, (count, 3)),
        made=(np.int64, (NUM_GOODS,)),  # units since the start of the world
        used=(np.int64, (NUM_GOODS,)),
        produced=(np.int64, (count, NUM_GOODS)),  # units since birth
        **book.market(count, NUM_GOODS),
    )


statistics = ("trades",)
observation_space = spaces.Box(-1.0, 1.0, (NUM_OWN + 4 * DIAMETER * DIAMETER,), np.float32)
action_space = spaces.MultiDiscrete([NUM_BODY, NUM_MARKET])


# ----------------------------------------------------------------------------------------------------------- the world


def reset(state, p):
    state.elapsed = 0
    ground.draw_map(state, p.size)
    book.open_market(state)
    state.made[:] = 0
    state.used[:] = 0
    state.stock[:] = 0
    state.money[:] = p.coins
    for agent in range(p.num_agents):
        birth(state, agent, p)


@compiled
def birth(state, agent, p):
    """A new life on a free tile; coins that were not robbed are there."""
    tile = random_integer(state, p.size * p.size)
    while not ground.is_free(state, tile):
        tile = random_integer(state, p.size * p.size)
    ground.enter(state, agent, tile, p.size)
    state.away[agent] = 0
    state.health[agent] = 1.0
    state.satiety[agent] = 0.8
    state.warmth[agent] = 0.8
    for good in range(NUM_GOODS):
        state.skill[agent, good] = 0.3 * uniform(state)
        state.produced[agent, good] = 0
    state.trades[agent] = 0
    for i in range(3):
        state.identity[agent, i] = 2.0 * uniform(state) - 1.0


@compiled
def die(state, agent, killer, p):
    """Whoever killed takes coins, and goods as far as they can be carried; the rest of the goods is lost."""
    book.withdraw(state, agent)
    ground.leave(state, agent, p.size)
    for good in range(NUM_GOODS):
        taken = 0
        if killer != NOTHING:
            taken = max(min(state.stock[agent, good], LOAD - state.stock[killer, good]), 0)
            state.stock[killer, good] += taken
        state.used[good] += state.stock[agent, good] - taken
        state.stock[agent, good] = 0
    if killer != NOTHING:
        state.money[killer] += state.money[agent]
        state.money[agent] = 0
    state.health[agent] = 0.0
    state.away[agent] = p.away_steps


# ------------------------------------------------------------------------------------------------------------ the body


@compiled
def weakest_neighbour(state, agent, p):
    """The adjacent agent with the least health; NOTHING where there is none."""
    found, tile = NOTHING, ground.tile_of(state, agent, p.size)
    for direction in range(NORTH, WEST + 1):
        other = state.occupant[neighbour(tile, direction, p.size)]
        if other != NOTHING and (found == NOTHING or state.health[other] < state.health[found]):
            found = np.int64(other)
    return found


@compiled
def can_body(state, agent, body, p):
    """Whether an action of the body is possible."""
    tile = ground.tile_of(state, agent, p.size)
    if body == STAY:
        return True
    if body <= WEST:
        return ground.is_free(state, neighbour(tile, body, p.size))
    if body == GATHER:
        return state.amount[tile] > 0 and state.stock[agent, state.kind[tile]] < LOAD
    if body == EAT:
        return state.stock[agent, FOOD] > 0 and state.satiety[agent] <= 1.0 - p.meal
    if body == HEAT:
        return state.stock[agent, WOOD] > 0 and state.warmth[agent] <= 1.0 - p.meal
    if body == CRAFT:
        return state.stock[agent, WOOD] > 0 and state.stock[agent, ORE] > 0 and state.stock[agent, TOOL] < LOAD - 1
    return weakest_neighbour(state, agent, p) != NOTHING


@compiled
def use_body(state, agent, body, terminated, p):
    if not can_body(state, agent, body, p):
        return
    tile = ground.tile_of(state, agent, p.size)
    if NORTH <= body <= WEST:
        ground.leave(state, agent, p.size)
        ground.enter(state, agent, neighbour(tile, body, p.size), p.size)
    elif body == GATHER:
        gather(state, agent, tile, p)
    elif body == EAT:
        consume(state, agent, FOOD, 1)
        state.satiety[agent] += p.meal
    elif body == HEAT:
        consume(state, agent, WOOD, 1)
        state.warmth[agent] += p.meal
    elif body == CRAFT:
        consume(state, agent, WOOD, 1)
        consume(state, agent, ORE, 1)
        produce(state, agent, TOOL, 2 if uniform(state) < state.skill[agent, TOOL] else 1)
        practise(state, agent, TOOL, p)
    elif body == ATTACK:
        victim = weakest_neighbour(state, agent, p)
        state.satiety[agent] = max(state.satiety[agent] - p.effort, 0.0)
        state.health[victim] -= p.damage
        if state.health[victim] <= 0.0:
            die(state, victim, agent, p)
            terminated[victim] = True


@compiled
def gather(state, agent, tile, p):
    """Try to take a unit off the tile; a tool doubles the chance and may break."""
    good = state.kind[tile]
    chance = p.base_yield + p.skill_yield * state.skill[agent, good] * state.skill[agent, good]
    if state.stock[agent, TOOL] > 0:
        chance *= 2.0
        if uniform(state) < p.tool_wear:
            consume(state, agent, TOOL, 1)
    if uniform(state) < chance:
        state.amount[tile] -= 1
        produce(state, agent, good, 1)
    practise(state, agent, good, p)


@compiled
def produce(state, agent, good, units):
    state.stock[agent, good] += units
    state.produced[agent, good] += units
    state.made[good] += units


@compiled
def consume(state, agent, good, units):
    state.stock[agent, good] -= units
    state.used[good] += units


@compiled
def practise(state, agent, used, p):
    """The skill that is used moves towards 1, the others towards 0."""
    for good in range(NUM_GOODS):
        goal = 1.0 if good == used else 0.0
        state.skill[agent, good] += p.learning * (goal - state.skill[agent, good])


# ------------------------------------------------------------------------------------------------------------ the step


def step(state, action, reward, terminated, p):
    state.elapsed += 1
    book.next_step(state)
    ground.grow(state, p.size, p.food_growth, p.wood_growth, p.ore_growth)
    terminated[:] = False
    start = random_integer(state, p.num_agents)
    for i in range(p.num_agents):
        agent = start + i if start + i < p.num_agents else start + i - p.num_agents
        if state.away[agent] > 0:
            continue
        if state.offer_good[agent] != NOTHING and state.offer_end[agent] <= state.elapsed:
            book.withdraw(state, agent)
        use_body(state, agent, action[agent, 0], terminated, p)
        trade(state, agent, action[agent, 1] - 1, p)
    for agent in range(p.num_agents):
        reward[agent] = 0.0
        if state.away[agent] == 0:
            reward[agent] = live(state, agent, terminated, p)
        elif not terminated[agent]:
            state.away[agent] -= 1
            if state.away[agent] == 0:
                birth(state, agent, p)
    return False


@compiled
def trade(state, agent, order, p):
    """Make the offer that the order names, where the agent can."""
    good, side, level = order // (2 * NUM_PRICES), order // NUM_PRICES % 2, order % NUM_PRICES
    if order >= 0 and (can_bid(state, agent, good, level) if side == BID else book.units(state, agent, good) > 0):
        book.offer(state, agent, good, side, level, state.elapsed + p.offer_steps)


@compiled
def can_bid(state, agent, good, level):
    return state.stock[agent, good] < LOAD and book.coins(state, agent) >= PRICES[level]


@compiled
def live(state, agent, terminated, p):
    """Hunger, cold and health of one step; the reward."""
    state.satiety[agent] = max(state.satiety[agent] - p.hunger, 0.0)
    state.warmth[agent] = max(state.warmth[agent] - p.cold, 0.0)
    if state.satiety[agent] == 0.0:
        state.health[agent] -= HEALING
    if state.warmth[agent] == 0.0:
        state.health[agent] -= HEALING
    elif state.satiety[agent] > 0.0:
        state.health[agent] = min(state.health[agent] + HEALING, 1.0)
    if state.health[agent] <= 0.0:
        die(state, agent, NOTHING, p)
        terminated[agent] = True
        return 0.0
    return 0.5 * (math.sqrt(state.satiety[agent]) + math.sqrt(state.warmth[agent]))


def alive(state, agent):
    return state.away[agent] == 0


# ---------------------------------------------------------------------------------------------------- what agents know


def action_mask(state, agent, mask, p):
    mask[:] = False
    mask[STAY] = mask[NUM_BODY] = True
    if state.away[agent] > 0:
        return
    for body in range(NORTH, NUM_BODY):
        mask[body] = can_body(state, agent, body, p)
    for good in range(NUM_GOODS):
        order = NUM_BODY + 1 + 2 * NUM_PRICES * good
        selling = book.units(state, agent, good) > 0
        for level in range(NUM_PRICES):
            mask[order + level] = can_bid(state, agent, good, level)
            mask[order + NUM_PRICES + level] = selling


def observe(state, agent, observation, p):
    observation[0] = state.satiety[agent]
    observation[1] = state.warmth[agent]
    observation[2] = state.health[agent]
    observation[3] = state.money[agent] / (state.money[agent] + p.coins)
    x, y = np.int64(state.x[agent]), np.int64(state.y[agent])
    for i in range(3):
        observation[4 + i] = state.identity[agent, i]
        nearest = state.nearest[y * p.size + x, i]
        observation[7 + 2 * i] = compass(shortest(state.site[nearest, 0] - x, p.size))
        observation[8 + 2 * i] = compass(shortest(state.site[nearest, 1] - y, p.size))
    for good in range(NUM_GOODS):
        observation[13 + good] = state.stock[agent, good] / (LOAD + 1)
        observation[17 + good] = state.skill[agent, good]
        observation[21 + good] = 0.0
        observation[25 + good] = book.price(state, good) / PRICES[NUM_PRICES - 1]
        observation[29 + good] = observation[33 + good] = 0.0
        for level in range(NUM_PRICES):
            if state.first[good, BID, level] != NOTHING:
                observation[29 + good] = (level + 1) / NUM_PRICES
            if state.first[good, ASK, level] != NOTHING and observation[33 + good] == 0.0:
                observation[33 + good] = (level + 1) / NUM_PRICES
    if state.offer_good[agent] != NOTHING:
        sign = 1.0 if state.offer_side[agent] == BID else -1.0
        observation[21 + np.int64(state.offer_good[agent])] = sign * (state.offer_level[agent] + 1) / NUM_PRICES
    at = NUM_OWN
    for down in range(y - RADIUS, y + RADIUS + 1):
        row = down - p.size if down >= p.size else down + p.size if down < 0 else down
        for across in range(x - RADIUS, x + RADIUS + 1):
            column = across - p.size if across >= p.size else across + p.size if across < 0 else across
            tile = row * p.size + column
            for i in range(4):
                observation[at + i] = 0.0
            kind = np.int64(state.kind[tile])
            if kind == WATER:
                observation[at + 3] = -1.0
            else:
                observation[at + kind] = state.amount[tile] / CAPACITY
                observation[at + 3] = state.occupant[tile] != NOTHING
            at += 4


@compiled
def compass(distance):
    return min(max(distance / 16.0, -1.0), 1.0)


# ---------------------------------------------------------------------------------------------------------- a picture

canvas_size = (880, 640)
frames_per_second = 10
GROUND = np.array([(150, 190, 100), (70, 125, 75), (150, 145, 140), (95, 145, 200)])
TRADES = ("foragers", "woodcutters", "miners", "smiths")
COLOUR = ((250, 220, 60), (150, 85, 40), (60, 60, 70), (215, 50, 50))


def draw(state, canvas):
    """The map, each agent in the colour of its best skill, a line for each trade; prices and professions beside."""
    size = math.isqrt(len(state.kind))
    canvas.world(0, 1.375 * size, 0, size)
    light = np.where(state.kind == WATER, 1.0, 0.7 + 0.3 * state.amount / CAPACITY)
    pixels = np.full((size, size * 11 // 8, 3), 245, np.uint8)
    pixels[:, :size] = (GROUND[state.kind] * light[:, None]).reshape(size, size, 3)
    canvas.image(pixels.repeat(4, 0).repeat(4, 1))
    best, x, y = state.skill.argmax(1), state.x + 0.5, size - 0.5 - state.y
    for agent in np.flatnonzero(state.away == 0):
        canvas.circle(x[agent], y[agent], 0.45, (255, 255, 255))
        canvas.circle(x[agent], y[agent], 0.35, COLOUR[best[agent]])
    for buyer, seller, good, _ in state.trade[: state.num_trades]:
        canvas.line(x[seller], y[seller], x[buyer], y[buyer], COLOUR[good], 0.15)
    unit, left = size / 64, 66 * size / 64
    for good, name in enumerate(("food", "wood", "ore", "tools")):
        at, mean = (58 - 14 * good) * unit, book.price(state, good)
        canvas.text(left, at, f"{name}: {mean:.1f} coins", (40, 40, 40), 1.4 * unit)
        canvas.rectangle(left, at - 3 * unit, left + 20 * unit * mean / PRICES[-1], at - unit, COLOUR[good])
        number = np.sum((best == good) & (state.away == 0))
        canvas.text(left, at - 6 * unit, f"{number} {TRADES[good]}", (90, 90, 90), 1.2 * unit)
