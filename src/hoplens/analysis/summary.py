"""Everything about one network in one value: a summary, tables and figures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hoplens.analysis.fidelity import Fidelity, fidelity
from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.analysis.lesions import lesion, lesion_estimate
from hoplens.analysis.measures import active_hops, dominant_hop
from hoplens.analysis.trajectories import TrajectoryMaps, trajectory_maps
from hoplens.analysis.walks import flow, top_paths
from hoplens.display import Shown
from hoplens.errors import ParameterError, ShapeError, check_choice, check_count
from hoplens.files import csv_bytes, make_folder, write_atomically
from hoplens.graph.pathways import Pathways
from hoplens.graph.radius import rescale, spectral_radius
from hoplens.lookup import look_up
from hoplens.models.ablation import ablate_units, ablation_cost
from hoplens.models.readers.models import is_recurrent, parts_of
from hoplens.models.readers.opening import open_parts
from hoplens.models.readers.reading import read
from hoplens.models.recurrent_model import last_steps
from hoplens.models.rollout import Batch, as_batch
from hoplens.models.stack import Stack
from hoplens.text import printable_lines

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

HORIZON = 20  # time steps where no inputs say how many there are
LESION_FLOPS = 3e11  # what lesions may cost: some ten seconds on two cores
CANDIDATES = 64  # units computed exactly where all are too many: those first by an estimate
LARGEST_ANSWER = 1 << 31  # bytes of hop maps; tables and figures take several times this
SHOWN = 5
FORMATS = ("csv", "parquet")
LEAST_SHARE = 0.005  # hops that would be printed as 0 % are left out


@dataclass(frozen=True, eq=False, repr=False)
class Analysis(Shown):
    """What is routed where, when, and over which units.

    Attributes
    ----------
    net : Pathways
        The graph, in float64.
    maps : HopMaps
    fidelity : Fidelity or None
        Agreement with the exact maps on the inputs given; None without inputs.
    spectral_radius : float
    share : Tensor, shape (K, H)
        Share of each unit in the mass of each hop.
    lesions : Tensor or None, shape (H,)
        Change of the hop maps without each unit. In large networks NaN but for the 64 that come first by
        ``lesion_estimates``, in very large ones over long horizons None; ``notes`` says which.
    lesion_estimates : Tensor or None, shape (H,)
        `hoplens.analysis.lesion_estimate`, where it was needed.
    ablations : Tensor or None, shape (H,)
        Change of the outputs on the inputs given when each unit is held at 0, relative to their spread; None
        without inputs, for networks that do not run forward step by step, and where it would take minutes.
    notes : tuple of str
        What the reader should know: where the weights come from, the precision computed in.
    """

    net: Pathways
    maps: HopMaps
    fidelity: Fidelity | None
    spectral_radius: float
    share: Tensor
    lesions: Tensor | None
    lesion_estimates: Tensor | None
    notes: tuple[str, ...]
    ablations: Tensor | None = None

    def to_text(self) -> str:
        """Return a summary for a person; the fidelity stands beside the weights-only claims."""
        net, maps = self.net, self.maps
        lines = [
            f"{net.n_inputs} inputs, {net.n_hidden} hidden units, {net.n_outputs} outputs ({net.provenance})",
            f"spectral radius {self.spectral_radius:.3g}",
            self._trust(),
        ]
        if float(maps.values.abs().sum()) == 0:
            lines.append(f"no input reaches an output within {int(maps.hops[-1])} hops")
        else:
            lines.append("by the weights:")
            lines.append("  most influence (sum of |H_k|): " + ", ".join(self._top_hops()))
            active = active_hops(maps).double().mean()
            lines.append(f"  active hops a pair: {float(active):.2f} of {len(maps.hops)}")
            lines.append("  strongest pathways:")
            lines += [
                f"    {row.input} -> {row.output} at hop {row.hop}: {row.weight:+.4g}"
                for row in self._strongest()
            ]
            size = self.importance()
            if size is not None:
                lines.append(
                    f"  units without which {self.importance_of[0]} change most: {self._top_units(size)}"
                )
            if self.fidelity is not None and self.maps.timed:
                lines.append("  (r: correlation of a hop with the exact maps on the inputs)")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"Analysis of {self.net!r}: spectral radius {self.spectral_radius:.3g}; print it for all"

    def _trust(self) -> str:
        if self.fidelity is not None:
            return self.fidelity.summary()
        return (
            "how much of the flow on data these weights explain is unknown: no inputs were given, or the "
            "model cannot be run"
        )

    def _strongest(self) -> list[Any]:
        frame = self.maps.to_dataframe()
        order = frame["weight"].abs().sort_values(ascending=False, kind="stable").index[:SHOWN]
        chosen = frame.loc[order]
        return list(chosen[chosen["weight"] != 0].itertuples())

    def _top_hops(self) -> list[str]:
        mass = self.maps.values.abs().sum((1, 2))
        share = mass / mass.sum()
        fit = self.fidelity if self.maps.timed else None  # data are compared by lag
        known = {} if fit is None else dict(zip(fit.hops.tolist(), fit.per_hop.tolist(), strict=True))
        parts = []
        for k in share.argsort(descending=True, stable=True)[:SHOWN].tolist():
            hop = int(self.maps.hops[k])
            if float(share[k]) >= LEAST_SHARE:
                trust = f" (r = {known[hop]:.2f})" if known.get(hop) == known.get(hop, 0) else ""
                parts.append(f"hop {hop}: {float(share[k]):.0%}" + (trust if hop in known else ""))
        return parts

    def _top_units(self, value: Tensor) -> str:
        best = value.argsort(descending=True, stable=True)[:SHOWN].tolist()
        names = self.net.hidden_names
        return ", ".join(f"{names[j]} ({float(value[j]):.2g} x)" for j in best if float(value[j]) > 0)

    def importance(self) -> Tensor | None:
        """Return what units are ranked by, shape (H,): the change without each, relative to the size.

        ``ablations`` where they are known, else ``lesions`` (0 for units not computed, which an estimate puts
        behind the others); None where neither is. A share of walks is no measure of what is lost: walks of
        opposite sign cancel.
        """
        size = self.lesions if self.ablations is None else self.ablations
        return None if size is None else size.nan_to_num()

    @property
    def importance_of(self) -> tuple[str, str]:
        """What changes without a unit, and what it is relative to."""
        if self.ablations is None:
            return "the hop maps", "size"
        return "the outputs on the inputs given", "spread"

    def carried(self) -> Tensor:
        """Return each unit's share over all hops, hops weighted by their influence, shape (H,)."""
        mass = self.maps.values[-len(self.share) :].abs().sum((1, 2))
        weights = mass / mass.sum().clamp_min(torch.finfo(mass.dtype).tiny)
        return (weights[:, None] * self.share).sum(0)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables: hop_maps, pairs, units, paths, and fidelity where inputs were given."""
        import pandas as pd

        net, maps = self.net, self.maps
        pairs = pd.MultiIndex.from_product([net.output_names, net.input_names], names=["output", "input"])
        columns = {
            "dominant_hop": dominant_hop(maps).flatten().tolist(),
            "active_hops": active_hops(maps).flatten().tolist(),
            "influence": maps.values.abs().sum(0).flatten().tolist(),
        }
        units = {"unit": list(net.hidden_names), "share": self.carried().tolist()}
        if net.hidden_modules is not None:
            units["module"] = list(net.hidden_modules)
        if self.ablations is not None:
            units["ablation"] = self.ablations.tolist()
        if self.lesions is not None:
            units["lesion"] = self.lesions.tolist()
        if self.lesion_estimates is not None:
            units["lesion_estimate"] = self.lesion_estimates.tolist()
        tables = {
            "hop_maps": maps.to_dataframe(),
            "pairs": pd.DataFrame(columns, index=pairs).reset_index(),
            "units": pd.DataFrame(units),
            "paths": self._paths(),
        }
        if self.fidelity is not None:
            tables["fidelity"] = self.fidelity.to_dataframe()
        return tables

    def _paths(self) -> pd.DataFrame:
        import pandas as pd

        frames = []
        for row in self._strongest():
            frame = top_paths(self.net, row.input, row.output, int(row.hop), SHOWN)
            frame = frame.drop(columns="units").assign(hop=row.hop, input=row.input, output=row.output)
            frames.append(frame)
        columns = ["input", "output", "hop", "path", "product", "share"]
        return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)

    def figures(self) -> dict[str, Figure]:
        """Return the figures: hop maps, influence by hop, dominant hop of each pair, units, lesions."""
        figures: dict[str, Figure] = look_up("hoplens.plots.charts:analysis_figures")(self)
        return figures

    def write(self, folder: str | Path, *, table_format: str = "csv") -> list[Path]:
        """Write summary.txt, the tables and the figures (PNG) into a folder.

        Parameters
        ----------
        folder : str or Path
            Made where it does not exist.
        table_format : {"csv", "parquet"}
            Parquet needs pyarrow, and keeps names as they are; in CSV control characters show their codes,
            and a name that a spreadsheet would take for a formula gets an apostrophe before it.

        Returns
        -------
        list of Path
            The files written.
        """
        check_choice("table_format", table_format, FORMATS)
        place = Path(folder)
        # all content first: a failure or an interrupt while it is made leaves the folder as it was
        content = {"summary.txt": (printable_lines(self.to_text()) + "\n").encode()}
        for name, table in self.tables().items():
            content[f"{name}.{table_format}"] = _table_bytes(table, table_format)
        for name, figure in self.figures().items():
            drawn = io.BytesIO()
            figure.savefig(drawn, format="png", dpi=200)
            content[f"{name}.png"] = drawn.getvalue()
        make_folder(place)
        return [write_atomically(place / name, data) for name, data in content.items()]


def _table_bytes(table: pd.DataFrame, table_format: str) -> bytes:
    if table_format == "csv":
        return csv_bytes(table)
    check_parquet()
    written: bytes = table.to_parquet(None, engine="pyarrow", index=False)
    return written


def check_parquet() -> None:
    """Raise unless Parquet files can be written here."""
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise ParameterError(
            'Parquet tables need pyarrow: pip install "hoplens[parquet]", or choose the format csv'
        )


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
        Sequences to judge the weights by, in the layout that the model takes.
    lengths : Tensor of int64, shape (B,), optional
        Valid steps of sequences padded at the end; default all.
    horizon : int, optional
        Number of time steps L; default the steps of the longest of the inputs, 20 without inputs. No more
        than the inputs have.
    rnn : str, optional
        Prefix of the recurrent module's keys in a file.
    at : optional
        Where to linearise, as in `read`; ``"mean"`` takes the mean over ``inputs``.
    nonlinearity : {"tanh", "relu", "linear"}, optional
        Of a plain RNN in a file of bare weights, which does not say; tanh is assumed, and a note says so.
    radius : float, optional
        Scale the recurrent weights to this spectral radius, as `rescale` does; the fidelity is judged
        before that.

    Returns
    -------
    Analysis
    """
    length = HORIZON if horizon is None else check_count("horizon", horizon)
    along = inputs if isinstance(at, str) and at in ("mean", "steps") else None
    if along is None and isinstance(at, str) and at in ("mean", "steps"):
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
    net = read(model, readout, at=at, inputs=along, lengths=None if along is None else lengths)
    if net.batch_shape:
        raise ShapeError(
            f"analyze takes one network, got leading axes {tuple(net.batch_shape)}; index them first"
        )
    traj = None
    if inputs is not None:
        if isinstance(model, Pathways):
            raise ParameterError("inputs= needs a model that can be run; pass the module, not its Pathways")
        traj = trajectory_maps(model, inputs, lengths=lengths, readout=readout)
        length = _within(horizon, int(traj.lengths.max()))
    if info.runs_last is not None and info.runs_last < length:
        length = info.runs_last
        notes.append(f"only the last {length} steps of a sequence are run, so the horizon is {length}")
    size = length * net.n_outputs * net.n_inputs * torch.float64.itemsize
    if size > LARGEST_ANSWER:
        raise ParameterError(
            f"the hop maps of {length} steps, {net.n_outputs} outputs and {net.n_inputs} inputs would take "
            f"{size / 2**30:.1f} GiB; take a shorter horizon"
        )
    if net.w_in.dtype != torch.float64:
        name = str(net.w_in.dtype).removeprefix("torch.")
        notes.append(f"weights are {name}; computed in float64, as sums over walks cancel")
    own = net.detach().to("cpu").to(torch.float64)
    trust = ablations = None
    if traj is not None:
        trust = fidelity(own, TrajectoryMaps(traj.values.cpu(), traj.lengths.cpu(), traj.label))
        ablations = _ablations(model, readout, inputs, lengths)
    net = own if radius is None else rescale(own, radius)
    maps, rho = hop_maps(net, length), float(spectral_radius(net))
    if rho > 1 and bool(maps.values.any()):
        notes.append(
            f"walks grow {rho:.3g}-fold with each hop, so the horizon decides which hop weighs most; a "
            "spectral radius below 1 (radius=0.5, --radius 0.5) weighs hops by their number instead"
        )
    lesions, estimates = _lesions(net, length, notes)
    return Analysis(net, maps, trust, rho, flow(net, length), lesions, estimates, tuple(notes), ablations)


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


__all__ = ["Analysis", "analyze"]
