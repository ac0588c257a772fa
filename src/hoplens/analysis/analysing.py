"""Analyse one network: along data, or of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hoplens.analysis.fidelity import fidelity
from hoplens.analysis.hops import HORIZON, HopMaps, hop_maps
from hoplens.analysis.lesions import lesion, lesion_estimate
from hoplens.analysis.summary import Analysis
from hoplens.analysis.trajectories import TrajectoryMaps, trajectory_maps
from hoplens.analysis.walks import flow
from hoplens.errors import ParameterError, ShapeError, check_count
from hoplens.graph.pathways import Pathways
from hoplens.graph.radius import rescale, spectral_radius
from hoplens.models.ablation import ablate_units, ablation_cost
from hoplens.models.readers.models import is_recurrent, parts_of, samples_axis
from hoplens.models.readers.opening import open_parts
from hoplens.models.readers.reading import ALONG, read
from hoplens.models.recurrent_model import ModelInfo, last_steps
from hoplens.models.rollout import Batch, as_batch
from hoplens.models.stack import Stack

JUDGED = 256  # samples that the weights alone are held against
LESION_FLOPS = 3e11  # what lesions may cost: some ten seconds on two cores
CANDIDATES = 64  # units computed exactly where all are too many: those first by an estimate
LARGEST_ANSWER = 1 << 31  # bytes of hop maps; tables and figures take several times this


def analyze(
    model: Any,
    readout: Any = None,
    *,
    inputs: Any = None,
    lengths: Tensor | None = None,
    horizon: int | None = None,
    rnn: str | None = None,
    at: Any = None,
    nonlinearity: str | None = None,
    radius: float | None = None,
) -> Analysis:
    """Analyse one network: hop maps, units, lesions, and how far the weights can be believed.

    Computed in float64 whatever the model's own precision, since sums over walks cancel; on the CPU for
    networks that fit there. The model is left as it was.

    Parameters
    ----------
    model : Pathways, or what `read` takes
    readout : nn.Linear, matrix or prefix in a file, optional
    inputs : Tensor (B, L, I) or PackedSequence, optional
        Sequences, in the layout that the model takes. With them the analysis leads with what flows: the exact
        mean maps along them, units and walks by the graph of each step; and it says how far the weights alone
        can be believed.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end; default all.
    horizon : int, optional
        Number of time steps L; default the steps of the longest of the inputs, 20 without inputs. No more
        than the inputs have.
    rnn : str, optional
        Prefix of the recurrent module's keys in a file.
    at : optional
        Where to linearise, as in `read`: the analysis is then of that graph, held against the inputs. Default
        what flows along the inputs, or without them the weights.
    nonlinearity : {"tanh", "relu", "linear"}, optional
        Of a plain RNN in a file of bare weights, which does not say; tanh is assumed, and a note says so.
    radius : float, optional
        Scale the recurrent weights to this spectral radius, as `rescale` does; the fidelity is judged
        before that.

    Returns
    -------
    Analysis
    """
    if at in ALONG and inputs is None:
        raise ParameterError(f'at="{at}" needs inputs= (--inputs), some sequences')
    notes: list[str] = []
    if isinstance(model, str | Path):
        parts = open_parts(model, rnn=rnn, readout=readout, nonlinearity=nonlinearity)
        model, readout, info = parts.whole or parts.stack(), None, parts.info
    else:
        if rnn is not None or nonlinearity is not None:
            raise ParameterError(
                "rnn= and nonlinearity= go with a file; leave them out for a model in memory"
            )
        info = parts_of(model, readout).info
    if info.assumed:
        notes.append(f"assumed: {info.assumed}; pass nonlinearity= (--nonlinearity) to say what they are")
    if inputs is not None and isinstance(model, Pathways):
        raise ParameterError("inputs= needs a model that can be run; pass the module, not its Pathways")
    question = _Question(model, readout, inputs, lengths, horizon, info, notes)
    if inputs is not None and (at == "flow" or (at is None and radius is None)):
        return question.along_data()
    return question.of_graph(at, radius)


@dataclass(eq=False)
class _Question:
    """What is analysed, and what the reader should know of it."""

    model: Any
    readout: Any
    inputs: Any
    lengths: Tensor | None
    horizon: int | None
    info: ModelInfo
    notes: list[str]

    def along_data(self) -> Analysis:
        """Return the analysis of what flows along the inputs."""
        net = self._graph("flow")
        exact, trajectory = self._exact()
        length = self._length(len(exact.hops), net)
        exact = exact.sel(lag=list(range(length)))
        size = len(exact.hops) * net.n_hidden * (net.n_hidden + net.n_inputs) * torch.float64.itemsize
        if size > LARGEST_ANSWER:
            self.notes.append(
                f"units are those of the static graph: one of each step would take {size / 2**30:.1f} GiB"
            )
        steps = None if net.layers is not None or size > LARGEST_ANSWER else self._graph("steps")
        bare_net = self._graph(None, along=False)
        bare = hop_maps(bare_net, length)
        trust = fidelity(bare_net, trajectory)
        ablations = _ablations(self.model, self.readout, self.inputs, self.lengths)
        rho = float(spectral_radius(net))
        shares = flow(net if steps is None else steps, length)
        if steps is None or 2.0 * length * net.n_outputs * net.n_hidden**3 > LESION_FLOPS:
            lesions, estimates = _lesions(net, length, self.notes)
        else:
            lesions, estimates = lesion(steps, length), None
        return Analysis(
            net, exact, trust, rho, shares, lesions, estimates, tuple(self.notes), ablations, steps, bare
        )

    def of_graph(self, at: Any, radius: float | None) -> Analysis:
        """Return the analysis of the graph at a place, held against the inputs where there are some."""
        own = self._graph(at, along=at in ALONG)
        trust = ablations = None
        known = None
        if self.inputs is not None:
            exact, trajectory = self._exact()
            known = len(exact.hops)
        length = self._length(known, own)
        if self.inputs is not None:
            trust = fidelity(own, trajectory)
            ablations = _ablations(self.model, self.readout, self.inputs, self.lengths)
        net = own if radius is None else rescale(own, radius)
        maps, rho = hop_maps(net, length), float(spectral_radius(net))
        if rho > 1 and bool(maps.values.any()):
            self.notes.append(
                f"walks grow {rho:.3g}-fold with each hop, so the horizon decides which hop weighs most; a "
                "spectral radius below 1 (radius=0.5, --radius 0.5) weighs hops by their number instead"
            )
        lesions, estimates = _lesions(net, length, self.notes)
        return Analysis(
            net, maps, trust, rho, flow(net, length), lesions, estimates, tuple(self.notes), ablations
        )

    def _graph(self, at: Any, *, along: bool = True) -> Pathways:
        """Return the graph at a place in float64, on the CPU."""
        data = {"inputs": self.inputs, "lengths": self.lengths} if along else {}
        net = read(self.model, self.readout, at=at, **data)
        if net.batch_shape and not net.steps:
            raise ShapeError(
                f"analyze takes one network, got leading axes {tuple(net.batch_shape)}; index them first"
            )
        if net.w_in.dtype != torch.float64:
            name = str(net.w_in.dtype).removeprefix("torch.")
            note = f"weights are {name}; computed in float64, as sums over walks cancel"
            if note not in self.notes:
                self.notes.append(note)
        return net.detach().to("cpu").to(torch.float64)

    def _exact(self) -> tuple[HopMaps, TrajectoryMaps]:
        """Return the exact mean maps, and the maps of some samples one by one."""
        options = {"lengths": self.lengths, "readout": self.readout}
        maps = hop_maps(self.model, inputs=self.inputs, **options).to("cpu").to(torch.float64)
        inputs, lengths = self.inputs, self.lengths
        if isinstance(inputs, PackedSequence):
            trajectory = trajectory_maps(self.model, inputs, readout=self.readout)
        else:
            inputs = torch.as_tensor(inputs)
            axis = samples_axis(self.model, self.readout)
            step = -(-inputs.shape[axis] // JUDGED)
            some = torch.arange(0, inputs.shape[axis], step)
            lengths = None if lengths is None else torch.as_tensor(lengths)[some]
            trajectory = trajectory_maps(
                self.model,
                inputs.index_select(axis, some.to(inputs.device)),
                lengths=lengths,
                readout=self.readout,
            )
            if step > 1:
                whole = inputs.shape[axis]
                self.notes.append(f"the weights alone are held against {len(some)} of the {whole} samples")
        moved = TrajectoryMaps(trajectory.values.cpu(), trajectory.lengths.cpu(), trajectory.label)
        return maps, moved

    def _length(self, steps: int | None, net: Pathways) -> int:
        """Return the horizon: that asked for, or of the data, within what is run."""
        if steps is None:
            length = HORIZON if self.horizon is None else check_count("horizon", self.horizon)
        else:
            length = _within(self.horizon, steps)
        last = self.info.runs_last
        if last is not None and last < length:
            length = last
            self.notes.append(
                f"only the last {length} steps of a sequence are run, so the horizon is {length}"
            )
        size = length * net.n_outputs * net.n_inputs * torch.float64.itemsize
        if size > LARGEST_ANSWER:
            raise ParameterError(
                f"the hop maps of {length} steps, {net.n_outputs} outputs and {net.n_inputs} inputs would "
                f"take {size / 2**30:.1f} GiB; take a shorter horizon"
            )
        return length


def _within(horizon: int | None, steps: int) -> int:
    """Return the horizon asked for, or that of the data, which it must not exceed."""
    if horizon is None:
        return steps
    if horizon > steps:
        raise ParameterError(
            f"horizon={horizon} looks {horizon - 1} steps back, but the longest of the inputs has {steps} "
            f"steps; leave it out, or give at most {steps}"
        )
    return horizon


def _ablations(model: Any, readout: Any, inputs: Any, lengths: Tensor | None) -> Tensor | None:
    if not (isinstance(model, nn.Module) or is_recurrent(model)):
        return None
    parts = parts_of(model, readout)
    stack, window = parts.stack(), parts.info.runs_last
    if not isinstance(stack, Stack) or stack.bidirectional:
        return None
    batch = as_batch(stack, inputs, lengths)
    if window is not None:
        last, lengths = last_steps(batch.inputs, window, batch.lengths)
        assert lengths is not None
        batch = Batch(last, lengths)
    return ablate_units(stack, batch) if ablation_cost(stack, batch) <= LESION_FLOPS else None


def _lesions(net: Pathways, length: int, notes: list[str]) -> tuple[Tensor | None, Tensor | None]:
    """Return as many lesions as are affordable, and the estimate that chose them if not all are."""
    hidden, ends = net.n_hidden, net.n_inputs + net.n_outputs
    edges = net.w_rec.values().numel() if net.is_sparse else hidden**2
    walks = 2.0 * length * edges * ends
    sums = float(hidden * length**2 * net.n_inputs * net.n_outputs)
    if walks + sums + 4 * length**0.5 * hidden**3 <= LESION_FLOPS:
        return lesion(net, length), None
    if 2 * walks + sums + 2 * length * edges * CANDIDATES > LESION_FLOPS:
        notes.append(
            f"lesions of {hidden} units over {length} steps would take minutes and are left out; take a "
            "shorter horizon, or call lesion(net, horizon, units=..., together=False)"
        )
        return None, None
    estimates = lesion_estimate(net, length)
    best = estimates.argsort(descending=True, stable=True)[:CANDIDATES]
    lesions = torch.full_like(estimates, torch.nan)
    lesions[best] = lesion(net, length, units=best.tolist(), together=False)
    notes.append(
        f"lesions are exact for {CANDIDATES} units only, the first by an estimate (of thin products) that "
        "counts walks which return to a unit more than once"
    )
    return lesions, estimates


__all__ = ["analyze"]
