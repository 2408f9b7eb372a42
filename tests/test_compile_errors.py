"""Mistakes that people make in an environment: the message names the line and how to write it."""

import re

import numpy as np
import pytest

from ridgeline.kernel import InvalidEnvironment, define
from ridgeline.vector import CompiledEnv

FILE = """import numpy as np
from gymnasium import spaces
from ridgeline.kernel import compiled, state_dtype, uniform

State = state_dtype(x=np.float64, trail=(np.float64, (3,)))
observation_space = spaces.Box(0, 1, (1,), np.float32)
action_space = spaces.Discrete(2)


class Ball:
    pass


def helper(state):
    state.x = 0.5


def reset(state, p):
    state.x = 0.0


def step(state, action, p):
    if state.x > 5.0:
        MISTAKE
    return 0.0, False


def observe(state, observation, p):
    observation[0] = state.x
"""
MISTAKE_LINE = FILE[: FILE.index("MISTAKE")].count("\n") + 1


@pytest.mark.parametrize(
    ("mistake", "reason", "way"),
    [
        ("helper(state)", "Untyped global name 'helper'", "Write @compiled above def helper"),
        ("Ball()", "Untyped global name 'Ball'", "Ball is a class: use numbers, and arrays that are fields of State"),
        ("state.x += SPEED", "name 'SPEED' is not defined", "Give SPEED a value at the top of the file"),
        ("state.y = 1.0", "State has no field 'y'", "Add it to state_dtype"),
        ("return 1.0", "Can't unify return type", "Let every return give the same types: return reward, terminated"),
        ("import random", "IMPORT_NAME", "Import at the top of the file; random numbers come from uniform(state)"),
        ("state.x = np.random.default_rng().random()", "default_rng", "Random numbers come from the state"),
        ("print(f'{state.x:.2f}')", "f-strings", "Text is not for compiled code"),
        ("trail = [1.0]; trail.append('a')", "list.append", "A list holds numbers of one type: use an array"),
        ("global COUNT; COUNT = 1", "STORE_GLOBAL", "A global cannot change: what an instance remembers is a field"),
        ("names = {1: 'left', 2: 3}", "setitem", "A dictionary has keys of one type and values of one type"),
        ("for side in (-1, 'a'): state.x = 1.0", "getiter", "Loop over range(...) or over values of one type"),
    ],
)
@pytest.mark.filterwarnings("ignore:unsafe cast")
def test_the_message_has_the_line_and_the_way(tmp_path, mistake, reason, way):
    path = tmp_path / "game.py"
    path.write_text(FILE.replace("MISTAKE", mistake), encoding="utf-8")
    env = CompiledEnv(define(path), 2)
    with pytest.raises(InvalidEnvironment) as found:
        env.step(np.zeros(2, np.int64))
    first, *others = str(found.value).splitlines()
    place = re.fullmatch(rf"{re.escape(str(path))}:(\d+): cannot be compiled: (.*)", first)
    assert place, first
    if "return" not in mistake:  # of returns that disagree any may be named
        assert int(place[1]) == MISTAKE_LINE
        assert others[0].strip() == mistake
    assert reason in place[2]
    assert way in others[-1] and others[-1].endswith("RIDGELINE_COMPILE=0 runs the file as plain Python")
    assert others[-1].strip()[0].isupper() and len(others) == 2
