"""Functions of networks take models too: these are read first."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from hoplens.errors import ParameterError, ShapeError
from hoplens.graph.pathways import Pathways
from hoplens.lookup import look_up

READ = "hoplens.models.readers.reading:read"  # is built on some of these functions
F = TypeVar("F", bound=Callable[..., Any])


@overload
def takes_models(function: F) -> F: ...
@overload
def takes_models(*, steps: bool) -> Callable[[F], F]: ...
def takes_models(function: Any = None, *, steps: bool = False) -> Any:
    """Let a function whose first parameter is a `Pathways` take a model too, which is read.

    Parameters
    ----------
    function : callable
    steps : bool, default False
        Whether it takes a graph of each step; else it is refused.
    """
    if function is None:
        return functools.partial(takes_models, steps=steps)
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs.get(first)
        if given is not None and not isinstance(given, Pathways):
            given = pathways_of(given, function.__name__)
            if args:
                args = (given, *args[1:])
            else:
                kwargs[first] = given
        if isinstance(given, Pathways) and given.steps and not steps:
            raise ShapeError(
                f"{function.__name__} takes one graph, got one for each of {len(given.w_in)} steps; read the "
                'model with at="flow" for their static summary'
            )
        return function(*args, **kwargs)

    return call


def pathways_of(model: Any, name: str, readout: Any = None) -> Pathways:
    """Return a model as the graph that a function needs."""
    if hasattr(model, "hops") and hasattr(model, "values"):  # HopMaps, which these functions make
        raise ParameterError(f"{name} takes a network, got {type(model).__name__}; pass what it was made of")
    net: Pathways = look_up(READ)(model, readout)
    return net
