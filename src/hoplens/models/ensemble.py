"""Ensembles of recurrent networks, stored and run as one batch of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from hoplens.display import Shown
from hoplens.errors import ParameterError, ShapeError, check_choice, check_number
from hoplens.graph.chain import thin_products
from hoplens.graph.pathways import Pathways
from hoplens.graph.scores import saliency, top_mask
from hoplens.models.cells import CELLS, Kernel, State, make_cell
from hoplens.models.linearise import linearise
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel


@dataclass(eq=False, repr=False)
class Ensemble(Shown):
    """E networks of one recurrent cell with a linear read-out, ``y_t = W_out h_t + c``.

    Attributes
    ----------
    weight : Tensor, shape (E, H + I + 1, K)
        Rows: from hidden units, from inputs, bias; columns: to the rows of the cell, K = H without gates, or
        4 H. One block, so that a time step is one matrix product. A GRU's columns are r, z, the
        input's part and the state's part of the candidate n, the last two with zeros where the other has its
        weights; an LSTM's are i, f, o, g.
    readout : Tensor, shape (E, O, H)
        W_out.
    offset : Tensor, shape (E, O, 1)
        c.
    cell : {"tanh", "relu", "linear", "leaky", "gru", "lstm", "mingru", "lru"}, default "tanh"
        Cells without gates are ``h_t = (1 - a) h_(t-1) + a f(W_rec h_(t-1) + W_in x_t + b)``, "leaky" with
        f = tanh; GRU and LSTM follow the equations of torch's modules, the others `hoplens.models.cells`.
    leak : float, default 1
        a of a cell without gates, above 0 and at most 1: how much of the state is renewed each time step
        (dt / tau).
    """

    weight: Tensor
    readout: Tensor
    offset: Tensor
    cell: str = "tanh"
    leak: float = 1.0

    def __post_init__(self) -> None:
        check_choice("cell", self.cell, CELLS)
        check_number("leak", self.leak, above=0.0, most=1.0)
        weight, readout, offset = (tuple(tensor.shape) for tensor in self.tensors)
        fits = len(weight) == 3 and len(readout) == 3 and weight[0] == readout[0]
        fits = fits and weight[2] == readout[2] * self.kernel.blocks and weight[1] >= readout[2] + 2
        if not fits or offset != (*readout[:2], 1):
            wide = "H" if self.kernel.blocks == 1 else f"{self.kernel.blocks} H"
            raise ShapeError(
                f"an ensemble of {self.cell} cells needs weight (E, H + I + 1, {wide}), readout (E, O, H) "
                f"and offset (E, O, 1), got {weight}, {readout} and {offset}"
            )
        if self.leak != 1 and not self.plain:
            raise ParameterError(f"a {self.cell} cell has no leak; leave it out")

    @cached_property
    def kernel(self) -> Kernel:
        """The cell's time step."""
        return make_cell(self.cell, self.leak)

    @property
    def plain(self) -> bool:
        """Whether the cell has one recurrent matrix and no gates."""
        return self.kernel.blocks == 1

    @property
    def size(self) -> int:
        """Number of networks, E."""
        return self.weight.shape[0]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units, H."""
        return self.readout.shape[-1]

    @property
    def n_inputs(self) -> int:
        """Number of inputs, I."""
        return self.weight.shape[1] - self.n_hidden - 1

    @property
    def n_outputs(self) -> int:
        """Number of outputs, O."""
        return self.readout.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The trained tensors."""
        return self.weight, self.readout, self.offset

    def recurrent(self) -> Tensor:
        """Return the recurrent weights of all gates as stored: a view of shape (E, H from, K to)."""
        return self.weight[:, : self.n_hidden]

    def structure(self) -> Tensor:
        """Return 1 where the cell has a weight and 0 where it has none, shape (H + I + 1, K)."""
        h = self.n_hidden
        there = torch.ones_like(self.weight[0])
        places = zip(self.kernel.from_input, self.kernel.from_state, strict=True)
        for block, (by_x, by_h) in enumerate(places):
            rows = slice(block * h, (block + 1) * h)
            if by_h is None:
                there[:h, rows] = 0.0
            if by_x is None:
                there[h:-1, rows] = 0.0
            if block in self.kernel.unbiased:
                there[-1, rows] = 0.0
        return there

    def nonzero(self) -> Tensor:
        """Return the number of recurrent weights that are not zero, int64, shape (E,)."""
        return (self.recurrent() != 0).sum(dim=(1, 2))

    def clone(self) -> Ensemble:
        """Return a copy with its own memory."""
        weight, readout, offset = (tensor.detach().clone() for tensor in self.tensors)
        return replace(self, weight=weight, readout=readout, offset=offset)

    def select(self, rows: slice | Tensor) -> Ensemble:
        """Return some of the networks.

        Parameters
        ----------
        rows : slice or Tensor of int64
            Which ones, in the wanted order.
        """
        weight, readout, offset = (tensor[rows] for tensor in self.tensors)
        return replace(self, weight=weight, readout=readout, offset=offset)

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return views of the weights: W_in (E, K, I), W_rec (E, K, H), W_out (E, O, H)."""
        h = self.n_hidden
        return self.weight[:, h:-1].mT, self.recurrent().mT, self.readout

    def keep(self, rows: slice, share: Tensor, *, by: str = "magnitude", horizon: int = 1) -> Tensor:
        """Return which recurrent weights stay when each network loses the share with the lowest scores.

        Parameters
        ----------
        rows : slice
            Which networks.
        share : Tensor, shape (rows,)
            Share of all recurrent weights of all gates.
        by : {"magnitude", "pathway"}
            See `scores`.
        horizon : int
            Time steps, for "pathway".

        Returns
        -------
        Tensor of bool, shape (rows, H from, K to)
            As ``recurrent()`` lies.
        """
        share = share.double()
        if not self.plain:  # what does not exist is not counted among the low
            share = share * float(self.structure()[: self.n_hidden].mean())
        return top_mask(self.select(rows).scores(by, horizon=horizon), share)

    def scores(self, by: str = "magnitude", *, horizon: int | None = None) -> Tensor:
        """Return the scores of all recurrent weights, shape (E, H from, K to), as ``recurrent()`` lies.

        Parameters
        ----------
        by : {"magnitude", "pathway"}
            ``|W|``, or ``|W dS/dW|`` with S half the squared hop maps of the graph. Weights that the cell
            does not have score infinity.
        horizon : int, optional
            Time steps, for "pathway".
        """
        if self.plain:
            own = self.leak * self.blocks()[1]  # the self-loops of a leak are no weights
            return saliency(self.pathways(), by, horizon=horizon, removable=own).mT
        h = self.n_hidden
        scores = self.recurrent().detach().abs()
        if check_choice("score", by, ("magnitude", "pathway")) == "pathway":
            if horizon is None:
                raise ParameterError('scores by "pathway" need horizon=, the time steps considered')
            with torch.enable_grad():
                weight = self.weight.detach().requires_grad_()
                net = replace(self, weight=weight).pathways()
                maps = thin_products(net.w_in, net.w_rec, net.w_out.detach(), horizon)
                (slope,) = torch.autograd.grad(0.5 * maps.square().sum(), weight)
            scores = (scores * slope[:, :h]).abs()
        return scores.masked_fill(self.structure()[:h] == 0, torch.inf)

    def pathways(
        self, at: str | None = None, *, state: Tensor | None = None, x: Tensor | None = None
    ) -> Pathways:
        """Return the graph of all networks, leading axis E, differentiable by the weights.

        Parameters
        ----------
        at : {"raw", "origin", "point"}, optional
            Where the step is linearised. "raw": the weights themselves, slopes taken as 1 (cells without
            gates only, their default): W_in and W_rec as views, or with a leak a below 1 ``a W_in`` and
            ``(1 - a) I + a W_rec``, where each unit has a self-loop. "origin": state and input zero (default
            of gated cells). "point": at ``state`` and ``x``.
        state : Tensor, shape (E, S)
            h, or [h, c] of an LSTM.
        x : Tensor, shape (E, I)

        Returns
        -------
        Pathways
            w_rec of shape (E, S, S); an LSTM's S = 2 H states are [h, c].
        """
        return linearise(self, at, state=state, x=x)

    def states(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield h (E, H, B) after every time step; plain PyTorch, differentiable.

        Parameters
        ----------
        inputs : Tensor, shape (L, 1 or E, I, B)
        """
        for state in self.run(inputs):
            yield state[0]

    def run(self, inputs: Tensor) -> Sequence[State]:
        """Return the state after every time step; see `advance` and `states`.

        Parameters
        ----------
        inputs : Tensor, shape (L, 1 or E, I, B)
        """
        return self.kernel.run(self.weight, self.n_hidden, inputs)

    def advance(self, x: Tensor, state: State | None = None) -> State:
        """Take one time step; plain PyTorch, differentiable.

        Parameters
        ----------
        x : Tensor, shape (1 or E, I, B)
        state : (Tensor, Tensor or None), optional
            h (E, H, B) and the other parts of the state, one below the other; what the step before returned.
            Default zeros.

        Returns
        -------
        (Tensor, Tensor or None)
        """
        return self.kernel.advance(self.weight, self.n_hidden, x, state)

    def predict(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run all networks on the same sequences.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I), or (E, B, L, I) for own sequences a network
        lengths : Tensor of int64, shape (B,) or (E, B), optional
            Valid steps; default all.

        Returns
        -------
        Tensor, shape (E, B, O)
            Read-out after the last valid step. Differentiable.

        Raises
        ------
        ShapeError
            If the inputs do not fit the networks.
        """
        run = self.run(self._batch_last(inputs))
        if lengths is None:
            last = run[-1][0]
        else:
            ends = lengths.expand(self.size, -1) - 1
            states = torch.stack([h for h, _ in run])  # (L, E, H, B)
            last = states.gather(0, ends[None, :, None].expand(1, -1, self.n_hidden, -1))[0]
        return torch.baddbmm(self.offset, self.readout, last).mT

    def predict_steps(self, inputs: Tensor) -> Tensor:
        """Run all networks on the same sequences and read out after every time step.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, I), or (E, B, L, I) for own sequences a network

        Returns
        -------
        Tensor, shape (E, B, L, O)
            Differentiable.

        Raises
        ------
        ShapeError
            If the inputs do not fit the networks.
        """
        reads = [
            torch.baddbmm(self.offset, self.readout, h).mT for h in self.states(self._batch_last(inputs))
        ]
        return torch.stack(reads, dim=2)

    def _batch_last(self, inputs: Tensor) -> Tensor:
        """Return (E or 1, B, L, I) inputs as (L, E or 1, I, B)."""
        own = inputs.dim() == 4 and inputs.shape[0] == self.size
        fits = inputs.shape[-1] == self.n_inputs and inputs.dtype == self.weight.dtype
        if not (own or inputs.dim() == 3) or not fits:
            raise ShapeError(
                f"inputs must be {self.weight.dtype} of shape (B, L, I={self.n_inputs}) or "
                f"(E={self.size}, B, L, I={self.n_inputs}), got {inputs.dtype} of shape {tuple(inputs.shape)}"
            )
        return (inputs if own else inputs[None]).permute(2, 0, 3, 1)

    def model(self, n: int, info: ModelInfo | None = None) -> RecurrentModel:
        """Return one network as a module of its own: nn.RNN, nn.GRU, LeakyRNN, LRU, ... with its read-out.

        Parameters
        ----------
        n : int
            Which network.
        info : ModelInfo, optional
            What the model says of itself.
        """
        if not -self.size <= n < self.size:
            raise ParameterError(f"there are {self.size} networks, got number {n}")
        kernel, sizes = self.kernel, (self.n_inputs, self.n_hidden)
        own = {key: getattr(kernel, key) for key in getattr(kernel.module, "options", ())}
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
            core = kernel.module(*sizes, **own).to(self.weight)
            readout = nn.Linear(self.n_hidden, self.n_outputs).to(self.weight)
        core.batch_first = True  # type: ignore[assignment]
        given = kernel.to_module(self.weight[n].detach(), self.n_hidden)
        core.load_state_dict(given)
        with torch.no_grad():
            readout.weight.copy_(self.readout[n])
            readout.bias.copy_(self.offset[n, :, 0])
        return RecurrentModel(core, readout, info)

    def models(self) -> list[RecurrentModel]:
        """Return all networks as modules, in evaluation mode; see `model`."""
        return [self.model(n).eval() for n in range(self.size)]

    def with_models(self, models: Sequence[RecurrentModel]) -> Ensemble:
        """Return an ensemble like this one of models of the same cell and sizes.

        Parameters
        ----------
        models : sequence of RecurrentModel
            As `model` returns them; changed by fine-tuning, for example.
        """
        kernel = self.kernel  # units may have been removed
        weights = [
            kernel.from_module(
                {key: value.detach() for key, value in model.core.state_dict().items()},
                model.readout.in_features,
            )
            for model in models
        ]
        readouts = torch.stack([model.readout.weight.detach() for model in models])
        offsets = torch.stack([model.readout.bias.detach()[:, None] for model in models])
        return replace(self, weight=torch.stack(weights).contiguous(), readout=readouts, offset=offsets)


__all__ = ["Ensemble", "State"]
