"""What a sweep searches: ranges along their scales, and the configurations that they make."""

import dataclasses
import json
import math

import numpy as np
import pytest

from ridgeline import components
from ridgeline.sweep import ranges, space
from ridgeline.sweep.ranges import RANGES, Choice, Range, choice, complement, linear, log, power_of_two, table, whole
from ridgeline.sweep.space import SpaceError

MADE = {kind: components.find(kind, name)() for kind, name in (("algorithm", "ppo"), ("estimator", "gae"))}
MADE["policy"] = components.find("policy", "mlp")()
SCALARS = {"learning_rate", "clip_coef", "entropy_coef", "value_coef", "max_grad_norm", "gamma", "gae_lambda"}


@pytest.mark.parametrize(
    ("item", "values", "middle"),
    [
        (linear(-2, 4), [-2, 0, 4], 1),
        (log(1e-4, 1e-2), [1e-4, 3e-3, 1e-2], 1e-3),
        (complement(0.9, 0.9999), [0.9, 0.99, 0.9999], 1 - 10**-2.5),
        (Range(0.01, 0.99, "logit"), [0.01, 0.3, 0.99], 0.5),
        (whole(1, 9), [1, 5, 9], 5),
        (whole(1, 100, "log"), [1, 30, 100], 10),
        (power_of_two(4, 64), [4, 16, 64], 16),
    ],
)
def test_scales(item, values, middle):
    for value in values:
        assert item.value(item.coordinate(value)) == pytest.approx(value, rel=1e-5)
    first, last = item.coordinates
    assert item.value((first + last) / 2) == pytest.approx(middle, rel=1e-5)
    assert (item.value(first - 9), item.value(last + 9)) == (item.low, item.high)
    assert [item.edge(value) for value in values] == ["low", None, "high"]
    assert ranges.read("x", json.loads(json.dumps(ranges.document(item))), item.whole) == item


def test_whole_numbers_stay_whole_and_are_equally_likely():
    generator = np.random.default_rng(0)
    for item, expected in ((whole(1, 4), [1, 2, 3, 4]), (power_of_two(2, 16), [2, 4, 8, 16])):
        drawn = [item.value(generator.uniform(*item.coordinates)) for _ in range(4000)]
        assert all(type(value) is int for value in drawn)
        found, counts = np.unique(drawn, return_counts=True)
        assert found.tolist() == expected and counts.min() > 900


@pytest.mark.parametrize(
    ("item", "edge", "wider"),
    [
        (log(1e-4, 1e-2), "high", log(1e-4, 1e-1)),
        (log(1e-4, 1e-2), "low", log(1e-5, 1e-2)),
        (linear(0, 2, most=2.5), "high", linear(0, 2.5, most=2.5)),
        (complement(0.9, 0.999), "high", complement(0.9, 0.9999)),
        (complement(0.9, 0.99999), "high", complement(0.9, 0.99999)),  # as far as it goes
        (whole(1, 9), "low", whole(1, 9)),
        (power_of_two(4, 64), "high", power_of_two(4, 256)),
    ],
)
def test_widening(item, edge, wider):
    assert item.wider(edge) == wider


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: log(0, 1), r"low = 0 and high = 1 on a log scale; use low < high within 0 to inf, both excluded"),
        (lambda: linear(2, 1), "use low < high"),
        (lambda: power_of_two(3, 8), "use powers of two"),
        (lambda: Range(0, 1, "cubic"), "scale = 'cubic'; use one of linear, log"),
        (lambda: choice("one"), "give two or more"),
        (lambda: ranges.read("x", {"low": 1}, False), "x = {'low': 1}: low or high is missing"),
        (lambda: ranges.read("x", {"low": 1, "hihg": 2}, False), "unknown hihg; use low, high, scale and when"),
    ],
)
def test_mistakes_in_a_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_scalar_ships_with_a_range_that_holds_its_default():
    without = set()
    for kind in ("algorithm", "estimator"):
        for name in components.names(kind):
            made = components.find(kind, name)()
            for field in dataclasses.fields(made):
                item = RANGES.get(field.name)
                if field.type in (float, "float") and item is None:
                    without.add(field.name)
                elif isinstance(item, Range) and isinstance(getattr(made, field.name), int | float):
                    assert item.low <= getattr(made, field.name) <= item.high or name in ("v_trace",), (
                        name,
                        field.name,
                    )
    assert without == {"constant_baseline"}  # it is in units of reward


def test_the_space_is_the_scalars():
    found = space.make(MADE, {"gamma"}, whole(1000, 10_000, "log"))
    assert set(found.ranges) == SCALARS - {"gamma"} | {"steps"}
    default = found.default("")
    assert default["learning_rate"] == MADE["algorithm"].learning_rate and default["steps"] == 10_000
    assert found.build(default) == MADE and found.shape(default) == ""
    drawn = [found.random(np.random.default_rng(seed)) for seed in range(50)]
    assert all(type(one["steps"]) is int and 1000 <= one["steps"] <= 10_000 for one in drawn)
    assert found.build(drawn[0])["algorithm"].learning_rate == drawn[0]["learning_rate"]
    assert space.from_document(json.loads(json.dumps(found.document())), MADE) == found


FILE = """
[space]
learning_rate = { low = 1e-3, high = 1e-1, scale = "log" }
clip_coef = { low = 0.1, high = 0.3, when = { optimizer = "adam" } }
entropy_coef = 0.02
num_epochs = [2, 4]
optimizer = "search"
gamma = [0.99, 0.999]

[groups.narrow]
hidden_sizes = [16]

[groups.harmonic]
optimizer = "adam"
estimator = "harmonic_trace"
"""


def test_a_file_changes_it(tmp_path):
    (tmp_path / "space.toml").write_text(FILE.replace('optimizer = "search"', ""))
    found = space.make(MADE, set(), None, tmp_path / "space.toml")
    assert found.ranges["learning_rate"] == log(1e-3, 1e-1)
    assert found.ranges["num_epochs"] == Choice((2, 4)) and "entropy_coef" not in found.ranges
    drawn = [found.random(np.random.default_rng(seed)) for seed in range(40)]
    assert {found.shape(one) for one in drawn} == {
        f"{group} num_epochs={count}" for group in ("narrow", "harmonic") for count in (2, 4)
    }
    for one in drawn:
        made = found.build(one)
        assert made["algorithm"].entropy_coef == 0.02 and made["algorithm"].num_epochs == one["num_epochs"]
        assert ("gae_lambda" in one) == (one["group"] == "narrow") == hasattr(made["estimator"], "gae_lambda")
        assert made["policy"].hidden_sizes == ((16,) if one["group"] == "narrow" else (64, 64))
        assert one["gamma"] in (0.99, 0.999)
    again = space.from_document(json.loads(json.dumps(found.document())), MADE)
    assert [again.random(np.random.default_rng(seed)) for seed in range(40)] == drawn


def test_what_is_searched_under_a_condition(tmp_path):
    (tmp_path / "space.toml").write_text(FILE.partition("[groups")[0])
    found = space.make(MADE, set(), None, tmp_path / "space.toml")
    drawn = [found.random(np.random.default_rng(seed)) for seed in range(40)]
    assert {one["optimizer"] for one in drawn} >= {"adam", "muon"}
    assert all(("clip_coef" in one) == (one["optimizer"] == "adam") for one in drawn)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[space]\nlerning_rate = [1, 2]", "no component .* has a field 'lerning_rate'; did you mean learning_rate"),
        ("[space]\nnum_epochs = { low = 1, high = 10 }", "make 10 shapes, each a population of its own; at most 6"),
        ("[space]\nlog_std = { low = -1, high = 1 }", "log_std shapes a population and has a range; name a few values"),
        ("[space]\nvalue_coef = { low = 1 }", "low or high is missing"),
        ("[space]\nsteps = 1000", "steps = 1000; give it a range, or leave it to --steps"),
        ("[spaces]", "unknown table spaces; use .space. and .groups.NAME."),
        ("[groups.a]\nwidth = 3\n[groups.b]", "group 'a': no component has a field 'width'"),
        ("[groups.a]\nnum_minibatches = 3\n[groups.b]", "group 'a': rollout_length x num_envs = 4096 is not divisible"),
        ("space = [", "is no TOML"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(tmp_path, text, message):
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(SpaceError, match=message):
        space.make(MADE, set(), None, tmp_path / "space.toml")


def test_configurations_that_the_components_refuse_are_drawn_again(tmp_path):
    (tmp_path / "space.toml").write_text("[space]\nnum_minibatches = [4, 3]")
    found = space.make(MADE, set(), None, tmp_path / "space.toml")
    assert {found.random(np.random.default_rng(seed))["num_minibatches"] for seed in range(20)} == {4}


def test_a_component_of_the_users_own_has_a_table_of_its_own():
    @dataclasses.dataclass(frozen=True)
    class Own:
        temperature: float = 1.0
        gamma: float = 0.9
        ranges = table(temperature=log(0.1, 10))

        def __call__(self, rollout, memory): ...

    found = space.make(MADE | {"estimator": Own()}, set(), None)
    assert found.ranges["temperature"] == log(0.1, 10) and found.ranges["gamma"] == RANGES["gamma"]
    assert math.isclose(found.default("")["temperature"], 1.0)
