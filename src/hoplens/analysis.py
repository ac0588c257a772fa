"""Everything about one network in one value: a summary, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.errors import FileError, ParameterError, ShapeError, check_choice, check_count
from hoplens.fidelity import Fidelity, fidelity
from hoplens.hops import HopMaps, hop_maps
from hoplens.lesions import lesion
from hoplens.measures import active_hops, dominant_hop
from hoplens.pathways import Pathways
from hoplens.radius import spectral_radius
from hoplens.readers.files import load_stack
from hoplens.readers.reading import read
from hoplens.trajectories import TrajectoryMaps, trajectory_maps
from hoplens.walks import flow, top_paths

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LESION_LIMIT = 1500  # hidden units up to which all lesions are computed: powers of w_rec cost H^3 a hop
SHOWN = 5


@dataclass(frozen=True, eq=False)
class Analysis:
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
        Change of the hop maps without each unit; None for networks too large for it.
    notes : tuple of str
        What the reader should know: where the weights come from, the precision computed in.
    """

    net: Pathways
    maps: HopMaps
    fidelity: Fidelity | None
    spectral_radius: float
    share: Tensor
    lesions: Tensor | None
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return a summary for a person; the fidelity stands beside the weights-only claims."""
        net, maps = self.net, self.maps
        mass = maps.values.abs().sum((1, 2))
        total = float(mass.sum())
        lines = [
            f"{net.n_inputs} inputs, {net.n_hidden} hidden units, {net.n_outputs} outputs ({net.provenance})",
            f"spectral radius {self.spectral_radius:.3g}",
        ]
        if total == 0:
            lines.append(f"no input reaches an output within {int(maps.hops[-1])} hops")
        else:
            top = mass.argsort(descending=True)[:SHOWN].tolist()
            parts = [
                f"hop {int(maps.hops[k])}: {float(mass[k]) / total:.0%}" for k in top if float(mass[k]) > 0
            ]
            lines.append("most influence (sum of |H_k|): " + ", ".join(parts))
            active = active_hops(maps).double().mean()
            lines.append(f"active hops a pair: {float(active):.2f} of {len(maps.hops)}")
            lines.append("strongest pathways:")
            lines += [
                f"  {row.input} -> {row.output} at hop {row.hop}: {row.weight:+.4g}"
                for row in self._strongest()
            ]
            lines.append("units that carry most: " + ", ".join(self._top_units()))
        lines.append(self._trust())
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()

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

    def _top_units(self) -> list[str]:
        carried = self._carried()
        best = carried.argsort(descending=True)[:SHOWN].tolist()
        return [
            f"{self.net.hidden_names[j]} ({float(carried[j]):.0%})" for j in best if float(carried[j]) > 0
        ]

    def _carried(self) -> Tensor:
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
        units = {"unit": list(net.hidden_names), "share": self._carried().tolist()}
        if net.hidden_modules is not None:
            units["module"] = list(net.hidden_modules)
        if self.lesions is not None:
            units["lesion"] = self.lesions.tolist()
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
        """Return the figures: influence by hop, dominant hop of each pair, share of units by hop."""
        from hoplens.charts import analysis_figures

        return analysis_figures(self)

    def write(self, folder: str | Path, *, table_format: str = "csv") -> list[Path]:
        """Write summary.txt, the tables and the figures (PNG) into a folder.

        Parameters
        ----------
        folder : str or Path
            Made where it does not exist.
        table_format : {"csv", "parquet"}
            Parquet needs pyarrow.

        Returns
        -------
        list of Path
            The files written.
        """
        check_choice("table_format", table_format, ("csv", "parquet"))
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            written = [place / "summary.txt"]
            written[0].write_text(self.to_text() + "\n", encoding="utf-8")
            for name, table in self.tables().items():
                written.append(place / f"{name}.{table_format}")
                if table_format == "csv":
                    table.to_csv(written[-1], index=False)
                else:
                    _write_parquet(table, written[-1])
            for name, figure in self.figures().items():
                written.append(place / f"{name}.png")
                figure.savefig(written[-1], dpi=150)
        except OSError as error:
            raise FileError(
                f"cannot write the analysis to {str(place)!r} ({error}); choose another folder"
            ) from None
        return written


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    try:
        table.to_parquet(path, index=False)
    except ImportError:
        raise ParameterError(
            'table_format="parquet" needs pyarrow: pip install pyarrow, or use "csv"'
        ) from None


def analyze(
    model: Any,
    readout: Any = None,
    *,
    inputs: Any = None,
    horizon: int = 20,
    rnn: str | None = None,
    at: Any = None,
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
    horizon : int, default 20
        Number of time steps L.
    rnn : str, optional
        Prefix of the recurrent module's keys in a file.
    at : optional
        Where to linearise, as in `read`.

    Returns
    -------
    Analysis
    """
    length = check_count("horizon", horizon)
    if isinstance(model, str | Path):
        model, readout = load_stack(model, rnn=rnn, readout=readout), None
    net = model if isinstance(model, Pathways) else read(model, readout, at=at)
    if net.batch_shape:
        raise ShapeError(
            f"analyze takes one network, got leading axes {tuple(net.batch_shape)}; index them first"
        )
    notes = []
    if net.w_in.dtype != torch.float64:
        name = str(net.w_in.dtype).removeprefix("torch.")
        notes.append(f"weights are {name}; computed in float64, as sums over walks cancel")
    own = net.detach().to("cpu").to(torch.float64)
    trust = None
    if inputs is not None:
        if isinstance(model, Pathways):
            raise ParameterError("inputs= needs a model that can be run; pass the module, not its Pathways")
        traj = trajectory_maps(model, inputs, readout=readout)
        trust = fidelity(own, TrajectoryMaps(traj.values.cpu(), traj.lengths.cpu(), traj.label))
    lesions = lesion(own, length) if own.n_hidden <= LESION_LIMIT else None
    if lesions is None:
        notes.append(
            f"lesions are left out above {LESION_LIMIT} hidden units; call lesion(net, horizon, units=...)"
        )
    return Analysis(
        own,
        hop_maps(own, length),
        trust,
        float(spectral_radius(own)),
        flow(own, length),
        lesions,
        tuple(notes),
    )


__all__ = ["Analysis", "analyze"]
