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
