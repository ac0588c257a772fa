"""The contracts of what looks at networks: penalties, recipes, measures."""

from __future__ import annotations

from typing import Any

import torch

from hoplens.data import tasks
from hoplens.errors import ContractError, HoplensError
from hoplens.graph.pathways import Pathways
from hoplens.penalties.pathway import Penalty
from hoplens.studies.measures import one_number
from hoplens.studies.testing.requiring import (
    F64,
    blocks_of,
    check_values,
    close,
    generator,
    keeps_randomness,
    name_of,
    random_network,
    require,
)
from hoplens.training.recipes import Recipe
from hoplens.training.training import train


def check_recipe(recipe: Any, *, permutable: bool = True) -> None:
    """Raise unless a recipe's penalties keep their contract, at two lengths, and it can be trained with.

    Parameters
    ----------
    recipe : Recipe
    permutable : bool, default True
        See `check_penalty`.

    Raises
    ------
    ContractError
    """
    require(isinstance(recipe, Recipe), f"expected a hoplens.Recipe, got {name_of(recipe)}")
    for term in recipe.terms:
        for length in (1, 4):
            penalty = term.penalty(length)
            if penalty.acts_on != "data":  # which no graph shows: training below follows them
                check_penalty(penalty, permutable=permutable)
    task = tasks.make("averaging", modules=2, module_size=1, length=3)
    with keeps_randomness("training"):
        result = train(task, recipe, seeds=[0, 1], strengths=[1e-3], hidden=4, steps=20, batch=4)
    require(bool((result.diverged_at < 0).all()), "twenty steps of training with strength 0.001 diverged")


def check_penalty(penalty: Any, *, permutable: bool = True) -> None:
    """Raise unless a penalty keeps what training builds on.

    One finite number a network, which does not depend on its neighbours in an ensemble; the same twice;
    gradients that are those of finite differences, also through ``gradients``; a finite value and gradient
    for zero weights; the dtype of the weights; the network and global random numbers left alone.

    Parameters
    ----------
    penalty : Penalty
        Put into evaluation mode for the check, where ``every=`` and ``sample=`` are off.
    permutable : bool, default True
        Ask that the order of hidden units does not matter.

    Raises
    ------
    ContractError
    """
    require(isinstance(penalty, Penalty), f"a penalty must be a hoplens.Penalty, got {name_of(penalty)}")
    mode = penalty.training
    penalty.eval()
    try:
        with keeps_randomness("the penalty"):
            for batch in ((), (1,), (2, 2)):
                check_values(penalty, random_network(batch), "the penalty", permutable)
                _check_factors(penalty, random_network(batch))
            _check_gradients(penalty)
    finally:
        penalty.train(mode)


def _check_factors(penalty: Penalty, net: Pathways) -> None:
    """Check ``gradients``, which training calls, against autograd of ``forward``."""
    factors = torch.rand(net.batch_shape, generator=generator(4), dtype=F64) + 0.5
    blocks = [block.clone().requires_grad_() for block in blocks_of(net)]
    wanted = penalty(Pathways(*blocks))
    require(
        wanted.requires_grad,
        "the penalty is cut off from the weights: it has no gradient; use no detach(), item() or numpy in it",
    )
    value, grads = penalty.gradients(net, factors)
    found = torch.autograd.grad((factors * wanted).sum(), blocks, allow_unused=True)
    close(value, wanted.detach(), "gradients() gives another value than forward()")
    for name, ours, theirs, block in zip(("w_in", "w_rec", "w_out"), grads, found, blocks, strict=True):
        a, b = (torch.zeros_like(block) if grad is None else grad for grad in (ours, theirs))
        close(a, b, f"gradients() by {name} are not those of forward()")


def _check_gradients(penalty: Penalty) -> None:
    net = random_network((2,))
    blocks = [block.clone().requires_grad_() for block in blocks_of(net)]
    try:
        torch.autograd.gradcheck(lambda *b: penalty(Pathways(*b)), blocks)
    except Exception as error:  # gradcheck's own, or whatever the penalty raises inside
        first = str(error).strip().splitlines()[0]
        raise ContractError(f"the gradient is not that of finite differences: {first}") from error
    zeros = [torch.zeros_like(block).requires_grad_() for block in blocks]
    try:
        value = penalty(Pathways(*zeros))
    except HoplensError:  # a penalty may refuse a network without a cycle, by saying so
        value = None
    if value is not None:
        found = torch.autograd.grad(value.sum(), zeros, allow_unused=True)
        finite = all(bool(torch.isfinite(t).all()) for t in (value, *found) if t is not None)
        require(finite, "the penalty of zero weights, or its gradient there, is not finite")
    single = penalty(net.to(torch.float32))
    require(single.dtype == torch.float32, f"the penalty of float32 weights is {single.dtype}")
    close(single.double(), penalty(net), "the penalty of float32 weights is another one", tolerance=1e-3)


def check_measure(measure: Any, task: Any = None, *, permutable: bool = True) -> None:
    """Raise unless a measure gives one number a network, by the network and the task alone.

    Parameters
    ----------
    measure : callable
        ``(net, task) -> Tensor`` as for `hoplens.extensions.register_measure`.
    task : TrainingTask, optional
        Default a small built-in one.
    permutable : bool, default True
        Ask that the order of hidden units does not matter.

    Raises
    ------
    ContractError
    """
    require(callable(measure), f"a measure is a function (net, task) -> Tensor, got {name_of(measure)}")
    own = task or tasks.make("subtraction", signal="sparse", lag=2, modules=2, module_size=2, length=4)
    name = getattr(measure, "__name__", "measure")
    with keeps_randomness("the measure"):
        for batch in ((), (3,)):
            net = random_network(batch, inputs=own.n_inputs, outputs=own.n_outputs)
            check_values(lambda n: one_number(measure(n, own), n, name), net, "the measure", permutable)


__all__ = ["check_measure", "check_penalty", "check_recipe"]
