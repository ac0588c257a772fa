"""The one function that reads anything as `Pathways`."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hoplens.errors import ParameterError, ShapeError, UnsupportedModelError, check_choice
from hoplens.graph.pathways import Pathways, replace_blocks
from hoplens.lookup import look_up
from hoplens.models.cells import Cell, FunctionCell
from hoplens.models.ensemble import Ensemble
from hoplens.models.readers.along import mean_graph, mean_point
from hoplens.models.readers.graphs import read_graph, read_matrix
from hoplens.models.readers.models import ModelParts, is_recurrent, parts_of
from hoplens.models.readers.modules import leaky, leaky_blocks, unreadable
from hoplens.models.readers.opening import open_parts
from hoplens.models.recurrent_model import ModelInfo, last_steps
from hoplens.models.rollout import Batch, as_batch, split_state, turn
from hoplens.models.stack import Stack, one_direction

PLACES = ("raw", "origin", "flow", "steps", "mean")
ALONG = ("flow", "steps", "mean")  # places that data set
DIRECTIONS = ("both", "forward", "backward")


def read(
    model: Any,
    readout: Any = None,
    *,
    inputs: Any = None,
    lengths: Tensor | None = None,
    input_nodes: Sequence[Hashable] | None = None,
    output_nodes: Sequence[Hashable] | None = None,
    attach: bool = False,
    weight: str = "weight",
    at: str | tuple[Any, Any] | None = None,
    direction: str = "both",
    dt: Any = None,
    tau: Any = None,
    rnn: str | None = None,
    nonlinearity: str | None = None,
) -> Pathways:
    """Read a recurrent network as a weighted directed graph.

    The weights of a module are not copied: gradients flow back to it, and it is left as it was. What is
    read is the effective weight: parametrisations and prune masks are applied. Biases carry no pathway.

    Parameters
    ----------
    model : module, cell, function, arrays, graph or path
        * ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` (stacked, bidirectional, projected), ``nn.RNNCell``,
          ``nn.GRUCell``, ``nn.LSTMCell``; a `hoplens.Cell` or `hoplens.Stack`; any class taught to
          `register_reader` or with a method ``to_hoplens``.
        * a function ``(state, input) -> state``, with ``at=(state, input)``.
        * ``(w_in, w_rec, w_out)`` or ``(w_in, w_rec, w_out, w_skip)``: arrays of shapes (H, I), (H, H),
          (O, H), (O, I) in torch's orientation, where ``W[i, j]`` is the edge j -> i; w_rec may be a
          ``LowRank(u, v)``.
        * a ``networkx.DiGraph``, or a square array or SciPy sparse matrix in the graph convention, where
          ``A[i, j]`` is the edge i -> j; ``input_nodes`` and ``output_nodes`` name nodes (or row numbers).
        * what the library itself returns as a model: a `RecurrentModel`, what `prune`, `quantise` and
          others return, an `Ensemble`; a module that holds one recurrent part and one linear layer and does
          nothing else; a `Pathways`, which is returned.
        * the path of a file of `save_model`, or of a ``.safetensors`` or state_dict file; see `load_stack`.
    readout : nn.Linear, 1-wide nn.Conv1d or matrix (O, H), optional
        The layer from hidden units to outputs; of a file the prefix of its keys. Without one each hidden
        unit is an output (W_out = I).
    inputs : Tensor, shape (B, L, I), optional
        Sequences for ``at="flow"`` (default where they are given), ``"steps"`` and ``"mean"``, in the layout
        that the module takes.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of each sequence, padded at the end; default all.
    input_nodes, output_nodes : sequence of nodes, optional
        Input and output nodes of a graph, in the order wanted.
    attach : bool, default False
        In graphs whose input nodes receive edges or whose output nodes send some, keep these nodes as
        hidden units and attach to each an input or output terminal by an edge of weight 1. A walk of m
        edges in the graph then has m + 2 hops.
    weight : str, default "weight"
        Edge attribute of a graph that holds the weight; edges without it count 1.
    at : {"raw", "origin", "flow", "steps", "mean"} or (state, input), optional
        Where to linearise. ``"raw"``: the bare weights, activation slopes taken as 1 (default where a
        single matrix exists: plain and leaky RNNs): what the network could route, which need not be what
        flows. ``"origin"``: state and input zero (default for gated cells). A pair: that state (of a stack
        or LSTM in torch's form, or one flat vector a layer) and input (I,), leading axes kept.
        ``"flow"``: the mean Jacobian of the step over ``inputs`` and their steps (default with inputs), the
        static graph of what flows. ``"steps"``: the mean Jacobian over samples of each step, counted back
        from the read-out, a leading axis L: a closer picture where regimes change along a sequence. Both
        carry in ``agreement`` how well they predict the exact maps. ``"mean"``: the Jacobian at the mean
        state and input. ``provenance`` says which.
    direction : {"both", "forward", "backward"}
        Of a bidirectional network. ``"both"``: one graph of both directions. ``"backward"``: the backward
        layer as a graph of its own, read in reversed time: lag n is the input n steps AFTER the read-out.
    dt, tau : float or array (H,), optional
        Time step and time constant of a continuous-time network ``tau dh/dt = -h + f(W h + W_in x + b)``:
        reads its Euler step, ``(1 - a) I + a W`` and ``a W_in`` with a = dt / tau.
    rnn : str, optional
        Prefix of the recurrent module's keys in a file.
    nonlinearity : {"tanh", "relu", "linear"}, optional
        Of a plain RNN in a file of bare weights, which does not say; tanh is assumed, and ``provenance`` then
        says so. Bare weights do not depend on it, Jacobians do.

    Returns
    -------
    Pathways
        Stacked layers are one graph; see `hoplens.lag_maps` for hops against lags.

    Raises
    ------
    UnsupportedModelError
        If the object cannot be read; says what can, and how to write a reader.
    ShapeError
        If the read-out does not fit the hidden layer.
    FileError
        If a file cannot be read or trusted.
    """
    kind = _kind(model)
    if kind == "pathways":
        _refuse("Pathways", readout=readout, inputs=inputs, lengths=lengths, input_nodes=input_nodes,
                output_nodes=output_nodes, at=at, dt=dt, tau=tau, rnn=rnn,
                nonlinearity=nonlinearity)  # fmt: skip
        return model if isinstance(model, Pathways) else model.pathways()
    if kind in ("graph", "matrix"):
        _refuse(kind, readout=readout, inputs=inputs, lengths=lengths, at=at, dt=dt, tau=tau, rnn=rnn,
                nonlinearity=nonlinearity)  # fmt: skip
        if kind == "graph":
            return read_graph(model, input_nodes, output_nodes, attach, weight)
        return read_matrix(model, input_nodes, output_nodes, attach)
    if input_nodes is not None or output_nodes is not None or attach:
        what = "a triple of arrays" if kind == "arrays" else f"a {kind}"
        raise ParameterError(
            f"input_nodes=, output_nodes= and attach= go with a graph or adjacency matrix, not with {what}"
        )
    if kind == "arrays":
        if readout is not None:
            raise ParameterError("readout= goes with a module; give the read-out of arrays as w_out")
        _refuse("triple of arrays", inputs=inputs, lengths=lengths, at=at, rnn=rnn, nonlinearity=nonlinearity)
        return _read_arrays(model, dt, tau)
    if kind == "file":
        parts = open_parts(model, rnn=rnn, readout=readout, nonlinearity=nonlinearity)
        parts.core.requires_grad_(False)
        if isinstance(parts.head, nn.Module):
            parts.head.requires_grad_(False)
    else:
        _refuse(kind, rnn=rnn, nonlinearity=nonlinearity)
        parts = parts_of(_function_cell(model, at) if kind == "function" else model, readout)
    stack = leaky(_noted(parts), dt, tau)
    if isinstance(stack, Pathways):
        return stack
    if check_choice("direction", direction, DIRECTIONS) != "both":
        stack = one_direction(stack, direction)
    reverse = direction == "backward"
    net = _linearise(stack, at, inputs, lengths, window=parts.info.runs_last, reverse=reverse)
    return _named(net, parts.info)


def _named(net: Pathways, info: ModelInfo) -> Pathways:
    """Return the graph with the names that a model knows of its inputs and outputs."""
    sources, outputs = info.input_names, info.output_names
    return net.rename(
        input_names=sources if sources is not None and len(sources) == net.n_inputs else None,
        output_names=outputs if outputs is not None and len(outputs) == net.n_outputs else None,
    )


def _noted(parts: ModelParts) -> Stack | Pathways:
    """Return the network, its label saying so where only the last steps are run."""
    stack, window = parts.stack(), parts.info.runs_last
    if isinstance(stack, Pathways) or window is None:
        return stack
    note = f"{stack.label}, of which the last {window} steps are run"
    return Stack(stack.levels, stack.w_out, note, stack.batch_first)


def _kind(model: Any) -> str:
    if isinstance(model, str | os.PathLike):
        return "file"
    if isinstance(model, Pathways) or (isinstance(model, Ensemble) and model.size != 1):
        return "pathways"
    if isinstance(model, nn.Module):
        return "module"
    if isinstance(model, tuple | list) and len(model) in (3, 4) and not isinstance(model[0], Cell):
        return "arrays"
    if isinstance(model, tuple | list) and model and all(isinstance(cell, Cell) for cell in model):
        return "cell"
    if not isinstance(model, tuple | list) and is_recurrent(model):
        return "cell"
    if hasattr(model, "is_directed"):
        return "graph"
    if isinstance(model, np.ndarray | Tensor) or hasattr(model, "tocsr"):
        return "matrix"
    if callable(model) and not isinstance(model, type):
        return "function"
    raise unreadable(model)


def _refuse(what: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ParameterError(f"{name}= does not go with a {what}; leave it out")


def _read_arrays(model: Sequence[Any], dt: Any, tau: Any) -> Pathways:
    if dt is None and tau is None:
        return Pathways(*model)
    w_in, w_rec, leak = leaky_blocks(model[0], model[1], dt, tau)
    return Pathways(w_in, w_rec, *model[2:], leak=leak, provenance="raw weights, leaky: (1 - a) I + a W")


def _function_cell(function: Callable[[Tensor, Tensor], Tensor], at: Any) -> FunctionCell:
    if not isinstance(at, tuple) or len(at) != 2:
        raise ParameterError(
            "a function needs at=(state, input), the point to linearise it at (its sizes are taken from "
            "there); to use the origin, wrap it: hoplens.models.FunctionCell(function, n_inputs=I, n_state=S)"
        )
    state, x = torch.as_tensor(at[0]), torch.as_tensor(at[1])
    return FunctionCell(function, n_inputs=x.shape[-1], n_state=state.shape[-1])


def _linearise(
    stack: Stack,
    at: Any,
    inputs: Any,
    lengths: Tensor | None,
    *,
    window: int | None = None,
    reverse: bool = False,
) -> Pathways:
    """Return the graph at a place; along the last steps of a model that runs only these, in its own time."""
    if at is None:
        raw = stack.raw() if inputs is None else None
        if raw is not None:
            return raw
        at = "origin" if inputs is None else "flow"
    if isinstance(at, tuple):
        if len(at) != 2:
            raise ParameterError(f"at= must be a name or a pair (state, input), got {len(at)} values")
        return _at_point(stack, *at)
    check_choice("at", at, PLACES)
    if at in ALONG and inputs is None:
        raise ParameterError(f'at="{at}" needs inputs= (some sequences)')
    if at not in ALONG and inputs is not None:
        raise ParameterError(f'at="{at}" does not go with inputs=; leave them out, or at= for what flows')
    if at == "raw":
        raw = stack.raw()
        if raw is None:
            raise UnsupportedModelError(
                f'{stack.label} is gated and has no single recurrent matrix; use at="origin" or a point'
            )
        return raw
    if at == "origin":
        place = "the origin (state 0, input 0)"
        return stack.linearise(
            stack.origin(stack.like(torch.empty(0))), f"Jacobian of {stack.label} at {place}"
        )
    batch = as_batch(stack, inputs, lengths)
    if window is not None:
        last, ends = last_steps(batch.inputs, window, batch.lengths)
        assert ends is not None
        batch = Batch(last, ends)
    if reverse:  # a backward layer begins at the last valid step
        batch = Batch(turn(batch.inputs, batch.lengths), batch.lengths)
    if at == "mean":
        n = int(batch.lengths.sum())
        where = f"the mean of {n} steps of given inputs"
        return stack.linearise(mean_point(stack, batch), f"Jacobian of {stack.label} at {where}")
    net = mean_graph(stack, batch, by_step=at == "steps")
    return with_agreement(net, stack, batch)


def with_agreement(net: Pathways, stack: Stack, batch: Batch) -> Pathways:
    """Return the graph, with how well it predicts the exact maps along (a spread of) the samples."""
    agreement = look_up("hoplens.analysis.fidelity:agreement_along")(net, stack, batch)
    leak = net.leak
    return replace_blocks(net, net.w_in, net.w_rec, net.w_out, net.w_skip, leak=leak, agreement=agreement)


def _at_point(stack: Stack, state: Any, x: Any) -> Pathways:
    entered = torch.as_tensor(x)
    entered = entered.to(stack.like(entered))
    if entered.dim() < 1 or entered.shape[-1] != stack.n_inputs:
        raise ShapeError(
            f"at=(state, input) needs an input of shape (..., {stack.n_inputs}), got {tuple(entered.shape)}"
        )
    states = split_state(stack, state, entered.shape[:-1], entered)
    _, point = stack.advance(states, entered)
    return stack.linearise(point, f"Jacobian of {stack.label} at a given state and input")


__all__ = ["read"]
