"""The page: one HTML file that holds its data, its scripts and its style, and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hoplens.analysis.summary import Analysis
from hoplens.errors import ParameterError
from hoplens.files import write_atomically
from hoplens.plots.methods import method_label
from hoplens.plots.style import method_styles
from hoplens.reports import figures, tables, theme
from hoplens.reports.environment import environment
from hoplens.reports.network import NetworkPart, network_part, study_part
from hoplens.reports.payload import script_json
from hoplens.reports.prose import network_paragraph, network_tiles
from hoplens.reports.study import duels, leaders, with_targets
from hoplens.reports.verdict import tiles, verdict
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics.purposes import BEST

BIG = 24  # inputs from which the map needs the whole width
VENDOR = "vendor/echarts.min.js"
SCRIPTS = ("core.js", "network.js", "hops.js", "controls.js", "graph.js", "study.js", "dots.js")


def write_study_report(results: StudyResults, path: str | os.PathLike[str]) -> Path:
    """Write a study's report as one self-contained HTML file.

    The page holds its style, its data and its scripts and fetches nothing. Every text that comes from the
    study is escaped. It states, from the top: a verdict in words; hop maps of one network of each method;
    the recommended recipe against the better of L1 and the paper's recipe; every method on every task with
    95 % intervals; figures; the ablation; the paper's numbers; all aims, met or missed; how it was run; what
    the measures mean. A frame without rows leaves a line that says so.

    Parameters
    ----------
    results : StudyResults
        Its summary and paired differences are shown as they are at each method's best strength.
    path : path
        Where to; the folder must exist. An old report is replaced only once the new one is whole.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    return write_atomically(path, render_study_report(results).encode())


def write_network_report(
    found: Analysis, path: str | os.PathLike[str], *, title: str = "", measures: Any = None
) -> Path:
    """Write the report of one network as one self-contained HTML file.

    Parameters
    ----------
    found : Analysis
        From `hoplens.analyze`.
    path : path
        Where to; the folder must exist. An old report is replaced only once the new one is whole.
    title : str, optional
        What the network is called.
    measures : DataFrame, optional
        Measures of the networks of a training run, one row a network, shown as a table.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ParameterError
        If ``found`` is no Analysis, e.g. a model.
    NonFiniteError
        If the hop maps hold NaN or infinity.
    FileError
        If the file cannot be written.
    """
    return write_atomically(path, render_network_report(found, title=title, measures=measures).encode())


def render_network_report(found: Analysis, *, title: str = "", measures: Any = None) -> str:
    """Return the report of one network as HTML text; see `write_network_report`."""
    given: Any = found  # whatever a caller gives
    if not isinstance(given, Analysis):
        came = type(given).__name__
        raise ParameterError(f"a report is of what hoplens.analyze returns, got a {came}; analyse it first")
    part = network_part(found)  # first: it checks the numbers
    context = {
        "kind": "network",
        "title": title or "What this network routes",
        "paragraph": network_paragraph(found),
        "tiles": network_tiles(found),
        "importance": found.importance_of,
        "measures": [] if measures is None else tables.plain_rows(measures),
    }
    return _render(part, [], context)


def render_study_report(results: StudyResults) -> str:
    """Return a study's report as HTML text; see `write_study_report`."""
    results = results.at(BEST)
    groups = figures.figure_groups(results)
    context = {
        "kind": "study",
        "title": "What the study found",
        "paragraph": _paragraph(results),
        "tiles": tiles(results),
        "duels": tables.duel_rows(duels(results)),
        "summary": tables.summary_table(with_targets(results.summary, results.networks)),
        "groups": groups,
        "ablation": tables.summary_table(with_targets(results.ablation, results.networks)),
        "anchors": tables.anchor_rows(results.anchors),
        "aims": tables.aim_rows(results.aims),
        "settings": tables.settings_rows(results.settings),
        "notes": tables.network_notes(results.networks),
        "definitions": tables.definitions(results),
    }
    return _render(study_part(results), groups, context)


def _paragraph(results: StudyResults) -> str:
    """Return the verdict, and of a study that has nothing for one which methods lead."""
    lead = "" if duels(results) or len(results.anchors) else leaders(results.summary)
    return lead or verdict(results)


def _render(part: NetworkPart | None, groups: list[figures.Group], context: Mapping[str, Any]) -> str:
    drawn = [*_network_figures(part), *(figure for group in groups for figure in group.figures)]
    data = {
        "themes": {mode: theme.script_colours(dark=mode == "dark") for mode in ("light", "dark")},
        "views": [] if part is None else part.views,
        "view": 0 if part is None else len(part.views) - 1,
        "graph": None if part is None else part.graph,
        "fidelity": None if part is None else part.fidelity,
        "methods": _methods(drawn),
        "figures": {
            figure.key: {
                "kind": figure.kind,
                "title": figure.title,
                "label": figure.label,
                "data": figure.data,
            }
            for figure in drawn
        },
    }
    scripts = {"vendor": _script(_asset(VENDOR)), "glue": _script(_glue())}
    pages = environment()
    # no line starts with a percent sign
    pages.filters["tie"] = lambda text: text.replace(" %", "\u00a0%")
    return pages.get_template("page.html.j2").render(
        **context,
        part=part,
        big=part is not None and max(len(view["inputs"]) for view in part.views) > BIG,
        light=theme.variables(dark=False),
        dark=theme.variables(dark=True),
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


def _methods(drawn: Iterable[figures.Figure]) -> dict[str, Any]:
    """Return label, colour and marker of every method that a figure shows."""
    rows = [
        row
        for figure in drawn
        for row in (*figure.data.get("lines", ()), *_dot_rows(figure.data.get("tasks", ())))
    ]
    return {
        name: {"label": method_label(name), "color": style.color, "symbol": f"path://{theme.outline(style)}"}
        for name, style in method_styles(row["method"] for row in rows).items()
    }


def _dot_rows(tasks: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for task in tasks for row in task["rows"]]


@cache
def _asset(name: str) -> str:
    return files("hoplens.reports").joinpath(name).read_text(encoding="utf-8")


def _glue() -> str:
    parts = "\n".join(_asset(f"assets/{name}") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\nstart();\n}})();'


def _script(text: str) -> Markup:
    return Markup(text)  # our own files: they hold no "</script", which a test checks


def _hash(text: str) -> Markup:
    """Return the hash by which the page allows a script; a script that got in by a name is not run."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


__all__ = ["render_network_report", "render_study_report", "write_network_report", "write_study_report"]
