"""Names from files cannot act on a terminal or break a page."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from hoplens.cli.console import SafeConsole
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


def test_the_console_shows_control_characters_everywhere_and_keeps_its_own() -> None:
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=True, width=70)
    console.print("[red]word\x1b[2J[/] a\x07\n\tb", soft_wrap=True, highlight=False)
    table = Table(title="title\x1b]0;x")
    table.add_column("head\x9b31m")
    table.add_row(Text("cell\x1b[31m"))
    console.print(table)
    with Progress(console=console) as bar:
        bar.add_task("task\x1b[3m", total=1)
    shown = out.getvalue()
    assert "\x1b[31mword\\x1b[2J\x1b[0m a" in shown
    assert "\\x1b]0;x" in shown
    # what is left are colours, cursor movements and line breaks of rich itself
    foreign = re.sub(r"\x1b\[[0-9;?]*[mKhlA]", "", shown)
    assert not set(foreign) & set(map(chr, [*range(9), 11, 12, *range(14, 32), *range(127, 160)]))
