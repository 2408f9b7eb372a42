"""Where to look for the best value of a setting: its range and scale.

A field's name has one meaning throughout, so `RANGES` has one range for each name. A component of the user's own may
have a table of its own: `ranges = table(temperature=log(0.1, 10))` in its dataclass. Fields that are bools or Literals
need none. A sweep searches the floating-point fields that have a range; what changes shapes (whole numbers, choices) it
searches where a file asks for it (docs/sweep.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

Scale = Literal["linear", "log", "complement", "logit", "power_of_two"]
SCALES = ("linear", "log", "complement", "logit", "power_of_two")
EDGE = 0.05  # a value within this share of the range, along its scale, is at the edge
WIDER = 0.5  # share of the range by which it is widened


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, evenly along a scale.

    linear; log: log x; complement: log(1 − x), for what is near 1, as gamma; logit: log(x / (1 − x)), for what is near
    0 or 1; power_of_two: 1, 2, 4, 8 ... . Whole numbers stay whole. Widened, it stays within `least` to `most`.
    Raises ValueError.
    """

    low: float
    high: float
    scale: Scale = "linear"
    whole: bool = False
    least: float = -math.inf
    most: float = math.inf
    when: tuple[str, tuple[Any, ...]] | None = None  # only where that field has one of these values

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(f"scale = {self.scale!r}; use one of {', '.join(SCALES)}")
        bounds = {"log": (0, math.inf), "complement": (-math.inf, 1), "logit": (0, 1), "power_of_two": (0, math.inf)}
        above, below = bounds.get(self.scale, (-math.inf, math.inf))
        if not above < self.low < self.high < below:
            within = "" if self.scale == "linear" else f" within {above} to {below}, both excluded"
            raise ValueError(f"low = {self.low} and high = {self.high} on a {self.scale} scale; use low < high{within}")
        if self.scale == "power_of_two" and any(math.log2(x) % 1 for x in (self.low, self.high)):
            raise ValueError(f"low = {self.low} and high = {self.high} on a power_of_two scale; use powers of two")
        if self.whole and self.scale in ("complement", "logit"):
            raise ValueError(f"whole numbers on a {self.scale} scale; use linear, log or power_of_two")

    def coordinate(self, value: float) -> float:
        """The place of a value along the scale."""
        if self.scale == "log":
            return math.log(value)
        if self.scale == "complement":
            return -math.log1p(-value)
        if self.scale == "logit":
            return math.log(value) - math.log1p(-value)
        return math.log2(value) if self.scale == "power_of_two" else float(value)

    def value(self, coordinate: float) -> float | int:
        """The value at a place along the scale, within the range."""
        found = min(max(self._value(coordinate), self.low), self.high)
        return round(found) if self.whole or self.scale == "power_of_two" else float(f"{found:.6g}")

    def _value(self, coordinate: float) -> float:
        if self.scale == "log":
            return math.exp(coordinate)
        if self.scale == "complement":
            return -math.expm1(-coordinate)
        if self.scale == "logit":
            return 1 / (1 + math.exp(-coordinate))
        return 2.0 ** round(coordinate) if self.scale == "power_of_two" else coordinate

    def clip(self, value: float) -> float | int:
        """The nearest value within the range."""
        return self.value(self.coordinate(min(max(value, self.low), self.high)))

    @property
    def coordinates(self) -> tuple[float, float]:
        """The places of low and high; for whole numbers half a step further, so that each is as likely as the rest."""
        if self.scale == "power_of_two":
            return self.coordinate(self.low) - 0.499, self.coordinate(self.high) + 0.499
        if self.whole and self.scale == "linear":
            return self.low - 0.499, self.high + 0.499
        return self.coordinate(self.low), self.coordinate(self.high)

    def edge(self, value: float) -> Literal["low", "high"] | None:
        """The end of the range at which the value lies."""
        first, last = self.coordinate(self.low), self.coordinate(self.high)
        share = (self.coordinate(value) - first) / (last - first)
        return "low" if share <= EDGE else "high" if share >= 1 - EDGE else None

    def wider(self, edge: Literal["low", "high"]) -> "Range":
        """This range, half as long again at one end, as far as `least` and `most` allow: itself where they do not."""
        first, last = self.coordinate(self.low), self.coordinate(self.high)
        length = WIDER * (last - first)
        if self.scale == "power_of_two":
            length = max(1.0, round(length))
        beyond = self._value(first - length if edge == "low" else last + length)
        beyond = round(beyond) if self.whole else float(f"{beyond:.6g}")
        if edge == "low":
            low = max(beyond, self.least)
            return replace(self, low=low) if low < self.low else self
        high = min(beyond, self.most)
        return replace(self, high=high) if high > self.high else self


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]
    when: tuple[str, tuple[Any, ...]] | None = None

    def __post_init__(self):
        if len(self.values) < 2 or len(set(map(repr, self.values))) < len(self.values):
            raise ValueError(f"values = {list(self.values)}; give two or more, each once")


def linear(low: float, high: float, **limits: Any) -> Range:
    return Range(low, high, "linear", **limits)


def log(low: float, high: float, **limits: Any) -> Range:
    return Range(low, high, "log", **limits)


def complement(low: float, high: float, **limits: Any) -> Range:
    """For a field from 0 to 1 whose best values are near 1: log(1 − x) is searched evenly."""
    return Range(low, high, "complement", **dict[str, Any](least=0.0, most=0.99999) | limits)


def whole(low: int, high: int, scale: Scale = "linear", **limits: Any) -> Range:
    return Range(low, high, scale, True, **dict[str, Any](least=1) | limits)


def power_of_two(low: int, high: int, **limits: Any) -> Range:
    return Range(low, high, "power_of_two", True, **dict[str, Any](least=1) | limits)


def choice(*values: Any, when: tuple[str, tuple[Any, ...]] | None = None) -> Choice:
    return Choice(values, when)


def table(**ranges: Range | Choice) -> Mapping[str, Range | Choice]:
    """The ranges of a dataclass's fields."""
    return MappingProxyType(ranges)


RANGES = table(
    learning_rate=log(1e-4, 3e-2),
    gamma=complement(0.9, 0.9998),
    gae_lambda=complement(0.6, 0.998),
    clip_coef=log(0.05, 0.5),
    entropy_coef=log(1e-5, 0.1),
    value_coef=log(0.1, 2.0),
    value_clip_coef=log(0.05, 1.0),
    max_grad_norm=log(0.1, 5.0),
    target_kl=log(0.003, 0.1),
    max_kl=log(1e-3, 0.1),
    damping=log(1e-3, 1.0),
    reward_rate_step=log(0.01, 0.5, most=1.0),
    value_centering=linear(0.0, 1.0, least=0.0, most=1.0, when=("variant", ("apo",))),
    max_ratio=log(0.5, 4.0),
    max_trace_ratio=log(0.5, 4.0),
    puf=linear(0.0, 1.0, least=0.0, most=1.0),
    observation_clip=log(1.0, 10.0),
    log_std=linear(-2.0, 1.0),
    num_envs=power_of_two(8, 512),
    rollout_length=power_of_two(8, 512),
    num_epochs=whole(1, 10),
    num_minibatches=power_of_two(1, 16),
    num_value_updates=whole(1, 40, "log"),
    num_conjugate_gradient_steps=whole(5, 20),
    num_line_search_steps=whole(5, 20),
    num_steps=whole(1, 64, "log"),
    horizon=power_of_two(8, 128),
    max_horizon=power_of_two(64, 4096),
    hidden_sizes=choice((32, 32), (64, 64), (128, 128)),
    optimizer=choice("adam", "muon", "rmsprop"),  # rmsprop_tf is for published settings
)


def read(name: str, document: Any, whole: bool) -> Range | Choice:
    """A range from a file: { low, high, scale, when } or a list of values. Raises ValueError naming the field."""
    try:
        if isinstance(document, list | tuple):
            return Choice(tuple(document))
        unknown = set(document) - {"low", "high", "scale", "least", "most", "values", "when"}
        if unknown:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}; use low, high, scale and when, or values and when")
        when = _condition(document.get("when"))
        if "values" in document:
            return Choice(tuple(document["values"]), when)
        scale = document.get("scale", "linear")
        if "low" not in document or "high" not in document:
            raise ValueError("low or high is missing")
        limits: dict[str, Any] = {"least": 0.0, "most": 0.99999} if scale == "complement" else {}
        limits |= {name: document[name] for name in ("least", "most") if name in document}
        return Range(document["low"], document["high"], scale, whole or scale == "power_of_two", when=when, **limits)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} = {document!r}: {error}") from None


def _condition(when: Mapping[str, Any] | None) -> tuple[str, tuple[Any, ...]] | None:
    if when is None:
        return None
    if len(when) != 1:
        raise ValueError(f"when = {dict(when)}; name one field and its values, as when = {{ optimizer = 'muon' }}")
    ((field, values),) = when.items()
    return field, tuple(values) if isinstance(values, list | tuple) else (values,)


def document(item: Range | Choice) -> dict[str, Any]:
    """What `read` reads, as JSON knows it."""
    when = {} if item.when is None else {"when": {item.when[0]: list(item.when[1])}}
    if isinstance(item, Choice):
        return {"values": list(item.values)} | when
    limits = {"least": item.least, "most": item.most}
    limits = {name: limit for name, limit in limits.items() if math.isfinite(limit)}
    return {"low": item.low, "high": item.high, "scale": item.scale} | limits | when


def of(component: type, name: str) -> Range | Choice | None:
    """The range of a component's field: of its own table `ranges`, or of RANGES; None where it has none."""
    return getattr(component, "ranges", {}).get(name) or RANGES.get(name)
