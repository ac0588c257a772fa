"""What the subcommands do; `hoplens.cli` only parses."""

from hoplens.cli.commands.analyze import run_analyze
from hoplens.cli.commands.compress import run_compress
from hoplens.cli.commands.explain import run_explain
from hoplens.cli.commands.export import run_export
from hoplens.cli.commands.report import run_report
from hoplens.cli.commands.reproduce import run_reproduce
from hoplens.cli.commands.status import run_status
from hoplens.cli.commands.sweep import example, run_sweep_command
from hoplens.cli.commands.train import run_tasks, run_train

__all__ = [
    "example",
    "run_analyze",
    "run_compress",
    "run_explain",
    "run_export",
    "run_report",
    "run_reproduce",
    "run_status",
    "run_sweep_command",
    "run_tasks",
    "run_train",
]
