"""``hoplens reproduce``: run a study of the package, print it, write its tables, figures and page."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hoplens import plots
from hoplens.analysis.hops import HopMaps
from hoplens.cli.commands.progress import progress_bar
from hoplens.files import csv_bytes, make_folder, write_atomically
from hoplens.plots.real_study import plot_real_summary
from hoplens.reports import report
from hoplens.studies.comparison import StudyResults, package_study, run_study
from hoplens.studies.comparison.markdown import mean, to_markdown, unit, with_interval
from hoplens.studies.measures import kept_columns
from hoplens.studies.statistics.purposes import BEST, LEAN, OURS, PRUNED, SPARSE

# heading, purpose of the strength, measure, digits
OF_TASKS = (
    ("acc.", BEST, "accuracy", 3),
    ("hops", BEST, "flow_hops", 2),
    ("align", BEST, "flow_alignment", 3),
    ("at 70", BEST, "kept_70", 2),
    ("at 90", BEST, "kept_90", 2),
)
OF_SETS = (
    ("at 90", PRUNED, "test_error_90", 4),
    ("int8", BEST, "test_error_int8", 4),
    ("hops", BEST, "flow_hops", 1),
    ("lean", LEAN, "flow_hops", 1),
)
NOTES = {
    OF_TASKS: (
        "hops, align: active hops of what flows, and its alignment with the task's; at 70, at 90: share of "
        "performance kept with 70 or 90 % of the recurrent weights removed"
    ),
    OF_SETS: (
        "at 90: error with 90 % of the recurrent weights removed, at the strength chosen for that; int8: "
        "weights rounded to 8 bits; hops: active hops of the flow; lean: those of the leanest network as "
        "good as L1 on validation"
    ),
}


def run_reproduce(console: Console, name: str, *, out: Path, workers: int | None) -> None:
    """Run or resume a study of the package in ``out``; finished shards survive an interrupt."""
    study = package_study(name)
    stopped = f"stopped; every finished shard is kept in {out}. The same command goes on from there."
    with progress_bar(console, f"study {study.name}", stopped=stopped) as progress:
        results = run_study(study, out, workers=workers, progress=progress)
    print_comparison(console, results)
    console.print(_aims_table(results.aims))
    written = write_results(results, out)
    console.print(f"\nreport: [bold]{written}[/]   tables and figures: {out}")


def print_comparison(console: Console, results: StudyResults) -> None:
    """Print each method at its own best strength, one table a task; intervals of the test error.

    The intervals of all other measures stand in the report and in ``summary.csv``: here they would not
    fit a terminal of 80 columns.
    """
    n = int(results.summary["n"].max())
    console.print(f"\nEach method at its own best strength; means over {n} report seeds, 95 % intervals")
    shown = OF_TASKS if "kept_70" in results.summary else OF_SETS
    for task in dict.fromkeys(results.summary["task"]):
        console.print(_comparison(results, str(task), shown))
    console.print(NOTES[shown])


def _comparison(results: StudyResults, task: str, shown: tuple[tuple[str, str, str, int], ...]) -> Table:
    own = results.summary[results.summary["task"] == task]
    by_pick = {pick: rows.set_index("method") for pick, rows in own.groupby("pick", sort=False)}
    best = by_pick[BEST]
    true = best["target_active_hops"].iloc[0] if "target_active_hops" in best else float("nan")
    about = unit(results, task) if pd.isna(true) else f"true active hops {true:.2f}"
    table = Table(
        title=f"{task} ({about})",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    for heading in ("strength", "test error [95 %]", *(heading for heading, *_ in shown)):
        table.add_column(heading, justify="right", no_wrap=True)
    for method in map(str, best.index):
        strength = best["strength"][method]
        cells = [mean(by_pick.get(pick, best), method, measure, digits) for _, pick, measure, digits in shown]
        error = with_interval(best, method, "test_error")
        style = "bold" if method == OURS else ""
        name = method.replace(SPARSE, " and sparse")  # as wide as the longest of the others
        table.add_row(name, f"{strength:g}" if strength else "", error, *cells, style=style)
    return table


def _aims_table(aims: pd.DataFrame) -> Table:
    table = Table(title="Aims of the recommended recipe", title_justify="left")
    for heading in ("aim", "target", "measured", "met", "missed on"):
        table.add_column(heading)
    for row in aims.to_dict("records"):
        table.add_row(row["aim"], row["target"], row["measured"], "yes" if row["met"] else "no", row["where"])
    return table


def write_results(results: StudyResults, out: Path) -> Path:
    """Write every table as CSV and Markdown, the figures and the page; return the page's path."""
    for name, frame in results.tables().items():
        if len(frame.columns):
            write_atomically(out / f"{name}.csv", csv_bytes(frame))
    settings = "".join(f"- {name}: {value}\n" for name, value in results.settings.items())
    write_atomically(out / "summary.md", f"{settings}\n{to_markdown(results)}".encode())
    write_figures(results, out / "figures")
    return report(results, path=out / "report.html")


def write_figures(results: StudyResults, folder: Path) -> None:
    """Write the study's figures as SVG: those for which it has numbers."""
    make_folder(folder)
    figures = {"comparison": plots.plot_comparison(results.at(BEST).summary, "test_error")}
    for task, rows in results.networks.groupby("task", sort=False):
        figures[f"strengths-{_slug(task)}"] = plots.plot_strength_sweep(rows, "test_error")
        if kept_columns(rows.columns) and rows[kept_columns(rows.columns)].notna().any(axis=None):
            figures[f"pruning-{_slug(task)}"] = plots.plot_pruning(rows)
    if len(results.reach):
        figures["reach"] = plots.plot_reach(results.reach)
    drawn = {name: axes.get_figure(root=True) for name, axes in figures.items()}
    if LEAN in set(results.summary["pick"]):
        drawn["real"] = plot_real_summary(results.summary)
    for method, example in results.examples.items():
        maps = example if isinstance(example, HopMaps) else example[1]
        drawn[f"hops-{_slug(method)}"] = plots.plot_hop_grid(maps)
    for name, figure in drawn.items():
        assert figure is not None
        plots.save_figure(figure, folder / f"{name}.svg")


def _slug(text: object) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-")
