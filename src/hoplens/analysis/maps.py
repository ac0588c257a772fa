"""The value that hop maps are: weights of walks by their number of edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    unknown_name,
)
from hoplens.graph.chain import widen
from hoplens.graph.parts import select_networks
from hoplens.graph.scaled import ScaledMaps, times_power
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
    absolute, spread, standard_error : Tensor, shape (..., K, O, I), or None
        Along data, where ``values`` is the signed mean over samples: the mean magnitude, the standard
        deviation over samples, and the standard error of the mean (NaN of one sample).
    samples : Tensor of int64, shape (..., K), or None
        Samples that are long enough for each hop.
    groups : tuple or None
        Labels along the leading axis, where samples were grouped.
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
    absolute: Tensor | None = None
    spread: Tensor | None = None
    standard_error: Tensor | None = None
    samples: Tensor | None = None
    groups: tuple[Any, ...] | None = None

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
        exact = self.exact and ScaledMaps(
            select_networks(self.exact.mantissas, index, 3), select_networks(self.exact.exponents, index, 1)
        )
        along_data = self._map_along_data(lambda part: select_networks(part, index, 3))
        return replace(
            self,
            values=select_networks(self.values, index, 3),
            shift=None if self.shift is None else self.shift[index],
            exact=exact,
            samples=None if self.samples is None else select_networks(self.samples, index, 1),
            groups=self._groups_at(index),
            **along_data,
        )

    def _groups_at(self, index: Any) -> tuple[Any, ...] | None:
        """Return the labels of selected groups; None where no axis of groups is left."""
        if self.groups is None:
            return None
        chosen = torch.arange(len(self.groups), device=self.values.device)[index]
        return tuple(self.groups[n] for n in chosen.tolist()) if chosen.dim() == 1 else None

    def _map_along_data(self, function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        named = {"absolute": self.absolute, "spread": self.spread, "standard_error": self.standard_error}
        return {name: function(part) for name, part in named.items() if part is not None}

    def to(self, target: torch.dtype | torch.device | str) -> HopMaps:
        """Return the maps in another dtype or on another device.

        Parameters
        ----------
        target : torch.dtype, torch.device or str
        """
        along_data = self._map_along_data(lambda part: part.to(target))
        if isinstance(target, torch.dtype):
            return replace(self, values=self.values.to(target), **along_data)
        others = {"hops": self.hops, "shift": self.shift, "samples": self.samples}
        moved: dict[str, Any] = {name: part.to(target) for name, part in others.items() if part is not None}
        exact = self.exact and ScaledMaps(self.exact.mantissas.to(target), self.exact.exponents.to(target))
        return replace(self, values=self.values.to(target), exact=exact, **moved, **along_data)

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

        return replace(
            self,
            values=cut(self.values),
            hops=self.hops[hops],
            input_names=of(self.input_names, inputs) or (),
            output_names=of(self.output_names, outputs) or (),
            input_modules=of(self.input_modules, inputs),
            output_modules=of(self.output_modules, outputs),
            exact=self.exact and ScaledMaps(cut(self.exact.mantissas), self.exact.exponents[..., hops]),
            samples=None if self.samples is None else self.samples[..., hops],
            **self._map_along_data(cut),
        )

    def to_xarray(self) -> Any:
        """Return the maps as an ``xarray.DataArray`` with axes network (if any), hop, output, input.

        Its coordinates are the hops with their lags, the names, and the labels of groups, whose axis is
        called group. Needs the extra ``xarray``.
        """
        try:
            import xarray
        except ImportError:
            raise ParameterError('to_xarray needs xarray: pip install "hoplens[xarray]"') from None
        leading = self._axes()
        coords: dict[str, Any] = {"hop": self.hops.tolist()}
        if self.groups is not None:
            coords["group"] = list(self.groups)
        coords |= {"output": list(self.output_names), "input": list(self.input_names)}
        if self.timed:
            coords["lag"] = ("hop", self.lags.tolist())
        values = self.values.detach().cpu().numpy()
        return xarray.DataArray(
            values, dims=[*leading, "hop", "output", "input"], coords=coords, name="weight"
        )

    def _axes(self) -> list[str]:
        """Return what tables call the leading axes."""
        count = len(self.batch_shape)
        one = "network" if self.groups is None else "group"
        return [one] if count == 1 else [f"axis{n}" for n in range(count)]

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
        Weights are ``values``: in units of ``2**shift`` where that is given. Of maps along data also
        ``absolute``, ``spread`` and ``standard_error``, and ``group``, its label, in place of ``network``.
        """
        import pandas as pd

        kinds = self._map_along_data(lambda part: part)
        columns = {
            name: part.detach().to("cpu", torch.float64).numpy().reshape(-1)
            for name, part in {"weight": self.values, **kinds}.items()
        }
        levels: list[Any] = [range(n) for n in self.batch_shape] if self.groups is None else [self.groups]
        names = self._axes()
        levels += [self.hops.tolist(), self.output_names, self.input_names]
        index = pd.MultiIndex.from_product(levels, names=[*names, "hop", "output", "input"])
        frame = pd.DataFrame(columns, index=index).reset_index()
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


__all__ = ["HopMaps", "hop_weights", "places"]
