"""The page of a study: everything it found, in one file that needs nothing else."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined

from hoplens.files import write_atomically
from hoplens.report import figures, tables, theme
from hoplens.report.study import StudyLike, duels, with_targets
from hoplens.report.verdict import tiles, verdict


def write_study_report(results: StudyLike, path: str | os.PathLike[str]) -> Path:
    """Write a study's report as one self-contained HTML file.

    The page holds its style and its figures and fetches nothing. Every text that comes from the study is
    escaped. It states, from the top: a verdict in words; the recommended recipe against the better of L1
    and R-RNN; every method on every task with 95 % intervals; figures; the ablation; the paper's numbers;
    all aims, met or missed; how it was run; what the measures mean. A frame without rows leaves a line
    that says so.

    Parameters
    ----------
    results : StudyLike
        The study, e.g. a ``hoplens.study.results.StudyResults``.
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


def render_study_report(results: StudyLike) -> str:
    """Return the report as HTML text; see `write_study_report`.

    Parameters
    ----------
    results : StudyLike
        The study.
    """
    # matplotlib's defaults, so that a user's own settings do not change the page; all put back after
    with matplotlib.rc_context(), warnings.catch_warnings():
        # the browser has other fonts than matplotlib: a glyph missing here is not missing there
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        content = _content(results)
    environment = Environment(
        loader=PackageLoader("hoplens.report"),
        autoescape=True,  # for every template, whatever its file is called
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tie"] = lambda text: text.replace(
        " %", "\u00a0%"
    )  # no line starts with a percent sign
    return environment.get_template("study.html.j2").render(content)


def _content(results: StudyLike) -> dict[str, Any]:
    fights = duels(results)
    return {
        "light": theme.variables(dark=False),
        "dark": theme.variables(dark=True),
        "verdict": verdict(results),
        "tiles": tiles(results),
        "duels": tables.duel_rows(fights),
        "summary": tables.summary_table(with_targets(results.summary, results.networks)),
        "groups": figures.figure_groups(results),
        "ablation": tables.summary_table(with_targets(results.ablation, results.networks)),
        "anchors": tables.anchor_rows(results.anchors),
        "aims": tables.aim_rows(results.aims),
        "settings": tables.settings_rows(results.settings),
        "notes": tables.network_notes(results.networks),
        "definitions": tables.definitions(results),
    }
