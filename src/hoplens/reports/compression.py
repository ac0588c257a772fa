"""The model card: what the chosen model is, what was measured, how to run it; Markdown and one HTML page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from hoplens.export.exporters import EXPORTERS
from hoplens.models.cells import CellModule, LeakyRNN
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.reports.rendering import render
from hoplens.reports.svg import inline_svg, page_drawing
from hoplens.studies.compression.candidates import ROUNDS, Candidate, TuningSettings
from hoplens.studies.compression.result import Line, Result
from hoplens.studies.compression.search import Choice, file_name
from hoplens.version import __version__

FIGURE = "front.svg"


def verdict(result: Result, choice: Choice, target_size: float, max_loss: float) -> str:
    """Return whether both limits are met, on sequences that the choice has not seen, in two sentences."""
    small, kept = result.keeps(target_size, max_loss)
    size = f"Size {result.size:.1%} of the given model's, limit {target_size:.1%}: {_met(small)}."
    low, high = result.loss.low, result.loss.high
    loss = (
        f"Loss of {result.score_name} {result.loss.mean:.4f} (95 % interval {low:.4f} to {high:.4f}, "
        f"n = {result.n_report}), limit {max_loss:g}: {_met(kept)}."
    )
    rest = "" if choice.met else f" {choice.why[0].upper()}{choice.why[1:]}."
    if choice.met and not kept:
        rest = f" It was within the limit on the {result.n_choose} sequences that the choice was made on."
    return f"{size} {loss}{rest}"


def _met(done: bool) -> str:
    return "met" if done else "not met"


def describe(model: RecurrentModel) -> str:
    """Return the kind and sizes of a network in words."""
    core = model.core
    kind = "leaky RNN" if isinstance(core, LeakyRNN) else type(core).__name__
    layers = f"{core.num_layers} layers" if core.num_layers > 1 else "1 layer"
    ways = ", bidirectional" if core.bidirectional else ""
    sizes = f"{core.input_size} inputs, {core.hidden_size} hidden units, {layers}{ways}"
    return f"{kind}, {sizes}, {model.n_outputs} outputs"


def cells(line: Line) -> dict[str, str]:
    """Return a row's texts."""

    def text(value: float | None) -> str:
        if value is None:
            return ""
        shown = f"{value:,.0f}" if line.unit != "ms" else f"{value:.3g}"
        return f"{shown} {line.unit}".strip()

    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    return {"label": line.label, "before": text(line.before), "after": text(line.after), "ratio": ratio}


def content(
    title: str,
    model: RecurrentModel,
    result: Result,
    choice: Choice,
    settings: TuningSettings,
    *,
    test: str,
    target_size: float,
    max_loss: float,
    files: list[str],
    padded: bool = False,
) -> dict[str, Any]:
    """Return all that the card says."""
    notes = ["Latencies are medians of one run on one machine, one thread, contestants taking turns."]
    if choice.record.nonzero < choice.record.weights:
        notes.append(
            "Single zero weights make files smaller and save events; onnxruntime and PyTorch compute with "
            "them all the same, so they bring no speed."
        )
    for kind, score in result.extra_scores.items():
        exporter = EXPORTERS.get(kind)
        notes.append(
            f"{file_name(exporter)} is {exporter.label}; its {result.score_name} on the held-back "
            f"sequences is {score:.4f}."
        )
    if choice.record.candidate.form != "float32":
        notes.append("The PyTorch file holds the rounded weights as floats.")
    if padded and not model.info.every_step:
        notes.append(
            "The sequences differ in length, and all files read out after the last step they are given: pass "
            "sequences of one length together, without padding, as was done here."
        )
    name = choice.record.name
    return {
        "title": title,
        "summary": f"{describe(model)}. {name[0].upper()}{name[1:]}.",
        "verdict": verdict(result, choice, target_size, max_loss),
        "score_name": result.score_name,
        "n_report": result.n_report,
        "score_before": f"{result.score_before:.4f}",
        "score_after": f"{result.score_after:.4f}",
        "rows": [cells(line) for line in result.lines],
        "notes": " ".join(notes),
        "made": _made(choice, settings, result, test, model.info.assumed),
        "blocks": [block for block in _blocks(model) if block["file"] in files],
        "version": __version__,
        "figure": FIGURE,
    }


def _made(choice: Choice, settings: TuningSettings, result: Result, test: str, assumed: str) -> list[str]:
    candidate: Candidate = choice.record.candidate
    lines = []
    if candidate.window is not None:
        lines.append(f"Only the last {candidate.window} steps of a sequence are run, from a state of zeros.")
    if candidate.structure == "unit":
        lines.append(
            f"{candidate.amount:.0%} of the hidden units were cut out by their pathway scores, "
            f"in {ROUNDS} rounds."
        )
    elif candidate.structure == "weight":
        lines.append(
            f"{candidate.amount:.0%} of the weights of each matrix were set to zero by pathway scores, in "
            f"{ROUNDS} rounds."
        )
    if candidate.form != "float32":
        lines.append(
            f"Weights were rounded to {candidate.form}, one scale a row, fine-tuned through the rounding."
        )
    trained = ", ".join(f"{key} {value:g}" for key, value in asdict(settings).items())
    lines.append(f"Fine-tuning with Adam: {trained}.")
    lines.append(
        f"The sequences of {test} were halved at random by seed {settings.seed}. Chosen among the "
        f"{len(result.table)} files of all candidates on the first half, {result.n_choose} sequences "
        f"({choice.why}); all scores here are of the second half, {result.n_report} sequences."
    )
    return [*lines, *([f"Assumed of the model as given: {assumed}."] if assumed else [])]


def _blocks(model: RecurrentModel) -> list[dict[str, str]]:
    """Return how to load and run each file; ``inputs`` is a float32 tensor (batch, time, I)."""
    window = None if model.info.every_step else model.info.window
    steps = "inputs" if window is None else f"inputs[:, -{window}:]"
    read = "" if model.info.every_step else "[:, -1]"
    of_hoplens = isinstance(model.core, CellModule)
    kind = f"{'hl.models' if of_hoplens else 'nn'}.{type(model.core).__name__}"
    extra = "import hoplens as hl\n" if of_hoplens else ""
    linear = f"{model.readout.in_features}, {model.n_outputs}, bias={model.readout.bias is not None}"
    plain = (
        f"import torch\nfrom torch import nn\n{extra}"
        f'net = nn.ModuleDict({{"core": {kind}({_arguments(model.core)}), "readout": nn.Linear({linear})}})\n'
        'net.load_state_dict(torch.load("model.pt", weights_only=True))\n'
        f'outputs = net["readout"](net["core"]({steps})[0]{read})'
    )
    saved = 'import hoplens as hl\nmodel = hl.load("model.safetensors")\noutputs = model(inputs)'
    onnx = (
        'import onnxruntime\nsession = onnxruntime.InferenceSession("{}")\n'
        'outputs = session.run(["outputs"], {{"inputs": inputs.numpy()}})[0]'
    )
    integers = "model-int8.onnx"
    return [
        {"file": "model.pt", "title": "PyTorch", "code": plain},
        {"file": "model.safetensors", "title": "safetensors, with hoplens", "code": saved},
        {"file": "model.onnx", "title": "ONNX", "code": onnx.format("model.onnx")},
        {"file": integers, "title": "ONNX with integer products", "code": onnx.format(integers)},
    ]


def _arguments(core: nn.Module) -> str:
    sizes = [str(core.input_size), str(core.hidden_size)]
    if isinstance(core, CellModule):
        return ", ".join([*sizes, *(f"{name}={getattr(core, name)!r}" for name in core.options)])
    defaults = {"num_layers": 1, "nonlinearity": "tanh", "bias": True, "bidirectional": False, "proj_size": 0}
    given = {name: getattr(core, name, default) for name, default in defaults.items()}
    changed = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
    return ", ".join([*sizes, *changed, "batch_first=True"])


def render_card(content: dict[str, Any], figure: Figure) -> tuple[str, str]:
    """Return the card as Markdown and as HTML."""
    with page_drawing():
        label = f"{content['score_name']} against size and latency"
        picture = inline_svg(figure, label=label, prefix="front")
    return render("card.md.j2", **content), render("card.html.j2", **content, picture=picture)


__all__ = ["FIGURE", "cells", "content", "render_card", "verdict"]
