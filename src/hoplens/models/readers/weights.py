"""The weight that a module really applies: parametrisations, prune masks and old-style norms included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hoplens.models.tensors import masked


def effective_weight(module: nn.Module, name: str) -> Tensor | None:
    """Return the tensor that ``module`` multiplies with under ``name``, without side effects.

    * ``torch.nn.utils.parametrize``: the parametrised value, its modules in evaluation mode (a spectral
      norm would otherwise take a step of its power iteration at every look);
    * ``torch.nn.utils.prune``: original times mask, computed anew (the plain attribute is stale between
      an optimiser step and the next forward pass);
    * old-style ``weight_norm`` and ``spectral_norm``: recomputed from their parts.

    Parameters
    ----------
    module : nn.Module
    name : str
        Such as ``"weight_hh_l0"``.

    Returns
    -------
    Tensor or None
        None where the module has no such tensor (no bias, no projection). Gradients flow to the original.
    """
    plain = module._parameters.get(name)
    if plain is not None:  # every way to recompute a weight takes it out of the plain parameters
        return plain
    if parametrize.is_parametrized(module, name):
        return _parametrised(module, name)
    original, mask = getattr(module, f"{name}_orig", None), getattr(module, f"{name}_mask", None)
    if isinstance(original, Tensor) and isinstance(mask, Tensor):
        return masked(name, original, mask)
    for hook in module._forward_pre_hooks.values():
        compute: Any = getattr(hook, "compute_weight", None)
        if compute is None or getattr(hook, "name", None) != name:
            continue
        if hasattr(hook, "n_power_iterations"):
            value = compute(module, do_power_iteration=False)
        else:
            value = compute(module)
        return value if isinstance(value, Tensor) else None
    value = getattr(module, name, None)
    return value if isinstance(value, Tensor) else None


def _parametrised(module: nn.Module, name: str) -> Tensor:
    parts: Any = module.parametrizations
    chain = parts[name]
    modes = [(part, part.training) for part in chain.modules()]
    devices = sorted({p.device.index or 0 for p in chain.parameters() if p.is_cuda})
    try:
        with torch.random.fork_rng(devices=devices):
            for part, _ in modes:
                part.training = False
            value = chain()
    finally:
        for part, mode in modes:
            part.training = mode
    assert isinstance(value, Tensor)  # ParametrizationList returns the tensor it stands for
    return value


__all__ = ["effective_weight"]
