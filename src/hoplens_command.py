"""Entry point of the shell command, outside the package: Ctrl-C while PyTorch loads ends in one line too."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command and run it."""
    try:
        from hoplens.cli.app import main as run
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    run()
