"""Names from files cannot act on a terminal or break a page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

from hypothesis import given
from hypothesis import strategies as st

from hoplens.text import printable


@given(st.text(st.characters(codec=None), max_size=300))
def test_what_is_printed_holds_no_control_character_and_is_valid_xml(text: str) -> None:
    shown = printable(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()  # no lone surrogate
    ElementTree.fromstring(f"<a>{escape(shown)}</a>")


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=200))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_escapes_are_shown_by_their_code_and_long_text_is_cut() -> None:
    assert printable("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"
    assert printable("x" * 5000, most=21) == "x" * 9 + "..." + "x" * 9
