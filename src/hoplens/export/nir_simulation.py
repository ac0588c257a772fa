"""Run a NIR graph of the nodes that hoplens writes, step by step.

Conventions, as NIR itself leaves them open: the value on an edge is held for one time step ``dt``; a spike is
the value 1 for one step; edges into one node add up; an edge that closes a cycle (found from the inputs on)
hands on the value of the step before. ``tau dv/dt = -v + u`` becomes ``v' = v + a (u - v)`` with

    a = dt / tau               method="euler"
    a = 1 - exp(-dt / tau)     method="zoh" (exact while u is held)
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import (
    FileError,
    ParameterError,
    ShapeError,
    UnsupportedModelError,
    check_choice,
    check_number,
)
from hoplens.files import regular_file

METHODS = ("euler", "zoh")
# what h5py and nir make of damaged or foreign bytes
DAMAGED = (OSError, LookupError, ValueError, TypeError, AssertionError, AttributeError, RuntimeError)
Step = Callable[[Tensor], Tensor]


def load_nir() -> Any:
    """Return the module nir; complain if it is missing."""
    try:
        import nir
    except ImportError:
        raise ParameterError('NIR files need nir: pip install "hoplens[nir]"') from None
    return nir


def read_nir(source: str | Path | bytes) -> Any:
    """Return the graph in a NIR file; no code is run."""
    nir = load_nir()
    name = "the file" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes):
        regular_file(source, ".nir file")
    try:
        return nir.read(io.BytesIO(source) if isinstance(source, bytes) else source)
    except DAMAGED as error:
        raise FileError(f"cannot read {name!r} as NIR ({type(error).__name__}); write it again") from None


def simulate_nir(graph: Any, inputs: Any, *, dt: float, method: str = "euler") -> Tensor:
    """Run a NIR graph on sequences, in float64.

    Parameters
    ----------
    graph : nir.NIRGraph, or path of a .nir file
        One input, one output; nodes Affine, Linear, LI and LIF, which `hoplens.export_nir` writes.
    inputs : Tensor, shape (B, L, I)
        One value a time step ``dt``.
    dt : float
        In the unit of the graph's time constants, seconds.
    method : {"euler", "zoh"}, default "euler"
        How ``tau dv/dt = -v + u`` takes a step: ``a = dt / tau``, or ``a = 1 - exp(-dt / tau)``, which is
        exact while u is held.

    Returns
    -------
    Tensor of float64, shape (B, L, O)
        A spike is the value 1 for one step.

    Raises
    ------
    UnsupportedModelError
        For other nodes, or several inputs or outputs.
    FileError
        If the file cannot be read.
    """
    dt = check_number("dt", dt, above=0.0)
    check_choice("method", method, METHODS)
    if isinstance(graph, str | Path):
        graph = read_nir(graph)
    machine = _Machine(graph, dt, method)
    x = torch.as_tensor(inputs).detach().cpu().to(torch.float64)
    if x.dim() != 3 or x.shape[-1] != machine.n_inputs or 0 in x.shape:
        raise ShapeError(
            f"inputs must have shape (B, L, I) with I = {machine.n_inputs}, got {tuple(x.shape)}"
        )
    return torch.stack([machine.step(step) for step in x.unbind(1)], dim=1)


class _Machine:
    """The nodes of a graph in the order in which they are updated, and the value that each gave last."""

    def __init__(self, graph: Any, dt: float, method: str) -> None:
        nir = load_nir()
        nodes = graph.nodes
        ends = {
            kind: [n for n, node in nodes.items() if isinstance(node, kind)]
            for kind in (nir.Input, nir.Output)
        }
        if any(len(names) != 1 for names in ends.values()):
            raise UnsupportedModelError("a NIR graph needs one Input and one Output node")
        (self.entry,), (self.exit,) = ends.values()
        self.n_inputs = int(np.prod(nodes[self.entry].input_type["input"]))
        edges = list(dict.fromkeys((str(a), str(b)) for a, b in graph.edges))
        self.order, self.delayed = _order(list(nodes), edges, self.entry)
        self.sources = {name: [a for a, b in edges if b == name] for name in nodes}
        self.steps = {name: _step_of(name, nodes[name], dt, method) for name in nodes}
        self.sizes = {name: int(np.prod(nodes[name].output_type["output"])) for name, _ in self.delayed}
        self.values: dict[str, Tensor] = {}

    def step(self, x: Tensor) -> Tensor:
        """Take one step of all nodes; return what the output shows, (B, O)."""
        before = self.values
        now: dict[str, Tensor] = {}
        for name in self.order:
            total: Tensor | None = x if name == self.entry else None
            for source in self.sources[name]:
                if (source, name) in self.delayed:
                    last = before.get(source)
                    given = x.new_zeros(len(x), self.sizes[source]) if last is None else last
                else:
                    given = now[source]
                total = given if total is None else total + given
            if total is None:
                raise UnsupportedModelError(f"node {name!r} of the NIR graph has no input")
            now[name] = self.steps[name](total)
        self.values = now
        return now[self.exit]


def _order(
    names: list[str], edges: list[tuple[str, str]], entry: str
) -> tuple[list[str], set[tuple[str, str]]]:
    """Return the nodes so that sources come first, and the edges that close a cycle, seen from the entry."""
    following = {name: [b for a, b in edges if a == name] for name in names}
    state: dict[str, int] = {}  # 1: on the way, 2: done
    done: list[str] = []
    closing: set[tuple[str, str]] = set()
    for start in [entry, *names]:
        if start in state:
            continue
        state[start] = 1
        path = [(start, iter(following[start]))]
        while path:
            name, rest = path[-1]
            for target in rest:
                if state.get(target) == 1:
                    closing.add((name, target))
                elif target not in state:
                    state[target] = 1
                    path.append((target, iter(following[target])))
                    break
            else:
                state[name] = 2
                done.append(name)
                path.pop()
    return done[::-1], closing


def _step_of(name: str, node: Any, dt: float, method: str) -> Step:
    """Return what a node does in a step of ``dt``."""
    kind = type(node).__name__

    def number(part: str) -> Tensor:
        return torch.as_tensor(getattr(node, part)).to(torch.float64)

    if kind in ("Input", "Output"):
        return lambda x: x
    if kind in ("Linear", "Affine"):
        weight, bias = number("weight"), number("bias") if kind == "Affine" else torch.zeros(())
        return lambda x: x @ weight.mT + bias
    if kind in ("LI", "LIF"):
        ratio = dt / number("tau")
        share = ratio if method == "euler" else -torch.expm1(-ratio)
        limits = (number("v_threshold"), number("v_reset")) if kind == "LIF" else None
        return _Neuron(share, number("r"), number("v_leak"), limits)
    raise UnsupportedModelError(
        f"node {name!r} is a {kind}, which is not simulated here; known: Input, Output, Linear, Affine, "
        "LI, LIF"
    )


class _Neuron:
    """A leaky integrator, with a threshold or without."""

    def __init__(
        self, share: Tensor, gain: Tensor, rest: Tensor, limits: tuple[Tensor, Tensor] | None
    ) -> None:
        self.share, self.gain, self.rest, self.limits = share, gain, rest, limits
        self.v: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        v = torch.zeros_like(x) if self.v is None else self.v
        self.v = v + self.share * (self.rest + self.gain * x - v)
        if self.limits is None:
            return self.v
        threshold, reset = self.limits
        fired = self.v > threshold
        self.v = torch.where(fired, reset, self.v)
        return fired.to(x)
