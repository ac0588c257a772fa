"""Consoles that print what files hold without letting it act on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hoplens.text import printable_lines


class SafeConsole(Console):
    """A console that shows control characters in names, texts and messages by their codes.

    Colours and cursor movements of its own come as styles and control segments, which stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of a renderable, their texts made safe."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable_lines(text), style, control)


__all__ = ["SafeConsole"]
