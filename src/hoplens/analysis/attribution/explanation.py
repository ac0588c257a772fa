"""What an explanation holds, and how to look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hoplens.display import Shown
from hoplens.errors import ParameterError, ShapeError, check_count
from hoplens.lookup import look_up

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SCHEMA = 1  # of to_dict; raised when a key changes its meaning


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Shown):
    """Contributions to the change of one output from a baseline to an input.

    Attributes
    ----------
    values : Tensor, shape (B, L, I)
        Contribution of each (time step, input); zero after the end of a shorter sequence.
    by_hop : Tensor, shape (B, K, I)
        The same change by hop length in place of time.
    hops, lags : Tensor of int64, shape (K,)
        Hop lengths, and the time steps that walks of this length take.
    by_unit : Tensor, shape (B, N)
        The same change by the N hidden values that the read-out sees: weight times change of each.
    gap : Tensor, shape (B,)
        Completeness gap ``f(x) - f(baseline) - sum of values``.
    error : Tensor, shape (B, L, I)
        Standard error of ``values`` over the orders drawn; zero for methods that draw nothing, NaN where
        fewer than two pairs of orders were drawn.
    spread : Tensor, shape (B, L, I)
        Standard deviation over the orders drawn of what each (time step, input) adds to the output in its
        turn; ``values`` are the means. Large beside them where what an input does depends on the others, so
        that taking it out may change the output by much more or less than its credit. NaN for methods that
        draw nothing, and of a single pair of orders.
    output, baseline_output : Tensor, shape (B,)
        f(x) and f(baseline), with the bias of the read-out where that is known.
    inputs, baseline : Tensor, shape (B, L, I)
    lengths : Tensor of int64, shape (B,)
        Valid steps; the output is read at the last one.
    outputs : Tensor of int64, shape (B,)
        Which output was explained.
    input_names, output_names, unit_names : tuple of str
    method : str
        How it was found, in words.
    label : str
        What was explained.
    timed : bool, default True
        Whether all walks of one hop length take the same time; not in a deep bidirectional network, where
        ``lags`` counts steps back and forth.
    """

    values: Tensor
    by_hop: Tensor
    hops: Tensor
    lags: Tensor
    by_unit: Tensor
    gap: Tensor
    error: Tensor
    spread: Tensor
    output: Tensor
    baseline_output: Tensor
    inputs: Tensor
    baseline: Tensor
    lengths: Tensor
    outputs: Tensor
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    unit_names: tuple[str, ...]
    method: str
    label: str
    timed: bool = True

    @property
    def difference(self) -> Tensor:
        """``f(x) - f(baseline)``, shape (B,): what the contributions add up to."""
        return self.output - self.baseline_output

    @property
    def relative_gap(self) -> Tensor:
        """``|gap| / |f(x) - f(baseline)|``, shape (B,); 0 where nothing changed.

        Where contributions cancel to less than a millionth of their sizes, it is taken relative to that.
        """
        floor = 1e-6 * self.values.abs().sum((1, 2))
        scale = torch.maximum(self.difference.abs(), floor)
        return torch.where(scale > 0, self.gap.abs() / torch.where(scale > 0, scale, 1.0), self.gap.abs())

    def __repr__(self) -> str:
        size, steps, inputs = self.values.shape
        worst = float(self.relative_gap.max())
        return (
            f"Explanation({size} samples x {steps} steps x {inputs} inputs, {self.method}, "
            f"largest relative gap {worst:.1e})"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per (sample, time step, input) that the sequences hold.

        Columns: ``sample``, ``step`` (from 0), ``lag``, ``input``, ``value`` of the input, ``baseline``,
        ``contribution``, ``error``, ``spread``.
        """
        import pandas as pd

        size, steps, inputs = self.values.shape
        parts = {
            "value": self.inputs,
            "baseline": self.baseline,
            "contribution": self.values,
            "error": self.error,
            "spread": self.spread,
        }
        axes = [range(size), range(steps), self.input_names]
        index = pd.MultiIndex.from_product(axes, names=["sample", "step", "input"])
        columns = {name: part.detach().cpu().double().numpy().reshape(-1) for name, part in parts.items()}
        frame = pd.DataFrame(columns, index=index).reset_index()
        ends = self.lengths.cpu().repeat_interleave(steps * inputs).numpy()
        frame.insert(2, "lag", ends - 1 - frame["step"].to_numpy())
        return frame[frame["lag"] >= 0].reset_index(drop=True)

    def top(self, n: int = 10, *, sample: int = 0) -> pd.DataFrame:
        """Return the n largest contributions of one sample, by size.

        Parameters
        ----------
        n : int, default 10
        sample : int, default 0

        Returns
        -------
        DataFrame
            As `to_dataframe`, with ``share``: of the sum of all sizes.
        """
        count = check_count("n", n)
        chosen = self._sample(sample)
        frame = self.one(chosen).to_dataframe().assign(sample=chosen)
        size = frame["contribution"].abs()
        total = float(size.sum())
        frame = frame.assign(share=size / total if total > 0 else 0.0)
        return frame.loc[size.sort_values(ascending=False, kind="stable").index[:count]].reset_index(
            drop=True
        )

    def one(self, sample: int) -> Explanation:
        """Return the explanation of one sample, with B = 1.

        Parameters
        ----------
        sample : int
        """
        chosen = self._sample(sample)
        batched = {
            "values",
            "by_hop",
            "by_unit",
            "gap",
            "error",
            "spread",
            "output",
            "baseline_output",
            "inputs",
        }
        batched |= {"baseline", "lengths", "outputs"}
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Explanation(**{k: v[chosen : chosen + 1] if k in batched else v for k, v in fields.items()})

    def by_module(self, modules: Sequence[str]) -> pd.DataFrame:
        """Return contributions by module of hidden units: ``by_unit`` added up.

        Parameters
        ----------
        modules : sequence of str
            Module of each of the N units.

        Returns
        -------
        DataFrame
            Columns ``sample``, ``module``, ``contribution``.
        """
        import pandas as pd

        if isinstance(modules, str) or len(modules) != len(self.unit_names):
            raise ShapeError(f"modules must name one module for each of the {len(self.unit_names)} units")
        names = np.array([str(module) for module in modules])
        frame = pd.DataFrame(self.by_unit.detach().cpu().double().numpy().T)
        sums = frame.groupby(names, sort=False).sum()
        return (
            sums.T.rename_axis("sample")
            .reset_index()
            .melt(id_vars="sample", var_name="module", value_name="contribution")
        )

    def plot(self, *, sample: int = 0, ax: Axes | None = None) -> Axes:
        """Draw one sample as a heat map, time step by input, on one scale around zero.

        Parameters
        ----------
        sample : int, default 0
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        """
        axes: Axes = look_up("hoplens.plots.explanation:draw")(self, self._sample(sample), ax)
        return axes

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings, ready for ``json.dumps``."""
        names = [*self.__dataclass_fields__]
        tensors = {k: getattr(self, k) for k in names if isinstance(getattr(self, k), Tensor)}
        plain = {
            k: torch.nan_to_num(v, nan=-1.0).tolist() if k in ("error", "spread") else v.tolist()
            for k, v in tensors.items()
        }
        others = {k: getattr(self, k) for k in names if k not in tensors}
        return {
            "schema": SCHEMA,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in others.items()},
            **plain,
        }

    def _sample(self, sample: int) -> int:
        size = self.values.shape[0]
        chosen = check_count("sample", sample, least=0)
        if chosen >= size:
            raise ParameterError(f"sample must lie in 0 .. {size - 1} for {size} samples, got {chosen}")
        return chosen


__all__ = ["Explanation"]
