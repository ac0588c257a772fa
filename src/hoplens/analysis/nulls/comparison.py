"""Compare a network with random ones: effect sizes and corrected p values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.analysis.nulls.networks import NULLS, null_network, shuffle_lags, strength_error
from hoplens.display import Shown
from hoplens.errors import NonFiniteError, ShapeError, check_choice, check_count, check_number
from hoplens.graph.implicit import takes_models
from hoplens.graph.pathways import Pathways
from hoplens.lookup import look_up
from hoplens.progress import Progress, reporting
from hoplens.seeds import numpy_generator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LEVEL = 0.05  # of the p values that plots mark
CORRECTIONS = ("min-p", "holm", "none")
Measure = Callable[[HopMaps], Any]


@dataclass(frozen=True, eq=False, repr=False)
class NullComparison(Shown):
    """A measure of a network against the same measure of random networks.

    Attributes
    ----------
    observed : Tensor, shape (M,)
        The measure's values, one a hop or just one.
    null : Tensor, shape (n, M)
        The same of the random networks.
    effect : Tensor, shape (M,)
        ``(observed - mean) / standard deviation`` of the null; infinite where the null does not vary and
        the network differs, 0 where it does not differ.
    p : Tensor, shape (M,)
        Two-sided p values before correction, ``(1 + #{|null| at least as far from its mean}) / (n + 1)``.
    p_corrected : Tensor, shape (M,)
        Corrected for the M values.
    smallest_p : Tensor, shape (M,)
        The smallest corrected p value that an effect of any size on this value alone could have got with
        these n draws. Where it is not below 0.05, take the n of `draws_for`.
    name, correction : str
    hops : Tensor of int64, shape (M,), or None
        The hops, where there is one value a hop.
    strength_error : Tensor, shape (n,), or None
        How far each random network misses the summed weights of units, see `strength_error`; None
        for ``"lags"``, which draws no networks.
    """

    observed: Tensor
    null: Tensor
    effect: Tensor
    p: Tensor
    p_corrected: Tensor
    smallest_p: Tensor
    name: str
    correction: str
    hops: Tensor | None
    strength_error: Tensor | None = None

    def __repr__(self) -> str:
        count, values = self.null.shape
        start = f"NullComparison({self.name}, {values} value{'s' if values > 1 else ''}, n = {count}, "
        least = float(self.smallest_p.min())
        if least < LEVEL:
            return start + f"smallest corrected p {float(self.p_corrected.min()):.3g})"
        return (
            f"{start}too few draws: whatever its effect, one value alone gets no corrected p below "
            f"{least:.2g}; with n = {self.draws_for()} it could get below {LEVEL:g})"
        )

    def draws_for(self, level: float = LEVEL) -> int:
        """Return an n with which an effect on one value alone can get a corrected p below a level.

        Parameters
        ----------
        level : float, default 0.05

        Returns
        -------
        int
            Enough whatever the null: each other value adds at most one of the n + 1 draws that are as far
            out ("min-p"), or counts once ("holm").
        """
        wanted = check_number("level", level, above=0.0, below=1.0)
        rivals = 1 if self.correction == "none" else len(self.observed)
        return max(2, math.floor(rivals / wanted * (1 + 1e-12)))  # rivals / (n + 1) < level

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row a value: hop, observed, null mean and sd, effect, p, corrected and smallest p."""
        import pandas as pd

        hops = range(len(self.observed)) if self.hops is None else self.hops.tolist()
        return pd.DataFrame(
            {
                "hop" if self.hops is not None else "value": list(hops),
                "observed": self.observed.numpy(),
                "null_mean": self.null.mean(0).numpy(),
                "null_sd": self.null.std(0).numpy(),
                "effect": self.effect.numpy(),
                "p": self.p.numpy(),
                "p_corrected": self.p_corrected.numpy(),
                "smallest_p": self.smallest_p.numpy(),
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the observed values over the null's middle 95 %; filled where corrected p is below 0.05.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw; a new figure by default.
        """
        axes: Axes = look_up("hoplens.plots.charts:plot_null")(self, ax=ax)
        return axes


@takes_models
def compare_to_null(
    net: Pathways,
    measure: Measure,
    null: str = "shuffle",
    *,
    n: int = 1000,
    seed: int = 0,
    horizon: int = 10,
    correction: str = "min-p",
    progress: Progress = None,
) -> NullComparison:
    """Ask whether a measure of the hop maps is more than chance.

    Parameters
    ----------
    net : Pathways
        One network.
    measure : callable
        Takes `HopMaps`, returns one number or one a hop, e.g. ``lambda m: m.values.abs().mean((1, 2))``.
    null : {"shuffle", "rewire", "strength", "spectrum", "lags"}
        What stays and what is random: see `null_network`; ``"lags"`` permutes the hops of each pair.
    n : int, default 1000
        Random networks drawn; the smallest p value that can come out is ``1 / (n + 1)``, and corrected for
        M values it may be no smaller than ``M / (n + 1)``: see ``NullComparison.smallest_p``.
    seed : int, default 0
    horizon : int, default 10
        Number of time steps L of the hop maps.
    correction : {"min-p", "holm", "none"}
        For many hops: ``"min-p"`` compares each p value with the smallest one over all hops that each
        random network gets among the others (Westfall and Young 1993): it accounts for the dependence of
        hops, and treats narrow and heavy-tailed ones alike. ``"holm"`` is right under any dependence.
    progress : bool or callable, optional
        True shows a bar; a function is called as ``progress(done, total)`` after each draw.

    Returns
    -------
    NullComparison

    Raises
    ------
    ShapeError
        If the measure does not return one number or one a hop.
    NonFiniteError
        If the measure is not finite.
    """
    check_choice("null", null, NULLS)
    check_choice("correction", correction, CORRECTIONS)
    count = check_count("n", n, least=2)
    net = net.detach().to(torch.float64)
    maps = hop_maps(net, horizon)
    observed = _value(measure, maps)
    rng = numpy_generator("null models", seed)
    drawn, errors = [], []
    with reporting(progress, f"null model {null}") as report:
        for done in range(count):
            if null == "lags":
                random = shuffle_lags(maps, rng)
            else:
                network = null_network(net, null, rng)
                errors.append(strength_error(net, network))
                random = hop_maps(network, horizon)
            drawn.append(_value(measure, random))
            if report is not None:
                report(done + 1, count)
    values = torch.stack(drawn)
    effect, p, corrected, smallest = _tests(observed, values, correction)
    name = getattr(measure, "__name__", "measure")
    hops = maps.hops.cpu() if len(observed) == len(maps.hops) and len(observed) > 1 else None
    label = f"{name} against {null}"
    missed = torch.tensor(errors, dtype=torch.float64) if errors else None
    return NullComparison(observed, values, effect, p, corrected, smallest, label, correction, hops, missed)


def _value(measure: Measure, maps: HopMaps) -> Tensor:
    value = torch.as_tensor(measure(maps)).detach().cpu().double()
    if value.dim() > 1:
        raise ShapeError(
            f"a measure must return one number or one a hop, got shape {tuple(value.shape)}; average over "
            "pairs"
        )
    if not bool(torch.isfinite(value).all()):
        raise NonFiniteError("the measure is NaN or infinite; let it return 0 for networks without pathways")
    return value.reshape(-1)


def _tests(observed: Tensor, null: Tensor, correction: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # the observed network is one of the n + 1 draws under the hypothesis, so it shares mean and sd
    pool = torch.cat([observed[None], null])
    mean, sd = pool.mean(0), pool.std(0)
    flat = sd <= 1e-12 * pool.abs().amax(0)
    distance = torch.where(flat, torch.zeros_like(pool), (pool - mean).abs() / torch.where(flat, 1.0, sd))
    # rounding must not break ties between values that are equal
    near = distance[0] * (1 - 1e-9)
    p = (1 + (distance[1:] >= near).sum(0)).double() / pool.shape[0]
    if correction == "min-p":
        ordered = distance.sort(dim=0).values.T.contiguous()  # (M, n + 1)
        below = torch.searchsorted(ordered, (distance * (1 - 1e-9)).T.contiguous())
        each = (pool.shape[0] - below).double() / pool.shape[0]  # (M, n + 1)
        corrected = (each.amin(0)[:, None] <= p * (1 + 1e-9)).double().mean(0)
        farthest = each * pool.shape[0] < 1.5
        smallest = torch.stack([_least(farthest, m) for m in range(len(p))])
    else:
        corrected = _holm(p) if correction == "holm" else p
        smallest = torch.full_like(p, min(1.0, (len(p) if correction == "holm" else 1) / pool.shape[0]))
    null_mean, null_sd = null.mean(0), null.std(0)
    gap = observed - null_mean
    still = null_sd <= 1e-12 * pool.abs().amax(0)
    exact = gap.abs() <= 1e-12 * pool.abs().amax(0)
    infinite = torch.where(exact, torch.zeros_like(gap), gap.sign() * torch.inf)
    effect = torch.where(still, infinite, gap / torch.where(still, 1.0, null_sd))
    return effect, p, corrected, smallest


def _least(farthest: Tensor, value: int) -> Tensor:
    """Return the corrected p of the network if it were the farthest draw in one value; others as they are."""
    rivals = farthest.clone()  # (M, n + 1)
    rivals[value] = False
    rivals[value, 0] = True
    return rivals.any(0).double().mean()


def _holm(p: Tensor) -> Tensor:
    order = p.argsort()
    factors = torch.arange(len(p), 0, -1, dtype=p.dtype)
    stepped = (p[order] * factors).cummax(0).values.clamp_max(1.0)
    corrected = torch.empty_like(p)
    corrected[order] = stepped
    return corrected


__all__ = ["NullComparison", "compare_to_null"]
