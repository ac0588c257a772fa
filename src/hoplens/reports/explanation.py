"""The page of one explanation: one file that needs nothing else."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import matplotlib

from hoplens.analysis.attribution.explanation import Explanation
from hoplens.files import write_atomically
from hoplens.reports import explanation_words as words
from hoplens.reports.environment import environment
from hoplens.reports.svg import inline_svg
from hoplens.reports.theme import variables


def write_page(
    found: Explanation, path: str | os.PathLike[str], *, sample: int = 0, n: int = 15, title: str = ""
) -> Path:
    """Write one sample's explanation as a self-contained HTML file.

    The page holds its style and its figure, runs no script and fetches nothing; every name is escaped.

    Parameters
    ----------
    found : Explanation
    path : path
        Where to; the folder must exist. An old page is replaced only once the new one is whole.
    sample : int, default 0
        Row of the explanation.
    n : int, default 15
        Rows of the tables.
    title : str, optional
        What was explained, e.g. the file's name and the sample's number in it.

    Returns
    -------
    Path
        ``path``.
    """
    return write_atomically(path, render_page(found, sample=sample, n=n, title=title).encode())


def render_page(found: Explanation, *, sample: int = 0, n: int = 15, title: str = "") -> str:
    """Return the page as HTML text; see `write_page`."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # the browser has other fonts than matplotlib: a glyph missing here is not missing there
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        ax = found.plot(sample=sample)
        figure = ax.get_figure(root=True)
        assert figure is not None
        map_ = inline_svg(
            figure,
            label=f"Contributions by time step and input. {words.timing(found, sample)}",
            prefix="map",
        )
    content = {
        "light": variables(dark=False),
        "dark": variables(dark=True),
        "title": title or found.label,
        "output": found.output_names[int(found.outputs[sample])],
        "opening": words.opening(found, sample),
        "meaning": words.meaning(found),
        "timing": words.timing(found, sample),
        "map": map_,
        "spread": bool((~found.spread[sample].isnan()).any()),
        "straight": found.timed,
        "top": words.lines(found, sample, n),
        "hops": words.hop_rows(found, sample),
        "units": words.unit_rows(found, sample, n),
        "label": found.label,
        "method": found.method,
        "gap": f"{float(found.relative_gap[sample]):.1e}",
    }
    return environment().get_template("explanation.html.j2").render(content)


__all__ = ["render_page", "write_page"]
