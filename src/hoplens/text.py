"""Text from files and users, made safe to print."""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup

# what moves the cursor, colours the screen, reorders or hides text: control, format and unassigned
# characters, lone surrogates and the separators of lines and paragraphs
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: object, *, most: int = 200) -> str:
    r"""Return text on one line without anything that a terminal, an XML or an HTML parser would act on.

    Control characters, among them the escapes of terminals, and characters that reorder or hide text are
    shown by their code, as in ``\x1b``; a text longer than ``most`` characters is cut in the middle.

    Parameters
    ----------
    text : object
        Anything; ``str`` makes text of it.
    most : int, default 200
        Characters kept.

    Examples
    --------
    >>> printable("name\x1b[31m")
    'name\\x1b[31m'
    """
    shown = str(text)
    if len(shown) > most:
        half = (most - 3) // 2
        shown = f"{shown[:half]}...{shown[-half:]}"
    return _visible(shown, "")


def printable_lines(text: str) -> str:
    """Return text of any length and several lines likewise; line breaks and tabs stay."""
    return _visible(text, "\n\t")


# what Markdown or the HTML in it would act on, wherever it stands
_MARKS = re.compile(r"[\\`*_~<>|$&@]|!(?=\[)|\](?=[\[(:])|:(?=//)|(?<=www)\.", re.IGNORECASE)
_STARTS = re.compile(r"[-+](?=[\s+-]|$)|[=#\[:]|\d+(?=[.)](?:\s|$))")  # and at the start of a line
_FORMULAS = ("=", "+", "-", "@")


def for_page(value: object) -> object:
    """Return a value as a page may show it: text without control characters; the template escapes it."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def for_markdown(value: object) -> object:
    """Return a value as Markdown that shows its text on one line, and in which nothing acts; Markup as is."""
    if isinstance(value, Markup):
        return str(value)
    text = _visible(str(value), "")
    start = _STARTS.match(text)
    kept = 0 if start is None or not start.group().isdigit() else start.end()
    text = text[:kept] + _MARKS.sub(r"\\\g<0>", text[kept:])
    return text if start is None or text.startswith("\\") else f"{text[:kept]}\\{text[kept:]}"


def for_table(value: object) -> object:
    """Return a value as a CSV table may hold it: no text in it is run by a spreadsheet or a terminal.

    Control characters are shown by their codes, and a text that a spreadsheet would take for a formula gets
    an apostrophe before it. Numbers stay.
    """
    if not isinstance(value, str):
        return value
    text = _visible(value, "")
    return f"'{text}" if text.lstrip().startswith(_FORMULAS) else text


def _visible(text: str, kept: str) -> str:
    if text.isascii() and text.isprintable():  # most text is
        return text
    return "".join(_code(c) if unicodedata.category(c) in _HIDDEN and c not in kept else c for c in text)


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


__all__ = ["for_markdown", "for_page", "for_table", "printable", "printable_lines"]
