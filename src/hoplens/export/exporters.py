"""The formats that `hoplens export` and `hoplens compress` write: each exporter is one value.

Those of hoplens are listed here; `hoplens.extensions.register_exporter` adds others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoplens.compress.quantisation import Quantised, quantise
from hoplens.errors import ParameterError
from hoplens.export.int8_onnx import Int8Export, export_int8
from hoplens.export.nir_file import NirExport, export_nir
from hoplens.export.nir_simulation import read_nir, simulate_nir
from hoplens.export.onnx_file import OnnxExport, export_onnx, runtime
from hoplens.registry import Registry


def takes_any(made: Any) -> bool:  # noqa: ARG001 - what an exporter asks of a candidate
    """Return True: a format that `hoplens compress` asks to write every candidate.

    Parameters
    ----------
    made : RecurrentModel or Quantised
    """
    return True


@dataclass(frozen=True)
class Exporter:
    """A format that models are written in.

    Attributes
    ----------
    name : str
        What ``hoplens export --format`` calls it.
    suffix : str
        Of its files, e.g. ".onnx".
    label : str
        What tables call a file of it.
    write : callable
        ``(model, path, *, inputs=None, targets=None, **options) -> result``: build the file, compare it with
        the model, on ``inputs`` as well where they are given, and write it; a
        `hoplens.errors.ExportError`, and no file, where they differ.
    open : callable
        ``(path) -> run``: read a file once; ``run(inputs (B, L, I))`` gives its outputs (B, O) or (B, L, O).
    words : callable
        ``(result) -> str``: what was written and how it compares, in a few lines.
    options : tuple of str
        Names of the options of ``write`` that the command line may give.
    takes : callable
        ``(model) -> bool``: whether `hoplens compress` writes its candidates in this format too, measures
        the files and chooses among them; a `Quantised` where weights have few bits. Default yes.
    """

    name: str
    suffix: str
    label: str
    write: Callable[..., Any]
    open: Callable[[Path], Callable[[Tensor], Tensor]]
    words: Callable[[Any], str] = str
    options: tuple[str, ...] = ()
    takes: Callable[[Any], bool] = takes_any


def _open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    session = runtime()(path.read_bytes())
    return lambda x: torch.from_numpy(session.run(["outputs"], {"inputs": x.detach().float().numpy()})[0])


def _open_nir(path: Path) -> Callable[[Tensor], Tensor]:
    graph = read_nir(path)
    told = graph.metadata
    substeps = int(told["substeps"])

    def run(inputs: Tensor) -> Tensor:
        held = inputs.repeat_interleave(substeps, dim=1)
        shown = simulate_nir(graph, held, dt=float(told["dt"]), method=str(told["method"]))
        steps = shown[:, substeps - 1 :: substeps]
        return steps if int(told["every_step"]) else steps[:, -1]

    return run


def _write_onnx(
    model: Any, path: Path, *, inputs: Any = None, targets: Any = None, **more: Any
) -> OnnxExport:
    del targets  # only formats that approximate are scored
    return export_onnx(model, path, inputs=inputs, **more)


def _write_int8(
    model: Any, path: Path, *, inputs: Any = None, targets: Any = None, **more: Any
) -> Int8Export:
    del targets
    if not isinstance(model, Quantised):
        if inputs is None:
            raise ParameterError("integer products need sequences to set scales on; give --data with inputs")
        model = quantise(model, inputs=inputs)
    return export_int8(model, path, inputs=inputs, **more)


def _onnx_words(done: OnnxExport) -> str:
    shapes = ", ".join(str(shape) for shape in done.shapes)
    lines = [
        f"{done.path}: {done.n_bytes} bytes, opset {done.opset}",
        f"in onnxruntime at {shapes} it differs from the model by {done.difference:.1e} (limit 1e-05)",
    ]
    return "\n".join(lines)


def _int8_words(done: Int8Export) -> str:
    return (
        f"{done.path}: {done.n_bytes} bytes, {done.int8_products} of {done.products} products in integers\n"
        f"in onnxruntime it differs from the simulation by {done.difference:.1e} (root mean square); "
        f"rounding itself changes the outputs by {done.rounding:.1e}"
    )


def _nir_words(done: NirExport) -> str:
    nodes = ", ".join(f"{count} {kind}" for kind, count in sorted(done.nodes.items()))
    lines = [f"{done.path}: {done.n_bytes} bytes, {done.form}; nodes: {nodes}"]
    held = f", each input held for {done.substeps} steps" if done.substeps > 1 else ""
    lines.append(f"simulated with dt = {done.dt:g} s ({done.method}){held}")
    lines.append(
        f"outputs differ by at most {done.difference:.1e}; squared error {done.error:.2g} of their variance"
    )
    if done.score_before is not None:
        lines.append(f"on the targets: network {done.score_before:.4f}, file {done.score_after:.4f}")
    return "\n".join(lines)


BUILT_IN = (
    Exporter("onnx", ".onnx", "ONNX", _write_onnx, _open_onnx, _onnx_words, ("lengths", "stateful")),
    Exporter(
        "int8",
        "-int8.onnx",
        "ONNX with integer products",
        _write_int8,
        _open_onnx,
        _int8_words,
        ("stateful",),
        lambda model: isinstance(model, Quantised) and model.form == "int8" and bool(model.grids),
    ),
    # spiking networks approximate, and what they cost is no file size and no time on a CPU
    Exporter("nir", ".nir", "NIR", export_nir, _open_nir, _nir_words, ("dt", "method"), lambda _: False),
)
EXPORTERS: Registry[Exporter] = Registry("format", "hoplens.exporters", {one.name: one for one in BUILT_IN})
