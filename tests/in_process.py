"""The command line inside this process: what `main` prints and its exit code, without a new Python each."""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from hoplens.cli import app as cli


def hoplens(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would. A raw error that leaves `main` is raised."""
    words, code = ["hoplens", *map(str, arguments)], 0
    out, said = io.StringIO(), io.StringIO()
    with patch("sys.argv", words), redirect_stdout(out), redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return subprocess.CompletedProcess(words, code, out.getvalue(), said.getvalue())


def command(*arguments: object) -> int:
    """Run a command and return its exit code; what it prints goes where the test's own output goes."""
    with patch("sys.argv", ["hoplens", *map(str, arguments)]):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0
