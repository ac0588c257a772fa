"""Templates of pages and of Markdown, and data for their scripts, in which no text can act."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hoplens.reports import theme
from hoplens.reports.numbers import interval, number, p_value, text
from hoplens.reports.study import agreement
from hoplens.text import for_markdown, for_page

DIGITS = 6  # more than a reader or a plot needs, and a third of the bytes of all seventeen
# inside <script> only these can be mistaken for markup; in JSON strings their escapes mean the same
# and control characters and those that turn text round do not stand in the file either
HIDDEN = "".join(map(chr, [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&'\u2028\u2029" + HIDDEN}


def render(template: str, **content: Any) -> str:
    """Return a template filled in; pages get the colours of light and dark mode besides.

    Every text in it is made safe; text of our own that must stay as it is is given as ``Markup``.
    """
    markdown = template.endswith(".md.j2")
    templates = Environment(
        loader=PackageLoader("hoplens.reports"),
        autoescape=not markdown,
        finalize=for_markdown if markdown else for_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["interval"] = interval
    templates.filters |= {"number": number, "p_value": p_value, "text": text, "agreement": agreement}
    # no line starts with a percent sign
    templates.filters["tie"] = lambda written: written.replace(" %", "\u00a0%")
    colours = {mode: theme.variables(dark=mode == "dark") for mode in ("light", "dark")}
    return templates.get_template(template).render(**content, **colours)


def script_json(value: Any) -> Markup:
    """Return JSON that may stand inside a ``<script>`` element whatever names it holds."""
    data = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(data.translate(UNSAFE))


def _plain(value: Any) -> Any:
    """Return a value as JSON's own types, numbers rounded, NaN and infinity as null."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return str(value)


def _rounded(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


__all__ = ["render", "script_json"]
