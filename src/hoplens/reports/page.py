"""The page: one HTML file that holds its data, its scripts and its style, and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hoplens.analysis.analysing import analyze
from hoplens.analysis.summary import Analysis
from hoplens.errors import ParameterError
from hoplens.files import write_atomically
from hoplens.plots.style import method_label, method_styles
from hoplens.reports import figures, tables, theme
from hoplens.reports.network import NetworkPart, network_part, study_part
from hoplens.reports.prose import network_paragraph, network_tiles
from hoplens.reports.rendering import render, script_json
from hoplens.reports.study import duels, leaders, with_targets
from hoplens.reports.verdict import tiles, verdict
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics.purposes import BEST
from hoplens.training.result import TrainingResult

BIG = 24  # inputs from which the map needs the whole width
VENDOR = "vendor/echarts.min.js"
SCRIPTS = ("core.js", "network.js", "hops.js", "controls.js", "graph.js", "study.js", "dots.js")


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
        File to write; its folder must exist. An old page is replaced only once the new one is whole.
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
    trained = isinstance(model, TrainingResult)
    done = isinstance(model, Analysis | StudyResults)
    if done and any(given is not None for given in (readout, inputs, lengths, horizon)):
        raise ParameterError(f"a {type(model).__name__} is analysed already; give path= and title= alone")
    measures = None
    if trained:
        measures, horizon = model.metrics, model.length if horizon is None else horizon
        title = title or f"{measures['method'].iloc[model.best]}, network {model.best}"
        model = model.model() if inputs is not None else model.pathways[model.best]
    if not done:
        model = analyze(model, readout, inputs=inputs, lengths=lengths, horizon=horizon)
    if isinstance(model, Analysis):
        return write_network_report(model, path, title=title, measures=measures)
    return write_atomically(path, render_study_report(model).encode())


def write_network_report(
    analysis: Analysis, path: str | os.PathLike[str], *, title: str = "", measures: Any = None
) -> Path:
    """Write the report of one network, with a table of the ``measures`` of all of its training run."""
    return write_atomically(path, render_network_report(analysis, title=title, measures=measures).encode())


def render_network_report(analysis: Analysis, *, title: str = "", measures: Any = None) -> str:
    """Return the report of one network as HTML text."""
    part = network_part(analysis)  # first: it checks the numbers
    return _render(
        part,
        [],
        kind="network",
        title=title or "What this network routes",
        paragraph=network_paragraph(analysis),
        tiles=network_tiles(analysis),
        importance=analysis.importance_of,
        measures=[] if measures is None else tables.plain_rows(measures),
    )


def render_study_report(results: StudyResults) -> str:
    """Return a study's report as HTML text.

    It states, from the top: a verdict in words; hop maps of one network of each method; the recommended
    recipe against the better of L1 and the paper's recipe; every method on every task with 95 % intervals;
    figures; the ablation; the paper's numbers; all aims, met or missed; how it was run; what the measures
    mean. A frame without rows leaves a line that says so. Methods are compared at their best strengths.
    """
    results = results.at(BEST)
    groups = figures.figure_groups(results)
    # of a study that has nothing for a verdict, which methods lead
    lead = "" if duels(results) or len(results.anchors) else leaders(results.summary)
    return _render(
        study_part(results),
        groups,
        kind="study",
        title="What the study found",
        paragraph=lead or verdict(results),
        tiles=tiles(results),
        duels=duels(results),
        summary=tables.summary_table(with_targets(results.summary, results.networks)),
        groups=groups,
        ablation=tables.summary_table(with_targets(results.ablation, results.networks)),
        anchors=tables.records(results.anchors),
        # missed ones first: they are what a reader must not overlook
        aims=sorted(tables.records(results.aims), key=lambda aim: bool(aim["met"])),
        settings=dict(results.settings),
        notes=tables.network_notes(results.networks),
        definitions=tables.definitions(results),
    )


def _render(part: NetworkPart | None, drawings: list[figures.Group], **content: Any) -> str:
    drawn = [*_network_figures(part), *(figure for group in drawings for figure in group.figures)]
    keys = ("kind", "title", "label", "data")
    data = {
        "themes": {mode: theme.script_colours(dark=mode == "dark") for mode in ("light", "dark")},
        "views": [] if part is None else part.views,
        "view": 0 if part is None else len(part.views) - 1,
        "graph": None if part is None else part.graph,
        "fidelity": None if part is None else part.fidelity,
        "methods": _methods(drawn),
        "figures": {figure.key: {key: getattr(figure, key) for key in keys} for figure in drawn},
    }
    glue = "\n".join(_asset(f"assets/{name}") for name in SCRIPTS)
    # our own files: they hold no "</script", which a test checks
    scripts = {
        "vendor": Markup(_asset(VENDOR)),
        "glue": Markup(f'(() => {{\n"use strict";\n{glue}\nstart();\n}})();'),
    }
    return render(
        "page.html.j2",
        **content,
        part=part,
        big=part is not None and max(len(view["inputs"]) for view in part.views) > BIG,
        data=script_json(data),
        scripts=scripts,
        hashes=Markup(" ").join(_hash(text) for text in scripts.values()),
    )


def _network_figures(part: NetworkPart | None) -> list[figures.Figure]:
    if part is None:
        return []
    names = [("map", "The map at one hop"), ("graph", "Routing graph"), ("hops", "Influence by hop")]
    names += [("overview", "All hops"), *([("fidelity", "Fidelity by hop")] if part.fidelity else [])]
    return [figures.Figure(name, name, title, title) for name, title in names]


def _methods(drawn: list[figures.Figure]) -> dict[str, Any]:
    """Return label, colour and marker of every method that a figure shows."""
    rows = [
        row
        for figure in drawn
        for row in [
            *figure.data.get("lines", ()),
            *(row for task in figure.data.get("tasks", ()) for row in task["rows"]),
        ]
    ]
    return {
        name: {"label": method_label(name), "color": style.color, "symbol": f"path://{theme.outline(style)}"}
        for name, style in method_styles(row["method"] for row in rows).items()
    }


@cache
def _asset(name: str) -> str:
    return files("hoplens.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> Markup:
    """Return the hash by which the page allows a script; a script that got in by a name is not run."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


__all__ = ["render_network_report", "render_study_report", "report", "write_network_report"]
