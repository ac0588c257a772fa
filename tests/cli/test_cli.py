"""The command line, run as a user runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch
from in_process import hoplens
from size import full

from hoplens.cli import app as cli


@pytest.fixture(autouse=True)
def _wide_and_plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


def test_the_command_runs_in_a_process_of_its_own():
    command = [sys.executable, "-m", "hoplens.cli.app", "train", "avraging"]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 2
    assert shown.stderr.startswith("error: ")
    assert shown.stderr.strip().count("\n") == 0


def test_tasks_are_listed():
    shown = hoplens("tasks")
    assert shown.returncode == 0
    for name in ("averaging", "subtraction", "addition", "multiplication", "on-off"):
        assert name in shown.stdout


def test_train_prints_one_row_a_network():
    shown = hoplens("train", "averaging", "--seeds", "2", "--steps", "20", "--hidden", "8", "--length", "4")
    assert shown.returncode == 0, shown.stderr
    table = [line for line in shown.stdout.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in table] == ["0", "1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "avraging"), "did you mean 'averaging'"),
        (("train", "averaging", "--recipe", "L3"), "unknown recipe"),
        (("train", "averaging", "--signal", "sparse", "--lag", "10"), "lag must be below the length"),
        (("train", "averaging", "--hidden", "0"), "hidden must be a whole number of at least 1"),
        (("train", "averaging", "--strength", "-1"), "strength must be a finite number at least 0"),
        (("train", "averaging", "--strength", "nan"), "strength must be a finite number at least 0"),
        (("train", "averaging", "--seeds", "0"), "seeds must be a whole number of at least 1"),
        (("analyze", "nowhere.safetensors"), "no file"),
        (("analyze", "celegans", "--horizon", "0"), "horizon must be a whole number of at least 1"),
        (("reproduce", "--workers", "-1"), "--workers must be 0 or more"),
        (("reproduce", "--quick", "--out", "/dev/null/x"), "cannot make the results folder"),
        (("sweep", "papers", "--example"), "unknown study of the package 'papers'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, says):
    shown = hoplens(*arguments)
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr
    message = shown.stderr.strip()
    assert says in message
    assert message.count("\n") == 0


def test_analyze_reads_a_file_and_refuses_a_pickle_with_code(tmp_path):
    rnn = torch.nn.ModuleDict({"rnn": torch.nn.RNN(3, 8), "out": torch.nn.Linear(8, 2)})
    torch.save(rnn.state_dict(), tmp_path / "net.pt")
    shown = hoplens("analyze", str(tmp_path / "net.pt"), "--horizon", "5", "--out", str(tmp_path / "out"))
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "out" / "summary.txt").read_text().strip() in shown.stdout
    torch.save(rnn, tmp_path / "code.pt")
    refused = hoplens("analyze", str(tmp_path / "code.pt"))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error:")
    assert "Traceback" not in refused.stderr


def test_usage_errors_exit_with_2_too():
    shown = hoplens("reproduce", "--nonsense")
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr


@full
def test_interrupt_leaves_a_folder_that_goes_on(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "hoplens.cli.app", "reproduce", "--quick", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    log = out / "sweep.log"
    while time.monotonic() < deadline and not (log.exists() and "shards to run" in log.read_text()):
        time.sleep(0.05)
    time.sleep(5)
    process.send_signal(signal.SIGINT)  # lets the running batches finish: too long to wait for
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stdout + stderr
    assert "Ctrl-C once more stops at once" in stdout
    assert "goes on from there" in stdout
    assert not list(out.glob("**/.*"))


@pytest.mark.parametrize("command", [("reproduce", "--quick", "--out"), ("report",)])
def test_a_folder_of_an_older_version_is_refused(tmp_path, monkeypatch, capsys, command):
    from hoplens.cli import app as cli

    (tmp_path / "study.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["hoplens", *command, str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    message = capsys.readouterr().err.strip()
    assert caught.value.code == 2
    assert "results of an older version" in message
    assert message.count("\n") == 0


def test_interrupt_while_pytorch_loads_is_one_line():
    code = "print('up', flush=True); from hoplens_command import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "stopped\n")


def commands() -> list[str]:
    from typer.main import get_command

    return sorted(get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", commands())
def test_help_shows_every_help_text_as_it_is_written(name, monkeypatch, capsys):
    """Square brackets and all: rich took "[search]" for markup and showed nothing."""
    from typer.main import get_command

    command = get_command(cli.app).commands[name]
    monkeypatch.setattr(sys, "argv", ["hoplens", name, "--help"])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main()
    shown = "".join(capsys.readouterr().out.split())
    texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
    assert len([text for text in texts if text]) > 1 or name == "tasks"
    for text in texts:
        assert "".join((text or "").split()) in shown
