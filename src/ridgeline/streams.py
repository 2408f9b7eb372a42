"""Streams of random numbers: each is that of a seed, a purpose and an iteration, whatever else runs."""

import numpy as np

INITIALISE, ACT, SHUFFLE = 11, 12, 13  # purposes
PLAY, HALVES = 14, 14  # of evaluation, and of an estimator's halves of the instances
OPPONENT, SEAT, POOL = 15, 16, 17  # of self-play: a snapshot's actions, who plays which side, which one is replaced


def random_stream(seed: int, purpose: int, iteration: int) -> np.random.Generator:
    """The generator of (seed, purpose, iteration): nothing to save, and the same in any population."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, purpose, iteration])))
