"""`hoplens.prune`: fewer weights, or fewer units, with the outputs kept."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from hoplens.compress.criteria import CRITERIA, Criterion, choose, compensated, parse_structure
from hoplens.compress.made import CompressedModel
from hoplens.compress.removal import thin_units
from hoplens.compress.sensitivity import BLOCKS, block_of, white_noise
from hoplens.compress.tuning import fine_tune as train_weights
from hoplens.errors import ParameterError, check_choice, check_count, check_number
from hoplens.models.readers.copies import as_model, plain_copy
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.models.tensors import as_sequences, check_finite, check_targets, numbers
from hoplens.penalties.gradual_pruning import GradualPruning
from hoplens.seeds import generator

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Pruned(CompressedModel):
    """A pruned model; unpacks as ``core, readout = hl.prune(...)``.

    Attributes
    ----------
    model : RecurrentModel
        New modules; smaller ones where units were removed.
    masks : dict of Tensor of bool
        Which weights are left, by the name of the tensor in ``model``; of the pruned matrices only.
    units : dict of list of int, or None
        Of structure "unit": the hidden units that are left in every layer, by their old numbers.
    report : pandas.DataFrame
        One row a tensor of the model: block, pruned (whether it was asked for), shapes and numbers of
        non-zero weights before and after, sparsity (share of zeros).
    """

    masks: dict[str, Tensor]
    units: dict[str, list[int]] | None
    report: pd.DataFrame

    def __iter__(self) -> Iterator[nn.Module]:
        return iter((self.model.core, self.model.readout))

    def with_masks(self) -> RecurrentModel:
        """Return a copy of the model whose masks ``torch.nn.utils.prune`` holds, so that training keeps them.

        `torch.nn.utils.prune.remove`, or `prune` itself, makes plain weights of them again.
        """
        return _hold_masks(copy.deepcopy(self.model), self.masks)


@dataclass(frozen=True)
class _Job:
    """What is asked for, checked."""

    criterion: Criterion
    amount: float
    kind: str
    pattern: tuple[int, int] | None
    blocks: tuple[str, ...]
    block_size: int
    rounds: int
    compensate: bool
    tune: Callable[[RecurrentModel], Any] | None

    def share(self, done: int) -> float:
        """Return the share that is gone after so many rounds."""
        if done == self.rounds:
            return self.amount
        return float(GradualPruning(self.amount).share(torch.tensor(done / self.rounds, dtype=torch.float64)))


def prune(
    model: nn.Module,
    amount: float | None = None,
    *,
    by: str = "pathway",
    structure: str = "weight",
    readout: nn.Linear | None = None,
    blocks: Sequence[str] = ("rec",),
    inputs: Tensor | None = None,
    targets: Tensor | None = None,
    horizon: int = 20,
    samples: int = 128,
    rounds: int = 1,
    compensate: bool | None = None,
    block_size: int = 4,
    steps: int = 0,
    lr: float = 1e-3,
    batch: int = 64,
    fine_tune: Callable[[RecurrentModel], Any] | None = None,
    seed: int = 0,
) -> Pruned:
    """Remove weights or hidden units of a recurrent network; the model given stays as it was.

    ``by="pathway"`` asks what the outputs lose. Edge j -> i carries ``dy / dW[i, j] = sum_t (dy / dz_(t,i))
    h_(t,j)``: every walk that arrives at j, crosses the edge, and goes on to an output. The matrix of these
    for all edges into a unit is its block of the Gauss-Newton matrix (in a linear network under white noise:
    of the squared hop maps). Weights of a unit go one by one, always the one that the others can best make
    up for, and in the end what stays is fitted anew (`compensate`). No targets are needed, and no data
    either: without inputs white noise is sent through the network. In our comparison (``docs/pruning.md``)
    this kept more than magnitude, Taylor and first-order hop-map scores at every level, on every task.

    Parameters
    ----------
    model : RecurrentModel, or core with ``readout``
        nn.RNN, nn.GRU, nn.LSTM (stacked, bidirectional, projected) or LeakyRNN with ``batch_first=True``.
        Masks of ``torch.nn.utils.prune`` are applied first; weights that are zero stay zero and count.
    amount : float
        Share of each matrix's weights that is zero in the end, in [0, 1), rounded to whole weights; share of
        tiles ("block") or of the units of each layer ("unit"). Not needed for n:m.
    by : {"pathway", "magnitude", "taylor", "random"}, default "pathway"
        ``magnitude``: |W|. ``taylor``: ``W^2 mean_s (d loss_s / dW)^2`` over samples, needs inputs and
        targets (Molchanov et al. 2019). A unit's score is the sum over all weights into and out of it;
        pathway scores of units see `hoplens.compress.removal.Folding`.
    structure : {"weight", "unit", "block", "2:4", ...}, default "weight"
        Single weights; whole hidden units, cut out of the module; tiles of ``block_size``; n of every m
        neighbours in a row left.
    readout : nn.Linear, optional
        After a bare core.
    blocks : tuple of {"in", "rec", "out"}, default ("rec",)
        What is pruned: edges from inputs, between hidden units (from layer to layer too), to outputs. Every
        matrix loses the same share. An LSTM's projection is never pruned. Not for units.
    inputs : Tensor, shape (B, L, I), optional
        Sequences to weigh by; default white noise of ``horizon`` steps.
    targets : Tensor, optional
        int64 classes, or numbers; for Taylor scores and fine-tuning.
    horizon : int, default 20
        Steps of white noise.
    samples : int, default 128
        Sequences used for scores, taken evenly from the inputs.
    rounds : int, default 1
        Scores are taken anew in every round; the share that is gone follows the cubic schedule of
        `GradualPruning`. 1: all at once.
    compensate : bool, optional
        Fit what stays to the outputs; default: for pathway scores only.
    block_size : int, default 4
        Side of a tile; tiles at the edges may be smaller.
    steps : int, default 0
        Steps of fine-tuning after each round (Adam, masks held), towards the targets, or the outputs of the
        model given if there are none.
    lr, batch : float, int
        Of that fine-tuning.
    fine_tune : callable, optional
        Own fine-tuning after each round: takes a RecurrentModel and trains its parameters in place; masks
        are held by ``torch.nn.utils.prune`` meanwhile.
    seed : int, default 0
        Of random scores, white noise and fine-tuning. The global random state is not touched.

    Returns
    -------
    Pruned
        Warns if nothing changed.

    Raises
    ------
    ParameterError
        For an amount outside [0, 1), Taylor scores or fine-tuning without data, or options that do not go
        together.
    UnknownNameError
        For an unknown criterion, structure or block.
    UnsupportedModelError
        For a model that cannot be pruned.
    """
    check_choice("criterion", by, CRITERIA)
    kind, pattern = parse_structure(structure)
    chosen = tuple(check_choice("block", name, BLOCKS) for name in blocks)
    if not chosen or (kind == "unit" and chosen != ("rec",)):
        raise ParameterError('name at least one of the blocks "in", "rec", "out"; units take no blocks=')
    if steps and fine_tune is not None:
        raise ParameterError("steps= and fine_tune= are two ways to fine-tune; give one of them")
    inputs = None if inputs is None else numbers(inputs, "inputs")
    if targets is not None and inputs is not None:
        targets = check_targets(targets, len(inputs))
    given = as_model(model, readout, needs="weight_hh")
    data, aims = _data(given, by, inputs, targets, steps, samples, horizon, seed)
    criterion = Criterion(by, data, aims, generator("random scores", seed), seed)
    tune = fine_tune
    if steps:
        assert inputs is not None
        seen = inputs.to(given.readout.weight)
        with torch.no_grad():
            wanted = given(seen) if targets is None else targets

        def tune(own: RecurrentModel) -> None:
            parameters = list(own.parameters())
            train_weights(own, parameters, seen, wanted, steps=steps, lr=lr, batch=batch, seed=seed)

    job = _Job(
        criterion=criterion,
        amount=_amount(amount, pattern),
        kind=kind,
        pattern=pattern,
        blocks=chosen,
        block_size=check_count("block_size", block_size),
        rounds=check_count("rounds", rounds),
        compensate=by == "pathway" if compensate is None else compensate,
        tune=tune,
    )
    done = _prune(given, job)
    if bool((done.report["weights"] == done.report["weights_before"]).all()):
        warnings.warn(_nothing(done, job.amount), UserWarning, stacklevel=2)
    return done


def _hold_masks(model: RecurrentModel, masks: dict[str, Tensor]) -> RecurrentModel:
    """Put masks, by the names of the model's tensors, under ``torch.nn.utils.prune`` in place."""
    for name, mask in masks.items():
        part, _, tensor = name.partition(".")
        torch_prune.custom_from_mask(getattr(model, part), tensor, mask)
    return model


def _report(given: RecurrentModel, small: RecurrentModel, blocks: Sequence[str] | None) -> pd.DataFrame:
    """Return one row a tensor, before and after; ``blocks`` are what was pruned, None: units."""
    import pandas as pd

    rows = []
    for (name, old), new in zip(given.state_dict().items(), small.state_dict().values(), strict=True):
        block = block_of(name)
        pruned = old.shape != new.shape if blocks is None else block in blocks
        zeros = float((new == 0).double().mean())
        shapes = (tuple(old.shape), tuple(new.shape))
        counts = (int((old != 0).sum()), int((new != 0).sum()))
        rows.append((name, block or "-", pruned, *shapes, *counts, zeros))
    columns = ["tensor", "block", "pruned", "shape_before", "shape", "weights_before", "weights", "sparsity"]
    return pd.DataFrame(rows, columns=columns)


def _amount(amount: float | None, pattern: tuple[int, int] | None) -> float:
    if pattern is None:
        if amount is None:
            raise ParameterError("amount is missing: the share to remove, at least 0 and below 1")
        return check_number("amount", amount, least=0.0, below=1.0)
    n, m = pattern
    if amount is not None and abs(check_number("amount", amount) - (1 - n / m)) > 1e-9:
        raise ParameterError(f"{n}:{m} removes the share {1 - n / m:g}, so leave amount out, got {amount!r}")
    return 1 - n / m


def _data(
    model: RecurrentModel,
    by: str,
    inputs: Tensor | None,
    targets: Tensor | None,
    steps: int,
    samples: int,
    horizon: int,
    seed: int,
) -> tuple[Tensor, Tensor | None]:
    """Return the sequences that scores are measured on and their targets, checked."""
    count = check_count("samples", samples)
    if inputs is None:
        if by == "taylor" or steps or targets is not None:
            raise ParameterError("Taylor scores, targets and fine-tuning need data: pass inputs=")
        return white_noise(model, count, check_count("horizon", horizon), seed), None
    if by == "taylor" and targets is None:
        raise ParameterError("Taylor scores need the targets of the inputs: pass targets=")
    inputs = as_sequences(inputs, model.n_inputs)
    rows = torch.linspace(0, len(inputs) - 1, min(count, len(inputs))).round().long()
    return inputs[rows].detach().double(), None if targets is None else targets[rows]


def _prune(given: RecurrentModel, job: _Job) -> Pruned:
    """Prune one model of plain parameters; it is left as it is."""
    for name, value in given.state_dict().items():
        check_finite(name, value)
    own = copy.deepcopy(given)
    size = given.core.hidden_size
    units: dict[str, list[int]] | None = None
    masks: dict[str, Tensor] = {}
    for done in range(1, job.rounds + 1):
        if job.kind == "unit":
            left = size - min(size - 1, round(job.share(done) * size))
            own, kept = thin_units(job.criterion, own, own.core.hidden_size - left, compensate=job.compensate)
            units = kept if units is None else {n: [units[n][k] for k in ks] for n, ks in kept.items()}
        else:
            masks = _thin_weights(own, job, job.share(done))
        if job.tune is not None:
            own = _hold_masks(own, masks).train()
            with torch.random.fork_rng(devices=[]):  # dropout draws from it
                job.tune(own)
            own = RecurrentModel(plain_copy(own.core), plain_copy(own.readout), own.info).eval()
    return Pruned(own, masks, units, _report(given, own, None if job.kind == "unit" else job.blocks))


def _thin_weights(own: RecurrentModel, job: _Job, share: float) -> dict[str, Tensor]:
    """Zero weights in place; return what is left."""
    masks = {}
    parameters = dict(own.named_parameters())
    for name, matrix in job.criterion.matrices(own).items():
        if matrix.block not in job.blocks:
            continue
        before = matrix.weight != 0
        if share <= float((~before).double().mean()) and job.kind == "weight":
            masks[name] = before  # sparse enough already
            continue
        mask = choose(job.criterion, matrix, share, job.kind, pattern=job.pattern, block_size=job.block_size)
        weight = matrix.weight * mask
        if job.compensate and not torch.equal(mask, before):
            weight = compensated(matrix, mask)
        masks[name] = mask
        with torch.no_grad():
            parameters[name].copy_(weight)
    return masks


def _nothing(done: Pruned, share: float) -> str:
    pruned = done.report[done.report["pruned"]]
    least = f"; the least sparse matrix has {pruned['sparsity'].min():.1%} zeros" if len(pruned) else ""
    return f"nothing was pruned: a share of {share:g} takes away no more than what is zero already{least}"
