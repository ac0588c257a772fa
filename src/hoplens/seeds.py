"""Random streams: the only place where generators are made.

A stream is a name and a seed, hashed, so that no two streams share their numbers. PyTorch's generator on the
CPU uses only the low 32 bits of a seed; offsets such as ``seed + 2**32`` would give the same numbers again.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from hoplens.errors import check_count


def generator(stream: str, seed: int, *, device: torch.device | str = "cpu") -> torch.Generator:
    """Return PyTorch's generator of a stream; its numbers depend on the kind of device."""
    return torch.Generator(device).manual_seed(_hashed(stream, seed, size=4))


def numpy_generator(stream: str, seed: int) -> np.random.Generator:
    """Return NumPy's generator of a stream; see `generator`."""
    return np.random.default_rng(_hashed(stream, seed, size=16))


def bare_generator(seed: int) -> torch.Generator:
    """Return PyTorch's generator of a bare seed, on the CPU.

    For a seed that a caller gives in place of a generator, and for numbers that are part of what a task or
    data set is: these stay as they were in earlier versions, so that stored networks are not evaluated on
    another task than they were trained on, or on sequences they were trained on.
    """
    return torch.Generator().manual_seed(check_count("seed", seed, least=0) % 2**32)


def split_generator(seed: int) -> np.random.Generator:
    """Return the generator that cuts a data set; a cut is part of what it is: see `bare_generator`."""
    return np.random.default_rng(check_count("seed", seed, least=0))


def signal_order(length: int, seed: int) -> list[int]:
    """Return time steps 0 .. L - 1 as a sparse task takes them; part of what it is: see `bare_generator`."""
    order: list[int] = torch.randperm(length, generator=bare_generator(seed)).tolist()
    return order


def _hashed(stream: str, seed: int, *, size: int) -> int:
    text = f"{stream}\n{check_count('seed', seed, least=0)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big")


__all__ = ["bare_generator", "generator", "numpy_generator", "signal_order", "split_generator"]
