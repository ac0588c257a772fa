"""NIR graphs of leaky networks: exact where the units are linear, populations of spiking neurons elsewhere.

A leaky unit ``h' = (1 - a) h + a f(u)``, ``u = W h + W_in x + b``, is a step of ``tau dh/dt = -h + f(u)``:

    tau = dt / a               the Euler step, method="euler"
    tau = -dt / log(1 - a)     the exact step while u is held, method="zoh"; needs a < 1

With f the identity this is NIR's leaky integrator (LI), and the graph computes what the network computes.
NIR has no graded nonlinearity, so tanh and relu are approximated: the f of each unit is decoded from the
spikes of a population of leaky integrate-and-fire neurons (LIF) that is driven by u, as in the Neural
Engineering Framework (Eliasmith and Anderson 2003). The leaky integrator that follows smooths the spikes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoplens.errors import ParameterError, UnsupportedModelError
from hoplens.export.nir_simulation import load_nir
from hoplens.export.source import Source
from hoplens.models.cells import TENSORS, RnnCell

GRID = 201  # drives at which a population's response is fitted
RIDGE = 1e-3  # of the fit, times the largest response: spikes are noisy, so weights must stay small
MOST_EVERY = 2  # the fastest neuron of a population fires every second step
MEMBRANE = 8.0  # time constant of a LIF neuron in simulation steps
SETTLING = 2000  # simulated steps that a response curve is counted over


@dataclass(frozen=True)
class Population:
    """Neurons that stand for the nonlinearity of every unit of one level.

    ``encoder`` (H, n): current into each neuron by the drive u of its unit. ``bias`` (H, n): its current at
    u = 0. ``decoder`` (H, n): what a spike in one step adds to the decoded f(u).
    """

    encoder: Any
    bias: Any
    decoder: Any


def leaky_cells(source: Source) -> list[RnnCell]:
    """Return the cells, one a level; refuse what a network of leaky integrators cannot be."""
    if source.stack.bidirectional:
        raise UnsupportedModelError(
            "NIR runs forward in time; a bidirectional network cannot be exported to it"
        )
    cells = [cell for cell in source.stack.cells if isinstance(cell, RnnCell)]
    if len(cells) < len(source.stack.cells):
        raise UnsupportedModelError(
            "NIR has leaky integrators and spiking neurons, but no gates: a "
            f"{source.stack.label} cannot become NIR; use export_onnx, or train a LeakyRNN"
        )
    return cells


def time_constants(cell: RnnCell, dt: float, method: str) -> Any:
    """Return tau of every unit, (H,), so that one step of ``dt`` renews the share a."""
    leak = torch.as_tensor(cell.leak).to(torch.float64).expand(cell.hidden).numpy()
    if method == "euler":
        return dt / leak
    if (leak >= 1).any():
        raise ParameterError(
            'a unit that keeps nothing of its state (leak 1) has no time constant under method="zoh"; use '
            'method="euler"'
        )
    return -dt / np.log1p(-leak)


def linear_graph(source: Source, *, dt: float, method: str) -> Any:
    """Return the exact NIR graph of a network of linear leaky units."""
    nir = load_nir()
    nodes, edges = _ends(source)
    below = "input"
    for number, cell in enumerate(leaky_cells(source)):
        enter, unit, back = f"l{number}_in", f"l{number}", f"l{number}_rec"
        nodes[enter] = nir.Affine(_array(cell.w_ih), _array(cell.b_ih + cell.b_hh))
        nodes[unit] = _integrator(cell, dt, method)
        nodes[back] = nir.Linear(_array(cell.w_hh))
        edges += [(below, enter), (enter, unit), (unit, back), (back, unit)]
        below = unit
    return _finish(source, nodes, edges, below)


def spiking_graph(
    source: Source, drives: list[Tensor], *, dt: float, method: str, neurons: int, substeps: int
) -> Any:
    """Return a NIR graph whose units are populations of LIF neurons, for time steps of ``dt / substeps``.

    ``drives`` (H,): largest ``|u|`` that each unit of each level should meet. ``dt``: a time step of the
    network. ``neurons``: LIF neurons a unit, n. ``substeps``: simulation steps a time step of the network.
    """
    nir = load_nir()
    nodes, edges = _ends(source)
    below, fine = "input", dt / substeps
    for number, (cell, largest) in enumerate(zip(leaky_cells(source), drives, strict=True)):
        crowd = population(cell.nonlinearity, largest.double().numpy(), neurons, method)
        enter, spikes, decode, unit, back = (
            f"l{number}_{part}" for part in ("in", "spikes", "decode", "state", "rec")
        )
        encoder, h = crowd.encoder[..., None], cell.hidden
        bias = _double(cell.b_ih + cell.b_hh)[:, None] * crowd.encoder + crowd.bias
        nodes[enter] = nir.Affine(
            _flat(encoder * _double(cell.w_ih)[:, None]), bias.reshape(-1).astype(np.float32)
        )
        nodes[back] = nir.Linear(_flat(encoder * _double(cell.w_hh)[:, None]))
        full = np.ones(h * neurons, np.float32)
        nodes[spikes] = nir.LIF(full * MEMBRANE * fine, full, 0 * full, full, 0 * full)
        spread = np.zeros((h, h, neurons))
        spread[np.arange(h), np.arange(h)] = crowd.decoder
        nodes[decode] = nir.Linear(spread.reshape(h, -1).astype(np.float32))
        # the time constant that belongs to a whole step of the network, whatever the finer steps
        nodes[unit] = _integrator(cell, dt, method)
        edges += [
            (below, enter),
            (enter, spikes),
            (spikes, decode),
            (decode, unit),
            (unit, back),
            (back, spikes),
        ]
        below = unit
    return _finish(source, nodes, edges, below)


def population(nonlinearity: str, largest: Any, neurons: int, method: str) -> Population:
    """Return neurons whose spikes decode to f(u) for ``|u| <= largest``, least squares on their own curves.

    Encoders point up and down in turn; the drives at which neurons begin to fire are spread evenly.
    """
    sign = np.where(np.arange(neurons) % 2 == 0, 1.0, -1.0)
    start = np.linspace(-1.0, 0.9, neurons) * sign  # in shares of the largest drive
    drive = np.linspace(-1.0, 1.0, GRID)
    # current 1 at the start of firing, and so much at full drive that it fires every second step
    share = 1 / MEMBRANE if method == "euler" else -math.expm1(-1 / MEMBRANE)
    full = 1.02 / (1 - (1 - share) ** MOST_EVERY)
    slope = (full - 1.0) / (1.0 - start * sign)  # by the drive in the neuron's own direction
    current = 1.0 + slope * (drive[:, None] * sign - start * sign)  # (GRID, n)
    rates = _rates(current, share)
    largest = np.maximum(np.asarray(largest, dtype=np.float64), 1e-6)
    wanted = TENSORS.apply(nonlinearity, torch.as_tensor(drive[:, None] * largest)).numpy()  # (GRID, H)
    gram = rates.T @ rates
    ridge = RIDGE * GRID * (rates.max() ** 2) * np.eye(neurons)
    decoder = np.linalg.solve(gram + ridge, rates.T @ wanted).T  # (H, n)
    offset = np.broadcast_to(1.0 - slope * start * sign, decoder.shape)
    return Population((slope * sign)[None] / largest[:, None], offset, decoder)


def _rates(current: Any, share: float) -> Any:
    """Return spikes a step of a LIF neuron (threshold 1, reset 0) under steady currents, by running it."""
    v, count = np.zeros_like(current), np.zeros_like(current)
    for _ in range(SETTLING):
        v += share * (current - v)
        fired = v > 1.0
        count += fired
        v[fired] = 0.0
    return count / SETTLING


def _integrator(cell: RnnCell, dt: float, method: str) -> Any:
    tau = time_constants(cell, dt, method).astype(np.float32)
    return load_nir().LI(tau, np.ones_like(tau), np.zeros_like(tau))


def _ends(source: Source) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    nir = load_nir()
    return {"input": nir.Input(np.array([source.stack.n_inputs]))}, []


def _finish(source: Source, nodes: dict[str, Any], edges: list[tuple[str, str]], below: str) -> Any:
    nir = load_nir()
    if source.stack.w_out is not None:
        weight = _array(source.stack.w_out)
        offset = np.zeros(len(weight), np.float32) if source.offset is None else _array(source.offset)
        nodes["readout"] = nir.Affine(weight, offset)
        edges.append((below, "readout"))
        below = "readout"
    nodes["output"] = nir.Output(np.array([source.n_outputs]))
    return nir.NIRGraph(nodes=nodes, edges=[*edges, (below, "output")])


def _array(tensor: Tensor) -> Any:
    return tensor.detach().to(torch.float32).numpy()


def _double(tensor: Tensor) -> Any:
    return tensor.detach().double().numpy()


def _flat(blocks: Any) -> Any:
    """Turn (H, n, m) into (H n, m)."""
    return np.ascontiguousarray(blocks.reshape(-1, blocks.shape[-1]), dtype=np.float32)
