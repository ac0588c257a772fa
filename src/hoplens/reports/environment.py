"""Templates of pages and of Markdown, in which no text can act."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from hoplens.text import for_markdown, for_page


def environment(*, markdown: bool = False) -> Environment:
    """Return the environment of the templates; every text in them is made safe.

    Parameters
    ----------
    markdown : bool, default False
        For Markdown, not for HTML pages. Text of our own that must stay as it is is given as ``Markup``.
    """
    return Environment(
        loader=PackageLoader("hoplens.reports"),
        autoescape=not markdown,  # of every page, whatever its template is called
        finalize=for_markdown if markdown else for_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


__all__ = ["environment"]
