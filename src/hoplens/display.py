"""How results show themselves: a line or two in a terminal, and a table beneath it in a notebook."""

from __future__ import annotations

import html
from dataclasses import fields
from typing import Any

ROWS = 10  # of a table in a notebook


class Shown:
    """Gives result classes (dataclasses with ``repr=False``) a short repr, and the same to notebooks."""

    def __repr__(self) -> str:
        parts = []
        for field in fields(self):  # type: ignore[arg-type]
            value: Any = getattr(self, field.name)
            if hasattr(value, "shape") and hasattr(value, "dtype"):
                parts.append(f"{field.name} {tuple(value.shape)}")
            elif isinstance(value, float):
                parts.append(f"{field.name} {value:.4g}")
            elif isinstance(value, int | str) and len(str(value)) <= 60:
                parts.append(f"{field.name} {value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the repr, and the first rows of the table where there is one."""
        text = f"<pre>{html.escape(repr(self))}</pre>"
        table = getattr(self, "to_dataframe", None)
        if table is None:
            return text
        frame = table()
        more = f"<p>{len(frame) - ROWS} more rows</p>" if len(frame) > ROWS else ""
        return text + str(frame.head(ROWS).to_html(index=False)) + more


__all__ = ["Shown"]
