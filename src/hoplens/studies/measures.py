"""What studies measure on trained networks: each measure is one value, and appears wherever it is registered.

A measure says what tables, pages and plots call it, which way is better, what it means, and how it is
computed. Those of hoplens are listed here; `hoplens.extensions.register_measure` adds others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from hoplens.analysis import measures as of_maps
from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.analysis.resolvent import resolvent
from hoplens.errors import ContractError, check_choice
from hoplens.graph.pathways import Pathways
from hoplens.registry import Registry

RESOLVENT_DAMPING = 0.8
PRUNING_LEVELS = tuple(range(10, 100, 10))  # percent of the recurrent weights
BETTER = ("lower", "higher", "target", "none")

Function = Callable[[Pathways, Any], Tensor | None]


@dataclass(frozen=True)
class Measure:
    """A number that describes a trained network.

    Attributes
    ----------
    name : str
        Column in a study's frames.
    label : str
        Short name for axes and table heads.
    better : {"lower", "higher", "target", "none"}
        Which way is better; "target" is closer to the task's own number, which the column
        ``target_<name>`` holds; "none" says nothing.
    meaning : str
        One or two plain sentences.
    function : callable, optional
        ``(net, task) -> Tensor`` of a `Pathways` with leading axes (E,) and what it was trained on; one
        number a network, shape (E,), or None where the task does not declare what the measure needs. None:
        the number comes with training itself.
    plot : callable, optional
        ``(summary, ax=) -> Axes``: draws the column instead of `hoplens.plots.plot_comparison`'s dots.
    """

    name: str
    label: str
    better: Literal["lower", "higher", "target", "none"] = "none"
    meaning: str = ""
    function: Function | None = None
    plot: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        check_choice("better", self.better, BETTER)


@lru_cache(maxsize=1)
def _maps(net: Pathways, length: int) -> HopMaps:
    """Return the hop maps that several measures of the same networks share; `apply_measures` lets them go."""
    return hop_maps(net, length)


def _task_maps(net: Pathways, task: Any) -> tuple[HopMaps, Tensor] | None:
    """Return the hop maps of networks and those of their task; None if it declares none."""
    target = getattr(task, "target_maps", None)
    if target is None:
        return None
    return _maps(net, task.length), target.to(net.w_out.device)


def _resolvent_corr(net: Pathways, task: Any) -> Tensor | None:
    found = getattr(task, "target_maps", None)
    if found is None:
        return None
    total = found.to(net.w_out.device).sum(dim=0)
    values = []
    for n in range(net.batch_shape[0]):
        one = net[n]  # normalised by its radius: without one there is nothing to measure
        if float(torch.linalg.eigvals(one.w_rec).abs().max()) == 0.0:
            values.append(total.new_full((), torch.nan, dtype=torch.float64))
            continue
        value = resolvent(one, damping=RESOLVENT_DAMPING, horizon=task.length).value
        values.append(of_maps.map_correlation(value, total))
    return torch.stack(values)


def _weight_corr(net: Pathways, task: Any) -> Tensor | None:
    target = getattr(task, "target_maps", None)
    if target is None:
        return None
    return of_maps.map_correlation(of_maps.weight_map(net), target.to(net.w_out.device).sum(dim=0))


def _active_hops(net: Pathways, task: Any) -> Tensor:
    return of_maps.active_hops(_maps(net, task.length)).double().mean(dim=(-2, -1))


def _target_active_hops(net: Pathways, task: Any) -> Tensor | None:
    target = getattr(task, "target_maps", None)
    if target is None:
        return None
    count = float((target != 0).sum(dim=0).double().mean())
    return torch.full(net.batch_shape, count, dtype=torch.float64, device=net.w_out.device)


def _alignment(net: Pathways, task: Any) -> Tensor | None:
    both = _task_maps(net, task)
    return None if both is None else of_maps.alignment(*both)


def _temporal_sparsity(net: Pathways, task: Any) -> Tensor:
    maps = _maps(net, task.length)
    return mass_weighted(of_maps.temporal_sparsity(maps), maps)


def _signal_share(net: Pathways, task: Any) -> Tensor | None:
    signal = getattr(task, "signal_hops", None)
    return None if signal is None else of_maps.signal_share(_maps(net, task.length), signal)


def mass_weighted(per_pair: Tensor, maps: HopMaps) -> Tensor:
    """Average a measure (..., O, I) over pairs weighted by their pathway mass, shape (...,)."""
    mass = maps.values.abs().sum(dim=-3)
    weighted = torch.where(mass > 0, per_pair * mass, torch.zeros_like(mass))
    return weighted.sum(dim=(-2, -1)) / mass.sum(dim=(-2, -1))


def _kept(level: int) -> Measure:
    return Measure(
        f"kept_{level}",
        f"kept at {level}\u00a0%",
        "higher",
        "Share of the performance (the explained part of the targets' variance) that is left after the "
        f"smallest {level} % of the recurrent weights are removed at once, without retraining.",
    )


BUILT_IN = (
    Measure(
        "test_error",
        "test error",
        "lower",
        "Mean squared error on unseen sequences as a share of the targets' variance: 0 is perfect, 1 is no "
        "better than always predicting the mean.",
    ),
    Measure(
        "accuracy",
        "accuracy",
        "higher",
        "Share of outputs on the right side of zero, between 0 and 1; guessing gives 0.5.",
    ),
    Measure(
        "resolvent_corr",
        "R_io correlation",
        "higher",
        "Correlation of the resolvent R_io, all hops of the normalised network added up, with the task's "
        "ideal input-output map.",
        _resolvent_corr,
    ),
    Measure(
        "weight_corr",
        "W_rec correlation",
        "none",
        "Correlation of the map that can be read off single recurrent weights with the task's ideal "
        "input-output map; what one sees without following pathways.",
        _weight_corr,
    ),
    Measure(
        "active_hops",
        "active hops",
        "target",
        "Mean number of hop lengths per input-output pair that carry more than a tenth of the network's "
        "largest pathway weight. Best is the task's own number.",
        _active_hops,
    ),
    Measure(
        "alignment",
        "alignment",
        "higher",
        "Correlation of the network's hop maps with the task's own over all cells (hop, output, input): "
        "whether the right input reaches the right output after the right delay.",
        _alignment,
    ),
    Measure(
        "flow_hops",
        "active hops of the flow",
        "target",
        "The same of what flows along sequences: mean sizes of the exact Jacobians by hop.",
    ),
    Measure(
        "flow_alignment",
        "alignment of the flow",
        "higher",
        "Correlation of the mean sizes of the exact Jacobians along sequences with the task's own hop maps.",
    ),
    Measure(
        "temporal_sparsity",
        "temporal sparsity",
        "none",
        "Gini coefficient of a pair's pathway weight over hop lengths: 0 is spread evenly, 1 is all on one "
        "hop. The right value depends on the task.",
        _temporal_sparsity,
    ),
    Measure(
        "signal_share",
        "signal share",
        "higher",
        "Part of all pathway weight that lies on the delays at which the input carries signal.",
        _signal_share,
    ),
)
KEPT = tuple(map(_kept, PRUNING_LEVELS))
# the task's own number beside the networks': a column, but nothing to compare
TARGET = Measure("target_active_hops", "active hops of the task", function=_target_active_hops)
MEASURES: Registry[Measure | Function] = Registry(
    "measure", "hoplens.measures", {measure.name: measure for measure in (*BUILT_IN, *KEPT, TARGET)}
)


def get_measure(name: str) -> Measure:
    """Return a registered measure; a package may announce a bare function, which then only has its name."""
    found = MEASURES.get(name)
    return found if isinstance(found, Measure) else bare(name, found)


def bare(name: str, function: Function) -> Measure:
    """Return a function as a measure that says of itself what its docstring's first line says."""
    lines = (getattr(function, "__doc__", None) or "").strip().splitlines()
    return Measure(name, name.replace("_", " "), meaning=lines[0] if lines else "", function=function)


def measure_info(name: str) -> Measure:
    """Return the description of any column; one that is no measure describes itself by its name.

    Parameters
    ----------
    name : str
        A column such as ``test_error`` or ``kept_70``.
    """
    share = kept_share(name)
    if share is not None:
        return _kept(share)
    return get_measure(name) if name in MEASURES.names() else Measure(name, str(name).replace("_", " "))


def kept_share(name: str) -> int | None:
    """Return 70 for ``kept_70``, None for a column of another kind."""
    found = re.fullmatch(r"kept_(\d{1,3})", str(name))
    return int(found.group(1)) if found else None


def kept_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns ``kept_10 .. kept_90`` among the given ones, by rising share removed."""
    found = [(share, name) for name in columns if (share := kept_share(name)) is not None]
    return [name for _, name in sorted(found)]


def apply_measures(names: Sequence[str], net: Pathways, task: Any) -> dict[str, Tensor]:
    """Return measures of an ensemble by name, each of the ensemble's shape (E,), float64.

    Those that need what the task does not declare are left out.

    Parameters
    ----------
    names : sequence of str
        Of measures that are computed from the graph.
    net : Pathways
        Leading axes (E,).
    task : TrainingTask
        What the networks were trained on.

    Raises
    ------
    UnknownNameError
        For a measure that does not exist.
    ContractError
        If a measure does not return one number a network.
    """
    found = {}
    try:
        for name in names:
            function = get_measure(name).function
            value = None if function is None else function(net, task)
            if value is not None or name not in MEASURES.built_in:  # an own measure must return a number
                found[name] = one_number(value, net, name)
    finally:
        _maps.cache_clear()
    return found


def one_number(value: Any, net: Pathways, name: str) -> Tensor:
    """Return a measure's value as float64, or raise unless it is one real number a network."""
    if not isinstance(value, Tensor) or value.shape != net.batch_shape or torch.is_complex(value):
        came = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ContractError(
            f"the measure {name!r} must return one real number a network, a tensor of shape "
            f"{tuple(net.batch_shape)}, got {came}"
        )
    return value.detach().double()
