"""``hoplens report``: one page about a study, a training run or a trained network."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hoplens.analysis.summary import analyze
from hoplens.cli.commands.analyze import analyze_source
from hoplens.errors import FileError, ParameterError
from hoplens.files import usable_path
from hoplens.reports import write_network_report, write_study_report
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
    horizon: int | None,
    nonlinearity: str | None = None,
    at: str | None = None,
) -> None:
    """Write the page of a result folder, or of a file of weights or example that `analyze` takes."""
    folder = usable_path(source)
    if folder.is_dir():
        given = {"--rnn": rnn, "--readout": readout, "--inputs": inputs, "--horizon": horizon}
        given |= {"--nonlinearity": nonlinearity, "--at": at}
        for option, value in given.items():
            if value is not None:
                raise ParameterError(f"{option} goes with a file of weights, but {source} is a result folder")
        page = write_folder_report(folder, out)
    else:
        found = analyze_source(
            console,
            source,
            rnn=rnn,
            readout=readout,
            inputs=inputs,
            horizon=horizon,
            nonlinearity=nonlinearity,
            at=at,
        )
        page = write_network_report(found, out, title=folder.name)
    console.print(f"report: {page}", markup=False, soft_wrap=True)


def write_folder_report(folder: Path, out: Path) -> Path:
    """Write the page of a study or of a training run."""
    refuse_old(folder)
    if (folder / DATABASE).is_file():
        return write_study_report(load_results(folder), out)
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
    found = analyze(run.pathways[run.best], horizon=run.horizon)
    shown = [name for name in SHOWN_MEASURES if name in run.networks.columns]
    return write_network_report(found, out, title=run.title, measures=run.networks[shown])


__all__ = ["run_report", "write_folder_report", "write_run_report"]
