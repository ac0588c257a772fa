"""``hoplens explain``: why a trained network said what it said about one sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from torch import Tensor

from hoplens.analysis.attribution import explain
from hoplens.cli.commands.units import assumed_words, check_units
from hoplens.data.arrays import load_arrays, names_of, sequences_of
from hoplens.errors import ParameterError, check_count
from hoplens.files import regular_file
from hoplens.graph.pathways import Pathways
from hoplens.models.readers.models import ModelParts
from hoplens.models.readers.opening import open_parts
from hoplens.reports import explanation as words
from hoplens.reports.explanation import write_page
from hoplens.reports.partners import acting_together

SHOWN = 10


def run_explain(
    console: Console,
    model: str,
    *,
    inputs: Path,
    sample: int,
    rnn: str | None,
    readout: str | None,
    nonlinearity: str | None,
    output: str | None,
    baseline: str,
    out: Path | None,
) -> None:
    """Explain one sample of an .npz file; print the top contributions, write the page to ``out``."""
    check_count("--sample", sample, least=0)
    path = regular_file(model, "safetensors or state_dict file")
    arrays = load_arrays(inputs)
    sequences, names = sequences_of(arrays, inputs), names_of(arrays, inputs)
    if sample >= len(sequences):
        raise ParameterError(
            f"--sample must lie in 0 .. {len(sequences) - 1} for the {len(sequences)} sequences of {inputs}, "
            f"got {sample}"
        )
    # a damaged file is reported before anything else
    parts = open_parts(path, rnn=rnn, readout=readout, nonlinearity=nonlinearity)
    check_units(console, model, rnn=rnn, readout=readout, nonlinearity=nonlinearity, data=inputs)
    why = explain(
        parts,
        sequences[sample : sample + 1],
        output=_output(output, parts, sequences[sample : sample + 1], names),
        baseline=_baseline(baseline, sequences),
        input_names=names.get("input_names"),
        output_names=names.get("output_names"),
    )
    if out is not None:  # before anything is printed: a reader of the output may close it early
        title = f"{path.name}, sample {sample} of {inputs.name}"
        out = write_page(why, out, title=title, together=acting_together(parts, why, 0))
    console.print(f"[bold]{escape(words.opening(why, 0))}[/]", highlight=False)
    console.print(escape(f"{words.timing(why, 0)} {words.meaning(why)}"), highlight=False)
    if parts.info.assumed:
        console.print(assumed_words(parts.info.assumed), markup=False, highlight=False, soft_wrap=True)
    for number, line in enumerate(words.lines(why, 0, SHOWN), start=1):
        colour = "blue" if line.negative else "dark_orange3"
        console.print(
            f"{number:3d}. [{colour}]{line.contribution:>9}[/]  {escape(words.sentence(line))}",
            highlight=False,
            soft_wrap=True,
        )
    units = ", ".join(f"{name} {amount}" for name, amount, _ in words.unit_rows(why, 0, 5))
    if units:
        console.print(f"over hidden units {escape(units)}", highlight=False)
    if out is not None:
        console.print(f"page: {out}", markup=False, highlight=False)


def _output(given: str | None, parts: ModelParts, sequence: Tensor, names: dict[str, list[str]]) -> Any:
    """Return the output named, or the largest one, which is what a classifier predicts."""
    if given is None:
        stack = parts.stack()
        count = 0 if isinstance(stack, Pathways) or stack.w_out is None else stack.w_out.shape[0]
        if count < 2:
            return 0
        many = sequence.expand(count, -1, -1)
        each = explain(parts, many, output=range(count), method="secant")
        return int(each.output.argmax())
    if given in names.get("output_names", []) or not given.lstrip("-").isdigit():
        return given
    return int(given)


def _baseline(given: str, sequences: Tensor) -> Tensor | None:
    if given == "zeros":
        return None
    if given != "mean":
        raise ParameterError(f"--baseline must be zeros or mean (over all sequences), got {given!r}")
    if len(sequences) < 2:
        raise ParameterError("--baseline mean needs a file of several sequences; use zeros")
    return sequences.double().mean(0)


__all__ = ["run_explain"]
