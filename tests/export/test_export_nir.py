"""NIR files: exact for linear leaky units, measured for spiking ones, simulated by an explicit table."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from torch import nn

import hoplens as hl
from hoplens.export import nir_file
from hoplens.export.nir_graph import population


@pytest.fixture(autouse=True)
def _own_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def graph_of(node, size, back=None):
    nodes = {"in": nir.Input(np.array([size])), "unit": node, "out": nir.Output(np.array([size]))}
    edges = [("in", "unit"), ("unit", "out")]
    if back is not None:
        nodes["back"] = nir.Linear(back)
        edges += [("unit", "back"), ("back", "unit")]
    return nir.NIRGraph(nodes=nodes, edges=edges)


def ones(size, value=1.0):
    return np.full(size, value)


@pytest.mark.parametrize("method", ["euler", "zoh"])
@pytest.mark.parametrize("every_step", [False, True])
def test_linear_leaky_networks_are_exact(method, every_step, tmp_path):
    core, readout = hl.LeakyRNN(3, 8, 0.3, nonlinearity="linear"), nn.Linear(8, 2)
    model = hl.RecurrentModel(core, readout, hl.ModelInfo(every_step=every_step))
    written = hl.export_nir(model, tmp_path / "m.nir", method=method, dt=0.01)
    assert written.form == "exact"
    assert written.difference < 1e-6
    assert written.nodes["LI"] == 1
    x = torch.randn(4, 9, 3)
    found = hl.export.simulate_nir(tmp_path / "m.nir", x, dt=0.01, method=method)
    wanted = model(x).detach().double()
    torch.testing.assert_close(found if every_step else found[:, -1], wanted, atol=1e-5, rtol=0)
    tau = float(nir.read(tmp_path / "m.nir").nodes["l0"].tau[0])
    assert tau == pytest.approx(0.01 / 0.3 if method == "euler" else -0.01 / np.log(0.7), rel=1e-6)


def test_stacks_and_time_constants_of_each_unit_are_exact(tmp_path):
    leaks = torch.tensor([0.1, 0.5, 1.0])
    levels = [
        (
            hl.models.RnnCell(
                torch.randn(3, 2) / 2, torch.randn(3, 3) / 3, torch.randn(3), nonlinearity="linear", leak=a
            ),
        )
        for a in (leaks,)
    ]
    top = hl.models.RnnCell(torch.randn(4, 3) / 2, torch.randn(4, 4) / 4, nonlinearity="linear", leak=0.4)
    stack = hl.Stack((*levels, (top,)), torch.randn(2, 4), "two levels")
    written = hl.export_nir(stack, tmp_path / "m.nir")
    assert written.nodes["LI"] == 2
    assert written.difference < 1e-6


def test_steps_of_the_neurons_follow_their_equations():
    x = torch.tensor([1.0, 0.5, -1.0, 2.0, 3.0], dtype=torch.float64)[None, :, None]
    step, tau, gain, rest = 0.1, 0.4, 1.5, 0.2
    share = {"euler": step / tau, "zoh": 1 - np.exp(-step / tau)}
    for method in ("euler", "zoh"):
        shown, state = {"LI": [], "LIF": []}, {"LI": 0.0, "LIF": 0.0}
        for value in x.flatten().tolist():
            for kind, v in state.items():
                v += share[method] * (rest + gain * value - v)
                fired = kind == "LIF" and v > 0.3
                shown[kind].append(float(fired) if kind == "LIF" else v)
                state[kind] = -0.1 if fired else v
        fields = {"tau": ones(1, tau), "r": ones(1, gain), "v_leak": ones(1, rest)}
        limits = {"v_threshold": ones(1, 0.3), "v_reset": ones(1, -0.1)}
        for kind, node in {"LI": nir.LI(**fields), "LIF": nir.LIF(**fields, **limits)}.items():
            found = hl.export.simulate_nir(graph_of(node, 1), x, dt=step, method=method).flatten()
            np.testing.assert_allclose(found, shown[kind], atol=1e-12, err_msg=kind)
        assert 0 < sum(shown["LIF"]) < 5


def test_a_recurrent_edge_hands_on_the_step_before():
    back = np.array([[0.0, 0.5], [-0.25, 0.0]])
    x = torch.randn(3, 6, 2, dtype=torch.float64)
    found = hl.export.simulate_nir(graph_of(nir.LI(ones(2, 2.0), ones(2), 0 * ones(2)), 2, back), x, dt=1.0)
    h = torch.zeros(3, 2, dtype=torch.float64)
    for t in range(6):
        h = 0.5 * h + 0.5 * (h @ torch.as_tensor(back).mT + x[:, t])
        torch.testing.assert_close(found[:, t], h)


def test_biases_count_and_other_nodes_are_refused():
    nodes = {
        "in": nir.Input(np.array([2])),
        "affine": nir.Affine(np.eye(2), np.array([0.5, -0.5])),
        "out": nir.Output(np.array([2])),
    }
    x = torch.tensor([[[0.1, 0.6], [-0.1, 1.0]]], dtype=torch.float64)
    edges = [("in", "affine"), ("affine", "out")]
    found = hl.export.simulate_nir(nir.NIRGraph(nodes=nodes, edges=edges), x, dt=1.0)
    torch.testing.assert_close(found, x + torch.tensor([0.5, -0.5], dtype=torch.float64))
    nodes["affine"] = nir.Scale(np.array([2.0, 3.0]))
    with pytest.raises(hl.errors.UnsupportedModelError, match="'affine' is a Scale"):
        hl.export.simulate_nir(nir.NIRGraph(nodes=nodes, edges=edges), x, dt=1.0)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "linear"])
def test_populations_decode_the_nonlinearity(nonlinearity):
    crowd = population(nonlinearity, np.array([2.0]), 64, "euler")
    drive = np.linspace(-1.8, 1.8, 40)
    current = drive[:, None] * crowd.encoder[0] + crowd.bias[0]
    v, count = np.zeros_like(current), np.zeros_like(current)
    for _ in range(4000):
        v += (current - v) / 8
        count += v > 1
        v[v > 1] = 0
    decoded = count / 4000 @ crowd.decoder[0]
    wanted = {"tanh": np.tanh, "relu": lambda u: np.maximum(u, 0), "linear": lambda u: u}[nonlinearity](drive)
    assert np.abs(decoded - wanted).max() < 0.1


def test_spiking_networks_come_near_and_say_how_near(tmp_path):
    core = hl.LeakyRNN(3, 12, 0.2)
    model = hl.RecurrentModel(core, nn.Linear(12, 3))
    inputs = torch.randn(400, 12, 3)
    with torch.no_grad():
        model.readout.bias -= model(inputs).mean(0)  # so that no class always wins
        labels = model(inputs).argmax(-1)
    written = hl.export_nir(model, tmp_path / "m.nir", inputs=inputs, targets=labels)
    assert written.form == "rate to LIF"
    assert written.score_before == 1.0
    assert 0.8 < written.score_after < 1.0
    assert 0 < written.error < 0.05
    held = inputs.repeat_interleave(written.substeps, dim=1)
    found = hl.export.simulate_nir(tmp_path / "m.nir", held, dt=written.dt)[:, -1]
    assert float((found.argmax(-1) == labels).double().mean()) == written.score_after
    told = nir.read(tmp_path / "m.nir").metadata
    assert told["form"] == "rate to LIF"
    assert float(told["dt"]) == written.dt
    coarse = hl.export_nir(model, tmp_path / "c.nir", inputs=inputs, neurons=12, substeps=12)
    assert coarse.error > 2 * written.error
    assert coarse.score_after is None


def test_windows_and_names_are_in_the_file(tmp_path):
    core = hl.LeakyRNN(2, 4, 0.5, nonlinearity="linear")
    info = hl.ModelInfo(window=3, input_names=("a", "b"), input_mean=(1.0, 2.0))
    hl.export_nir(hl.RecurrentModel(core, nn.Linear(4, 1), info), tmp_path / "m.nir")
    told = nir.read(tmp_path / "m.nir").metadata
    assert int(told["window"]) == 3
    assert told["input_names"].split("\n") == ["a", "b"]
    assert told["input_mean"].tolist() == [1.0, 2.0]


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    core = hl.LeakyRNN(3, 5, 0.3, nonlinearity="linear")
    plain = nir_file.linear_graph

    def without_biases(source, **options):  # what some importers make of an Affine node
        graph = plain(source, **options)
        graph.nodes["l0_in"].bias[:] = 0
        return graph

    monkeypatch.setattr(nir_file, "linear_graph", without_biases)
    with pytest.raises(hl.errors.ExportError, match="differs from the network by"):
        hl.export_nir(core, tmp_path / "m.nir")
    with pytest.raises(hl.errors.ExportError, match=r"misses \d+% of the variance"):
        hl.export_nir(nn.RNN(3, 5), tmp_path / "m.nir", neurons=2, substeps=2)
    assert not list(tmp_path.iterdir())


def test_bad_requests_are_refused_in_words(tmp_path):
    path, leaky = tmp_path / "m.nir", hl.LeakyRNN(3, 5, 0.3)
    for raised, says, arguments in [
        (hl.errors.UnsupportedModelError, "no gates", {"model": nn.GRU(3, 5)}),
        (hl.errors.UnsupportedModelError, "forward in time", {"model": nn.RNN(3, 5, bidirectional=True)}),
        (hl.errors.UnknownNameError, "unknown method", {"model": leaky, "method": "rk4"}),
        (hl.errors.ParameterError, "dt must be", {"model": leaky, "dt": 0}),
        (hl.errors.ParameterError, "neurons must be", {"model": leaky, "neurons": 1}),
        (hl.errors.ParameterError, "no time constant", {"model": nn.RNN(3, 5), "method": "zoh"}),
        (hl.errors.ShapeError, "I = 3", {"model": leaky, "inputs": torch.zeros(2, 3, 4)}),
        (hl.errors.FileError, "cannot write", {"model": leaky, "path": tmp_path / "no" / "m.nir"}),
    ]:
        with pytest.raises(raised, match=says):
            hl.export_nir(**{"path": path, **arguments})
    assert not path.exists()


def test_damaged_and_foreign_files_are_refused(tmp_path):
    file = tmp_path / "m.nir"
    x = torch.zeros(1, 2, 3)
    with pytest.raises(hl.errors.FileError, match="no file"):
        hl.export.simulate_nir(file, x, dt=1.0)
    hl.export_nir(hl.LeakyRNN(3, 4, 0.5, nonlinearity="linear"), file)
    data = file.read_bytes()
    with pytest.raises(hl.errors.ShapeError, match="I = 3"):
        hl.export.simulate_nir(file, torch.zeros(1, 2, 2), dt=1.0)
    for damaged in (b"", b"no HDF5", data[:1000], data[: len(data) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(hl.errors.FileError, match="cannot read"):
            hl.export.simulate_nir(file, x, dt=1.0)
    conv = nir.Flatten({"input": np.array([3])}, 0, -1)
    with pytest.raises(hl.errors.UnsupportedModelError, match="Flatten, which is not simulated"):
        hl.export.simulate_nir(graph_of(conv, 3), x, dt=1.0)
