"""Modules, arrays and graphs are read as the graph that they are, and left as they were."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn
from twins import assert_near, blocks_of, literal_maps, random_network

import hoplens as hl
from hoplens.errors import NonFiniteError, ParameterError, ShapeError, UnsupportedModelError
from hoplens.graph.scores import saliency
from hoplens.studies.testing.models import same_snapshot, snapshot


def rnn_and_readout(*, inputs=3, hidden=4, outputs=2, **options):
    torch_rnn = nn.RNN(inputs, hidden, dtype=torch.float64, **options)
    linear = nn.Linear(hidden, outputs, dtype=torch.float64)
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in (*torch_rnn.parameters(), *linear.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64) / 2)
    return torch_rnn, linear


# modules


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_impulse_response_of_a_running_module_is_its_hop_maps(batch_first):
    # with positive weights and inputs relu does nothing, so that the module itself is the ground truth
    rnn, linear = rnn_and_readout(nonlinearity="relu", bias=False, batch_first=batch_first)
    with torch.no_grad():
        for parameter in (*rnn.parameters(), *linear.parameters()):
            parameter.abs_()
        linear.bias.zero_()
    length = 5
    maps = hl.hop_maps(hl.read(rnn, readout=linear), horizon=length)
    for n, lag in enumerate(maps.lags.tolist()):
        for i in range(3):
            inputs = torch.zeros(length, 1, 3, dtype=torch.float64)
            inputs[length - 1 - lag, 0, i] = 1.0
            states, _ = rnn(inputs.transpose(0, 1) if batch_first else inputs)
            last = states[0, -1] if batch_first else states[-1, 0]
            assert_near(linear(last).detach(), maps.values[n, :, i].detach())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_biases_carry_no_pathway(nonlinearity, bias):
    rnn, linear = rnn_and_readout(nonlinearity=nonlinearity, bias=bias)
    net = hl.read(rnn, readout=linear)
    assert torch.equal(net.w_in, rnn.weight_ih_l0)
    assert torch.equal(net.w_rec, rnn.weight_hh_l0)
    assert torch.equal(net.w_out, linear.weight)
    assert net.w_skip is None
    assert nonlinearity in net.provenance


def test_without_a_readout_every_hidden_unit_is_an_output():
    rnn, _ = rnn_and_readout()
    net = hl.read(rnn)
    assert torch.equal(net.w_out, torch.eye(4, dtype=torch.float64))


def test_gradients_flow_back_into_the_module():
    rnn, linear = rnn_and_readout()
    net = hl.read(rnn, readout=linear)
    assert net.w_rec.data_ptr() == rnn.weight_hh_l0.data_ptr()  # no copy
    hl.PathwayPenalty(horizon=4)(net).backward()
    for weight in (rnn.weight_ih_l0, rnn.weight_hh_l0, linear.weight):
        assert float(weight.grad.abs().sum()) > 0
    for bias in (rnn.bias_ih_l0, rnn.bias_hh_l0, linear.bias):
        assert bias.grad is None


@pytest.mark.parametrize("training", [True, False])
def test_reading_and_analysing_leaves_the_module_untouched(training):
    rnn, linear = rnn_and_readout()
    rnn.train(training)
    rnn.weight_hh_l0.requires_grad_(False)
    before = snapshot(rnn, linear)
    net = hl.read(rnn, readout=linear)
    maps = hl.hop_maps(net, horizon=5)
    hl.resolvent(net), hl.active_hops(maps), hl.analysis.weight_map(net), hl.spectral_radius(net)
    saliency(net, "pathway", horizon=4), hl.PathwayPenalty(4)(net), net.to_networkx()
    assert same_snapshot(before, snapshot(rnn, linear))


def test_a_failed_reading_leaves_the_module_untouched():
    rnn, _ = rnn_and_readout()
    misfit = nn.Linear(7, 2)
    before = snapshot(rnn, misfit)
    with pytest.raises(hl.errors.ShapeError, match=r"4 hidden units .* takes 7 features"):
        hl.read(rnn, readout=misfit)
    assert same_snapshot(before, snapshot(rnn, misfit))
    with torch.no_grad():
        rnn.weight_ih_l0[0, 0] = torch.nan
    before = snapshot(rnn, misfit)
    with pytest.raises(hl.errors.NonFiniteError, match="w_in"):
        hl.hop_maps(hl.read(rnn), horizon=3)
    after = snapshot(rnn, misfit)
    before[0][1][0, 0] = after[0][1][0, 0] = 0.0  # NaN is not equal to itself
    assert same_snapshot(before, after)


def test_the_snapshot_would_notice_a_change():
    rnn, linear = rnn_and_readout()
    before = snapshot(rnn, linear)
    handle = rnn.register_forward_hook(lambda *_: None)
    assert not same_snapshot(before, snapshot(rnn, linear))
    handle.remove()
    assert same_snapshot(before, snapshot(rnn, linear))
    linear.weight.requires_grad_(False)
    assert not same_snapshot(before, snapshot(rnn, linear))


@pytest.mark.parametrize("model", [nn.Conv1d(2, 2, 1), nn.Identity(), object(), 3])
def test_what_cannot_be_read_is_refused_with_what_can(model):
    with pytest.raises(hl.errors.UnsupportedModelError, match=r"cannot read a .*nn\.RNN"):
        hl.read(model)


def test_a_readout_must_be_a_linear_layer():
    rnn, _ = rnn_and_readout()
    with pytest.raises(hl.errors.UnsupportedModelError, match="Conv1d"):
        hl.read(rnn, readout=nn.Conv1d(4, 2, 3))


@pytest.mark.parametrize("option", [{"input_nodes": ["a"]}, {"output_nodes": ["a"]}, {"attach": True}])
def test_options_of_graphs_are_refused_elsewhere(option):
    rnn, _ = rnn_and_readout()
    with pytest.raises(hl.errors.ParameterError, match="go with a graph"):
        hl.read(rnn, **option)
    with pytest.raises(hl.errors.ParameterError, match="go with a graph"):
        hl.read((np.ones((2, 1)), np.ones((2, 2)), np.ones((1, 2))), **option)


# arrays


@pytest.mark.parametrize("skip", [False, True])
def test_arrays_are_read_as_they_are(skip):
    wanted = random_network(skip=skip)
    net = hl.read(tuple(block.numpy() for block in blocks_of(wanted)))
    assert all(torch.equal(a, b) for a, b in zip(blocks_of(net), blocks_of(wanted), strict=True))
    assert (net.w_skip is not None) == skip


def test_arrays_bring_their_own_readout():
    with pytest.raises(hl.errors.ParameterError, match="w_out"):
        hl.read((np.ones((2, 1)), np.ones((2, 2)), np.ones((1, 2))), readout=nn.Linear(2, 1))


# graphs


def small_graph():
    graph = nx.DiGraph()
    graph.add_edge("a", "u", weight=2.0)
    graph.add_edge("u", "v", weight=3.0)
    graph.add_edge("v", "u", weight=-1.0)
    graph.add_edge("v", "y", weight=5.0)
    graph.add_edge("b", "v")  # no weight: counts 1
    graph.add_edge("b", "z", weight=0.5)  # straight to an output
    return graph


def test_a_graph_is_read_edge_by_edge():
    net = hl.read(small_graph(), input_nodes=["b", "a"], output_nodes=["y", "z"])
    assert net.input_names == ("b", "a")
    assert net.output_names == ("y", "z")
    maps = hl.hop_maps(net, horizon=4)
    assert maps.hops.tolist() == [1, 2, 3, 4, 5]
    y_from_b = [0.0, 1 * 5, 0.0, 1 * -1 * 3 * 5, 0.0]
    y_from_a = [0.0, 0.0, 2 * 3 * 5, 0.0, 2 * 3 * -1 * 3 * 5]
    assert maps.values[:, 0].T.tolist() == [y_from_b, y_from_a]
    assert maps.values[:, 1, 0].tolist() == [0.5, 0, 0, 0, 0]


def test_another_edge_attribute_can_hold_the_weight():
    graph = nx.DiGraph([("a", "u", {"size": 4.0}), ("u", "u", {"size": 0.0}), ("u", "y", {"size": 2.0})])
    net = hl.read(graph, input_nodes=["a"], output_nodes=["y"], weight="size")
    assert net.w_in.item() == 4.0
    assert net.w_rec.to_dense().item() == 0.0
    assert net.w_out.item() == 2.0


@pytest.mark.parametrize("skip", [False, True])
def test_a_network_survives_the_way_to_networkx_and_back(skip):
    net = random_network(skip=skip, seed=2)
    back = hl.read(net.to_networkx(), input_nodes=net.input_names, output_nodes=net.output_names)
    assert back.input_names == net.input_names
    assert_near(hl.hop_maps(back, horizon=5).values, hl.hop_maps(net, horizon=5).values)


@pytest.mark.parametrize("form", ["numpy", "torch", "torch-sparse", "scipy"])
@pytest.mark.parametrize("attach", [False, True])
def test_all_forms_of_an_adjacency_matrix_give_the_same_network(form, attach):
    matrix = random_network(skip=True, density=0.6).adjacency()
    given = {
        "numpy": matrix.numpy,
        "torch": lambda: matrix,
        "torch-sparse": matrix.to_sparse,
        "scipy": lambda: sp.coo_array(matrix.numpy()),
    }[form]()
    net = hl.read(given, input_nodes=np.array([2, 0, 1]), output_nodes=range(7, 9), attach=attach)
    assert net.is_sparse == (form == "scipy")
    assert net.input_names == ("n2", "n0", "n1")
    powers = torch.stack([torch.linalg.matrix_power(matrix, m) for m in range(6)])
    walks = powers[:, [2, 0, 1]][:, :, [7, 8]].mT  # (edges walked, O, I)
    maps = hl.hop_maps(net, horizon=5 if attach else 4)
    # a terminal adds an edge at either end: m edges of the graph are m + 2 hops, m from 0
    assert_near(maps.values, walks[:5] if attach else walks[1:])


def test_without_attach_terminals_must_be_mere_terminals():
    ring = nx.DiGraph([("a", "u"), ("u", "y"), ("y", "a")])
    with pytest.raises(hl.errors.UnsupportedModelError, match="attach=True"):
        hl.read(ring, input_nodes=["a"], output_nodes=["y"])
    with pytest.raises(hl.errors.UnsupportedModelError, match="attach=True"):
        hl.read(ring, input_nodes=["u"], output_nodes=["u"])
    net = hl.read(ring, input_nodes=["a"], output_nodes=["y", "a"], attach=True)
    maps = hl.hop_maps(net, horizon=7)
    # a -> y takes 2 edges and then 3 more a round; a -> a takes 0, 3, 6: all with 2 hops more
    assert (maps.values[:, 0, 0] != 0).nonzero().flatten().tolist() == [2, 5]
    assert (maps.values[:, 1, 0] != 0).nonzero().flatten().tolist() == [0, 3, 6]


@pytest.mark.parametrize(
    ("ends", "error", "message"),
    [
        ({"input_nodes": ["a"]}, hl.errors.ParameterError, "input_nodes= and output_nodes="),
        ({"output_nodes": ["y"]}, hl.errors.ParameterError, "input_nodes= and output_nodes="),
        ({"input_nodes": [], "output_nodes": ["y"]}, hl.errors.ParameterError, "at least one input node"),
        ({"input_nodes": ["q"], "output_nodes": ["y"]}, hl.errors.UnknownNameError, "input_nodes= names 'q'"),
        (
            {"input_nodes": ["a"], "output_nodes": ["q"]},
            hl.errors.UnknownNameError,
            "output_nodes= names 'q'",
        ),
        ({"input_nodes": ["a", "a"], "output_nodes": ["y"]}, hl.errors.ParameterError, "twice"),
    ],
)
def test_ends_of_a_graph_are_checked(ends, error, message):
    with pytest.raises(error, match=message):
        hl.read(small_graph(), **ends)


def test_graphs_that_are_no_directed_graph_are_refused():
    with pytest.raises(hl.errors.UnsupportedModelError, match="undirected"):
        hl.read(small_graph().to_undirected(), input_nodes=["a"], output_nodes=["y"])
    with pytest.raises(hl.errors.UnsupportedModelError, match="multigraph"):
        hl.read(nx.MultiDiGraph(small_graph()), input_nodes=["a"], output_nodes=["y"])
    with pytest.raises(hl.errors.ShapeError, match=r"square, got shape \(2, 3\)"):
        hl.read(np.ones((2, 3)), input_nodes=[0], output_nodes=[1])
    with pytest.raises(hl.errors.ShapeError, match="no node besides"):
        hl.read(nx.DiGraph([("a", "y")]), input_nodes=["a"], output_nodes=["y"])


def test_a_sparse_graph_gives_the_maps_of_its_dense_twin():
    rng = np.random.default_rng(0)
    matrix = sp.random_array((30, 30), density=0.1, rng=rng)
    net = hl.read(matrix, input_nodes=[0, 1, 2], output_nodes=[3, 4], attach=True)
    assert net.is_sparse
    dense = hl.Pathways(net.w_in, net.w_rec.to_dense(), net.w_out)
    assert_near(hl.hop_maps(net, horizon=6).values, literal_maps(dense, 6)[1:])


def test_graphs_and_inputs_that_cannot_be_numbers() -> None:
    graph = nx.DiGraph([("eye", "a", {"weight": "strong"}), ("a", "muscle", {"weight": 1.0})])
    with pytest.raises(ParameterError, match="must be a number on every edge"):
        hl.read(graph, input_nodes=["eye"], output_nodes=["muscle"])
    graph["eye"]["a"]["weight"] = 2
    with pytest.raises(ParameterError, match=r"write \['eye'\]"):
        hl.read(graph, input_nodes="eye", output_nodes=["muscle"])
    with pytest.raises(ShapeError, match="no nodes"):
        hl.read(nx.DiGraph(), input_nodes=["eye"], output_nodes=["muscle"])
    with torch.random.fork_rng():
        gru = torch.nn.GRU(3, 4)
    for bad, error in (("text", ShapeError), (torch.ones(2, 2, 3) * 1j, ShapeError)):
        with pytest.raises(error, match="inputs must be"):
            hl.trajectory_maps(gru, bad)
    with pytest.raises(NonFiniteError, match="inputs must be finite"):
        hl.trajectory_maps(gru, torch.full((2, 2, 3), torch.nan))
    with torch.no_grad():
        gru.weight_hh_l0[0, 0] = torch.nan
    broken = hl.trajectory_maps(gru, torch.ones(2, 2, 3))
    with pytest.raises(NonFiniteError, match="check its weights"):
        hl.fidelity(hl.Pathways(torch.ones(4, 3), torch.eye(4), torch.eye(4)), broken)


def test_a_module_around_a_recurrent_one_is_told_what_to_pass() -> None:
    with torch.random.fork_rng():
        model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 4), "head": torch.nn.Linear(4, 2)})
        model["more"] = torch.nn.Linear(4, 4)
    with pytest.raises(UnsupportedModelError, match=r"model\.encoder, and the linear layer after it"):
        hl.read(model)
