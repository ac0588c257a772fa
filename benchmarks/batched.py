"""Many compressed networks of one shape evaluated and fine-tuned as one batch, for the comparisons here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

import hoplens as hl
from hoplens.compress.simulation import Tap, run_model
from hoplens.data.tasks import Task

Tensors = dict[str, Tensor]
Weighing = Callable[[Tensors], Tensors]


def template(n_inputs: int, hidden: int, n_outputs: int) -> hl.RecurrentModel:
    """Return a plain tanh model of this shape: the structure that all tensors are run with."""
    with torch.random.fork_rng(devices=[]):
        core = nn.RNN(n_inputs, hidden, batch_first=True)
        return hl.RecurrentModel(core, nn.Linear(hidden, n_outputs)).eval()


def tensors_of(ensemble: hl.Ensemble) -> Tensors:
    """Return the weights of a trained ensemble under a model's names, leading axis E."""
    h, i = ensemble.n_hidden, ensemble.n_inputs
    w_rec, w_in, bias = ensemble.weight.detach().split([h, i, 1], dim=1)
    return {
        "core.weight_ih_l0": w_in.mT.contiguous(),
        "core.weight_hh_l0": w_rec.mT.contiguous(),
        "core.bias_ih_l0": bias[:, 0].contiguous(),
        "core.bias_hh_l0": torch.zeros_like(bias[:, 0]),
        "readout.weight": ensemble.readout.detach().clone(),
        "readout.bias": ensemble.offset.detach()[..., 0].clone(),
    }


def models_of(ensemble: hl.Ensemble) -> list[hl.RecurrentModel]:
    """Return the networks of a trained ensemble as models of nn.RNN."""
    models = []
    for row in range(ensemble.size):
        model = template(ensemble.n_inputs, ensemble.n_hidden, ensemble.readout.shape[1])
        model.load_state_dict({name: value[row] for name, value in tensors_of(ensemble).items()})
        models.append(model)
    return models


def stacked(models: Sequence[hl.RecurrentModel]) -> Tensors:
    """Return the tensors of models of one shape, leading axis E."""
    states = [model.state_dict() for model in models]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def shape_of(tensors: Mapping[str, Tensor]) -> hl.RecurrentModel:
    """Return the template that tensors belong to."""
    hidden, n_inputs = tensors["core.weight_ih_l0"].shape[-2:]
    return template(n_inputs, hidden, tensors["readout.weight"].shape[-2])


def outputs(tensors: Mapping[str, Tensor], inputs: Tensor, tap: Tap | None = None) -> Tensor:
    """Return the outputs of all networks, (E, B, O)."""
    return run_model(shape_of(tensors), tensors, inputs, tap=tap)


def explained(tensors: Mapping[str, Tensor], data: tuple[Tensor, Tensor], tap: Tap | None = None) -> Tensor:
    """Return the explained share of the targets' variance of every network, (E,)."""
    inputs, targets = data
    with torch.no_grad():
        error = (outputs(tensors, inputs, tap) - targets).square().mean(dim=(-2, -1))
    return 1 - error / targets.var(dim=0, correction=0).mean()


def samples(task: Task, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return sequences and targets that training has not seen."""
    source = torch.Generator().manual_seed(1_000_000 + seed)
    return tuple(task.sample(count, generator=source, dtype=torch.float32))


def tune(
    tensors: Tensors,
    data: tuple[Tensor, Tensor],
    *,
    steps: int,
    lr: float,
    weigh: Weighing = dict,
    tap: Tap | None = None,
    batch: int = 64,
) -> Tensors:
    """Return all networks fine-tuned on the same batches; ``weigh`` maps leaves to what is run."""
    leaves = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=lr)
    inputs, targets = data
    source = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randint(len(inputs), (batch,), generator=source)
        # summed over networks: each one's gradient is that of its own loss
        error = (outputs(weigh(leaves), inputs[rows], tap) - targets[rows]).square().mean(dim=(-2, -1)).sum()
        optimiser.zero_grad()
        error.backward()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.step()
    return {name: leaf.detach() for name, leaf in leaves.items()}
