"""How much of the tests runs: `make test` in minutes, `make test-full` at full size.

What is slow by nature, as processes that are killed at random moments, whole examples, many random inputs,
runs in a small version here and in full there.
"""

from __future__ import annotations

import os

import pytest

FULL = os.environ.get("HOPLENS_TESTS") == "full"

# a whole test that `make test` can do without: others hold the same behaviour on less
full = pytest.mark.skipif(not FULL, reason="slow by nature; `make test-full` runs it")


def few(many: int, quick: int | None = None) -> int:
    """Return a number of repetitions: all of them in full, else a third, or as many as said."""
    return many if FULL else (max(3, many // 3) if quick is None else quick)
