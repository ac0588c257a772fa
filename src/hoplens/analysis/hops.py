"""Hop maps: input-output influence split by the number of edges walked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hoplens.display import Shown
from hoplens.errors import (
    ParameterError,
    RangeError,
    ShapeError,
    UnsupportedModelError,
    check_count,
    unknown_name,
)
from hoplens.graph.chain import widen
from hoplens.graph.implicit import takes_models
from hoplens.graph.parts import select_networks
from hoplens.graph.pathways import Pathways
from hoplens.graph.scaled import ScaledMaps, assemble, hop_products, times_power
from hoplens.lookup import look_up

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def places(axis: str, wanted: Any, names: Sequence[Any]) -> list[int]:
    """Return where what is wanted stands on an axis, by name or, on a named axis, by place."""
    if wanted is None:
        return list(range(len(names)))
    found = []
    for one in [wanted] if isinstance(wanted, str | int) else list(wanted):
        if one in names:
            found.append(list(names).index(one))
        elif isinstance(one, int) and names and isinstance(names[0], str) and -len(names) <= one < len(names):
            found.append(one % len(names))
        elif isinstance(one, str):
            raise unknown_name(axis, one, list(map(str, names)))
        else:
            raise ParameterError(f"there is no {axis} {one!r}; there are {len(names)}: {_span(names)}")
    if not found:
        raise ParameterError(f"{axis}= selects nothing; leave it out, or name one")
    return found


def _span(names: Sequence[Any]) -> str:
    return f"{names[0]} .. {names[-1]}" if names else "none"


@dataclass(frozen=True, eq=False, repr=False)
class HopMaps(Shown):
    """Hop maps H_k of one or many networks.

    Attributes
    ----------
    values : Tensor, shape (..., K, O, I)
        ``values[..., n, o, i]`` is the summed weight of all walks of ``hops[n]`` edges from input i to
        output o; where ``shift`` is given, that weight divided by ``2**shift``.
    hops : Tensor of int64, shape (K,)
        Number of edges walked; 2 .. horizon + 1, or from 1 where the network has direct
        input-to-output edges.
    input_names, output_names : tuple of str
        Names of the inputs and outputs.
    input_modules, output_modules : tuple of str or None
        Their modules, if known.
    levels : int, default 1
        Layers that every walk crosses; an edge from a layer to the next takes no time.
    shift : Tensor of int64, shape (...,), or None
        None in all ordinary cases. Where maps overflow their dtype (say spectral radius 3, horizon 1000),
        each such network's maps are divided by one power of two that brings its largest entry to
        [0.5, 1): maps of one network stay in proportion, so that every measure that compares hops or
        pairs means the same. What is then below the range of the dtype is 0.
    exact : ScaledMaps or None
        Mantissas and a power of two a hop, where some map of ``values`` left the range; see `scaled`.
    timed : bool, default True
        Whether all walks of one length take the same time. Not so in a bidirectional network, where some
        run backward: its hops have no lag, see `hoplens.lag_maps`.
    """

    values: Tensor
    hops: Tensor
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_modules: tuple[str, ...] | None = None
    output_modules: tuple[str, ...] | None = None
    levels: int = 1
    shift: Tensor | None = None
    exact: ScaledMaps | None = None
    timed: bool = True

    @property
    def lags(self) -> Tensor:
        """Time steps walked, shape (K,): hops - 2, or hops - 1 - levels in a stack; at least 0.

        Raises
        ------
        UnsupportedModelError
            For a bidirectional network (see ``timed``).
        """
        if not self.timed:
            raise UnsupportedModelError(
                "walks of one length take different times in a bidirectional network, so its hops have no "
                "lag; use hoplens.lag_maps"
            )
        return (self.hops - 1 - self.levels).clamp_min(0)

    def hop_name(self, place: int) -> str:
        """Return what figures call a hop: its number, and its lag where it has one.

        Parameters
        ----------
        place : int
            Where it stands in ``hops``.
        """
        hop = f"hop {int(self.hops[place])}"
        return f"{hop} (lag {int(self.lags[place])})" if self.timed else hop

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes."""
        return self.values.shape[:-3]

    def __repr__(self) -> str:
        shape = tuple(self.values.shape)
        return f"HopMaps(values {shape}, hops {int(self.hops[0])}..{int(self.hops[-1])})"

    def __getitem__(self, index: Any) -> HopMaps:
        """Select along the leading axes."""
        if not self.batch_shape:
            raise ShapeError("these HopMaps hold one network and have no leading axis to index")
        return HopMaps(
            select_networks(self.values, index, 3),
            self.hops,
            self.input_names,
            self.output_names,
            self.input_modules,
            self.output_modules,
            self.levels,
            None if self.shift is None else self.shift[index],
            None
            if self.exact is None
            else ScaledMaps(
                select_networks(self.exact.mantissas, index, 3),
                select_networks(self.exact.exponents, index, 1),
            ),
            self.timed,
        )

    def sel(
        self,
        *,
        hop: int | Sequence[int] | None = None,
        lag: int | Sequence[int] | None = None,
        input: str | int | Sequence[str | int] | None = None,
        output: str | int | Sequence[str | int] | None = None,
    ) -> HopMaps:
        """Select hops, lags, inputs and outputs by number or name; every axis stays, whatever is selected.

        Parameters
        ----------
        hop, lag : int or sequence of int, optional
            Number of edges, or of time steps; one of the two.
        input, output : str, int or sequence, optional
            Names, or places from 0.

        Raises
        ------
        ParameterError, UnknownNameError
            For what these maps do not have.
        """
        if hop is not None and lag is not None:
            raise ParameterError("a lag says the hop: give one of hop= and lag=")
        numbers = self.hops if lag is None else self.lags
        hops = places("hop" if lag is None else "lag", hop if lag is None else lag, numbers.tolist())
        outputs = places("output", output, self.output_names)
        inputs = places("input", input, self.input_names)

        def of(names: tuple[str, ...] | None, chosen: list[int]) -> tuple[str, ...] | None:
            return None if names is None else tuple(names[n] for n in chosen)

        def cut(values: Tensor) -> Tensor:
            return values[..., hops, :, :][..., outputs, :][..., inputs]

        exact = self.exact and ScaledMaps(cut(self.exact.mantissas), self.exact.exponents[..., hops])
        return HopMaps(
            cut(self.values),
            self.hops[hops],
            of(self.input_names, inputs) or (),
            of(self.output_names, outputs) or (),
            of(self.input_modules, inputs),
            of(self.output_modules, outputs),
            self.levels,
            self.shift,
            exact,
            self.timed,
        )

    def to_xarray(self) -> Any:
        """Return the maps as an ``xarray.DataArray`` with axes network (if any), hop, output, input.

        Its coordinates are the hops with their lags, and the names. Needs the extra ``xarray``.
        """
        try:
            import xarray
        except ImportError:
            raise ParameterError('to_xarray needs xarray: pip install "hoplens[xarray]"') from None
        batch = len(self.batch_shape)
        leading = ["network"] if batch == 1 else [f"axis{n}" for n in range(batch)]
        coords: dict[str, Any] = {"hop": self.hops.tolist()}
        coords |= {"output": list(self.output_names), "input": list(self.input_names)}
        if self.timed:
            coords["lag"] = ("hop", self.lags.tolist())
        values = self.values.detach().cpu().numpy()
        return xarray.DataArray(
            values, dims=[*leading, "hop", "output", "input"], coords=coords, name="weight"
        )

    def scaled(self) -> ScaledMaps:
        """Return the maps as mantissas and a power of two a hop, exact at any spectral radius and horizon."""
        if self.exact is not None:
            return self.exact
        values = widen(self.values)
        exponents = torch.frexp(values.detach().abs().amax(dim=(-2, -1)))[1].long()
        mantissas = times_power(values, -exponents[..., None, None])
        return ScaledMaps(mantissas.to(self.values.dtype), exponents)

    def damped(self, damping: float | Tensor) -> Tensor:
        """Return ``damping**k H_k``, shape (..., K, O, I); damping is one number or one a network (...,).

        Raises
        ------
        RangeError
            If these maps carry a ``shift`` and overflow their dtype although damped.
        """
        if self.shift is not None:
            return self._damped_scaled(damping)
        weights = hop_weights(damping, self.hops, self.values)
        return self.values * weights[..., None, None]

    def _damped_scaled(self, damping: float | Tensor) -> Tensor:
        exact = self.scaled()
        base = torch.as_tensor(damping, dtype=torch.float64, device=self.values.device)
        log2 = exact.exponents + self.hops.to(base.device) * base[..., None].log2()  # (..., K)
        whole = log2.floor()
        part = torch.exp2(log2 - whole).to(self.values.dtype)
        result = times_power(exact.mantissas * part[..., None, None], whole.long()[..., None, None])
        if not bool(torch.isfinite(result).all()):
            raise RangeError(
                f"damped hop maps overflow {result.dtype}; use a smaller damping, fewer hops or float64"
            )
        return result

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per (network, hop, output, input) with the weight.

        Columns: ``hop``, ``lag`` (where hops have one), ``output``, ``input``, ``weight``; before them
        ``network`` where there is one leading axis, or ``axis0, axis1, ...`` where there are several.
        Weights are ``values``: in units of ``2**shift`` where that is given.
        """
        import pandas as pd

        values = self.values.detach().to("cpu", torch.float64).numpy()
        levels: list[Any] = [range(n) for n in self.batch_shape]
        names = ["network"] if len(levels) == 1 else [f"axis{j}" for j in range(len(levels))]
        levels += [self.hops.tolist(), self.output_names, self.input_names]
        index = pd.MultiIndex.from_product(levels, names=[*names, "hop", "output", "input"])
        frame = pd.DataFrame({"weight": values.reshape(-1)}, index=index).reset_index()
        if self.timed:
            lags = np.maximum(frame["hop"].to_numpy() - 1 - self.levels, 0)
            frame.insert(len(self.batch_shape) + 1, "lag", lags)
        return frame

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw hop length against input-output pair; see `hoplens.plots.plot_hops`.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        """
        axes: Axes = look_up("hoplens.plots:plot_hops")(self, ax=ax)
        return axes


def hop_weights(damping: float | Tensor, hops: Tensor, like: Tensor) -> Tensor:
    """Return damping**k for every hop, shape (..., K), in the dtype and on the device of ``like``."""
    base = torch.as_tensor(damping, dtype=like.dtype, device=like.device)
    return base[..., None] ** hops.to(like.device)


@takes_models
def hop_maps(net: Pathways, horizon: int = 20, *, dtype: torch.dtype | None = None) -> HopMaps:
    """Split the input-output influence of a network by hop length.

    ``H_k = W_out W_rec^(k-2) W_in`` for k = 2 .. horizon + 1, the Markov parameters of the linear system
    (W_in, W_rec, W_out); hop k carries the input seen k - 2 steps before the read-out. In a stack of D
    layers walks have D + 1 hops or more and hop k takes k - 1 - D steps (see `hoplens.lag_maps`). With
    direct edges (``w_skip``) a map ``H_1 = W_skip`` comes first. Differentiable. Costs one thin product
    per hop, from the smaller of the input and output side, never a power of W_rec. Maps that grow or fade
    beyond the range of the dtype are carried with exponents, see ``HopMaps.shift`` and `HopMaps.scaled`.

    Parameters
    ----------
    net : Pathways, or a model
        Any leading axes. A model is read with `hoplens.read` first, as in all functions of networks.
    horizon : int, default 20
        Number of time steps L >= 1.
    dtype : torch.dtype, optional
        Of the maps; default that of the weights. Half precision is computed in float32.

    Returns
    -------
    HopMaps
        ``values`` of shape (..., K, O, I), K = horizon (+ 1 with direct edges).

    Raises
    ------
    NonFiniteError
        If a weight is NaN or infinite.
    RangeError
        If a single hop leaves the range of the dtype.

    Notes
    -----
    Source: arXiv:2605.03598, the thin form of the powers of the block adjacency matrix.
    """
    length = check_count("horizon", horizon)
    net.check_finite()
    levels = 1 if net.layers is None else net.layers[-1].level + 1
    maps, exponents = hop_products(net, length, levels)
    first = levels + 1
    hops = torch.arange(first, first + length, device=maps.device)
    if net.w_skip is not None:
        maps = torch.cat([net.w_skip.to(maps.dtype).unsqueeze(-3), maps], dim=-3)
        exponents = torch.cat([torch.zeros_like(exponents[..., :1]), exponents], dim=-1)
        hops = torch.cat([hops.new_ones(1), hops])
    values, shift, exact = assemble(maps, exponents, dtype or net.w_in.dtype)
    modules = net.input_modules, net.output_modules
    timed = net.layers is None or not any(layer.reverse for layer in net.layers)
    return HopMaps(values, hops, net.input_names, net.output_names, *modules, levels, shift, exact, timed)
