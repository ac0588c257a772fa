"""``hoplens export``: a trained network as ONNX or NIR."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hoplens.cli.commands.units import assumed_words, check_units
from hoplens.data.arrays import load_arrays, sequences_of
from hoplens.errors import ParameterError, check_choice
from hoplens.export import NirExport, OnnxExport, export_nir, export_onnx
from hoplens.models.readers.opening import read_model

FORMATS = ("onnx", "nir")
DT, METHOD = 1e-3, "euler"  # defaults of the command line


def run_export(
    console: Console,
    model: str,
    *,
    out: Path,
    file_format: str | None,
    data: Path | None,
    rnn: str | None,
    readout: str | None,
    nonlinearity: str | None,
    every_step: bool,
    lengths: bool,
    stateful: bool,
    storage: str,
    dt: float,
    method: str,
) -> None:
    """Write the file and say how it compares with the model."""
    kind = check_choice("format", file_format or out.suffix.lstrip(".").lower(), FORMATS)
    for option, given in (("--lengths", lengths), ("--stateful", stateful), ("--storage", storage != "auto")):
        if given and kind != "onnx":
            raise ParameterError(f"{option} goes with --format onnx")
    for option, given in (("--dt", dt != DT), ("--method", method != METHOD)):
        if given and kind != "nir":
            raise ParameterError(f"{option} goes with --format nir")
    own = read_model(
        model,
        rnn=rnn,
        readout=readout,
        nonlinearity=nonlinearity,
        every_step=True if every_step else None,
    )
    if data is not None:
        check_units(console, model, rnn=rnn, readout=readout, nonlinearity=nonlinearity, data=data)
    arrays = None if data is None else load_arrays(data)
    inputs = None if arrays is None or data is None else sequences_of(arrays, data)
    assumed = f"\n{assumed_words(own.info.assumed)}" if own.info.assumed else ""
    if kind == "onnx":
        onnx = export_onnx(own, out, lengths=lengths, stateful=stateful, storage=storage, inputs=inputs)
        console.print(onnx_words(onnx) + assumed, markup=False, highlight=False, soft_wrap=True)
        return
    targets = None if arrays is None else arrays.get("targets")
    nir = export_nir(own, out, dt=dt, method=method, inputs=inputs, targets=targets)
    console.print(nir_words(nir) + assumed, markup=False, highlight=False, soft_wrap=True)


def onnx_words(done: OnnxExport) -> str:
    """Return what was written and checked, in two lines."""
    shapes = ", ".join(str(shape) for shape in done.shapes)
    lines = [
        f"{done.path}: {done.n_bytes} bytes, opset {done.opset}, storage {done.storage}",
        f"in onnxruntime at {shapes} it differs from the model by {done.difference:.1e} (limit 1e-05)",
    ]
    if done.rounding:
        lines.append(f"half precision itself changes the outputs by {done.rounding:.1e}")
    return "\n".join(lines)


def nir_words(done: NirExport) -> str:
    """Return what was written and how it compares, in a few lines."""
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


__all__ = ["nir_words", "onnx_words", "run_export"]
