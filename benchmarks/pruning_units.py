"""Removal of whole hidden units: hoplens against torch-pruning, which reads an unrolled network."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from pruning_networks import CALIBRATION, calibration, performance
from torch import Tensor, nn

import hoplens as hl
from hoplens.data.streams import TrainingTask
from hoplens.models.ensemble import Ensemble

LEVELS = (10, 30, 50, 70)  # percent of the hidden units
PEER = "torch-pruning"


class Unrolled(nn.Module):
    """A tanh network as dense layers used step after step: the form in which torch-pruning sees its units."""

    def __init__(self, model: hl.RecurrentModel) -> None:
        super().__init__()
        core = model.core
        self.enter = nn.Linear(core.input_size, core.hidden_size)
        self.recur = nn.Linear(core.hidden_size, core.hidden_size, bias=False)
        self.leave = nn.Linear(core.hidden_size, model.n_outputs)
        with torch.no_grad():
            self.enter.weight.copy_(core.weight_ih_l0)
            self.enter.bias.copy_(core.bias_ih_l0 + core.bias_hh_l0)
            self.recur.weight.copy_(core.weight_hh_l0)
            self.leave.weight.copy_(model.readout.weight)
            self.leave.bias.copy_(model.readout.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the read-out (B, O) after the last step of inputs (B, L, I)."""
        state = torch.tanh(self.enter(inputs[:, 0]))
        for x in inputs.unbind(1)[1:]:
            state = torch.tanh(self.enter(x) + self.recur(state))
        return self.leave(state)


def by_torch_pruning(
    model: hl.RecurrentModel, share: float, kind: str, inputs: Tensor, targets: Tensor
) -> Unrolled:
    """Return the network after torch-pruning took a share of its units."""
    import torch_pruning as tp

    net = Unrolled(model)
    score = tp.importance.GroupMagnitudeImportance(p=2)
    if kind == "Taylor":
        score = tp.importance.GroupTaylorImportance()
        nn.functional.mse_loss(net(inputs), targets).backward()
    pruner = tp.pruner.BasePruner(
        net, inputs[:2], importance=score, pruning_ratio=share, ignored_layers=[net.leave]
    )
    pruner.step()
    return net


def on_recurrent_module() -> str:
    """Return in one sentence what torch-pruning does to an nn.RNN that it is given as it is."""
    import torch_pruning as tp

    with torch.random.fork_rng():
        model = hl.RecurrentModel(nn.RNN(8, 48, batch_first=True), nn.Linear(48, 4))
    before = {name: tuple(value.shape) for name, value in model.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            model,
            torch.zeros(2, 5, 8),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[model.readout],
        )
        pruner.step()
    same = before == {name: tuple(value.shape) for name, value in model.named_parameters()}
    return f"torch-pruning {tp.__version__}, asked for half of the units of an nn.RNN of 48, " + (
        "leaves every tensor as it was." if same else "changed its shapes."
    )


def unit_rows(task: TrainingTask, ensemble: Ensemble, seeds: range) -> Iterator[dict[str, object]]:
    """Yield one row a network, method and level."""
    inputs, targets = calibration(task)
    before = performance(task, ensemble)
    ways = {
        "pathway": {"inputs": inputs[:CALIBRATION]},
        "pathway, others do not take over": {"inputs": inputs[:CALIBRATION], "compensate": False},
        "magnitude": {"by": "magnitude"},
        "Taylor": {"by": "taylor", "inputs": inputs, "targets": targets, "samples": len(inputs)},
    }
    for level in LEVELS:
        found = {
            name: performance(task, _pruned(ensemble, level / 100, **options))
            for name, options in ways.items()
        }
        if importlib.util.find_spec("torch_pruning"):
            for kind in ("magnitude", "Taylor"):
                nets = [
                    by_torch_pruning(model, level / 100, kind, inputs, targets) for model in ensemble.models()
                ]
                found[f"{PEER}, {kind}"] = torch.cat([performance(task, _Alone(net)) for net in nets])
        for name, after in found.items():
            kept = (after.clamp_min(0) / before).tolist()
            for seed, value in zip(seeds, kept, strict=True):
                yield {"stage": "units", "method": name, "level": level, "seed": seed, "kept": value}


def _pruned(ensemble: Ensemble, amount: float, **options: Any) -> Ensemble:
    """Return the networks without a share of their units."""
    models = [hl.prune(model, amount, structure="unit", **options).model for model in ensemble.models()]
    return ensemble.with_models(models)


class _Alone:
    """One module in the place of an ensemble of one."""

    def __init__(self, net: Unrolled) -> None:
        self.net, self.weight = net, net.enter.weight

    def predict(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)[None]
