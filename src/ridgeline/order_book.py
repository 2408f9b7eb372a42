"""A market: a continuous double auction in several goods, each price with a queue, for an environment's agents.

An agent has at most one open offer, of one unit. What it offers, the unit or the coins, is set aside while the offer is
open: so an offer can always be filled, and goods and coins are neither made nor lost here. A new offer takes the best
open offer of the other side that is as good or better, the oldest first, at ITS price; where there is none it is
posted. Prices are what agents agree on: nothing here sets one.

A State has a market when it holds the fields of `market`.
Source: the order book as in Gode & Sunder 1993, "Allocative efficiency of markets with zero-intelligence traders".
"""

import numpy as np

from ridgeline.kernel import compiled

BID, ASK, NOTHING = 0, 1, -1
PRICES = np.array([1, 2, 3, 5, 8, 12, 18, 27])  # coins, of each level
NUM_PRICES = 8
MEMORY = 0.95  # how much of a trade's weight in the price is left a step later


def market(num_agents: int, num_goods: int) -> dict:
    """The fields of a State with a market, for `state_dtype(**market(...), ...)`."""
    return dict(
        money=(np.int64, (num_agents,)),
        stock=(np.int64, (num_agents, num_goods)),
        offer_good=(np.int8, (num_agents,)),  # NOTHING: no open offer
        offer_side=(np.int8, (num_agents,)),
        offer_level=(np.int8, (num_agents,)),
        offer_end=(np.int64, (num_agents,)),  # the step in which it is withdrawn
        before=(np.int16, (num_agents,)),  # neighbours in the queue
        after=(np.int16, (num_agents,)),
        first=(np.int16, (num_goods, 2, NUM_PRICES)),  # ends of the queues of each good, side and level
        last=(np.int16, (num_goods, 2, NUM_PRICES)),
        value=(np.float64, (num_goods,)),  # sum of the prices of trades, older ones weighing less
        volume=(np.float64, (num_goods,)),  # sum of the weights
        num_trades=np.int64,  # of this step
        trade=(np.int16, (num_agents, 4)),  # buyer, seller, good, price of each
        trades=(np.int64, (num_agents,)),  # of each agent's life
    )


@compiled
def open_market(state):
    """No offers, no trades: the beginning of an episode."""
    state.offer_good[:] = NOTHING
    state.offer_side[:] = 0
    state.offer_level[:] = 0
    state.offer_end[:] = 0
    state.before[:] = NOTHING
    state.after[:] = NOTHING
    state.first[:] = NOTHING
    state.last[:] = NOTHING
    state.value[:] = 0.0
    state.volume[:] = 0.0
    state.num_trades = 0
    state.trade[:] = 0


@compiled
def next_step(state):
    """The beginning of a step: no trades yet, and the earlier ones weigh less in the price."""
    state.num_trades = 0
    for good in range(len(state.value)):
        state.value[good] *= MEMORY
        state.volume[good] *= MEMORY


@compiled
def price(state, good):
    """The mean price of the trades in a good, one of k steps ago weighing 0.95^k; 0 before the first."""
    return state.value[good] / state.volume[good] if state.volume[good] > 0.0 else 0.0


@compiled
def coins(state, agent):
    """What the agent can bid: its coins, and those that its open offer has set aside."""
    if state.offer_good[agent] != NOTHING and state.offer_side[agent] == BID:
        return state.money[agent] + PRICES[state.offer_level[agent]]
    return state.money[agent]


@compiled
def units(state, agent, good):
    """What the agent can ask a price for: its stock, and the unit that its open offer has set aside."""
    if state.offer_good[agent] == good and state.offer_side[agent] == ASK:
        return state.stock[agent, good] + 1
    return state.stock[agent, good]


@compiled
def offer(state, agent, good, side, level, end):
    """Take the best open offer that is as good or better, at its price; else post one's own, until the step `end`.

    What is offered must be there (`coins`, `units`); the agent's earlier offer is withdrawn.
    """
    withdraw(state, agent)
    if side == BID:
        state.money[agent] -= PRICES[level]
        for best in range(level + 1):
            other = np.int64(state.first[good, ASK, best])
            if other != NOTHING:
                dequeue(state, other)
                state.money[agent] += PRICES[level] - PRICES[best]
                trade(state, agent, other, good, PRICES[best])
                return
    else:
        state.stock[agent, good] -= 1
        for best in range(NUM_PRICES - 1, level - 1, -1):
            other = np.int64(state.first[good, BID, best])
            if other != NOTHING:
                dequeue(state, other)
                trade(state, other, agent, good, PRICES[best])
                return
    enqueue(state, agent, good, side, level, end)


@compiled
def withdraw(state, agent):
    """End an agent's offer, if it has one, and give back what was set aside."""
    good = state.offer_good[agent]
    if good == NOTHING:
        return
    if state.offer_side[agent] == BID:
        state.money[agent] += PRICES[state.offer_level[agent]]
    else:
        state.stock[agent, good] += 1
    dequeue(state, agent)


@compiled
def trade(state, buyer, seller, good, price):
    """The unit and the coins that were set aside change hands."""
    state.stock[buyer, good] += 1
    state.money[seller] += price
    state.value[good] += price
    state.volume[good] += 1.0
    state.trades[buyer] += 1
    state.trades[seller] += 1
    state.trade[state.num_trades, 0] = buyer
    state.trade[state.num_trades, 1] = seller
    state.trade[state.num_trades, 2] = good
    state.trade[state.num_trades, 3] = price
    state.num_trades += 1


@compiled
def enqueue(state, agent, good, side, level, end):
    """Post an offer: the last in the queue of its price."""
    previous = state.last[good, side, level]
    state.before[agent] = previous
    state.after[agent] = NOTHING
    state.last[good, side, level] = agent
    if previous == NOTHING:
        state.first[good, side, level] = agent
    else:
        state.after[previous] = agent
    state.offer_good[agent] = good
    state.offer_side[agent] = side
    state.offer_level[agent] = level
    state.offer_end[agent] = end


@compiled
def dequeue(state, agent):
    """Take an agent's offer off the market; what is set aside for it is the caller's to give."""
    good, side, level = state.offer_good[agent], state.offer_side[agent], state.offer_level[agent]
    previous, following = state.before[agent], state.after[agent]
    if previous == NOTHING:
        state.first[good, side, level] = following
    else:
        state.after[previous] = following
    if following == NOTHING:
        state.last[good, side, level] = previous
    else:
        state.before[following] = previous
    state.offer_good[agent] = NOTHING
