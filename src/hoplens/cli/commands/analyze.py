"""``hoplens analyze``: what a trained network or connectome routes where."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hoplens.analysis.analysing import analyze
from hoplens.analysis.summary import FORMATS, Analysis, check_parquet
from hoplens.cli.commands.units import check_units
from hoplens.data.arrays import load_arrays, sequences_of
from hoplens.data.connectome import celegans
from hoplens.errors import FileError, ParameterError, check_choice
from hoplens.files import regular_file, usable_path
from hoplens.graph.pathways import Pathways
from hoplens.models.readers import read
from hoplens.reports import report

EXAMPLE = "celegans"
PLACES = ("raw", "origin", "mean")  # where to linearise
WORM_RADIUS = 0.5  # of synapse counts scaled so that each further synapse counts at most half


def run_analyze(
    console: Console,
    model: str,
    *,
    rnn: str | None,
    readout: str | None,
    inputs: Path | None,
    nonlinearity: str | None,
    at: str | None,
    radius: float | None,
    horizon: int | None,
    out: Path | None,
    table_format: str,
) -> None:
    """Analyse a weights file or a shipped example; print the summary, write all results to ``out``."""
    check_choice("table format", table_format, FORMATS)
    if table_format == "parquet" and out is not None:
        check_parquet()  # before the work, not after it
    if out is not None and usable_path(out).exists() and not out.is_dir():
        raise FileError(f"--out must name a folder, but {out} is a file; choose another name")
    given = {"rnn": rnn, "readout": readout, "nonlinearity": nonlinearity, "at": at}
    analysis = analyze_source(console, model, inputs=inputs, radius=radius, horizon=horizon, **given)
    console.print(analysis.to_text(), markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        written = analysis.write(out, table_format=table_format)
        console.print(f"wrote {len(list(written))} files to {out}", markup=False)
        page = report(analysis, path=out / "report.html", title=Path(model).name)
        console.print(f"report: {page}", markup=False, soft_wrap=True)


def analyze_source(
    console: Console,
    model: str,
    *,
    rnn: str | None,
    readout: str | None,
    inputs: Path | None,
    nonlinearity: str | None,
    at: str | None,
    horizon: int | None,
    radius: float | None = None,
) -> Analysis:
    """Return the analysis of a weights file or a shipped example; options as on the command line."""
    if model == EXAMPLE:
        refuse(
            f"a file of weights, not with the example {model}",
            rnn=rnn, readout=readout, inputs=inputs, nonlinearity=nonlinearity, at=at,
        )  # fmt: skip
        return analyze(_worm(), horizon=horizon, radius=WORM_RADIUS if radius is None else radius)
    path = regular_file(model, f"safetensors or state_dict file, or give {EXAMPLE}")
    if at is not None:
        check_choice("--at", at, PLACES)
    sequences = None
    if inputs is not None:
        sequences = sequences_of(load_arrays(inputs), inputs)
        check_units(console, model, rnn=rnn, readout=readout, nonlinearity=nonlinearity, data=inputs)
    return analyze(
        path,
        readout,
        inputs=sequences,
        horizon=horizon,
        rnn=rnn,
        nonlinearity=nonlinearity,
        at=at,
        radius=radius,
    )


def refuse(goes_with: str, **options: object) -> None:
    """Raise for the first option that is given where it has no meaning."""
    for name, value in options.items():
        if value is not None:
            raise ParameterError(f"--{name} goes with {goes_with}")


def _worm() -> Pathways:
    """Return the worm's wiring from its sensory to its motor neurons."""
    graph = celegans()
    ends = {kind: [n for n in graph if graph.nodes[n]["kind"] == kind] for kind in ("sensory", "motor")}
    return read(graph, input_nodes=ends["sensory"], output_nodes=ends["motor"], attach=True)


__all__ = ["analyze_source", "refuse", "run_analyze"]
