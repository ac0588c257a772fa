"""``hoplens report``: one page about a study, a training run or a trained network."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hoplens.analysis.analysing import analyze
from hoplens.cli.commands.analyze import analyze_source, refuse
from hoplens.errors import FileError
from hoplens.files import usable_path
from hoplens.reports import report, write_network_report
from hoplens.studies.comparison.running import load_results, refuse_old
from hoplens.studies.runs import RUN_MARK, load_run
from hoplens.studies.sweeps.store import DATABASE

SHOWN_MEASURES = (
    "seed",
    "strength",
    "test_error",
    "accuracy",
    "alignment",
    "active_hops",
    "kept_70",
    "kept_90",
)


def run_report(
    console: Console,
    source: str,
    *,
    out: Path,
    rnn: str | None,
    readout: str | None,
    inputs: Path | None,
    nonlinearity: str | None,
    at: str | None,
    horizon: int | None,
) -> None:
    """Write the page of a result folder, or of a file of weights or example that `analyze` takes."""
    folder = usable_path(source)
    given = {"rnn": rnn, "readout": readout, "nonlinearity": nonlinearity, "at": at}
    if folder.is_dir():
        refuse(f"a file of weights, but {source} is a result folder", inputs=inputs, horizon=horizon, **given)
        page = write_folder_report(folder, out)
    else:
        analysis = analyze_source(console, source, inputs=inputs, horizon=horizon, radius=None, **given)
        page = report(analysis, path=out, title=folder.name)
    console.print(f"report: {page}", markup=False, soft_wrap=True)


def write_folder_report(folder: Path, out: Path) -> Path:
    """Write the page of a study or of a training run."""
    refuse_old(folder)
    if (folder / DATABASE).is_file():
        return report(load_results(folder), path=out)
    if (folder / RUN_MARK).is_file():
        return write_run_report(folder, out)
    held = "is empty" if not any(folder.iterdir()) else "holds no run of hoplens"
    raise FileError(
        f"{folder} {held}; give a folder written by `hoplens reproduce` or `hoplens train --out`, or a "
        "file of weights"
    )


def write_run_report(folder: Path, out: Path) -> Path:
    """Write the page of a training run: the network of least test error, and the measures of all."""
    run = load_run(folder)
    analysis = analyze(run.pathways[run.best], horizon=run.horizon)
    shown = [name for name in SHOWN_MEASURES if name in run.networks.columns]
    return write_network_report(analysis, out, title=run.title, measures=run.networks[shown])


__all__ = ["run_report", "write_folder_report", "write_run_report"]
