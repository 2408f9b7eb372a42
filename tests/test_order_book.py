"""The market against a slow twin: a sorted list of offers, written for reading."""

import numpy as np
import pytest

from ridgeline import order_book as book
from ridgeline.kernel import plain, state_dtype
from ridgeline.order_book import ASK, BID, NOTHING, PRICES

AGENTS, GOODS = 9, 2
offer, withdraw, next_step = plain(book.offer), plain(book.withdraw), plain(book.next_step)


def can_offer(state, agent, good, side, level):
    if side == BID:
        return plain(book.coins)(state, agent) >= PRICES[level]
    return plain(book.units)(state, agent, good) > 0


def opened(money=20, stock=3):
    state = np.zeros(1, state_dtype(**book.market(AGENTS, GOODS))).view(np.recarray)[0]
    plain(book.open_market)(state)
    state.money[:], state.stock[:] = money, stock
    return state


class Twin:
    """The same market: offers in a list in the order in which they came, the best found by sorting."""

    def __init__(self, money, stock):
        self.money, self.stock = [money] * AGENTS, [[stock] * GOODS for _ in range(AGENTS)]
        self.offers: list[tuple[int, int, int, int]] = []  # agent, good, side, price
        self.trades: list[tuple[int, int, int, int]] = []  # buyer, seller, good, price

    def withdraw(self, agent):
        for mine in [one for one in self.offers if one[0] == agent]:
            self.offers.remove(mine)
            self.give(*mine)

    def give(self, agent, good, side, price):
        """What an offer had set aside goes back."""
        if side == BID:
            self.money[agent] += price
        else:
            self.stock[agent][good] += 1

    def offer(self, agent, good, side, price):
        self.withdraw(agent)
        if (side == BID and self.money[agent] < price) or (side == ASK and self.stock[agent][good] < 1):
            raise ValueError("nothing to offer")
        matching = [
            (other[3] if side == BID else -other[3], place, other)
            for place, other in enumerate(self.offers)
            if other[1:3] == (good, 1 - side) and (other[3] <= price if side == BID else other[3] >= price)
        ]
        if not matching:
            self.money[agent] -= price if side == BID else 0
            self.stock[agent][good] -= side == ASK
            self.offers.append((agent, good, side, price))
            return
        other = min(matching)[2]
        self.offers.remove(other)
        self.give(*other)
        buyer, seller = (agent, other[0]) if side == BID else (other[0], agent)
        self.money[buyer] -= other[3]
        self.money[seller] += other[3]
        self.stock[buyer][good] += 1
        self.stock[seller][good] -= 1
        self.trades.append((buyer, seller, good, other[3]))


def offers(state):
    """Agent, good, side, price of the open offers, queue by queue, the oldest first."""
    found = []
    for good, side, level in np.ndindex(state.first.shape):
        agent, previous = state.first[good, side, level], NOTHING
        while agent != NOTHING:
            assert (state.offer_good[agent], state.offer_side[agent], state.offer_level[agent]) == (good, side, level)
            assert state.before[agent] == previous
            found.append((int(agent), good, side, int(PRICES[level])))
            previous, agent = agent, state.after[agent]
        assert state.last[good, side, level] == previous
    assert len(found) == np.sum(state.offer_good != NOTHING)
    return found


@pytest.mark.parametrize("seed", range(2))
def test_equals_a_sorted_list(seed):
    """Over 600 random offers and withdrawals: every trade, the coins, the goods, and the order of each queue."""
    generator = np.random.default_rng(seed)
    state, twin = opened(), Twin(20, 3)
    for _ in range(600):
        agent, good, side = (int(generator.integers(n)) for n in (AGENTS, GOODS, 2))
        level = int(generator.integers(len(PRICES) - 1))
        next_step(state)
        twin.trades.clear()
        possible = can_offer(state, agent, good, side, level)
        if generator.random() < 0.1:
            withdraw(state, agent)
            twin.withdraw(agent)
        elif possible:
            offer(state, agent, good, side, level, 7)
            twin.offer(agent, good, side, int(PRICES[level]))
        else:
            before = list(twin.money)
            with pytest.raises(ValueError, match="nothing to offer"):
                twin.offer(agent, good, side, int(PRICES[level]))
            withdraw(state, agent)  # as the twin did
            assert sum(twin.money) >= sum(before)
        assert [tuple(trade) for trade in state.trade[: state.num_trades].tolist()] == twin.trades
        assert state.money.tolist() == twin.money
        assert state.stock.tolist() == twin.stock
        by_queue = sorted(range(len(twin.offers)), key=lambda i: (twin.offers[i][1:], i))
        assert offers(state) == [twin.offers[i] for i in by_queue]
    assert state.trades.sum() > 150


def test_takes_the_best_price_of_the_other_side_the_oldest_first():
    state = opened()
    for agent, level in ((0, 2), (1, 1), (2, 1)):
        offer(state, agent, 0, ASK, level, 9)
    offer(state, 3, 0, BID, 4, 9)
    assert state.trade[0].tolist() == [3, 1, 0, PRICES[1]]
    assert (state.money[3], state.money[1], state.stock[3, 0], state.stock[1, 0]) == (20 - PRICES[1], 22, 4, 2)
    offer(state, 3, 0, BID, 0, 9)  # too low for either: posted
    assert state.num_trades == 1 and state.money[3] == 20 - PRICES[1] - PRICES[0]
    offer(state, 4, 0, ASK, 0, 9)
    assert state.trade[1].tolist() == [3, 4, 0, PRICES[0]]


def test_a_trader_between_a_low_ask_and_a_high_bid_profits():
    state = opened(stock=1)
    state.stock[5] = 0
    offer(state, 0, 1, ASK, 1, 9)
    offer(state, 5, 1, BID, 1, 9)  # buys at 2
    offer(state, 1, 1, BID, 4, 9)
    offer(state, 5, 1, ASK, 2, 9)  # asks 3 or more, and is paid the 8 that stand there
    assert (state.money[5], state.stock[5, 1]) == (20 - 2 + 8, 0)


def test_price_is_the_weighted_mean_of_trades():
    state = opened()
    assert book.price(state, 0) == 0
    for level in (1, 3):
        next_step(state)
        offer(state, 0, 0, ASK, level, 9)
        offer(state, 1, 0, BID, level, 9)
    next_step(state)
    weight = np.array([0.95**2, 0.95])
    assert book.price(state, 0) == pytest.approx(weight @ PRICES[[1, 3]] / weight.sum())
    assert book.price(state, 1) == 0


def test_can_offer_counts_what_the_open_offer_has_set_aside():
    state = opened(money=8, stock=1)
    offer(state, 0, 0, BID, 4, 9)
    assert state.money[0] == 0
    assert can_offer(state, 0, 0, BID, 4) and not can_offer(state, 0, 0, BID, 5)
    offer(state, 1, 0, ASK, 5, 9)
    assert state.stock[1, 0] == 0
    assert can_offer(state, 1, 0, ASK, 2) and not can_offer(state, 1, 1, BID, 5)
    withdraw(state, 0)
    withdraw(state, 1)
    assert state.money[0] == 8 and state.stock[1, 0] == 1 and not offers(state)
