"""The function that explains predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hoplens.analysis.attribution.explanation import Explanation
from hoplens.analysis.attribution.flow import features_per_step, flow, hops_of, many_hops
from hoplens.analysis.attribution.paths import Segments, block_positions, by_line, by_nodes, by_orders
from hoplens.analysis.attribution.question import Question, make_question
from hoplens.analysis.attribution.secants import rule_for
from hoplens.errors import check_choice, check_count, check_number
from hoplens.models.recurrent_model import at_steps

METHODS = ("orders", "secant", "path")
FIRST_NODES = 32
MOST_NODES = 1024
MOST_REFINE = 32
WORKING_SET = 2**22  # numbers kept at once; more of it leaves the caches and gains no speed


def explain(
    model: Any,
    inputs: Any,
    *,
    readout: Any = None,
    output: Any = 0,
    baseline: Any = None,
    method: Literal["orders", "secant", "path"] = "orders",
    orders: int = 8,
    blocks: int = 4,
    steps: int | None = None,
    seed: int = 0,
    tolerance: float = 1e-3,
    rnn: str | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    nonlinearity: str | None = None,
) -> Explanation:
    """Say how much each (time step, input) contributed to an output, by hop and by hidden unit too.

    Contributions add up to ``f(x) - f(baseline)``. The model is left as it was.

    Parameters
    ----------
    model : module, cell, Stack or path
        ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` (stacked, bidirectional, projected), their cells, a
        `hoplens.Cell` or `hoplens.Stack`, own classes taught to `register_reader`, what `prune`, `quantise`
        and others return, or a file. Steps before the window of a truncated model count nothing. A
        bidirectional network is read at the last step.
    inputs : Tensor (B, L, I) or PackedSequence
        In the layout that the module takes: (L, B, I) where it is not batch_first. Start states are zero.
    readout : nn.Linear, matrix (O, H) or prefix in a file
        What makes outputs of hidden units. Needed, unless the model brings one.
    output : int, str or sequence of int, default 0
        Which output: a number, a name, or one number a sample, e.g. the predicted classes.
    baseline : None, "mean" or Tensor (I,), (L, I) or (B, L, I), default None
        What "absent" means: zeros, the mean over the samples given, or given values.
    method : {"orders", "secant", "path"}
        See the notes.
    orders, blocks : int, default 8 and 4
        For "orders": how many orders are drawn, and into how many blocks of cells each is cut.
    steps : int, optional
        For "secant": equal steps of the straight line, each a secant, default 1. For "path": nodes to
        begin with, default 32.
    seed : int, default 0
        For "orders".
    tolerance : float, default 1e-3
        Largest relative gap. Samples above it are computed again in float64, then (for "path", and for
        cells known by their step alone) with more steps. What is left stands in ``gap``.
    rnn : str, optional
        Prefix of the recurrent module's keys in a file.
    input_names, output_names : sequence of str, optional
        Default ``x0, x1, ...`` and ``y0, y1, ...``.
    nonlinearity : {"tanh", "relu", "linear"}, optional
        Of a plain RNN in a file of bare weights, which does not say; tanh is assumed, and ``label`` says so.

    Returns
    -------
    Explanation
        Its numbers in float64, computed in the precision of the model.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be run step by step, or has no read-out.
    ShapeError, NonFiniteError
        If inputs or baseline do not fit, or hold NaN or infinity.
    ParameterError, UnknownNameError
        If the output does not exist.

    Notes
    -----
    With a secant slope ``S_t`` in place of the derivative of each activation (and products of gates split
    evenly) the difference of two trajectories is linear without remainder,
    ``dh_t = S_t (W_rec dh_(t-1) + W_in dx_t)``, so that products along walks give contributions by time
    step, input and hop which add up exactly.

    * ``"secant"``: that, from baseline to input in one go. One pass, about the cost of a gradient.
    * ``"orders"``: cells go from baseline to input block by block, in random orders and their reverses,
      each move by a secant; the mean over orders. This estimates Shapley values, which among all rankings of
      cells maximise insertion minus deletion where cells interact in pairs at most.
    * ``"path"``: integrated gradients, Gauss-Legendre nodes on the straight line.

    Sources: Shapley 1953; Castro, Gomez and Tejada 2009 (orders); Shrikumar et al. 2017 (secants of
    single activations); Sundararajan et al. 2017 (path). The even split of gates, and secants along block
    orders, are hoplens's own.

    Examples
    --------
    >>> import torch, hoplens as hl
    >>> cell = hl.models.RnnCell(torch.tensor([[2.0]]), torch.tensor([[0.5]]), nonlinearity="linear")
    >>> found = hl.explain(cell, torch.tensor([[[1.0], [3.0]]]), readout=torch.tensor([[1.0]]))
    >>> found.values.flatten().tolist(), found.hops.tolist(), found.by_hop.flatten().tolist()
    ([1.0, 6.0], [2, 3], [6.0, 1.0])
    """
    check_choice("method", method, METHODS)
    count, cut = check_count("orders", orders), check_count("blocks", blocks)
    cut_line = None if steps is None else check_count("steps", steps)
    drawn = check_count("seed", seed, least=0)
    limit = check_number("tolerance", tolerance, above=0.0)
    with torch.no_grad():
        question = make_question(
            model, inputs, readout, output, baseline, rnn, input_names, output_names, nonlinearity
        )
        cells = question.batch.inputs[0].numel()
        cut = min(cut, cells)
        if method == "orders":
            positions = block_positions(cells, count, cut, drawn)
            solver = _Solver(question, lambda level: by_orders(positions, cut, level))
            words = f"mean of exact secants over {count} orders of {cut} blocks (seed {drawn})"
        elif method == "secant":
            solver = _Solver(question, lambda level: by_line(cells, level * (cut_line or 1)))
            words = f"exact secants, {cut_line or 1} from baseline to input"
        else:
            solver = _Solver(question, lambda level: by_nodes(cells, level * (cut_line or FIRST_NODES)))
            words = "integrated gradients, Gauss-Legendre nodes"
        most = max(1, MOST_NODES // (cut_line or FIRST_NODES)) if method == "path" else MOST_REFINE
        exact = method != "path" and all(rule_for(cell).exact for cell in question.stack.cells)
        return _explanation(question, solver.solve(limit, 1 if exact else most), words)


@dataclass(frozen=True, eq=False)
class _Found:
    values: Tensor  # (B, L, I)
    by_hop: Tensor  # (B, K, I)
    error: Tensor  # (B, L, I)
    spread: Tensor  # (B, L, I)
    shown: Tensor  # (2, B, n), what the read-out sees at baseline and input
    rows: Tensor  # (B, n), the read-out's row of each sample

    @property
    def difference(self) -> Tensor:
        return ((self.shown[1] - self.shown[0]) * self.rows).sum(-1)

    @property
    def gap(self) -> Tensor:
        return self.difference - self.values.sum((1, 2))


@dataclass(frozen=True, eq=False)
class _Solver:
    """Solves a question in parts that fit into memory, and again where the gap is too large."""

    question: Question
    segments: Callable[[int], Segments]  # by refinement

    def solve(self, tolerance: float, most: int) -> _Found:
        found = self.at(torch.arange(self.question.batch.inputs.shape[0]), 1, None)
        wide, level = self.question.batch.inputs.dtype == torch.float64, 1
        while not (wide and level >= most):
            scale = torch.maximum(found.difference.abs(), 1e-6 * found.values.abs().sum((1, 2)))
            bad = (found.gap.abs() > tolerance * scale).nonzero()[:, 0]
            if not len(bad):
                break
            level = 2 * level if wide else level
            wide = True
            found = _replace(found, bad, self.at(bad, level, torch.float64))
        return found

    def at(self, samples: Tensor, level: int, dtype: torch.dtype | None) -> _Found:
        own = self.question
        stack = own.stack if dtype is None else own.stack.to(dtype)
        assert stack.w_out is not None
        inputs = own.batch.inputs if dtype is None else own.batch.inputs.to(dtype)
        samples = samples.to(inputs.device)
        segments = self.segments(level).to(inputs)
        hops = len(hops_of(stack, inputs.shape[1])) if many_hops(stack) else 1
        each = inputs.shape[1] * features_per_step(stack) * len(segments.shares) * hops
        rows = stack.w_out[own.outputs]
        parts = []
        for chosen in samples.split(max(1, WORKING_SET // each)):
            base = own.baseline[chosen].to(inputs)
            got = flow(stack, inputs[chosen], base, own.batch.lengths[chosen], rows[chosen], segments)
            values, error, spread = _over_orders(got.values)
            parts.append(_Found(values, got.by_hop, error, spread, got.shown, rows[chosen]))
        # in float64 from here on, so that what comes back does not depend on what had to be done again
        return _Found(
            torch.cat([part.values for part in parts]).double(),
            torch.cat([part.by_hop for part in parts]).double(),
            torch.cat([part.error for part in parts]).double(),
            torch.cat([part.spread for part in parts]).double(),
            torch.cat([part.shown for part in parts], dim=1).double(),
            torch.cat([part.rows for part in parts]).double(),
        )


def _over_orders(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard error and standard deviation over the orders (M, ...).

    An order and its reverse are one draw.
    """
    count, nothing = values.shape[0], torch.full_like(values[0], torch.nan)
    if count == 1:
        return values[0], torch.zeros_like(values[0]), nothing
    pairs = torch.stack([values[n : n + 2].mean(0) for n in range(0, count, 2)])
    if len(pairs) < 2:
        return values.mean(0), nothing, nothing
    return values.mean(0), pairs.std(0) / len(pairs) ** 0.5, values.std(0)


def _replace(found: _Found, bad: Tensor, better: _Found) -> _Found:
    parts = {}
    for name, axis in (("values", 0), ("by_hop", 0), ("error", 0), ("spread", 0), ("shown", 1), ("rows", 0)):
        old, new = getattr(found, name), getattr(better, name)
        parts[name] = old.index_copy(axis, bad, new)
    return _Found(**parts)


def _explanation(question: Question, found: _Found, words: str) -> Explanation:
    outputs = question.outputs
    bias = question.bias.to(found.rows)[outputs]
    values, error, spread = found.values, found.error, found.spread
    before = question.given.lengths - question.batch.lengths
    if bool((before > 0).any()):  # steps before the window of a truncated model contribute nothing
        steps = question.given.inputs.shape[1]
        values, error, spread = (at_steps(part, before, steps) for part in (values, error, spread))
    outputs_at = [(shown * found.rows).sum(-1) + bias for shown in found.shown]
    hops = hops_of(question.stack, question.batch.inputs.shape[1]).to(found.values.device)
    return Explanation(
        values,
        found.by_hop,
        hops,
        hops - 1 - len(question.stack.levels),
        (found.shown[1] - found.shown[0]) * found.rows,
        found.gap,
        error,
        spread,
        outputs_at[1],
        outputs_at[0],
        question.given.inputs,
        question.given_baseline,
        question.given.lengths,
        outputs,
        question.input_names,
        question.output_names,
        question.unit_names,
        words,
        question.stack.label,
        not many_hops(question.stack),
    )


__all__ = ["explain"]
