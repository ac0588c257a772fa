"""Event files of a store hold its numbers, to what float32 of TensorBoard keeps."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sweep_toys import Toy, toy_plan

from hoplens.errors import FileError, ParameterError
from hoplens.studies.sweeps import Plan, export_tensorboard, make_study, run_sweep

pytest.importorskip("tensorboard")


def read(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def hyperparameters(events) -> dict[str, object]:
    from tensorboard.plugins.hparams import metadata

    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    info = metadata.parse_session_start_info_plugin_data(content)
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}


def test_runs_hold_settings_means_and_every_network(tmp_path):
    study = make_study(
        {
            "name": "mine",
            "strengths": [1e-3, 1e-2],
            "seeds": {"validation": [0, 1], "report": [5, 6, 7]},
            "training": {"hidden": 4, "steps": 3, "batch": 4, "lr": 0.02},
            "tasks": [{"name": "averaging", "length": 3, "modules": 2, "module_size": 1}],
            "methods": [{"recipe": "none"}, {"recipe": "l1"}],
        }
    )
    with run_sweep(study, tmp_path / "store", executor="in-process") as store:
        table = store.networks()
        assert export_tensorboard(store, tmp_path / "runs") == 3
    runs = sorted(str(path.parent.relative_to(tmp_path / "runs")) for path in tmp_path.rglob("events*"))
    assert runs == [f"main/averaging, every/{cell}" for cell in ("L1/0.001", "L1/0.01", "none/0.0")]
    events = read(tmp_path / "runs" / runs[1])
    mine = table[(table["method"] == "L1") & (table["strength"] == 1e-2)]
    for role, rows in mine.groupby("role"):
        points = events.Scalars(f"{role}/test_error")
        assert [point.step for point in points] == rows["seed"].tolist()
        assert [point.value for point in points] == rows["test_error"].astype(np.float32).tolist()
        (mean,) = events.Scalars(f"mean/{role}/alignment")
        assert mean.value == pytest.approx(rows["alignment"].mean(), rel=1e-6)
    found = hyperparameters(events)
    assert (found["method"], found["strength"], found["settings.lr"]) == ("L1", 0.01, 0.02)
    assert (found["settings.hidden"], found["task.length"]) == (4, 3)


def test_what_is_not_finite_is_left_out_and_names_become_folders(tmp_path):
    members = [*toy_plan(Toy("a/b")).members, *toy_plan(Toy("a:b")).members]
    store = run_sweep(Plan("toys", tuple(members)), tmp_path / "store", executor="in-process")
    with store:
        assert export_tensorboard(store, tmp_path / "runs") == 4
    runs = {path.parent for path in (tmp_path / "runs").rglob("events*")}
    assert len(runs) == 4
    assert all(path.is_relative_to(tmp_path / "runs" / "main" / "a_b") for path in runs)
    assert set(read(min(runs)).Tags()["scalars"]) == {
        f"{mean}{role}/{name}"
        for mean in ("", "mean/")
        for role in ("validation", "report")
        for name in ("test_error", "diverged_at")
    }


def test_the_command_writes_runs_and_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    from hoplens.cli import app as cli

    run_sweep(toy_plan(), tmp_path / "store", executor="in-process").close()
    command = ["hoplens", "status", str(tmp_path / "store"), "--tensorboard", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert "2 runs: tensorboard --logdir" in capsys.readouterr().out
    with pytest.raises(FileError, match="holds files already; name a new folder"):
        export_tensorboard(tmp_path / "store", tmp_path / "runs")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ParameterError, match=r"needs TensorBoard: pip install 'hoplens\[tensorboard\]'"):
        export_tensorboard(tmp_path / "store", tmp_path / "more")
