"""Work that cannot fit into memory is refused before it begins."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from hoplens.errors import ParameterError

GIB = 1 << 30


def memory_of(device: torch.device | str = "cpu") -> int | None:
    """Return the memory of a device in bytes, for the CPU what this process may use; None where unknown."""
    place = torch.device(device)
    if place.type == "cuda":
        return int(torch.cuda.get_device_properties(place).total_memory)
    sizes = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # of a container; "max" where there is no limit
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min((size for size in sizes if size > 0), default=None)


def check_memory(what: str, needed: int, cure: str, *, device: torch.device | str = "cpu") -> None:
    """Raise if some work needs more bytes than there are, naming the work, both amounts and the cure."""
    memory = memory_of(device)
    if memory is not None and needed > memory:
        raise ParameterError(
            f"{what} would take at least {needed / GIB:.3g} GiB of memory, and there are {memory / GIB:.3g} "
            f"GiB; {cure}"
        )


__all__ = ["check_memory", "memory_of"]
