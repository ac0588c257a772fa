"""What the subcommands do; `hoplens.cli` only parses."""

from hoplens.commands.analyze import run_analyze
from hoplens.commands.compress import run_compress
from hoplens.commands.explain import run_explain
from hoplens.commands.export import run_export
from hoplens.commands.report import run_report
from hoplens.commands.reproduce import run_reproduce
from hoplens.commands.train import run_tasks, run_train

__all__ = [
    "run_analyze",
    "run_compress",
    "run_explain",
    "run_export",
    "run_report",
    "run_reproduce",
    "run_tasks",
    "run_train",
]
