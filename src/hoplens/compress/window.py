"""Fewer steps: how many of the last inputs a read-out at the end needs, and a model that runs only those."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.analysis.lags import lag_maps
from hoplens.compress.intervals import Box
from hoplens.compress.proofs import bound_after_any_past, bound_everywhere, reachable
from hoplens.errors import ParameterError, UnsupportedModelError, check_choice, check_count, check_number
from hoplens.models.readers import read
from hoplens.models.readers.copies import as_model
from hoplens.models.readers.models import to_stack
from hoplens.models.recurrent_model import RecurrentModel, last_steps
from hoplens.models.rollout import as_batch
from hoplens.models.stack import Stack
from hoplens.models.tensors import check_finite, check_lengths

if TYPE_CHECKING:
    import pandas as pd

BOUNDS = ("range", "pasts", "measured")
EVERY_WINDOW_UP_TO = 64  # longer windows are tried on a grid
PER_OCTAVE = 16
DOUBT = 0.05  # that the stated share of sequences beyond the tolerance is too low


@dataclass(frozen=True, eq=False)
class EffectiveWindow:
    """How many of the last inputs a read-out at the end needs.

    Attributes
    ----------
    window : int or None
        The smallest window whose proven bound is within the tolerance, and from which on the measured error
        is; None where no window shorter than the sequences is.
    reason : str
        Why there is none; empty where there is one.
    tolerance : float
    kind : {"range", "pasts", "measured"}
        What the bound holds for, see `effective_window`.
    error : float
        Largest change of any output that was measured with this window; NaN without one.
    bound : float
        Proven bound of that change; infinite for "measured".
    share : float
        With a confidence of 95 %, at most this share of sequences from the same source changes by more
        than the tolerance (the choice of the window is accounted for).
    measured_window : int
        The smallest window from which on the measured error is within the tolerance.
    linear_window : int or None
        The same by linear theory: all mass of the network at rest that inputs in the range can put into
        longer lags is within the tolerance. Biases are not counted. None: also the last lag has more.
    windows : Tensor of int64, shape (W,)
        Windows tried, the last of them the whole sequence.
    errors, bounds : Tensor of float64, shape (W,)
        Measured error and proven bound of each (NaN where not computed).
    """

    window: int | None
    reason: str
    tolerance: float
    kind: str
    error: float
    bound: float
    share: float
    measured_window: int
    linear_window: int | None
    windows: Tensor
    errors: Tensor
    bounds: Tensor

    @property
    def steps(self) -> int:
        """Time steps of the longest sequence."""
        return int(self.windows[-1])

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row a window tried: window, error, bound."""
        import pandas as pd

        columns = {"window": self.windows, "error": self.errors, "bound": self.bounds}
        return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


@torch.no_grad()
def effective_window(
    model: Any,
    inputs: Tensor,
    tolerance: float,
    *,
    readout: Any = None,
    lengths: Tensor | None = None,
    bound: str = "range",
) -> EffectiveWindow:
    """Find how many of the last inputs a read-out at the end needs.

    Running only the last w inputs, from a zero state, must change no output by more than the tolerance:
    measured on all ``inputs``, and, unless ``bound="measured"``, proven:

    * ``"range"``: for every sequence of up to L steps whose inputs lie in the range of ``inputs``. Interval
      arithmetic encloses all states; a monotone recursion bounds how far two of them can part under the
      same inputs, for plain and leaky units also a spectral norm in the best unit scales. All mass of a
      network in hops up to m gives the window m - 1.
    * ``"pasts"``: for the last w steps of each sequence in ``inputs``, whatever came before them in that
      range. Knows gates that close and units that saturate.

    Proofs are of the network in exact arithmetic, with all roundings of the proof itself bounded; running
    it in floating point adds the rounding of that run. Worst cases multiply over steps, so dense networks
    often have no proven window although the measured error fades: then ``window`` is None and ``reason``
    says so. A statement on sequences of the same source that needs no proof is ``share``.

    Parameters
    ----------
    model : RecurrentModel, or core with ``readout``
        Read out after the last step.
    inputs : Tensor, shape (B, L, I)
    tolerance : float
        Largest change of any output, in the output's own units.
    readout : nn.Linear, optional
        After a bare core.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end.
    bound : {"range", "pasts", "measured"}, default "range"

    Returns
    -------
    EffectiveWindow

    Raises
    ------
    UnsupportedModelError
        For a model read out after every step, and, with a proof, for a bidirectional one.
    """
    limit = check_number("tolerance", tolerance, above=0.0)
    check_choice("bound", bound, BOUNDS)
    own = as_model(model, readout)
    _check_end(own)
    stack = to_stack(own.core, own.readout)
    assert isinstance(stack, Stack)
    for name, value in own.state_dict().items():
        check_finite(name, value)
    batch = as_batch(stack, inputs)
    sizes = check_lengths(lengths, batch.inputs)
    windows = candidates(batch.inputs.shape[1])
    errors = _measure(own, batch.inputs, sizes, windows)
    first = _from_on(errors <= limit)
    values = batch.inputs.double()
    box = _range(values, sizes)
    bounds = torch.full_like(errors, math.nan)
    chosen, tried = first, len(windows)
    if bound != "measured":
        bounds = _prove(bound, stack.to(torch.float64), values, sizes, windows, box, first, limit)
        chosen = first + int((bounds[first:] <= limit).int().argmax())
    found = chosen < tried - 1
    return EffectiveWindow(
        window=int(windows[chosen]) if found else None,
        reason="" if found else _why(bound, limit, windows, errors, bounds, first),
        tolerance=limit,
        kind=bound,
        error=float(errors[chosen]) if found else math.nan,
        bound=float(bounds[chosen]) if found and bound != "measured" else math.inf,
        share=1 - (DOUBT / tried) ** (1 / len(values)),
        measured_window=int(windows[first]),
        linear_window=_linear_window(own, box, int(windows[-1]), limit),
        windows=windows,
        errors=errors,
        bounds=bounds,
    )


def truncate(model: Any, window: int | EffectiveWindow, *, readout: Any = None) -> RecurrentModel:
    """Return a model that runs only the last steps of each sequence.

    A whole sequence of L steps then takes about w / L of the time. Streaming gains only where outputs are
    wanted less often than every w steps: each costs w steps, so the steps before them can be skipped.

    Parameters
    ----------
    model : RecurrentModel, or core with ``readout``
    window : int or EffectiveWindow
        What `effective_window` found, or a number of steps w that you answer for.
    readout : nn.Linear, optional
        After a bare core.

    Returns
    -------
    RecurrentModel
        A copy with ``info.window`` set.

    Raises
    ------
    ParameterError
        If `effective_window` found none: the message is its reason.
    UnsupportedModelError
        For a model read out after every step.
    """
    own = as_model(model, readout)
    _check_end(own)
    if isinstance(window, EffectiveWindow):
        if window.window is None:
            raise ParameterError(f"the model cannot be truncated: {window.reason}")
        window = window.window
    own.info = replace(own.info, window=check_count("window", window))
    return own


def candidates(steps: int) -> Tensor:
    """Return the windows to try up to a sequence's length: all short ones, then 16 an octave."""
    short = torch.arange(1, min(steps, EVERY_WINDOW_UP_TO) + 1)
    octaves = math.log2(max(1.0, steps / EVERY_WINDOW_UP_TO))
    powers = torch.arange(1, max(1, math.ceil(octaves * PER_OCTAVE))) / PER_OCTAVE
    long = (EVERY_WINDOW_UP_TO * 2**powers).round().long()
    found: Tensor = torch.cat([short, long, torch.tensor([steps])]).clamp_max(steps).unique()
    return found


def _check_end(model: RecurrentModel) -> None:
    if model.info.every_step:
        raise UnsupportedModelError(
            "a window is for a read-out at the end, but this model is read out after every step: each "
            "output would run its own window, which takes more steps, not fewer"
        )


def _measure(model: RecurrentModel, inputs: Tensor, lengths: Tensor | None, windows: Tensor) -> Tensor:
    """Return the largest change of any output by each window, shape (W,)."""
    errors = []
    with torch.no_grad():
        model.info = replace(model.info, window=None)
        whole = model(inputs, lengths)
        for window in windows.tolist():
            model.info = replace(model.info, window=window)
            errors.append((model(inputs, lengths) - whole).abs().max())
    model.info = replace(model.info, window=None)
    return torch.stack(errors).double().cpu()


def _from_on(good: Tensor) -> int:
    """Return the first place from which on all are True; the last place where none is."""
    bad = (~good).nonzero()
    return 0 if len(bad) == 0 else min(int(bad[-1]) + 1, len(good) - 1)


def _range(inputs: Tensor, lengths: Tensor | None) -> Box:
    """Return the range of every input over all valid steps."""
    flat = inputs.flatten(0, 1)
    if lengths is not None:
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        flat = flat[(steps < lengths[:, None]).flatten()]
    return Box(flat.amin(0), flat.amax(0))


def _prove(
    kind: str,
    stack: Stack,
    inputs: Tensor,
    lengths: Tensor | None,
    windows: Tensor,
    box: Box,
    first: int,
    limit: float,
) -> Tensor:
    """Return the proven bound of each window, shape (W,); the last one, the whole sequence, is exact."""
    steps = int(windows[-1])
    bounds = torch.full((len(windows),), math.nan, dtype=torch.float64)
    bounds[-1] = 0.0
    everywhere = bound_everywhere(stack, box, steps).amax(-1)[windows].cpu()
    if kind == "range":
        bounds[:-1] = everywhere[:-1]
        return bounds
    pasts = reachable(stack, box, steps)
    for place in (len(windows) - 2, *range(first, len(windows) - 2)):  # no bound is below the error
        window = int(windows[place])
        long = slice(None) if lengths is None else lengths > window
        last, _ = last_steps(inputs[long], window, None if lengths is None else lengths[long])
        own = float(bound_after_any_past(stack, last, pasts).max()) if len(last) else 0.0
        bounds[place] = min(own, float(everywhere[place]))  # what holds for all sequences holds for these
        proven = bool(bounds[place] <= limit)
        if proven != (place == len(windows) - 2):
            break  # the longest window fails, or the shortest that succeeds is found
    return bounds


def _linear_window(model: RecurrentModel, box: Box, steps: int, limit: float) -> int | None:
    if model.core.bidirectional:
        return None
    net = read(model.core, readout=model.readout).detach().to(torch.float64)
    mass = (lag_maps(net, steps).values.abs() @ box.size).amax(-1)  # (L,): by lag, worst output
    tail = mass.flip(0).cumsum(0).flip(0)  # of this lag and longer ones
    good = (torch.cat([tail[1:], tail.new_zeros(1)]) <= limit).nonzero()  # window w keeps lags below w
    window = int(good[0]) + 1
    return window if window < steps else None


def _why(kind: str, limit: float, windows: Tensor, errors: Tensor, bounds: Tensor, first: int) -> str:
    if first == len(windows) - 1:
        change = f"{float(errors[-2]):.3g}" if len(errors) > 1 else "as much as they can"
        return (
            f"without the first of {int(windows[-1])} steps the outputs change by {change}, more than the "
            f"tolerance {limit:g}: every step counts"
        )
    least = float(bounds[first:-1].nan_to_num(math.inf).min())
    scope = "every input" if kind == "range" else "every past"
    return (
        f"the measured change is within {limit:g} from {int(windows[first])} steps on, but no bound for "
        f"{scope} in the range of the data is (the least is {least:.3g}): the network may amplify "
        'differences in the worst case; use bound="measured" for a statement on sequences like these'
    )


__all__ = ["EffectiveWindow", "candidates", "effective_window", "truncate"]
