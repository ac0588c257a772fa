"""Latency before and after compression: batch 1 step by step, and batch 64 at once, side by side.

Models of 128 units (16 inputs, 8 outputs, sequences of 64 steps), with random weights: latency does not
depend on what they compute. Each is run as it is, with 90 % of its recurrent weights zero but stored
densely, with a quarter of its units, with its last 16 steps only, and in int8; in PyTorch (eager) and in
onnxruntime, one thread each. All contestants of a mode take turns, round by round.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from contest import contest, run, spread, summary, table
from torch import nn

import hoplens as hl
from hoplens.export.onnx_integers import count_products

HIDDEN, N_INPUTS, N_OUTPUTS, LENGTH, BATCH = 128, 16, 8, 64, 64
UNITS, WINDOW, ZEROS = 32, 16, 0.9
WHOLE, UNSTRUCTURED = "whole", f"{ZEROS:.0%} zeros, unstructured"
NO_SPEED = 0.9  # an upper quartile of the ratio above this is no gain worth the name
KINDS: dict[str, type[nn.RNNBase]] = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
Models = dict[str, hl.RecurrentModel | hl.compress.Quantised]


def models(kind: str, inputs: torch.Tensor) -> Models:
    """Return the contestants of one kind of core."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        core = KINDS[kind](N_INPUTS, HIDDEN, batch_first=True)
        whole = hl.RecurrentModel(core, nn.Linear(HIDDEN, N_OUTPUTS)).eval()
    few = inputs[:8]
    small = hl.reduce(whole, UNITS, inputs=few).model
    return {
        WHOLE: whole,
        UNSTRUCTURED: hl.prune(whole, ZEROS, by="magnitude").model,
        f"{UNITS} of {HIDDEN} units": small,
        f"last {WINDOW} of {LENGTH} steps": hl.truncate(whole, WINDOW),
        "int8": hl.quantise(whole, inputs=few, scales="minmax"),
        f"int8, {UNITS} units": hl.quantise(small, inputs=few, scales="minmax"),
    }


def rows(kind: str, seconds: float) -> list[list[str]]:
    """Return table rows of one kind of core."""
    inputs = torch.randn(BATCH, LENGTH, N_INPUTS, generator=torch.Generator().manual_seed(1))
    frame = hl.export.measure_latency(models(kind, inputs), inputs, reference=WHOLE, seconds=seconds / 2)
    found = []
    for row in frame.itertuples():
        verdict = ""
        if row.model == UNSTRUCTURED:
            verdict = "no speed" if row.ratio_high > NO_SPEED else "faster"
        found.append(
            [
                kind,
                row.mode,
                row.model,
                row.runtime,
                f"{row.ms:.3f} [{row.ms_low:.3f}, {row.ms_high:.3f}]",
                f"{row.ratio:.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}]",
                verdict,
            ]
        )
    return found


def routes(kind: str, folder: Path, seconds: float) -> list[str]:
    """Return what each way to int8 makes of a model in onnxruntime: products in int8, time, ratio."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    inputs = torch.randn(BATCH, LENGTH, N_INPUTS, generator=torch.Generator().manual_seed(1))
    named = models(kind, inputs)
    files = {name: folder / f"{kind}-{name}.onnx" for name in ("float32", "quantize_dynamic", "ours")}
    hl.export_onnx(named[WHOLE], files["float32"])
    logging.disable(logging.WARNING)  # it advises to pre-process a graph that needs none
    quantize_dynamic(files["float32"], files["quantize_dynamic"], weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)
    hl.export_int8(named["int8"], files["ours"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for name, file in files.items()
    }
    feed = {"inputs": inputs.numpy()}
    turns = {name: (lambda s=session: s.run(None, feed)) for name, session in sessions.items()}
    done = summary(contest(turns, seconds=seconds), "float32")
    cells = [kind]
    for name, file in files.items():
        integers, products = count_products(onnx.load(file).graph)
        ratio = "" if name == "float32" else f", {spread(done[name])}"
        cells.append(f"{integers} of {products}, {file.stat().st_size} bytes{ratio}")
    return cells


def report(seconds: float = 50.0, *, full: bool = False) -> str:
    """Return the Markdown tables.

    Parameters
    ----------
    seconds : float
        About how long to measure.
    full : bool
        No difference.
    """
    del full
    each = seconds / len(KINDS)
    lines = [line for kind in KINDS for line in rows(kind, 0.75 * each)]
    head = ["core", "mode", "model", "runtime", "ms [quartiles]", "ratio to whole [quartiles]", ""]
    note = "stream: one step, batch 1, state carried (with a window: its last steps); batch: 64 sequences. "
    note += "int8 is compared with the whole model in onnxruntime in float32.\n\n"
    with tempfile.TemporaryDirectory() as folder:
        ways = [routes(kind, Path(folder), 0.25 * each) for kind in KINDS]
    said = "\nProducts in int8, file size, and time as a ratio to float32 (batch 64) of two ways to int8:\n\n"
    return (
        note
        + table(head, lines)
        + said
        + table(["core", "float32", "onnxruntime's quantize_dynamic", "export_int8"], ways)
    )


if __name__ == "__main__":
    run(report, __doc__, seconds=120.0)
