"""Write NIR files that were read back, simulated and compared with the network."""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoplens.compress.tuning import score
from hoplens.errors import ExportError, check_choice, check_count, check_number
from hoplens.export.nir_graph import leaky_cells, linear_graph, spiking_graph
from hoplens.export.nir_simulation import METHODS, load_nir, read_nir, simulate_nir
from hoplens.export.onnx_file import TOLERANCE
from hoplens.export.source import Source, read_source
from hoplens.files import write_atomically
from hoplens.models.recurrent_model import ModelInfo
from hoplens.models.rollout import Batch, run
from hoplens.models.tensors import as_sequences
from hoplens.seeds import generator
from hoplens.version import __version__

SAMPLES = (16, 20)  # random sequences and steps to compare on, where none are given
HEADROOM = 1.1  # populations cover this much more than the largest drive seen
WORST = 0.5  # share of the outputs' variance that a spiking network may miss


@dataclass(frozen=True)
class NirExport:
    """A written NIR file, and how it compares with the network.

    Attributes
    ----------
    path : Path
    n_bytes : int
    form : str
        "exact", or "rate to LIF": an approximation by spiking neurons.
    nodes : dict of str to int
        How many nodes of each type.
    dt : float
        Time step to simulate the file with, in seconds: the network's, divided by ``substeps``.
    substeps : int
        Simulation steps during which each input is held; 1 where exact.
    method : str
        "euler" or "zoh".
    difference : float
        Largest difference of the outputs, divided by max(1, largest output).
    error : float
        Mean squared difference as a share of the variance of the network's outputs.
    score_before, score_after : float or None
        Of the network and of the simulated file on the given targets: accuracy of classes, or 1 minus the
        error's share of the variance.
    """

    path: Path
    n_bytes: int
    form: str
    nodes: dict[str, int]
    dt: float
    substeps: int
    method: str
    difference: float
    error: float
    score_before: float | None = None
    score_after: float | None = None


def export_nir(
    model: Any,
    path: str | Path,
    *,
    readout: Any = None,
    info: ModelInfo | None = None,
    dt: float = 1e-3,
    method: str = "euler",
    neurons: int = 32,
    substeps: int = 32,
    inputs: Any = None,
    targets: Any = None,
) -> NirExport:
    """Write a leaky network as NIR, the neuromorphic intermediate representation; read back and compared.

    Networks of linear units are exact: NIR's leaky integrator (LI) with ``tau = dt / a``. NIR has no tanh or
    relu, so other networks become an approximation that is said and measured: each unit a population of LIF
    neurons whose spikes decode to f (see `hoplens.export.nir_graph`). Where the file ends up is simulated
    with `simulate_nir`, each input held for ``substeps`` steps, before it is written.

    Parameters
    ----------
    model : LeakyRNN, RecurrentModel of one, nn.RNN, Ensemble of one, Stack, ...
        Units that keep part of their state (leak below 1) make better spiking networks: a unit without leak
        has no memory to smooth spikes with.
    path : str or Path
    readout : nn.Linear, 1-wide nn.Conv1d or matrix (O, H), optional
    info : ModelInfo, optional
        Default that of a RecurrentModel. Its window and names are written into the file's metadata.
    dt : float, default 1e-3
        Seconds that one time step of the network lasts.
    method : {"euler", "zoh"}
        How time constants follow from leaks and how the file is meant to be simulated: ``tau = dt / a``, or
        ``tau = -dt / log(1 - a)``, exact while the drive of a unit is held.
    neurons : int, default 32
        LIF neurons a unit.
    substeps : int, default 32
        Simulation steps a time step of a spiking network.
    inputs : Tensor, shape (B, L, I), optional
        Sequences to compare on, and to find the range of each unit with; default random normal numbers.
    targets : Tensor, shape (B,) of class numbers or (B, O), optional
        Of these inputs: what ``score_before`` and ``score_after`` are measured against.

    Returns
    -------
    NirExport

    Raises
    ------
    ExportError
        If an exact file differs by more than 1e-5, or a spiking one misses more than half of the outputs'
        variance. Nothing is written then.
    UnsupportedModelError, ParameterError, ShapeError
        If the network or the options do not go with NIR.
    FileError
        If the file cannot be written.
    """
    nir = load_nir()
    check_choice("method", method, METHODS)
    check_number("dt", dt, above=0.0)
    check_count("neurons", neurons, least=2)
    check_count("substeps", substeps)
    source = read_source(model, readout, info)
    exact = all(cell.nonlinearity == "linear" for cell in leaky_cells(source))
    x = _samples(source, inputs)
    if exact:
        graph, substeps = linear_graph(source, dt=dt, method=method), 1
    else:
        sizes = {"neurons": neurons, "substeps": substeps}
        graph = spiking_graph(source, _drives(source, x), dt=dt, method=method, **sizes)
    graph.metadata = _metadata(source, exact, dt, substeps, method)
    draft = io.BytesIO()
    nir.write(draft, graph)
    data = draft.getvalue()
    back = read_nir(data)
    if source.info.window is not None:
        x = x[:, -source.info.window :]
    found = simulate_nir(back, x.repeat_interleave(substeps, dim=1), dt=dt / substeps, method=method)
    found = found[:, substeps - 1 :: substeps]
    wanted = source.outputs(x)
    found = found if source.info.every_step else found[:, -1]
    difference, error = _compare(found, wanted)
    if exact and not difference <= TOLERANCE:
        raise ExportError(f"the NIR file differs from the network by {difference:.2g}, so it was not written")
    if not exact and not error <= WORST:
        raise ExportError(
            f"the spiking network misses {error:.0%} of the variance of the outputs, so it was not written; "
            "take more neurons or substeps, or train with a smaller leak"
        )
    given = None if targets is None else torch.as_tensor(targets)
    before, after = (None, None) if given is None else (score(wanted, given), score(found, given))
    return NirExport(
        write_atomically(path, data),
        len(data),
        "exact" if exact else "rate to LIF",
        dict(Counter(type(node).__name__ for node in back.nodes.values())),
        dt / substeps,
        substeps,
        method,
        difference,
        error,
        before,
        after,
    )


def _samples(source: Source, given: Any) -> Tensor:
    if given is None:
        draw = generator("samples", 0)
        return torch.randn(*SAMPLES, source.stack.n_inputs, generator=draw)
    return as_sequences(given, source.stack.n_inputs).cpu().to(torch.float32)


def _drives(source: Source, x: Tensor) -> list[Tensor]:
    """Return the largest ``|W h + W_in x + b|`` of every unit along the sequences, with some headroom."""
    stack = source.stack.to(torch.float32)
    points = run(stack, Batch(x, torch.full((len(x),), x.shape[1]))).points
    found = []
    for cell, (state, entering) in zip(leaky_cells(source), points, strict=True):
        plain = cell.to(torch.float32)
        drive = entering @ plain.w_ih.mT + state @ plain.w_hh.mT + plain.b_ih + plain.b_hh
        found.append(HEADROOM * drive.detach().abs().amax(dim=(0, 1)))
    return found


def _metadata(source: Source, exact: bool, dt: float, substeps: int, method: str) -> dict[str, Any]:
    info = source.info
    told: dict[str, Any] = {
        "hoplens_version": __version__,
        "form": "exact" if exact else "rate to LIF",
        "dt": dt / substeps,
        "substeps": substeps,
        "method": method,
        "convention": "v' = v + a (u - v); a = dt / tau (euler) or 1 - exp(-dt / tau) (zoh); a spike is 1 "
        "for one step; recurrent edges hand on the step before; each input is held for all substeps",
        "every_step": int(info.every_step),
    }
    optional = {
        "assumed": info.assumed or None,
        "window": info.window,
        "input_mean": info.input_mean,
        "input_scale": info.input_scale,
    }
    told.update({key: value for key, value in optional.items() if value is not None})
    for key in ("input_names", "output_names"):
        if getattr(info, key) is not None:
            told[key] = "\n".join(getattr(info, key))
    return told


def _compare(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    found, wanted = found.double(), wanted.detach().double()
    largest = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))
    squared = float((found - wanted).square().mean())
    spread = float((wanted - wanted.mean(dim=0)).square().mean())
    error = squared / spread if spread > 0 else (0.0 if squared == 0 else math.inf)
    return (largest, error) if math.isfinite(largest) else (math.inf, math.inf)
