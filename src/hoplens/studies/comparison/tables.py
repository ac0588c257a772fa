"""The tables of a study, finished or not, from its store alone: nothing of the study is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.data.tasks import Task
from hoplens.errors import FileError, HoplensError
from hoplens.studies.comparison.aims import judge
from hoplens.studies.comparison.anchors import compare_with_paper
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.statistics.comparing import paired_differences
from hoplens.studies.statistics.purposes import BEST, OURS, choose, rows_at
from hoplens.studies.statistics.selection import summarise
from hoplens.studies.sweeps.checked import damaged, read_object
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.plan import MAIN
from hoplens.studies.sweeps.store import RunStore

ABLATION, REACH = "ablation", "reach"  # parts with a table of their own
LABELS = ("task", "method", "strength", "seed", "role")
COMPARED = (
    *("test_error", "accuracy", "alignment", "kept_70", "kept_90"),
    *("flow_alignment", "flow_hops", "active_hops"),
    *("test_error_70", "test_error_90", "test_error_int8"),
)
LONGEST = 1000  # hops of an example's maps


def read_tables(store: RunStore, ident: str) -> StudyResults:
    """Return the tables of a study, whoever made it, by its id.

    A method on a task of which the networks to choose a strength by are not there yet is left out. Aims are
    judged, and the paper's figures set beside, where the study is finished and asks for it.
    """
    rows = _rows(store, ident)
    study = _study_of(store, ident, rows)
    apart = (ABLATION, REACH) if study is not None and study.aims == "paper" else ()
    tasks = _tasks(study, MAIN)
    main = _named_by_part(rows[~rows["part"].isin(apart)])
    doubled = rows.duplicated(["part", *LABELS[:4]])
    if doubled.any():
        raise damaged(store.folder, "its study has a network twice")
    choices, shown = _chosen(main, (BEST,) if study is None else study.purposes)
    networks = main.drop(columns=["part", "key"])
    measures = _measures(networks)
    results = StudyResults(
        networks=networks,
        choices=choices,
        summary=_by_pick(choices, lambda pick: summarise(shown[pick], measures)),
        paired=_by_pick(choices, lambda pick: _paired(shown[pick], measures)),
        reach=_reach_table(_tasks(study, REACH), rows[rows["part"] == REACH]) if apart else pd.DataFrame(),
        ablation=_ablation(rows[rows["part"] == ABLATION], measures) if apart else pd.DataFrame(),
        tasks=tasks,
        examples=_examples(store, shown.get(BEST, main.iloc[:0]), tasks),
        settings=_settings(store, ident, networks, study),
    )
    if study is None or study.aims is None or "unfinished" in results.settings:
        return results
    return _held_to_aims(results, study.aims, store)


def _held_to_aims(results: StudyResults, aims: str, store: RunStore) -> StudyResults:
    try:
        anchors = compare_with_paper(results) if aims == "paper" else pd.DataFrame()
        return replace(results, anchors=anchors, aims=judge(results, aims))
    except (KeyError, TypeError) as error:  # a method or a measure of the study is not there
        raise damaged(store.folder, f"its networks have no number {error}") from None


def _rows(store: RunStore, ident: str) -> pd.DataFrame:
    rows = store.networks(ident)
    name = str(store.studies().set_index("id").loc[ident, "name"])
    if rows.empty:
        raise FileError(
            f"{store.folder} holds no network of the study {name} yet; `hoplens sweep --resume "
            f"--store {store.folder}` trains them"
        )
    lacking = [name for name in ("test_error", "diverged_at") if name not in rows.columns]
    if lacking:
        raise FileError(
            f"the networks of {name} in {store.folder} have no {lacking[0]}, which a page needs; "
            f"`hoplens status {store.folder} --table networks.csv` writes what they have"
        )
    return rows


def _study_of(store: RunStore, ident: str, rows: pd.DataFrame) -> Study | None:
    """Return a stored study as described; None if it brings code, or is not what we make of it today."""
    source = store.source(ident)
    if not source or read_object(source, store.folder, "the study").get("plugins"):
        return None
    try:
        study = Study.model_validate_json(source)
        plan = study.plan()
        if study.in_stages and plan.id != ident:
            plan = study.chosen_plan(rows)
    except (ValueError, KeyError, RecursionError, HoplensError):
        return None  # of another version of hoplens: its tables can still be shown
    if plan.id != ident:
        return None
    if store.members(ident) != [member.row for member in plan.members]:
        raise damaged(store.folder, f"its rows are not those of the study {plan.name}")
    return study


def _tasks(study: Study | None, part: str) -> dict[str, Any]:
    """Return what the networks of a part learn, by the task's label, where that is known."""
    return {} if study is None else {name: s.task for name, s in study.settings_of(part).items()}


def _named_by_part(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose tasks are named by their part too, where it is not the main one."""
    names = [
        task if part == MAIN else f"{part}: {task}"
        for part, task in zip(rows["part"], rows["task"], strict=True)
    ]
    return rows.assign(task=names)


def _measures(rows: pd.DataFrame) -> list[str]:
    """Return what is reported of networks; what strengths are chosen by is not."""
    alien = (*LABELS, "part", "key", "diverged_at")
    names = [str(n) for n in rows.columns if n not in alien and not str(n).startswith("validation_")]
    return [name for name in names if pd.api.types.is_numeric_dtype(rows[name])]


def _chosen(rows: pd.DataFrame, purposes: Sequence[str]) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the strengths chosen, and by purpose the report rows there.

    Where none reports yet, they are those that chose. A method that has several strengths and no validation
    network is left out.
    """
    basis, reports = [rows.iloc[:0]], [rows.iloc[:0]]
    for _, own in rows.groupby(["task", "method"], sort=False):
        seen, report = own[own["role"] == "validation"], own[own["role"] == "report"]
        if len(seen) or own["strength"].nunique() == 1:
            basis.append(seen if len(seen) else own)
            reports.append(report if len(report) else own)
    choices, report = choose(pd.concat(basis), purposes), pd.concat(reports)
    shown = {pick: rows_at(choices, report, pick).dropna(subset="seed") for pick in purposes}
    return choices, {pick: own.reset_index(drop=True) for pick, own in shown.items()}


def _by_pick(choices: pd.DataFrame, table: Any) -> pd.DataFrame:
    frames = []
    for pick in dict.fromkeys(choices["pick"]):
        frame = table(pick)
        if len(frame.columns):
            frame.insert(2, "pick", pick)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _paired(shown: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    others = [name for name in dict.fromkeys(shown["method"]) if name != OURS]
    return paired_differences(shown, OURS, others, [name for name in COMPARED if name in measures])


def _ablation(rows: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    _, shown = _chosen(rows, (BEST,))
    return summarise(shown[BEST], measures)


def _reach_table(tasks: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """Return the reach part's networks with their lag."""
    if rows.empty:
        return pd.DataFrame()
    lags = {label: t.length - 1 - t.signal_steps[0] for label, t in tasks.items() if isinstance(t, Task)}
    columns = ["method", "lag", "strength", "seed", "role", "test_error", "task", "diverged_at"]
    return rows.assign(lag=rows["task"].map(lags))[columns].reset_index(drop=True)


def _examples(
    store: RunStore, shown: pd.DataFrame, tasks: Mapping[str, Any]
) -> dict[str, tuple[str, HopMaps] | HopMaps]:
    """Return hop maps of one network a method, all on one task, and the task's own.

    The task is the first subtraction of sparse signals, else the first of which weights are kept; each
    network is the first report network at the method's strength whose weights are kept.
    """
    found: dict[str, tuple[str, HopMaps] | HopMaps] = {}
    known = {label: task for label, task in tasks.items() if isinstance(task, Task)}
    sparse = (name for name, t in known.items() if t.signal == "sparse" and t.name == "subtraction")
    label = next(sparse, next(iter(known), None))
    names: tuple[Any, ...] = ()
    if label is not None:
        task = known[label]
        names = (
            *(
                tuple(f"{kind}{n}" for n in range(count))
                for kind, count in (("x", task.n_inputs), ("y", task.n_outputs))
            ),
            task.input_modules,
            task.output_modules,
        )
        found["target"] = HopMaps(task.target_maps, torch.arange(2, task.length + 2), *names)
    for task_label, method, key in shown[["task", "method", "key"]].itertuples(index=False):
        if str(method) in found or (label is not None and task_label != label):
            continue
        length = _length(store.config(str(key)))
        if length is None or not store.tensors(str(key)):
            continue
        try:
            maps = hop_maps(store.ensemble(str(key)).pathways()[0], length)
        except HoplensError as error:
            if isinstance(error, FileError):
                raise
            continue  # not finite, as a network that diverged
        label = str(task_label)
        found[str(method)] = (label, HopMaps(maps.values, maps.hops, *names) if names else maps)
    return found


def _length(config: dict[str, Any]) -> int | None:
    """Return the time steps of a network's task, where its configuration says them."""
    setting = config.get("setting")
    task = setting.get("task") if isinstance(setting, dict) else None
    length = task.get("length") if isinstance(task, dict) else None
    return length if isinstance(length, int) and 0 < length <= LONGEST else None


def _settings(store: RunStore, ident: str, networks: pd.DataFrame, study: Study | None) -> dict[str, object]:
    about = store.studies().set_index("id").loc[ident]
    found: dict[str, object] = {"study": f"{about['name']} ({ident})"}
    if about["done"] < about["rows"]:
        found["unfinished"] = f"{about['done']} of {about['rows']} networks are there"
    elif not (networks["role"] == "report").any():
        found["unfinished"] = "no report seed is there yet"
    found["networks"] = store.networks(ident)["key"].nunique()
    for role in ("validation", "report"):
        own = sorted(networks.loc[networks["role"] == role, "seed"].unique())
        if own:
            found[f"{role} seeds"] = f"{own[0]} .. {own[-1]} ({len(own)})"
    return found | ({} if study is None else _training(study)) | _versions(store, ident)


def _training(study: Study) -> dict[str, object]:
    """Return how the networks of a study are trained, in words."""
    used = {label: setting.settings for label, setting in study.settings_of(MAIN).items()}
    if not used:
        return {}
    first = next(iter(used.values()))
    words = [f"{label} ({s.cell}, {s.hidden} units, {s.steps} steps)" for label, s in used.items()]
    if len(set(used.values())) == 1:
        words = [f"{first.cell}, {first.hidden} hidden units, {first.steps} steps"]
    return {
        "trained": ", ".join(words),
        "batch": first.batch,
        "optimiser": f"Adam, learning rate {first.lr:g}, falling to 0 over the last {first.decay:.0%}",
    }


def _versions(store: RunStore, ident: str) -> dict[str, object]:
    """Return which versions of PyTorch and Python computed a study."""
    rows = store.networks(ident, details=True)
    columns = {name: f"version_{name}" for name in ("torch", "python")}
    return {
        name: ", ".join(sorted({str(version) for version in rows[column]}))
        for name, column in columns.items()
        if column in rows.columns
    }


__all__ = ["ABLATION", "REACH", "read_tables"]
