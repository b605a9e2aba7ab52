"""Scales, ticks and labels of the axes of a chart."""

import math
from collections.abc import Sequence
from types import MappingProxyType

import msgspec

from bench.report.chart import Unit

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Round distances between ticks, times a power of ten."""
_BYTES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_DECIMAL = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "\N{MICRO SIGN}s"), (1e-9, "ns"))
_SMALL = 1e-3
"""Numbers below are written with a power of ten."""
_SUFFIX = MappingProxyType({"number": "", "percent": " %", "factor": "\N{MULTIPLICATION SIGN}"})


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """A map from values to places on the drawing; `low` lies at `start`, and `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value, which may lie outside the ends of the scale."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def inside(self, value: float) -> float:
        """Return the place of a value; that of the nearer end if the value lies outside."""
        return self.at(min(max(value, self.low), self.high))


def limits(
    values: Sequence[float], *, log: bool, low: float | None, high: float | None
) -> tuple[float, float]:
    """Return the ends of an axis that holds all values: `low` and `high` where they are given.

    The ends always differ. Raises ValueError for a value that is no number or infinite, for one that is not
    positive on a logarithmic axis, and for given ends that are not in order.
    """
    given = [end for end in (low, high) if end is not None]
    for value in (*values, *given):
        if not math.isfinite(value):
            raise ValueError(f"a chart shows finite numbers only; got {value}")
        if log and value <= 0:
            raise ValueError(f"a logarithmic axis shows positive numbers only; got {value}")
    least = min(values, default=1.0 if log else 0.0) if low is None else low
    most = max(values, default=1.0) if high is None else high
    if low is not None and high is not None and low >= high:
        raise ValueError(f"the ends of an axis must be in order; got {low} and {high}")
    if most <= least or not _apart(least, most, log=log):
        least, most = _widened(least, most, log=log, low=low, high=high)
    return least, most


def _apart(low: float, high: float, *, log: bool) -> bool:
    """Say whether two ends differ by more than rounding errors."""
    return high / low > 1 + 1e-9 if log else high - low > 1e-9 * max(abs(low), abs(high))


def _widened(
    least: float, most: float, *, log: bool, low: float | None, high: float | None
) -> tuple[float, float]:
    """Return ends that differ, around values that are all the same; given ends stay."""
    middle = least if high is None else most
    room = 2.0 if log else abs(middle) / 10 or 1.0
    below, above = (middle / room, middle * room) if log else (middle - room, middle + room)
    return (below if low is None else least), (above if high is None else most)


def ticks(
    low: float, high: float, *, log: bool = False, most: int = 6, unit: Unit = "number"
) -> tuple[float, ...]:
    """Return at most about `most` values from `low` to `high` that are round in the unit of their labels.

    There is at least one on a linear axis.
    """
    if log:
        return _log_ticks(low, high, most)
    scale, _ = _prefix(max(abs(low), abs(high)), unit)
    return tuple(scale * tick for tick in _linear_ticks(low / scale, high / scale, most))


def whole_ticks(low: float, high: float, *, most: int = 8) -> tuple[float, ...]:
    """Return at most about `most` round whole numbers from `low` to `high`."""
    step = max(1.0, _step((high - low) / most))
    return _multiples(low, high, float(math.ceil(step)))


def _linear_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    found = _multiples(low, high, _step((high - low) / most))
    return found or ((low + high) / 2,)


def _step(least: float) -> float:
    """Return the smallest round distance that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next((step * power for step in _STEPS if step * power >= least * (1 - 1e-9)), 10 * power)


def _multiples(low: float, high: float, step: float) -> tuple[float, ...]:
    slack = 1e-9 * (high - low)
    first, last = math.ceil((low - slack) / step), math.floor((high + slack) / step)
    return tuple(float(f"{count * step:.12g}") for count in range(first, last + 1))


def _log_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    decades = math.log10(high / low)
    if decades < 1:
        found = _linear_ticks(low, high, most)
        # On a narrow axis a linear distance looks even; on a wider one 1, 2 and 5 do.
        if decades < 0.8:
            return found
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for factors in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = tuple(
            float(f"{factor}e{power}")
            for power in range(first, last + 1)
            for factor in factors
            if low * (1 - 1e-9) <= float(f"{factor}e{power}") <= high * (1 + 1e-9)
        )
        if len(found) <= most + 1:
            return found
    every = math.ceil(len(found) / most)
    return tuple(value for place, value in enumerate(found) if place % every == 0)


def labels(values: Sequence[float], unit: Unit, *, log: bool = False) -> tuple[str, ...]:
    """Return the label of each tick; on a linear axis all have one unit and, unless tiny, as many digits."""
    largest = max((abs(value) for value in values), default=0.0)
    scale, name = _prefix(largest, unit)
    if log or largest / scale < _SMALL:
        return tuple(label(value, unit) for value in values)
    scaled = [value / scale for value in values]
    digits = max((_digits(value) for value in scaled), default=0)
    return tuple(f"{value:,.{digits}f}{name}" if value else f"0{name}" for value in scaled)


def label(value: float, unit: Unit) -> str:
    """Return a value to three digits with its unit, such as `12.5 ms` or `1,200`."""
    scale, name = _prefix(abs(value), unit)
    return f"{_three_digits(value / scale)}{name}"


def _prefix(largest: float, unit: Unit) -> tuple[float, str]:
    """Return what values are divided by, and what follows them."""
    found = {"bytes": _BYTES, "seconds": _SECONDS, "FLOP/s": _DECIMAL}.get(unit)
    if found is None:
        return 1.0, _SUFFIX[unit]
    if unit == "seconds" and largest == 0:
        return 1.0, " s"
    follows = "FLOP/s" if unit == "FLOP/s" else ""
    plain = found[-1] if unit != "FLOP/s" else (1.0, "")
    scale, name = next(((scale, name) for scale, name in found if largest >= scale * (1 - 1e-9)), plain)
    return scale, f" {name}{follows}"


def _digits(value: float) -> int:
    """Return the number of decimals that a round value needs, at most six."""
    return next((digits for digits in range(6) if math.isclose(round(value, digits), value, abs_tol=1e-9)), 6)


def _three_digits(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e6 or size < _SMALL:
        mantissa, power = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    if size >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
