"""Look up what stands in a layer above, when it is needed.

Imports run one way. In two places a lower layer still leads to a higher one: results draw themselves
(``maps.plot()``), and functions of a network take a model, which is read first. They name what they need, and
it is loaded at the call.
"""

from __future__ import annotations

import importlib
from typing import Any


def look_up(place: str) -> Any:
    """Return what ``"package.module:name"`` names, or a module by its own name."""
    module, _, name = place.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, name) if name else loaded


__all__ = ["look_up"]
