"""A page of anything that hoplens knows, in one call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hoplens.analysis.summary import Analysis, analyze
from hoplens.errors import ParameterError
from hoplens.reports.page import write_network_report, write_study_report
from hoplens.studies.comparison.results import StudyResults
from hoplens.training.result import TrainingResult


def report(
    model: Any,
    readout: Any = None,
    *,
    path: str | os.PathLike[str],
    inputs: Any = None,
    lengths: Any = None,
    horizon: int | None = None,
    title: str = "",
) -> Path:
    """Write a self-contained HTML page of a model, a training run, an analysis or a study.

    Parameters
    ----------
    model : model, Pathways, Analysis, TrainingResult or study
        What `hoplens.analyze` takes or returns; what `hoplens.train` returns (the page shows its network of
        least test error, and the measures of all); the tables of a study.
    readout : nn.Linear, matrix or prefix in a file, optional
        After a bare core.
    path : path
        File to write; its folder must exist.
    inputs : Tensor (B, L, I) or PackedSequence, optional
        Sequences to judge the weights by.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end.
    horizon : int, optional
        Time steps considered; see `hoplens.analyze`.
    title : str, optional
        What the page calls the network.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    FileError
        If the file cannot be written.
    ParameterError
        If ``inputs`` come beside what was analysed already.
    """
    done = isinstance(model, Analysis) or (
        isinstance(model, StudyResults) and not isinstance(model, TrainingResult)
    )
    if done and any(given is not None for given in (readout, inputs, lengths, horizon)):
        raise ParameterError(f"a {type(model).__name__} is analysed already; give path= and title= alone")
    if isinstance(model, Analysis):
        return write_network_report(model, path, title=title)
    measures = None
    if isinstance(model, TrainingResult):
        measures, horizon = model.metrics, model.length if horizon is None else horizon
        title = title or f"{measures['method'].iloc[model.best]}, network {model.best}"
        model = model.model() if inputs is not None else model.pathways[model.best]
    elif done:
        return write_study_report(model, path)
    found = analyze(model, readout, inputs=inputs, lengths=lengths, horizon=horizon)
    return write_network_report(found, path, title=title, measures=measures)


__all__ = ["report"]
