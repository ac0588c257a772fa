"""Text from files and users, made safe to print."""

from __future__ import annotations

import unicodedata

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


def _visible(text: str, kept: str) -> str:
    if text.isascii() and text.isprintable():  # most text is
        return text
    return "".join(_code(c) if unicodedata.category(c) in _HIDDEN and c not in kept else c for c in text)


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


__all__ = ["printable", "printable_lines"]
