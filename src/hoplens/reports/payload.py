"""Data for the page's scripts: compact numbers, and JSON that cannot end the script it stands in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

DIGITS = 6  # more than a reader or a plot needs, and a third of the bytes of all seventeen
# inside <script> only these can be mistaken for markup; in JSON strings their escapes mean the same
# and control characters and those that turn text round do not stand in the file either
HIDDEN = "".join(map(chr, [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&'\u2028\u2029" + HIDDEN}


def rounded(value: float, digits: int = DIGITS) -> float | int | None:
    """Return a number with few significant digits; None where it is NaN or infinite.

    Parameters
    ----------
    value : float
    digits : int, default 6
    """
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def plain_data(value: Any, digits: int = DIGITS) -> Any:
    """Return a value as JSON's own types, numbers rounded, NaN and infinity as null."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return rounded(value, digits)
    if isinstance(value, Mapping):
        return {str(name): plain_data(item, digits) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [plain_data(item, digits) for item in value]
    return str(value)


def script_json(value: Any) -> Markup:
    """Return JSON that may stand inside a ``<script>`` element whatever names it holds.

    Parameters
    ----------
    value : mapping, sequence, array, tensor, str, number or None
    """
    text = json.dumps(plain_data(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.translate(UNSAFE))


__all__ = ["plain_data", "rounded", "script_json"]
