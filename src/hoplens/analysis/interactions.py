"""Which pairs of (step, input) act together: mean second derivatives of an output, by Hessian products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hoplens.analysis.hessian import follow
from hoplens.analysis.trajectories import differentiating
from hoplens.display import Shown
from hoplens.errors import (
    NonFiniteError,
    ParameterError,
    check_choice,
    check_count,
    unknown_name,
)
from hoplens.graph.parts import numbered
from hoplens.lookup import look_up
from hoplens.progress import Progress, reporting
from hoplens.seeds import generator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ROWS = 256  # of the Hessian, where not all are computed
DRAWN = 4  # one row in so many is drawn from all, the others are those of largest flow


@dataclass(frozen=True, eq=False, repr=False)
class Interactions(Shown):
    """Second derivatives of one output by pairs of (lag, input), over samples.

    Lags count back from the read-out of each sequence: lag 0 is its last step.

    Attributes
    ----------
    values : Tensor of float64, shape (R, L, I)
        ``values[r, s, j]`` is the mean over samples of ``d^2 y / du dx``, with u the (lag, input) of
        ``rows[r]`` and x input j at lag s. All L I rows or some of them; the mean of a pair is over the
        samples that have both lags, 0 where none has.
    absolute, spread, standard_error : Tensor of float64, shape (R, L, I)
        Mean magnitude, standard deviation over samples, and standard error of the mean (NaN of one sample).
    rows : Tensor of int64, shape (R, 2)
        Lag and input of each row, in ascending order.
    flow : Tensor of float64, shape (L, I)
        Mean magnitude of the first derivative by each (lag, input), to hold the second against.
    samples : Tensor of int64, shape (L,)
        Samples that have each lag.
    input_names : tuple of str
    output : str
        Name of the output.
    covered : str
        Which rows were computed, in words.
    label : str
        What was run.
    """

    values: Tensor
    absolute: Tensor
    spread: Tensor
    standard_error: Tensor
    rows: Tensor
    flow: Tensor
    samples: Tensor
    input_names: tuple[str, ...]
    output: str
    covered: str
    label: str

    def __repr__(self) -> str:
        _, lags, inputs = self.values.shape
        return (
            f"Interactions(of {self.output}, {lags} lags x {inputs} inputs, rows {self.covered}, "
            f"{self.coverage:.0%} of all pairs, {int(self.samples.max())} samples)"
        )

    @property
    def coverage(self) -> float:
        """Share of all pairs of (lag, input) that were computed."""
        cells, rows = self.flow.numel(), len(self.rows)
        left = cells - rows
        return 1 - left * (left + 1) / (cells * (cells + 1))

    @cached_property
    def _once(self) -> Tensor:
        """Where each pair stands once, shape (R, L I): not from its other row too."""
        inputs = self.values.shape[2]
        rows = (self.rows[:, 0] * inputs + self.rows[:, 1])[:, None]
        columns = torch.arange(self.flow.numel(), device=rows.device)
        is_row = torch.zeros_like(columns, dtype=torch.bool)
        is_row[rows[:, 0]] = True
        return ~is_row | (columns >= rows)

    def strongest(self, n: int = 10, *, by: Literal["mean", "absolute"] = "mean") -> pd.DataFrame:
        """Return the n pairs of two different (lag, input) that interact most.

        Parameters
        ----------
        n : int, default 10
            Fewer where fewer pairs interact at all.
        by : {"mean", "absolute"}, default "mean"
            Size of the mean second derivative, or the mean of sizes: where a product has either sign, a mean
            may hide it.

        Returns
        -------
        DataFrame
            As `to_dataframe`, with ``rank`` from 1 before it.
        """
        count = check_count("n", n)
        size = (
            self.absolute if check_choice("by", by, ("mean", "absolute")) == "absolute" else self.values.abs()
        )
        cells = self.rows[:, 0] * self.values.shape[2] + self.rows[:, 1]
        columns = torch.arange(self.flow.numel(), device=cells.device)
        size = size.flatten(1).masked_fill(~self._once | (columns == cells[:, None]), 0.0).flatten()
        top = size.topk(min(count, len(size)))
        frame = self._frame(top.indices[top.values > 0])
        frame.insert(0, "rank", range(1, len(frame) + 1))
        return frame

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per pair that was computed, that of a (lag, input) with itself included.

        Columns: ``lag`` and ``input``, ``other_lag`` and ``other_input``, ``second_derivative`` (its mean
        over samples), ``absolute``, ``spread``, ``standard_error``. The first of a pair is the later in time.
        """
        return self._frame(self._once.flatten().nonzero()[:, 0])

    def _frame(self, places: Tensor) -> pd.DataFrame:
        """Return the pairs at some places of the flat values."""
        import numpy as np
        import pandas as pd

        inputs = self.values.shape[2]
        cells = self.flow.numel()
        row = self.rows[places // cells]
        one, other = row[:, 0] * inputs + row[:, 1], places % cells
        first, second = torch.minimum(one, other).cpu().numpy(), torch.maximum(one, other).cpu().numpy()
        names = np.array(self.input_names, dtype=object)
        columns = {
            "lag": first // inputs,
            "input": names[first % inputs],
            "other_lag": second // inputs,
            "other_input": names[second % inputs],
        }
        kinds = {"second_derivative": self.values} | {
            name: getattr(self, name) for name in ("absolute", "spread", "standard_error")
        }
        return pd.DataFrame(columns | {k: v.flatten()[places].cpu().numpy() for k, v in kinds.items()})

    def plot(self, *, n: int = 24, ax: Axes | None = None) -> Axes:
        """Draw the (lag, input) that interact most as a matrix, on one scale around zero.

        Parameters
        ----------
        n : int, default 24
            How many (lag, input) at most.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        """
        axes: Axes = look_up("hoplens.plots.interactions:draw")(self, check_count("n", n, least=2), ax)
        return axes


def interactions(
    model: Any,
    inputs: Any,
    output: int | str = 0,
    *,
    lengths: Tensor | None = None,
    readout: Any = None,
    rows: int | Sequence[tuple[int, int]] = ROWS,
    seed: int = 0,
    progress: Progress = False,
) -> Interactions:
    """Say which pairs of (step, input) act together on an output: mean second derivatives along given data.

    ``d^2 y / dx_(t, i) dx_(s, j)``, exact, at each sample, by pairs of (lag, input) counted back from the
    read-out, and averaged over samples. It is what first derivatives (`hoplens.hop_maps` along data) leave
    out: products and gates. The model is left as it was.

    Parameters
    ----------
    model : module, cell, Stack or callable
        What `hoplens.trajectory_maps` takes.
    inputs : Tensor (B, L, I) or PackedSequence
        In the layout that the module takes.
    output : int or str, default 0
        Which output: a number or a name.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end. Not for what autograd differentiates.
    readout : nn.Linear or matrix (O, H), optional
        After a bare core. The bias does not matter.
    rows : int or sequence of (lag, input), default 256
        How many rows of the Hessian at most. Of more than that three in four are the (lag, input) of largest
        mean first derivative by size, the others drawn from the rest; pairs of two (lag, input) that are no
        rows are not seen, and `Interactions.coverage` says how many pairs were. Or the rows wanted.
    seed : int, default 0
        Of the rows drawn.
    progress : bool or callable, default False
        Show a bar, or call ``progress(done, total)``.

    Returns
    -------
    Interactions

    Raises
    ------
    ParameterError, UnknownNameError
        For an output or rows that the model does not have.
    ShapeError
        If the inputs do not fit.
    UnsupportedModelError
        If the model cannot be differentiated twice.
    NonFiniteError
        If a second derivative is NaN or infinite.

    Notes
    -----
    A row of the Hessian of one sample is a run forward, back, and back through both: some three to ten times
    the cost of a run, R times for each sample. How many samples are enough ``standard_error`` says. As many
    runs are done at once as fit into some hundred MB, and the result takes 32 R L I bytes; no more memory is
    taken for more samples.

    Second derivatives are local. Those of piecewise linear networks (ReLU without gates) are zero almost
    everywhere, however much their inputs act together over larger changes: there this says nothing. Custom
    autograd functions in a model must themselves be differentiable twice.

    Examples
    --------
    >>> import torch, hoplens as hl
    >>> x = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))
    >>> pairs = hl.interactions(lambda x: 5 * x[:, :1, 0] * x[:, 2:, 1], x)
    >>> print(pairs.strongest().iloc[:, :6].to_string(index=False))
     rank  lag input  other_lag other_input  second_derivative
        1    0    x1          2          x0                5.0
    """
    drawn = check_count("seed", seed, least=0)
    limit = None if isinstance(rows, Sequence | Tensor) else check_count("rows", rows)
    model_by_lag = follow(model, inputs, lengths, readout)
    with differentiating(model_by_lag.module):
        outputs, width = model_by_lag.begin()
        output_names = _names(model_by_lag.output_names, outputs, "y")
        place = _place(output, output_names)
        flow = model_by_lag.flow(place, width)
        steps, n_inputs = flow.shape
        if limit is None:
            chosen, covered = _given_rows(rows, steps, n_inputs).to(flow.device), "as given"
        else:
            chosen, covered = _choose_rows(flow, limit, drawn)
        found = []
        with reporting(progress, "rows") as call:
            for part in chosen.split(width):
                found.append(model_by_lag.rows(place, part, max(1, width // len(part))))
                if call is not None:
                    call(sum(len(one[0]) for one in found), len(chosen))
    mean, absolute, spread, error = (torch.cat(kinds) for kinds in zip(*found, strict=True))
    if not bool(torch.isfinite(absolute).all()):
        raise NonFiniteError("second derivatives are NaN or infinite at some of these inputs; leave them out")
    samples = (model_by_lag.lengths > torch.arange(steps, device=flow.device)[:, None]).sum(1)
    return Interactions(
        mean,
        absolute,
        spread,
        error,
        chosen,
        flow,
        samples,
        _names(model_by_lag.input_names, n_inputs, "x"),
        output_names[place],
        covered,
        model_by_lag.label,
    )


def _names(known: tuple[str, ...] | None, count: int, prefix: str) -> tuple[str, ...]:
    return known if known is not None and len(known) == count else numbered(prefix, count)


def _choose_rows(flow: Tensor, limit: int, seed: int) -> tuple[Tensor, str]:
    """Return the rows (R, 2) to compute, and in words which these are."""
    cells, inputs = flow.numel(), flow.shape[1]
    if cells <= limit:
        chosen, words = torch.arange(cells), "all"
    else:
        by_chance = limit // DRAWN
        order = flow.flatten().cpu().argsort(descending=True, stable=True)
        largest, rest = order[: limit - by_chance], order[limit - by_chance :]
        picked = torch.randperm(len(rest), generator=generator("interactions", seed))[:by_chance]
        chosen = torch.cat([largest, rest[picked]]).sort().values
        words = f"{len(largest)} of largest flow and {by_chance} drawn (seed {seed}) of {cells}"
    chosen = chosen.to(flow.device)
    return torch.stack([chosen // inputs, chosen % inputs], dim=1), words


def _given_rows(rows: Any, steps: int, inputs: int) -> Tensor:
    try:
        given = torch.tensor([[index(lag), index(place)] for lag, place in rows])
    except (TypeError, ValueError):
        given = torch.empty(0, 2)
    inside = (given >= 0) & (given < torch.tensor([steps, inputs])) if len(given) else given.bool()
    if not len(given) or not bool(inside.all()) or len(given.unique(dim=0)) < len(given):
        raise ParameterError(
            f"rows must be a number or distinct pairs (lag, input) in 0 .. {steps - 1} and "
            f"0 .. {inputs - 1}, got {rows!r}"
        )
    ordered: Tensor = given.unique(dim=0)
    return ordered


def _place(output: Any, names: tuple[str, ...]) -> int:
    if isinstance(output, str):
        if output not in names:
            raise unknown_name("output", output, names)
        return names.index(output)
    place = check_count("output", output, least=0)
    if place >= len(names):
        raise ParameterError(
            f"output must lie in 0 .. {len(names) - 1} for {len(names)} outputs, got {place}"
        )
    return place


__all__ = ["Interactions", "interactions"]
