"""Leave the user's model as it was, whatever happens inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def untouched(module: nn.Module, *, evaluation: bool = True) -> Iterator[None]:
    """Run a block and then restore the module and the global random numbers, also on errors.

    Restored: the training mode of every submodule, every parameter's ``requires_grad`` and ``grad``, the
    values of all buffers (a batch norm or spectral norm updates them on use), forward and backward hooks
    added inside, and the CPU and CUDA generators.

    Parameters
    ----------
    module : nn.Module
    evaluation : bool, default True
        Put the module into evaluation mode inside.
    """
    modes = [(part, part.training) for part in module.modules()]
    flags = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    hooks = [(part, name, dict(getattr(part, name))) for part, _ in modes for name in _HOOKS]
    devices = sorted({p.device.index or 0 for p, *_ in flags if p.is_cuda})
    try:
        with torch.random.fork_rng(devices=devices):
            for part, _ in modes:
                part.training = part.training and not evaluation
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter, flag, grad in flags:
            parameter.requires_grad_(flag)
            parameter.grad = grad
        with torch.no_grad():
            for buffer, value in buffers:
                if not _same(buffer, value):
                    buffer.copy_(value)
        for part, name, before in hooks:
            registered = getattr(part, name)
            for key in [key for key in registered if key not in before]:
                del registered[key]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _same(a: Tensor, b: Tensor) -> bool:
    # written only where changed: a buffer that is a view or shared stays as it was
    return a.shape == b.shape and bool(torch.equal(a, b))


__all__ = ["untouched"]
