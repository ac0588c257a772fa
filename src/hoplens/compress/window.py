"""Fewer steps: how many of the last inputs a read-out at the end needs, and a model that runs only those."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hoplens.analysis.lags import lag_maps
from hoplens.errors import ParameterError, UnsupportedModelError, check_count, check_number
from hoplens.models.readers import read
from hoplens.models.readers.copies import as_model
from hoplens.models.readers.models import to_stack
from hoplens.models.recurrent_model import RecurrentModel
from hoplens.models.rollout import as_batch
from hoplens.models.stack import Stack
from hoplens.models.tensors import check_finite, check_lengths

EVERY_WINDOW_UP_TO = 64  # longer windows are tried on a grid
PER_OCTAVE = 16
DOUBT = 0.05  # that the stated share of sequences beyond the tolerance is too low


@dataclass(frozen=True, eq=False)
class EffectiveWindow:
    """How many of the last inputs a read-out at the end needs.

    Attributes
    ----------
    window : int or None
        The smallest window from which on the measured change is within the tolerance; None where no window
        shorter than the sequences is.
    reason : str
        Why there is none; empty where there is one.
    tolerance : float
    error : float
        Largest change of any output that was measured with this window; NaN without one.
    share : float
        With a confidence of 95 %, at most this share of sequences from the same source changes by more
        than the tolerance (the choice of the window is accounted for).
    linear_window : int or None
        The same by linear theory: all mass of the network at rest that inputs in the range can put into
        longer lags is within the tolerance. Biases are not counted. None: also the last lag has more, or the
        network is bidirectional.
    windows : Tensor of int64, shape (W,)
        Windows tried, the last of them the whole sequence.
    errors : Tensor of float64, shape (W,)
        Measured change of each.
    """

    window: int | None
    reason: str
    tolerance: float
    error: float
    share: float
    linear_window: int | None
    windows: Tensor
    errors: Tensor


@torch.no_grad()
def effective_window(
    model: Any, inputs: Tensor, tolerance: float, *, readout: Any = None, lengths: Tensor | None = None
) -> EffectiveWindow:
    """Find how many of the last inputs a read-out at the end needs.

    Running only the last w inputs, from a zero state, must change no output by more than the tolerance on
    any of the sequences given; what that says of others from the same source is ``share``. All mass of a
    network in hops up to m gives the window m - 1.

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

    Returns
    -------
    EffectiveWindow

    Raises
    ------
    UnsupportedModelError
        For a model read out after every step.
    """
    limit = check_number("tolerance", tolerance, above=0.0)
    own = as_model(model, readout)
    _check_end(own)
    stack = to_stack(own.core, own.readout)
    assert isinstance(stack, Stack)
    for name, value in own.state_dict().items():
        check_finite(name, value)
    x = as_batch(stack, inputs).inputs
    sizes = check_lengths(lengths, x)
    windows = candidates(x.shape[1])
    errors = _measure(own, x, sizes, windows)
    first = _from_on(errors <= limit)
    shorter = first < len(windows) - 1
    return EffectiveWindow(
        window=int(windows[first]) if shorter else None,
        reason="" if shorter else _why(limit, windows, errors),
        tolerance=limit,
        error=float(errors[first]) if shorter else math.nan,
        share=1 - (DOUBT / len(windows)) ** (1 / len(x)),
        linear_window=_linear_window(own, _largest(x.double(), sizes), int(windows[-1]), limit),
        windows=windows,
        errors=errors,
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
    windows: Tensor = torch.cat([short, long, torch.tensor([steps])]).clamp_max(steps).unique()
    return windows


def _check_end(model: RecurrentModel) -> None:
    if model.info.every_step:
        raise UnsupportedModelError(
            "a window is for a read-out at the end, but this model is read out after every step: each "
            "output would run its own window, which takes more steps, not fewer"
        )


def _measure(model: RecurrentModel, inputs: Tensor, lengths: Tensor | None, windows: Tensor) -> Tensor:
    """Return the largest change of any output by each window, shape (W,)."""
    errors = []
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


def _largest(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the largest magnitude of every input over all valid steps, shape (I,)."""
    if lengths is not None:
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        inputs = inputs * (steps < lengths[:, None])[..., None]
    return inputs.abs().amax((0, 1))


def _linear_window(model: RecurrentModel, largest: Tensor, steps: int, limit: float) -> int | None:
    if model.core.bidirectional:
        return None
    net = read(model.core, readout=model.readout).detach().to(torch.float64)
    mass = (lag_maps(net, steps).values.abs() @ largest).amax(-1)  # (L,): by lag, worst output
    tail = mass.flip(0).cumsum(0).flip(0)  # of this lag and longer ones
    good = (torch.cat([tail[1:], tail.new_zeros(1)]) <= limit).nonzero()  # window w keeps lags below w
    window = int(good[0]) + 1
    return window if window < steps else None


def _why(limit: float, windows: Tensor, errors: Tensor) -> str:
    change = f"{float(errors[-2]):.3g}" if len(errors) > 1 else "as much as they can"
    return (
        f"without the first of {int(windows[-1])} steps the outputs change by {change}, more than the "
        f"tolerance {limit:g}: every step counts"
    )
