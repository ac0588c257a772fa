"""Contract tests: an own task, penalty, recipe, measure, cell or model proves itself in one line.

Each check raises `hoplens.errors.ContractError`, an AssertionError, that says what is broken; so in a test
it is one line, ``hoplens.testing.check_task(my_task)``. The package's own parts pass the same checks.
"""

from hoplens.studies.testing.models import check_cell, check_reader
from hoplens.studies.testing.networks import check_measure, check_penalty, check_recipe
from hoplens.studies.testing.tasks import check_task

__all__ = [
    "check_cell",
    "check_measure",
    "check_penalty",
    "check_reader",
    "check_recipe",
    "check_task",
]
