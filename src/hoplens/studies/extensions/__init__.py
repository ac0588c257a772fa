"""Tasks, recipes, penalties, measures, readers of one's own: by decorator, file, or entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hoplens.data.tasks.registry import make_task
from hoplens.export.exporters import Exporter
from hoplens.models.readers import register_reader
from hoplens.studies.extensions.files import load_file
from hoplens.studies.extensions.kinds import (
    ALL,
    make_penalty,
    make_recipe,
    register_exporter,
    register_measure,
    register_penalty,
    register_recipe,
    register_task,
)
from hoplens.studies.measures import apply_measures

if TYPE_CHECKING:
    import pandas as pd


def discover() -> pd.DataFrame:
    """Return what there is: one row a task, recipe, penalty, measure, reader and format.

    Nothing of a package is imported for it; an entry point is loaded when its name is asked for.

    Returns
    -------
    DataFrame
        Columns kind, name, source ("hoplens", a file, or ``module:function``).
    """
    import pandas as pd

    rows = [(kind.kind, name, kind.source(name)) for kind in ALL for name in kind.names()]
    return pd.DataFrame(rows, columns=["kind", "name", "source"])


__all__ = [
    "Exporter",
    "apply_measures",
    "discover",
    "load_file",
    "make_penalty",
    "make_recipe",
    "make_task",
    "register_exporter",
    "register_measure",
    "register_penalty",
    "register_reader",
    "register_recipe",
    "register_task",
]
