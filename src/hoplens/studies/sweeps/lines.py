"""Where a key stands in a TOML text."""

from __future__ import annotations

import re
from collections.abc import Sequence

Place = tuple[str | int, ...]

HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
LONGEST = 1000  # characters of a table's header: the pattern takes the square of it at worst
KEY = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """Return the line (from 1) of a key, or of the nearest table or key around it.

    Parameters
    ----------
    text : str
        A TOML text that can be parsed.
    place : sequence of str or int
        Keys, and places in arrays of tables, e.g. ``("tasks", 0, "name")``.

    Returns
    -------
    int or None
        None if nothing of it stands in the text.
    """
    found = _places(text)
    for end in range(len(place), 0, -1):
        line = found.get(tuple(place[:end]))
        if line is not None:
            return line
    return None


def _places(text: str) -> dict[Place, int]:
    """Return the line of every table and key, and of inline tables that begin a line of an array."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}  # tables seen in each array of tables
    table: Place = ()
    depth = 0  # of brackets left open by a value
    inside: Place = ()  # that value
    items = 0
    for number, line in enumerate(text.splitlines(), start=1):
        header = HEADER.match(line) if depth == 0 and len(line) <= LONGEST else None
        if header is not None:
            table = _table(_split(header[2]), header[1] == "[[", counts)
            for end in range(1, len(table) + 1):
                found.setdefault(table[:end], number)
            continue
        key = KEY.match(line) if depth == 0 else None
        if key is not None:
            place = (*table, *_split(key[1]))
            for end in range(len(table) + 1, len(place) + 1):
                found.setdefault(place[:end], number)
            inside, items = place, 0
        elif depth == 1 and line.lstrip().startswith("{"):
            found[(*inside, items)] = number
            items += 1
        depth = max(0, depth + _opened(line))
    return found


def _table(names: list[str], is_array: bool, counts: dict[Place, int]) -> Place:
    """Return the place of a header's table, with the number of each array of tables on the way."""
    place: Place = ()
    for n, name in enumerate(names):
        place = (*place, name)
        if n + 1 == len(names) and is_array:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _split(name: str) -> list[str]:
    parts = re.findall(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""", name)
    return [part.strip("\"'") for part in parts]


def _opened(line: str) -> int:
    """Return how many more brackets a line opens than it closes, outside of texts and comments."""
    bare = re.sub(r""""(?:\\.|[^"\\])*"|'[^']*'""", "", line).split("#")[0]
    return sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}")


__all__ = ["line_of"]
