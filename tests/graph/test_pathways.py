"""The central value: blocks, names, selection, adjacency."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from twins import assert_near, blocks_of, full_matrix, networks, one_by_one, random_network

import hoplens as hl


@given(networks())
def test_adjacency_is_the_full_matrix_in_the_graph_convention(net):
    wanted = torch.stack([full_matrix(one).T for one in one_by_one(net)])
    got = net.adjacency()
    assert got.shape[:-2] == net.batch_shape
    assert torch.equal(got.reshape(-1, *got.shape[-2:]), wanted)


def test_adjacency_holds_the_edge_from_i_to_j_at_i_j():
    net = hl.Pathways([[2.0], [0.0]], [[0.0, 0.0], [3.0, 0.0]], [[0.0, 5.0]], [[7.0]])
    adjacency = net.adjacency()  # nodes: x0, h0, h1, y0
    assert adjacency[0, 1] == 2.0
    assert adjacency[1, 2] == 3.0
    assert adjacency[2, 3] == 5.0
    assert adjacency[0, 3] == 7.0
    assert int((adjacency != 0).sum()) == 4


def test_adjacency_is_differentiable():
    net = random_network(skip=True, requires_grad=True)
    net.adjacency().square().sum().backward()
    for block in blocks_of(net):
        assert_near(block.grad, 2 * block.detach())


def test_sizes_and_repr():
    net = random_network(inputs=3, hidden=4, outputs=2, batch=(5,))
    assert (net.n_inputs, net.n_hidden, net.n_outputs) == (3, 4, 2)
    assert net.batch_shape == (5,)
    assert not net.is_sparse
    for part in ("3 inputs", "4 hidden", "2 outputs", "(5,)", "float64", "raw weights"):
        assert part in repr(net)


def test_it_is_frozen():
    net = random_network()
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.w_in = torch.zeros(4, 3)


def test_it_survives_pickling_and_deep_copies():
    net = random_network(skip=True)
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert all(torch.equal(a, b) for a, b in zip(blocks_of(net), blocks_of(twin), strict=True))
        assert twin.input_names == net.input_names


# what is accepted


def test_tensors_are_shared_and_arrays_are_copied():
    w_in, w_rec, w_out = torch.ones(2, 1), np.zeros((2, 2), dtype=np.float32), torch.ones(1, 2)
    net = hl.Pathways(w_in, w_rec, w_out)
    assert net.w_in.data_ptr() == w_in.data_ptr()
    w_rec[:] = 9.0
    assert float(net.w_rec.abs().max()) == 0.0


def test_dtypes_are_promoted_and_integers_become_floats():
    assert hl.Pathways([[1]], [[1]], [[1]]).w_rec.dtype == torch.get_default_dtype()
    net = hl.Pathways(torch.ones(1, 1), np.ones((1, 1)), [[1]], torch.ones(1, 1, dtype=torch.float16))
    assert all(block.dtype == torch.float64 for block in blocks_of(net))


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "torch-csr", "torch-coo", "torch-csc"])
def test_a_sparse_w_rec_stays_sparse(form):
    dense = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [4.0, 0.0, 0.0]])
    if form.startswith("torch"):
        tensor = torch.tensor(dense)
        kinds = {"csr": tensor.to_sparse_csr, "coo": tensor.to_sparse, "csc": tensor.to_sparse_csc}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own note on its sparse layouts, in the caller's code
            w_rec = kinds[form.removeprefix("torch-")]()
    else:
        w_rec = sp.coo_array(dense).asformat(form)
    net = hl.Pathways(np.ones((3, 2)), w_rec, np.ones((1, 3)))
    assert net.is_sparse
    assert net.w_rec.layout == torch.sparse_csr
    assert torch.equal(net.w_rec.to_dense(), torch.tensor(dense))
    assert torch.equal(net.adjacency()[2:5, 2:5], torch.tensor(dense).T)
    assert net.to(torch.float32).w_rec.dtype == torch.float32


def test_duplicate_and_unsorted_sparse_entries_are_summed_and_sorted():
    indices, pointer = np.array([2, 1, 1]), np.array([0, 3, 3, 3])
    w_rec = sp.csr_array((np.array([1.0, 2.0, 3.0]), indices, pointer), shape=(3, 3))
    net = hl.Pathways(np.ones((3, 1)), w_rec, np.ones((1, 3)))
    assert torch.equal(net.w_rec.to_dense(), torch.tensor([[0.0, 5.0, 1.0], [0, 0, 0], [0, 0, 0]]).double())
    assert w_rec.nnz == 3  # the caller's matrix is left as it was


def test_only_w_rec_stays_sparse():
    eye = sp.eye_array(2)
    net = hl.Pathways(eye, eye, eye, eye)
    assert net.is_sparse
    assert all(b.layout == torch.strided for b in (net.w_in, net.w_out, net.w_skip))
    assert hl.Pathways(eye, np.eye(2), eye).w_in.layout == torch.strided


# what is refused


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (((4, 3), (4, 5), (2, 4)), "w_rec should end in"),
        (((5, 3), (4, 4), (2, 4)), "w_in should end in"),
        (((4, 3), (4, 4), (2, 5)), "w_out should end in"),
        (((4, 3), (4, 4), (2, 4), (3, 2)), "w_skip should end in"),
        (((4,), (4, 4), (2, 4)), "w_in must have at least two axes"),
        (((4, 0), (4, 4), (2, 4)), "at least one input"),
        (((0, 3), (0, 0), (2, 0)), "at least one input, hidden unit"),
        (((4, 3), (4, 4), (0, 4)), "at least one input, hidden unit and output"),
        (((2, 4, 3), (4, 4), (2, 4)), "same leading axes"),
        (((2, 4, 3), (3, 4, 4), (2, 2, 4)), "same leading axes"),
        (((4, 3), (4, 4), (2, 4), (1, 2, 3)), "same leading axes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(blocks, message):
    with pytest.raises(hl.errors.ShapeError, match=message) as caught:
        hl.Pathways(*(np.ones(shape) for shape in blocks))
    assert str(blocks[0]) in str(caught.value)  # what came


@pytest.mark.parametrize(
    "bad",
    ["weights", None, [[1.0, 2.0], [3.0]], np.ones((4, 3)) * 1j, object(), np.array([["a", "b"]])],
    ids=["str", "None", "ragged", "complex", "object", "strings"],
)
def test_what_is_no_real_array_is_refused(bad):
    with pytest.raises(hl.errors.ShapeError, match="weights must be"):
        hl.Pathways(bad, np.ones((4, 4)), np.ones((2, 4)))


def test_blocks_on_two_devices_are_refused():
    with pytest.raises(hl.errors.ShapeError, match="one device, got cpu, meta"):
        hl.Pathways(torch.ones(4, 3), torch.ones(4, 4, device="meta"), torch.ones(2, 4))


def test_a_batch_of_sparse_matrices_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        w_rec = torch.eye(2).repeat(3, 1, 1).to_sparse_csr()
    with pytest.raises(hl.errors.ShapeError, match="sparse matrix must have two axes"):
        hl.Pathways(torch.ones(3, 2, 1), w_rec, torch.ones(3, 1, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block", ["w_in", "w_rec", "w_out", "w_skip"])
def test_check_finite_names_the_block(block, value):
    blocks = {"w_in": (4, 3), "w_rec": (4, 4), "w_out": (2, 4), "w_skip": (2, 3)}
    arrays = {name: np.ones(shape) for name, shape in blocks.items()}
    assert hl.Pathways(**arrays).check_finite() is not None
    arrays[block][1, 1] = value
    with pytest.raises(hl.errors.NonFiniteError, match=rf"{block} must be finite, but 1 of its"):
        hl.Pathways(**arrays).check_finite()


def test_check_finite_looks_into_sparse_matrices_and_returns_the_network():
    w_rec = sp.csr_array(np.array([[0.0, np.nan], [1.0, 0.0]]))
    with pytest.raises(hl.errors.NonFiniteError, match="1 of its 2 entries"):
        hl.Pathways(np.ones((2, 1)), w_rec, np.ones((1, 2))).check_finite()
    net = random_network()
    assert net.check_finite() is net


# names


def test_names_have_defaults_and_can_be_given():
    net = random_network(inputs=2, outputs=2)
    assert net.input_names == ("x0", "x1")
    assert net.output_names == ("y0", "y1")
    assert net.input_modules is None
    named = hl.Pathways(
        *blocks_of(net), input_names=["a", "b"], output_modules=["m", "m"], provenance="a Jacobian"
    )
    assert named.input_names == ("a", "b")
    assert named.output_modules == ("m", "m")  # nodes may share a module
    assert "a Jacobian" in repr(named)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"input_names": ["a"]}, "input_names must hold 3 names"),
        ({"output_names": ["a", "a"]}, "output_names must be distinct"),
        ({"input_modules": ["a"] * 4}, "input_modules must hold 3 names"),
        ({"output_modules": []}, "output_modules must hold 2 names"),
    ],
)
def test_names_that_do_not_fit_are_refused(names, message):
    with pytest.raises(hl.errors.ShapeError, match=message):
        hl.Pathways(*blocks_of(random_network(inputs=3, outputs=2)), **names)


# selection and conversion


def named_ensemble(batch=(4,)):
    blocks = blocks_of(random_network(inputs=2, hidden=2, outputs=2, batch=batch, skip=True))
    return hl.Pathways(*blocks, input_names=["a", "b"], output_modules=["m", "n"], provenance="test")


@pytest.mark.parametrize("index", [0, -1, slice(1, 3), [2, 0], torch.tensor([True, False, True, False]), ...])
def test_selection_takes_the_same_networks_of_every_block(index):
    net = named_ensemble()
    part = net[index]
    for own, whole in zip(blocks_of(part), blocks_of(net), strict=True):
        assert torch.equal(own, whole[index])
    assert part.input_names == ("a", "b")
    assert part.output_modules == ("m", "n")
    assert part.provenance == "test"


def test_selection_works_on_several_leading_axes():
    net = named_ensemble((2, 3))
    assert net[1].batch_shape == (3,)
    assert net[:, 0].batch_shape == (2,)
    assert torch.equal(net[..., 2].w_rec, net.w_rec[:, 2])  # the ellipsis does not reach W's own axes
    assert torch.equal(net[1, 2].w_out, net.w_out[1, 2])


def test_an_ensemble_can_be_iterated_over():
    net = named_ensemble()
    assert [torch.equal(one.w_rec, w) for one, w in zip(net, net.w_rec, strict=True)] == [True] * 4


@pytest.mark.parametrize("index", [(0, 0), (0, slice(1)), (slice(None), slice(None)), [9], (9,), "h0"])
def test_selection_never_reaches_into_a_matrix(index):
    net = named_ensemble()
    with pytest.raises(hl.errors.ShapeError, match=r"leading axes \(4,\)"):
        net[index]


def test_a_network_that_does_not_exist_is_an_index_error():
    with pytest.raises(IndexError):
        named_ensemble()[4]


def test_the_ellipsis_never_reaches_into_a_matrix():
    square = hl.Pathways(*torch.ones(3, 3, 3, 3).unbind())  # here a wrong cut would still fit together
    assert square[..., 0].w_rec.shape == (3, 3)
    square.w_rec[0] = 7.0
    assert bool((square[..., 0].w_rec == 7.0).all())


def test_one_network_cannot_be_selected_from():
    with pytest.raises(hl.errors.ShapeError, match="one network"):
        random_network()[0]


def test_to_and_detach_change_all_blocks_and_keep_the_names():
    net = named_ensemble()
    for block in blocks_of(net):
        block.requires_grad_()
    single = net.to(torch.float32)
    assert all(block.dtype == torch.float32 for block in blocks_of(single))
    assert single.input_names == net.input_names
    assert single.w_in.requires_grad
    cut = net.detach()
    assert not any(block.requires_grad for block in blocks_of(cut))
    assert torch.equal(cut.w_skip, net.w_skip)
    assert cut.output_modules == net.output_modules


# networkx


def test_to_networkx_has_every_edge_once_with_its_weight():
    net = random_network(skip=True, density=0.5, seed=3)
    graph = net.to_networkx()
    names = [*net.input_names, *(f"h{j}" for j in range(net.n_hidden)), *net.output_names]
    matrix = full_matrix(net)
    edges = {
        (names[j], names[i]): float(matrix[i, j]) for i, j in matrix.nonzero().tolist()
    }  # W[i, j] is the edge j -> i
    assert 0 < len(edges) < matrix.numel()
    assert {(a, b): w for a, b, w in graph.edges(data="weight")} == edges
    assert list(graph.nodes) == names
    assert [graph.nodes[n]["kind"] for n in names] == ["input"] * 3 + ["hidden"] * 4 + ["output"] * 2


@pytest.mark.parametrize("names", [{"input_names": ["h0", "b", "c"]}, {"output_names": ["x1", "y"]}])
def test_to_networkx_never_merges_nodes_of_one_name(names):
    net = hl.Pathways(*blocks_of(random_network()), **names)
    graph = net.to_networkx()
    assert len(graph) == 9
    assert graph.number_of_edges() == int((net.adjacency() != 0).sum())
    assert {f"in:{name}" for name in net.input_names} <= set(graph)
    assert {f"out:{name}" for name in net.output_names} <= set(graph)


def test_to_networkx_takes_one_network():
    with pytest.raises(hl.errors.ShapeError, match="one network"):
        random_network(batch=(2,)).to_networkx()
