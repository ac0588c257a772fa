"""What the subcommands do; `hoplens.cli` only parses."""

from hoplens.commands.analyze import run_analyze
from hoplens.commands.compress import run_compress
from hoplens.commands.explain import run_explain
from hoplens.commands.export import run_export
from hoplens.commands.report import run_report
from hoplens.commands.reproduce import run_reproduce
from hoplens.commands.reproduce_real import run_reproduce_real
from hoplens.commands.status import run_status
from hoplens.commands.sweep import example, run_sweep_command
from hoplens.commands.train import run_tasks, run_train

__all__ = [
    "example",
    "run_analyze",
    "run_compress",
    "run_explain",
    "run_export",
    "run_report",
    "run_reproduce",
    "run_reproduce_real",
    "run_status",
    "run_sweep_command",
    "run_tasks",
    "run_train",
]
