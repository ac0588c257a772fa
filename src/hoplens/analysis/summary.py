"""Everything about one network in one value: a summary, tables and figures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoplens.analysis.fidelity import Fidelity
from hoplens.analysis.maps import HopMaps
from hoplens.analysis.measures import active_hops, dominant_hop
from hoplens.analysis.walks import top_paths
from hoplens.display import Shown
from hoplens.errors import ParameterError, check_choice
from hoplens.files import csv_bytes, make_folder, write_atomically
from hoplens.graph.pathways import Pathways
from hoplens.lookup import look_up
from hoplens.text import printable_lines

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN = 5
FORMATS = ("csv", "parquet")
LEAST_SHARE = 0.005  # hops that would be printed as 0 % are left out


@dataclass(frozen=True, eq=False, repr=False)
class Analysis(Shown):
    """What is routed where, when, and over which units.

    Attributes
    ----------
    net : Pathways
        The static graph, in float64: of the mean Jacobian along the inputs, or of the weights.
    maps : HopMaps
        Along the inputs the exact mean maps, else those of ``net``.
    fidelity : Fidelity or None
        How far the maps of the weights alone (of ``bare``, or of ``net`` where the place to linearise was
        given) agree with the exact maps of each sample; None without inputs.
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
    steps : Pathways or None
        The graph of each step along the inputs, for networks of one layer that run forward.
    bare : HopMaps or None
        Maps of the weights alone, beside those along data.
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
    steps: Pathways | None = None
    bare: HopMaps | None = None

    @property
    def flows(self) -> bool:
        """Whether ``maps`` are what flows along data, not what a graph could route."""
        return self.maps.samples is not None

    @property
    def walked(self) -> Pathways:
        """The graph that walks, shares and lesions are taken of: that of each step where there is one."""
        return self.net if self.steps is None else self.steps

    def to_text(self) -> str:
        """Return a summary for a person; how far the weights alone can be believed stands beside it."""
        net, maps = self.net, self.maps
        lines = [
            f"{net.n_inputs} inputs, {net.n_hidden} hidden units, {net.n_outputs} outputs ({net.provenance})",
            f"spectral radius {self.spectral_radius:.3g}",
        ]
        if not self.flows:
            lines.append(self._trust())
        if float(maps.values.abs().sum()) == 0:
            reach = "along these inputs" if self.flows else f"within {int(maps.hops[-1])} hops"
            lines.append(f"no input reaches an output {reach}")
        else:
            lines += self._claims()
        if self.flows:
            lines += self._against_weights()
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _claims(self) -> list[str]:
        maps = self.maps
        size = "|mean Jacobian|" if self.flows else "|H_k|"
        counted = 0 if maps.samples is None else int(maps.samples.max())
        lines = [
            f"along the inputs (exact maps, mean over {counted} samples):" if counted else "by the weights:"
        ]
        lines.append(f"  most influence (sum of {size}): " + ", ".join(self._top_hops()))
        active = active_hops(maps).double().mean()
        lines.append(f"  active hops a pair: {float(active):.2f} of {len(maps.hops)}")
        lines.append("  strongest pathways:")
        lines += [
            f"    {row.input} -> {row.output} at hop {row.hop}: {row.weight:+.4g}{self._spread(row)}"
            for row in self._strongest()
        ]
        size_of = self.importance()
        if size_of is not None:
            changed = self.importance_of[0]
            lines.append(f"  units without which {changed} change most: {self._top_units(size_of)}")
        if self.fidelity is not None and self.maps.timed and not self.flows:
            lines.append("  (r: correlation of a hop with the exact maps on the inputs)")
        return lines

    def _spread(self, row: Any) -> str:
        """Return the spread over samples of a pathway, where it is known."""
        if self.maps.spread is None:
            return ""
        place = self.maps.hops.tolist().index(row.hop)
        output, source = self.maps.output_names.index(row.output), self.maps.input_names.index(row.input)
        return f" (spread {float(self.maps.spread[place, output, source]):.2g})"

    def _against_weights(self) -> list[str]:
        lines = [f"  graph of each step: {self.steps.agreement}"] if self.steps is not None else []
        lines.append(f"  static graph of the mean Jacobian: {self.net.agreement}")
        lines = ["how well graphs predict these maps:", *lines]
        if self.fidelity is not None:
            lines += ["the weights alone, which say what could be routed:", f"  {self._trust()}"]
        return lines

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
        fit = self.fidelity if self.maps.timed and not self.flows else None  # data are compared by lag
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
        if self.bare is not None:
            tables["weights_hop_maps"] = self.bare.to_dataframe()
        if self.fidelity is not None:
            tables["fidelity"] = self.fidelity.to_dataframe()
        return tables

    def _paths(self) -> pd.DataFrame:
        import pandas as pd

        frames = []
        for row in self._strongest():
            frame = top_paths(self.walked, row.input, row.output, int(row.hop), SHOWN)
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


__all__ = ["FORMATS", "Analysis", "check_parquet"]
