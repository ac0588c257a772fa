"""Numbers and counts as readers see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

MISSING = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SMALLEST_PLAIN = 1e-4
LARGEST_PLAIN = 1e6


def number(value: object, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits; integers whole, truth as yes or no, text as it is.

    NaN, infinity and None give a dash.
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return _minus(f"{int(value):,}")
    if not isinstance(value, Real):
        return str(value)
    exact = float(value)
    if not math.isfinite(exact):
        return MISSING
    if exact == 0:
        return "0"
    rounded = float(f"{exact:.{digits}g}")
    if not SMALLEST_PLAIN <= abs(rounded) < LARGEST_PLAIN:
        mantissa, exponent = f"{exact:.{digits - 1}e}".split("e")
        return _minus(f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return _minus(f"{rounded:,.{decimals}f}")


def strength(value: object) -> str:
    """Write a penalty's strength without padding: 0.001, 3 × 10⁻⁵."""
    text = number(value)
    if text == MISSING or not isinstance(value, Real):
        return text
    mantissa, times, power = text.partition(" × ")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return (f"{mantissa}{times}{power}" if mantissa != "1" or not times else power) or text


def percent(value: float) -> str:
    """Write a share as a whole percentage."""
    return MISSING if not math.isfinite(value) else _minus(f"{100 * value:.0f}\u00a0%")


def fine_percent(value: float) -> str:
    """Write a share as a percentage, with a decimal where it is small."""
    size = 100 * value
    if not math.isfinite(value):
        return MISSING
    text = "0" if size == 0 else "< 0.1" if size < 0.1 else f"{size:.1f}" if size < 9.95 else f"{size:.0f}"
    return f"{text}\u00a0%"


def interval(low: object, high: object) -> str:
    """Write the bounds of an interval; empty where a bound is missing."""
    texts = number(low), number(high)
    return "" if MISSING in texts else f"{texts[0]} to {texts[1]}"


def p_value(p: float) -> str:
    """Write a p value, none smaller than 0.001."""
    return "< 0.001" if p < 0.001 else number(p, 2)


def text(value: object) -> str:
    """Write a number or a text; nothing where it is missing."""
    written = number(value)
    return "" if written == MISSING else written


def count(n: int, noun: str) -> str:
    """Write a count with its noun: 1 task, 5 tasks."""
    return f"{n:,} {noun if n == 1 else noun + 's'}"


def listing(items: Sequence[str]) -> str:
    """Join words: a, b and c."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
