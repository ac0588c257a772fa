"""The part of a page about one network: its maps, its routing graph, its pathways, and their fidelity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hoplens.analysis.hops import HopMaps
from hoplens.analysis.routing import routing_graph
from hoplens.analysis.summary import Analysis
from hoplens.analysis.walks import top_paths
from hoplens.reports.numbers import fine_percent, number
from hoplens.reports.prose import signed, strongest, timing
from hoplens.reports.study import example_maps
from hoplens.reports.views import map_view
from hoplens.studies.comparison.results import StudyResults

SHOWN_PATHWAYS = 12
SHOWN_UNITS = 10
WALK_BUDGET = 6e8  # comparisons of the search for the strongest walk of a pathway: a few seconds


@dataclass(frozen=True)
class NetworkPart:
    """What the page shows of one network, or of several to choose from."""

    views: list[dict[str, Any]]  # maps to choose from, see `map_view`
    graph: dict[str, Any] | None = None  # see `routing_graph`; None where hidden units are not known
    pathways: list[dict[str, str]] = field(default_factory=list)
    units: list[dict[str, str]] = field(default_factory=list)
    fidelity: dict[str, Any] | None = None  # agreement with the flow on data by hop
    trust: str = ""  # what is known of it in words, or how to get it
    flows: bool = False  # whether the maps are of what flows along data
    graphs: list[str] = field(default_factory=list)  # how well graphs predict these
    timing: str = ""
    notes: tuple[str, ...] = ()


def network_part(analysis: Analysis) -> NetworkPart:
    """Return what a page shows of an analysed network; raises where a map holds NaN or infinity."""
    view = map_view(analysis.maps)  # first: it checks the numbers
    pathways, note = _pathways(analysis)
    return NetworkPart(
        views=[view],
        graph=routing_graph(analysis.net, analysis.maps),
        pathways=pathways,
        units=_units(analysis),
        fidelity=_fidelity(analysis),
        timing=timing(analysis.maps),
        trust="" if analysis.fidelity is None else f"{analysis.fidelity.summary()}.",
        flows=analysis.flows,
        graphs=[
            f"the {what}: {net.agreement}"
            for what, net in (("graph of each step", analysis.steps), ("static graph", analysis.net))
            if net is not None and net.agreement is not None
        ],
        notes=(f"the graph is made of {analysis.net.provenance}", *analysis.notes, *note),
    )


def study_part(results: StudyResults) -> NetworkPart | None:
    """Return the example maps of a study, the task's own first; None where there are none.

    The pathways listed are those of the last example, the recommended recipe in a full study.
    """
    examples = example_maps(results.examples)
    if not examples:
        return None
    views = [map_view(maps, title, f"task: {task}" if task else "") for title, task, maps in examples]
    return NetworkPart(views, pathways=_of_maps(examples[-1][2]), timing=timing(examples[-1][2]))


def _of_maps(maps: HopMaps) -> list[dict[str, str]]:
    mass = maps.values.abs().sum((1, 2))
    return [
        {
            "input": maps.input_names[i],
            "output": maps.output_names[o],
            "hop": str(int(maps.hops[k])),
            "lag": str(int(maps.lags[k])) if maps.timed else "",
            "weight": signed(float(maps.values[k, o, i])),
            "exact": repr(float(maps.values[k, o, i])),
            "share": fine_percent(float(maps.values[k, o, i].abs() / mass[k])),
            "walk": "",
            "part": "",
        }
        for k, o, i in strongest(maps, SHOWN_PATHWAYS)
    ]


def _pathways(analysis: Analysis) -> tuple[list[dict[str, str]], list[str]]:
    """Return the strongest pathways, each with its strongest single walk where that is cheap to find."""
    rows = _of_maps(analysis.maps)
    spent, skipped = 0.0, 0
    for row in rows:
        cost = float(analysis.net.n_hidden) ** 2 * (int(row["hop"]) - 1)
        if spent + cost > WALK_BUDGET:
            skipped += 1
            continue
        spent += cost
        best = top_paths(analysis.walked, row["input"], row["output"], int(row["hop"]), 1)
        if len(best):
            row["walk"] = str(best["path"].iloc[0]).replace(" > ", " → ")
            row["part"] = fine_percent(float(best["share"].iloc[0]))
    note = f"single walks are left out for {skipped} long pathways, as the network is large"
    return rows, [note] if skipped else []


def _units(analysis: Analysis) -> list[dict[str, str]]:
    """Return the units whose removal changes most; none where that was not computed."""
    size, carried, net = analysis.importance(), analysis.carried(), analysis.net
    if size is None:
        return []
    return [
        {
            "unit": net.hidden_names[j],
            "module": net.hidden_modules[j] if net.hidden_modules is not None else "",
            "change": number(float(size[j])),
            "exact": repr(float(size[j])),
            "share": fine_percent(float(carried[j])),
        }
        for j in size.argsort(descending=True, stable=True)[:SHOWN_UNITS].tolist()
        if float(size[j]) > 0
    ]


def _fidelity(analysis: Analysis) -> dict[str, Any] | None:
    fit = analysis.fidelity
    if fit is None or not analysis.maps.timed:  # data are compared by lag
        return None
    return {
        "hops": fit.hops,
        "correlation": fit.per_hop,
        "correlationSpread": fit.per_hop_spread,
        "error": fit.per_hop_error,
        "errorSpread": fit.per_hop_error_spread,
    }


__all__ = ["NetworkPart", "network_part", "study_part"]
