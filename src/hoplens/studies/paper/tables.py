"""What the page of any study needs, from the tables of its store alone: nothing of the study is run."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from hoplens.analysis.hops import HopMaps, hop_maps
from hoplens.errors import FileError, HoplensError
from hoplens.studies.paper.aims import OURS
from hoplens.studies.paper.folder import versions_in
from hoplens.studies.paper.results import StudyResults
from hoplens.studies.statistics import chosen_report, paired_differences, standing, summarise_chosen
from hoplens.studies.sweeps.checked import damaged
from hoplens.studies.sweeps.plan import MAIN
from hoplens.studies.sweeps.store import RunStore

LABELS = ("task", "method", "strength", "seed", "role")
COMPARED = ("test_error", "accuracy", "alignment", "kept_70", "kept_90")
TRIAL = re.compile(r"(?:(.*), )?trial \d+")  # what a search calls its parts
LONGEST = 1000  # hops of an example's maps


def read_tables(store: RunStore, study: str) -> StudyResults:
    """Return the tables of any study, finished or not, whoever made it.

    Of a search the best trial of each method on each task is taken. A method on a task of which the
    networks to choose a strength by are not there yet is left out.

    Parameters
    ----------
    store : RunStore
    study : str
        Id of the study.

    Raises
    ------
    FileError
        If no network is there yet, or the store is damaged.
    """
    rows = store.networks(study)
    about = store.studies().set_index("id").loc[study]
    if rows.empty:
        raise FileError(
            f"{store.folder} holds no network of the study {about['name']} yet; `hoplens sweep --resume "
            f"--store {store.folder}` trains them"
        )
    lacking = [name for name in ("test_error", "diverged_at") if name not in rows.columns]
    if lacking:
        raise FileError(
            f"the networks of {about['name']} in {store.folder} have no {lacking[0]}, which a page needs; "
            f"`hoplens status {store.folder} --table networks.csv` writes what they have"
        )
    rows, trials = _best_trials(_named_by_part(rows))
    doubled = rows.duplicated([*LABELS[:4]])
    if doubled.any():
        raise damaged(store.folder, "its study has a network twice")
    networks = rows.drop(columns=["part", "key"])
    shown = _chosen(rows)
    measures = [
        str(name)
        for name in networks.columns
        if name not in (*LABELS, "diverged_at") and pd.api.types.is_numeric_dtype(networks[name])
    ]
    summary = summarise_chosen(shown, measures)
    others = [name for name in dict.fromkeys(shown["method"]) if name != OURS]
    compared = [name for name in COMPARED if name in measures]
    empty = pd.DataFrame()
    return StudyResults(
        networks=networks,
        summary=summary,
        paired=paired_differences(_choosable(networks), OURS, others, compared) if others else empty,
        reach=empty,
        ablation=empty,
        anchors=empty,
        aims=empty,
        examples=dict(_examples(store, shown)),
        settings=_settings(store, study, about, networks, trials),
    )


def _named_by_part(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose tasks are named by their part too, where it is not the main one or a trial."""
    parts = [TRIAL.sub(lambda found: found[1] or MAIN, part) for part in rows["part"]]
    names = [
        task if part == MAIN else f"{part}: {task}" for part, task in zip(parts, rows["task"], strict=True)
    ]
    return rows.assign(task=names)


def _best_trials(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the rows of the best trial of each search, and how many trials there are; see `read_tables`."""
    is_trial = rows["part"].map(lambda part: TRIAL.fullmatch(part) is not None)
    if not is_trial.any():
        return rows, 0
    kept = [rows[~is_trial]]
    for _, own in rows[is_trial].groupby(["task", "method"], sort=False):
        order = {part: standing(trial["test_error"]) for part, trial in own.groupby("part", sort=False)}
        kept.append(own[own["part"] == min(order, key=lambda part: order[part])])
    return pd.concat(kept), rows.loc[is_trial, ["part", "task", "method"]].drop_duplicates().shape[0]


def _choosable(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of methods that have one strength, or validation networks to choose one by."""
    kept = [
        own
        for _, own in rows.groupby(["task", "method"], sort=False)
        if own["strength"].nunique() == 1 or (own["role"] == "validation").any()
    ]
    return pd.concat(kept) if kept else rows.iloc[:0]


def _chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the report rows at each method's best strength; all of its rows where none reports yet."""
    usable = _choosable(rows)
    if usable.empty:
        return usable
    reports = usable["role"] == "report"
    keys = pd.MultiIndex.from_frame(usable[["task", "method"]])
    has_report = keys.isin(keys[reports])
    found = chosen_report(usable[has_report]) if has_report.any() else usable.iloc[:0]
    alone = usable[~has_report].assign(role="report")
    if len(alone):
        both = pd.concat([usable[~has_report].assign(role="validation"), alone])
        found = pd.concat([found, chosen_report(both)])
    return found.dropna(subset="seed").reset_index(drop=True)


def _examples(store: RunStore, shown: pd.DataFrame) -> dict[str, tuple[str, HopMaps]]:
    """Return hop maps of one network a method, all on the first task of which weights are kept."""
    found: dict[str, tuple[str, HopMaps]] = {}
    label = None
    for task, method, key in shown[["task", "method", "key"]].itertuples(index=False):
        if str(method) in found or (label is not None and task != label):
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
        label = task
        found[str(method)] = (str(task), maps)
    return found


def _length(config: dict[str, Any]) -> int | None:
    """Return the time steps of a network's task, where its configuration says them."""
    setting = config.get("setting")
    task = setting.get("task") if isinstance(setting, dict) else None
    length = task.get("length") if isinstance(task, dict) else None
    return length if isinstance(length, int) and 0 < length <= LONGEST else None


def _settings(
    store: RunStore, study: str, about: Any, networks: pd.DataFrame, trials: int
) -> dict[str, object]:
    found: dict[str, object] = {"study": f"{about['name']} ({study})"}
    if about["done"] < about["rows"]:
        found["unfinished"] = f"{about['done']} of {about['rows']} networks are there"
    if trials:
        found["search"] = f"the best of {trials} trials, by method and task"
    for role in ("validation", "report"):
        own = sorted(networks.loc[networks["role"] == role, "seed"].unique())
        if own:
            found[f"{role} seeds"] = f"{own[0]} .. {own[-1]} ({len(own)})"
    return found | dict(versions_in(store, study))


__all__ = ["read_tables"]
