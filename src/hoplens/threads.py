"""PyTorch's own threads, set for a while and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 256  # hidden units up to which one thread is as fast as two, and not hurt by a busy machine


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run a block with so many threads inside PyTorch's operations; the number before is put back.

    With more than one, threads wait for each other by spinning: on a machine where something else runs, a
    small network is then ten times slower and more.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(hidden: int) -> int:
    """Return how many threads one network of so many hidden units gets: one, or those that are set."""
    return 1 if hidden <= SMALL else torch.get_num_threads()


__all__ = ["threads", "threads_for"]
