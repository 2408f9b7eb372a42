"""Slow twins of the estimators: what the definitions say, as double loops over plain floats, one column at a time."""


def n_step_return(reward, next_value, terminated, truncated, gamma, num_steps):
    """Up to num_steps rewards, then the value of the state that followed the last one; nothing behind a termination."""
    result = []
    for t in range(len(reward)):
        total, weight = 0.0, 1.0
        for here in range(t, t + num_steps):
            total += weight * reward[here]
            weight *= gamma
            if terminated[here]:
                break
            if truncated[here] or here in (len(reward) - 1, t + num_steps - 1):
                total += weight * next_value[here]
                break
        result.append(total)
    return result


def reward_to_go(reward, next_value, terminated, truncated, gamma):
    """All rewards up to the end of the episode, or to where its rest must be predicted."""
    return n_step_return(reward, next_value, terminated, truncated, gamma, len(reward))


def generalized_advantage(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    """The sum of (gamma gae_lambda)^k times the TD error of row t + k, up to the end of the episode."""
    result = []
    for t in range(len(reward)):
        total = 0.0
        for here in range(t, len(reward)):
            following = 0.0 if terminated[here] else gamma * next_value[here]
            total += (gamma * gae_lambda) ** (here - t) * (reward[here] + following - value[here])
            if terminated[here] or truncated[here]:
                break
        result.append(total)
    return result


def lambda_return(reward, next_value, terminated, truncated, gamma, gae_lambda):
    """The forward view: (1 - lambda) lambda^(n - 1) of each n-step return, the rest on the longest one."""
    steps = len(reward)
    by_length = [n_step_return(reward, next_value, terminated, truncated, gamma, n) for n in range(1, steps + 1)]
    result = []
    for t in range(steps):
        longest = 1
        while t + longest < steps and not (terminated[t + longest - 1] or truncated[t + longest - 1]):
            longest += 1
        total = sum((1 - gae_lambda) * gae_lambda ** (n - 1) * by_length[n - 1][t] for n in range(1, longest))
        result.append(total + gae_lambda ** (longest - 1) * by_length[longest - 1][t])
    return result


def harmonic_trace(reward, value, next_value, terminated, truncated, gamma):
    """The forward view: 1/(n (n + 1)) of each n-step return, and what is left, 1/M, on the longest; less the value."""
    steps = len(reward)
    by_length = [n_step_return(reward, next_value, terminated, truncated, gamma, n) for n in range(1, steps + 1)]
    result = []
    for t in range(steps):
        longest = 1
        while t + longest < steps and not (terminated[t + longest - 1] or truncated[t + longest - 1]):
            longest += 1
        total = sum(by_length[n - 1][t] / (n * (n + 1)) for n in range(1, longest))
        result.append(total + by_length[longest - 1][t] / longest - value[t])
    return result


def trace_mixture(reward, value, next_value, terminated, truncated, gamma, num_nodes):
    """Generalised advantages at Gauss-Legendre decays, weighted."""
    points, weights = NODES[num_nodes]
    every = [
        generalized_advantage(reward, value, next_value, terminated, truncated, gamma, (1 + sign * point) / 2)
        for point in points
        for sign in ((1, -1) if point else (1,))
    ]
    shares = [weight / 2 for point, weight in zip(points, weights, strict=True) for _ in range(2 if point else 1)]
    return [sum(share * one[t] for share, one in zip(shares, every, strict=True)) for t in range(len(reward))]


NODES = {  # non-negative points and weights of Gauss-Legendre quadrature on -1 to 1 (Abramowitz & Stegun, table 25.4)
    1: ([0.0], [2.0]),
    2: ([0.5773502691896257], [1.0]),
    5: (
        [0.0, 0.5384693101056831, 0.9061798459386640],
        [0.5688888888888889, 0.4786286704993665, 0.2369268850561891],
    ),
}


def fixed_horizon_target(reward, next_value, terminated, truncated):
    """For each horizon: half of it reward by reward, the rest from the prediction where that stopped. next_value holds
    a list of one value per head in each row; result[t][k]."""
    heads = [0, *(2**k for k in range(len(next_value[0])))]
    result = []
    for t in range(len(reward)):
        targets = []
        for horizon in heads[1:]:
            total = 0.0
            for seen in range(1, max(1, horizon // 2) + 1):
                here = t + seen - 1
                total += reward[here]
                if terminated[here]:
                    break
                if truncated[here] or here == len(reward) - 1 or seen == max(1, horizon // 2):
                    total += at_horizon(horizon - seen, heads, [0.0, *next_value[here]])
                    break
            targets.append(total)
        result.append(targets)
    return result


def fixed_horizon_trace(reward, value, next_value, terminated, truncated):
    """The forward view: 1/(n (n + 1)) of the n-step advantage of the longest horizon, whose rest is predicted by what
    is left of it; and what is left of the weights, 1/M, on the longest n."""
    heads = [0, *(2**k for k in range(len(value[0])))]
    result = []
    for t in range(len(reward)):
        by_length, total = [], 0.0
        for n in range(1, heads[-1] + 1):
            here = t + n - 1
            total += reward[here]
            rest = 0.0 if terminated[here] else at_horizon(heads[-1] - n, heads, [0.0, *next_value[here]])
            by_length.append(total + rest - value[t][-1])
            if terminated[here] or truncated[here] or here == len(reward) - 1:
                break
        longest = len(by_length)
        total = sum(by_length[n - 1] / (n * (n + 1)) for n in range(1, longest))
        result.append(total + by_length[-1] / longest)
    return result


def at_horizon(horizon, heads, values):
    """The straight line between the two heads around a horizon."""
    for k in range(1, len(heads)):
        if heads[k - 1] <= horizon <= heads[k]:
            share = (horizon - heads[k - 1]) / (heads[k] - heads[k - 1])
            return (1 - share) * values[k - 1] + share * values[k]
    raise ValueError(horizon)


def block_target(reward, value, next_value, terminated, truncated, masked):
    """Walk on from each row: rewards as long as they belong to its episode, then zeros, predictions, or no target."""
    return [
        [target for target, _, _ in row]
        for row in block_entries(reward, value, next_value, terminated, truncated, masked)
    ]


def block_entries(reward, value, next_value, terminated, truncated, masked):
    """(target, seen, known) of each row and lag: known is what was seen, and the zeros behind a termination as far as
    the rollout would have reached."""
    horizon, result = len(value[0]), []
    for t in range(len(reward)):
        entries, here, ended = [], t, None
        for j in range(horizon):
            if ended is None:
                entries.append((reward[here], True, True))
                if terminated[here] or truncated[here] or here == len(reward) - 1:
                    ended, since = here, 0
                here += 1
            else:
                zero = terminated[ended]
                unmasked = 0.0 if zero else next_value[ended][since]
                entries.append((value[t][j] if masked else unmasked, False, zero and t + j < len(reward)))
                since += 1
        result.append(entries)
    return result


def lag_weight(variance, reward_variance, puf):
    """P3O's loop over the lags of one row."""
    inverse = []
    for one in variance:
        weight = 1 / one - (puf / reward_variance if reward_variance > 0 else 0.0)
        inverse.append(max(0.0, weight))
    largest, result, stopped = max(inverse), [], False
    for j, one in enumerate(inverse):
        stopped = stopped or (j >= 16 and variance[j] ** 0.5 > 0.95 * reward_variance**0.5)
        result.append(0.0 if stopped or largest == 0 else one / largest)
    return result


def differential_advantage(reward, value, next_value, terminated, truncated, reward_rate, gae_lambda):
    """The sum of gae_lambda^k times the differential TD error of row t + k, up to the end of the episode."""
    centred = [one - reward_rate for one in reward]
    return generalized_advantage(centred, value, next_value, terminated, truncated, 1.0, gae_lambda)


def v_trace(reward, value, next_value, terminated, truncated, ratio, gamma, gae_lambda, max_ratio, max_trace_ratio):
    """As IMPALA's eq. 1 says: the value, and each later TD error times all clipped ratios between; then one step ahead
    of the advantage. Lists of targets, of advantages."""
    targets = []
    for t in range(len(reward)):
        total = value[t]
        for here in range(t, len(reward)):
            weight = min(max_ratio, ratio[here])
            for between in range(t, here):
                weight *= gamma * gae_lambda * min(max_trace_ratio, ratio[between])
            following = 0.0 if terminated[here] else gamma * next_value[here]
            total += weight * (reward[here] + following - value[here])
            if terminated[here] or truncated[here]:
                break
        targets.append(total)
    advantages = []
    for t in range(len(reward)):
        following = next_value[t] if truncated[t] or t == len(reward) - 1 else targets[t + 1]
        advantages.append(reward[t] - value[t] if terminated[t] else reward[t] + gamma * following - value[t])
    return targets, advantages


def pufferlib_advantage(value, reward, ended, ratio, gamma, gae_lambda, max_ratio, max_trace_ratio, reward_only=False):
    """PufferLib's scalar loop in PufferLib's layout: reward and end stand with the observation that they led to, and
    the last row is only looked at. reward_only: the ratio weighs the reward and not the whole TD error."""
    result, following = [0.0] * len(value), 0.0
    for t in range(len(value) - 2, -1, -1):
        goes_on = 1.0 - ended[t + 1]
        weight = min(max_ratio, ratio[t])
        if reward_only:
            error = weight * reward[t + 1] + gamma * value[t + 1] * goes_on - value[t]
        else:
            error = weight * (reward[t + 1] + gamma * value[t + 1] * goes_on - value[t])
        following = error + gamma * gae_lambda * min(max_trace_ratio, ratio[t]) * goes_on * following
        result[t] = following
    return result
