"""What the methods of a study are called, and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable

METHODS = ("none", "L2", "L1", "R-RNN", "recommended")
OURS = "recommended"
PAPER = "R-RNN"
REFERENCES = ("L1", PAPER)  # what the recommended recipe has to beat


def method_label(method: str) -> str:
    """Return the name of a method as readers see it."""
    return "no penalty" if method == "none" else method


def method_order(methods: Iterable[str]) -> list[str]:
    """Return the distinct methods: the known ones in their fixed order, then the others as they came."""
    distinct = list(dict.fromkeys(str(method) for method in methods))
    return [m for m in METHODS if m in distinct] + [m for m in distinct if m not in METHODS]


__all__ = ["METHODS", "OURS", "PAPER", "REFERENCES", "method_label", "method_order"]
