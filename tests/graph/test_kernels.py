"""The hand-written thin products against dense products and autograd."""

from __future__ import annotations

import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from twins import assert_near, blocks_of, networks, random_network

import hoplens as hl
from hoplens.graph.chain import thin_products

SIZES = [(1, 4, 3), (3, 4, 1), (2, 3, 2), (4, 1, 4), (1, 1, 1)]  # (I, H, O): either side may be the thin one
LENGTHS = [1, 2, 5]


def dense_products(w_in, w_rec, w_out, length):
    """The twin: explicit powers, differentiated by autograd."""
    powers = [torch.eye(w_rec.shape[-1], dtype=w_rec.dtype).expand(w_rec.shape)]
    for _ in range(length - 1):
        powers.append(powers[-1] @ w_rec)
    return torch.stack([w_out @ power @ w_in for power in powers], dim=-3)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_equal_the_dense_twins(sizes, length, batch):
    i, h, o = sizes
    net = random_network(11, inputs=i, hidden=h, outputs=o, batch=batch, requires_grad=True)
    blocks = blocks_of(net)
    got, wanted = thin_products(*blocks, length), dense_products(*blocks, length)
    assert_near(got, wanted)
    cotangent = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0), dtype=wanted.dtype)
    gradients = torch.autograd.grad(wanted, blocks, cotangent, allow_unused=True, materialize_grads=True)
    for own, twin in zip(torch.autograd.grad(got, blocks, cotangent), gradients, strict=True):
        assert_near(own, twin)


@given(networks(skips=(False,)), st.integers(1, 6), st.integers(0, 1000))
def test_gradients_equal_the_dense_twins_for_any_network(net, length, seed):
    blocks = [block.requires_grad_() for block in blocks_of(net)]
    wanted = dense_products(*blocks, length)
    cotangent = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed), dtype=wanted.dtype)
    twins = torch.autograd.grad(wanted, blocks, cotangent, allow_unused=True, materialize_grads=True)
    got = torch.autograd.grad(thin_products(*blocks, length), blocks, cotangent)
    for own, twin in zip(got, twins, strict=True):
        assert_near(own, twin)


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
def test_gradcheck(sizes, length, batch):
    i, h, o = sizes
    net = random_network(3, inputs=i, hidden=h, outputs=o, batch=batch, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *blocks: thin_products(*blocks, length), blocks_of(net))


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)], ids=str)
def test_only_some_blocks_may_need_a_gradient(wanted):
    blocks = blocks_of(random_network())
    for n in wanted:
        blocks[n].requires_grad_()
    thin_products(*blocks, 4).square().sum().backward()
    assert [n for n, block in enumerate(blocks) if block.grad is not None] == list(wanted)
    twins = [block.detach().requires_grad_(block.requires_grad) for block in blocks]
    dense_products(*twins, 4).square().sum().backward()
    for n in wanted:
        assert_near(blocks[n].grad, twins[n].grad)


def test_views_with_any_strides_are_taken():
    net = random_network(inputs=3, hidden=3, outputs=3, batch=(2,))
    views = [block.mT.contiguous().mT for block in blocks_of(net)]
    assert not any(view.is_contiguous() for view in views)
    assert_near(thin_products(*views, 4), dense_products(*blocks_of(net), 4))
    shared = net.w_in[:1].expand(2, 3, 3)
    assert_near(
        thin_products(shared, net.w_rec, net.w_out, 4), dense_products(shared, net.w_rec, net.w_out, 4)
    )


def test_an_empty_ensemble_has_empty_maps():
    assert thin_products(*(b[:0] for b in blocks_of(random_network(batch=(2,)))), 3).shape == (0, 3, 2, 3)


def test_the_inputs_are_left_alone():
    net = random_network(batch=(2,), requires_grad=True)
    before = [block.detach().clone() for block in blocks_of(net)]
    maps = thin_products(*blocks_of(net), 5)
    cotangent = torch.ones_like(maps)
    maps.backward(cotangent)
    assert all(torch.equal(a, b) for a, b in zip(before, blocks_of(net), strict=True))
    assert torch.equal(cotangent, torch.ones_like(maps))


def test_the_forward_result_is_not_tied_to_the_backward_pass():
    net = random_network(requires_grad=True)
    maps = thin_products(*blocks_of(net), 3)
    copy = maps.detach().clone()
    maps.sum().backward()
    assert torch.equal(maps, copy)


def test_a_second_derivative_raises_instead_of_being_wrong():
    net = random_network(requires_grad=True)
    (slope,) = torch.autograd.grad(
        thin_products(*blocks_of(net), 3).square().sum(), net.w_rec, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
def test_sparse_values_and_gradients_equal_the_dense_twins(sizes, length):
    i, h, o = sizes
    dense = random_network(5, inputs=i, hidden=h, outputs=o, density=0.6)
    net = hl.Pathways(dense.w_in, sp.coo_array(dense.w_rec.numpy()), dense.w_out)
    sparse = [block.requires_grad_() for block in (net.w_in, net.w_rec, net.w_out)]
    twins = [block.detach().clone().requires_grad_() for block in blocks_of(dense)]
    got, wanted = thin_products(*sparse, length), dense_products(*twins, length)
    assert_near(got, wanted)
    got.pow(2).sum().backward()
    wanted.pow(2).sum().backward()
    assert_near(sparse[0].grad, twins[0].grad)
    assert_near(sparse[2].grad, twins[2].grad)
    if length > 1:
        stored = dense.w_rec != 0
        slope = sparse[1].grad.to_dense()
        assert_near(slope[stored], twins[1].grad[stored])
