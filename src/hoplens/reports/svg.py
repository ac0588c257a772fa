"""Turn a figure into an SVG element that fits into a page: small, with the page's colours and fonts."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup, escape
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hoplens.plots.style import DIVERGING, HALF, INK, MUTED, PAPER_WHITE, RULE
from hoplens.text import printable_lines

COLOUR = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")
DECIMALS = re.compile(r"-?\d+\.\d+")
REFERENCE = re.compile(r"url\(#([^)]+)\)")
FONT_SIZE = re.compile(r"font: .*?([\d.]+px).*")  # how older matplotlib writes size and family


# a drawn colour is the page's own, which differs by light and dark mode
COLOUR_NAMES = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER_WHITE: "var(--ground)"}


def _heat_colours() -> dict[str, str]:
    """Map each colour of a map to a hue and an opacity, so that zero is the page's ground in both modes."""
    names = {}
    for n in range(2 * HALF + 1):
        share = abs(n - HALF) / HALF
        hue = "var(--negative)" if n < HALF else "var(--positive)"
        names[to_hex(DIVERGING(n))] = f"fill:{hue};fill-opacity:{share:.2f}" if share else ""
    return names


HEAT = _heat_colours()


@contextmanager
def page_drawing() -> Iterator[None]:
    """Draw as matplotlib does out of the box, whatever a user has set."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # the browser has other fonts than matplotlib: a glyph missing here is not missing there
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        yield


def inline_svg(fig: Figure, *, label: str, prefix: str) -> Markup:
    """Return a figure as an ``<svg>`` element for HTML, ``label`` for readers who do not see it.

    Text stays text and takes the page's font; colours become the page's variables; nothing refers to
    anything outside. ``prefix`` makes ids unique on the page.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    box = root.attrib["viewBox"]
    _clean(root, prefix)
    inner = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    # every text in it was escaped by the serialiser; the label is escaped here
    return Markup('<svg role="img" viewBox="{}" aria-label="{}">{}</svg>').format(
        box, escape(printable_lines(label)), Markup(inner)
    )


def _clean(root: ElementTree.Element, prefix: str) -> None:
    used = {
        name
        for element in root.iter()
        for value in element.attrib.values()
        for name in [*REFERENCE.findall(value), *([value[1:]] if value.startswith("#") else [])]
    }
    for parent in list(root.iter()):
        for child in list(parent):
            # a style sheet inside would apply to the whole page
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
        if "QuadMesh" in parent.attrib.get("id", ""):
            _merge_cells(parent)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.text, element.tail = (element.text or "").strip() or None, None
        element.attrib = {
            _local(name): _value(_local(name), value, prefix)
            for name, value in element.attrib.items()
            if _local(name) != "id" or value in used
        }


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return f"#{prefix}-{value[1:]}"
    if name == "clip-path":
        return REFERENCE.sub(rf"url(#{prefix}-\1)", value)
    if name == "style":
        parts = [FONT_SIZE.sub(r"font-size: \1", part.strip()) for part in value.split(";")]
        kept = [part for part in parts if "font-family" not in part]
        return ";".join(COLOUR.sub(_page_colour, part) for part in kept if part)
    if name in ("d", "x", "y", "transform", "points"):
        return _short(value)
    return value


def _short(value: str) -> str:
    rounded = DECIMALS.sub(lambda match: f"{float(match.group()):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(rounded.split())


def _page_colour(match: re.Match[str]) -> str:
    return f"{match[1]}:{COLOUR_NAMES.get(match[2], match[2])}"


def _merge_cells(mesh: ElementTree.Element) -> None:
    """Draw all cells of one colour as one path; cells of weight zero are the ground and go."""
    paths: dict[str, list[str]] = {}
    clip = ""
    for cell in list(mesh):
        fill = COLOUR.search(cell.attrib.get("style", ""))
        if fill is None or fill[2] not in HEAT or "d" not in cell.attrib:
            continue
        mesh.remove(cell)
        clip = cell.attrib.get("clip-path", clip)
        style = HEAT[fill[2]]
        if style:
            paths.setdefault(style, []).append(_box(cell.attrib["d"]))
    for style, boxes in paths.items():
        attributes = {"d": "".join(boxes), "style": style, "shape-rendering": "crispEdges"}
        if clip:
            attributes["clip-path"] = clip
        ElementTree.SubElement(mesh, "path", attributes)


def _box(d: str) -> str:
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", d)]
    left, right = min(numbers[0::2]), max(numbers[0::2])
    top, bottom = min(numbers[1::2]), max(numbers[1::2])
    return f"M{left:.2f} {top:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}z"
