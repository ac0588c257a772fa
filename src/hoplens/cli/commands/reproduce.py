"""``hoplens reproduce``: run the study, print the comparison, write tables, figures and the report."""

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
from hoplens.reports import report
from hoplens.studies.paper import StudyResults, full_plan, quick_plan, run_study
from hoplens.studies.paper.markdown import to_markdown

SHOWN = (("accuracy", 3), ("active_hops", 2), ("alignment", 3), ("kept_70", 2), ("kept_90", 2))


def run_reproduce(console: Console, *, quick: bool, out: Path, workers: int | None) -> None:
    """Run or resume the study in ``out``; finished shards survive an interrupt."""
    plan = quick_plan() if quick else full_plan()
    with progress_bar(console, f"study {plan.name}", stopped=stopped(out)) as progress:
        results = run_study(plan, out, workers=workers, progress=progress)
    print_comparison(console, results)
    console.print(aims_table(results.aims, "Aims of the recommended recipe"))
    written = write_results(results, out)
    console.print(f"\nreport: [bold]{written}[/]   tables and figures: {out}")


def stopped(out: Path) -> str:
    """Return what to say after Ctrl-C."""
    return f"stopped; every finished shard is kept in {out}. The same command goes on from there."


def print_comparison(console: Console, results: StudyResults) -> None:
    """Print each method at its own best strength, one table a task; intervals of the test error.

    The intervals of all other measures stand in the report and in ``summary.csv``: here they would not
    fit a terminal of 80 columns.
    """
    n = int(results.summary["n"].max())
    console.print(f"\nEach method at its own best strength; means over {n} report seeds, 95 % intervals")
    for task, rows in results.summary.groupby("task", sort=False):
        true = rows["target_active_hops"].iloc[0]
        title = f"{task} (true active hops {true:.2f})"
        table = Table(
            title=title,
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            show_edge=False,
            pad_edge=False,
        )
        table.add_column("method", no_wrap=True)
        for heading in ("strength", "test error [95 %]", "acc.", "hops", "align", "at 70", "at 90"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows.to_dict("records"):
            strength = f"{row['strength']:g}" if row["strength"] else ""
            error = f"{row['test_error']:.4f} [{row['test_error_low']:.4f}, {row['test_error_high']:.4f}]"
            cells = [f"{row[name]:.{digits}f}" for name, digits in SHOWN]
            style = "bold" if row["method"] == "recommended" else ""
            table.add_row(row["method"], strength, error, *cells, style=style)
        console.print(table)
    console.print("at 70, at 90: share of performance kept with 70 or 90 % of the recurrent weights removed")


def aims_table(aims: pd.DataFrame, title: str) -> Table:
    """Return which aims are met, to print."""
    table = Table(title=title, title_justify="left")
    for heading in ("aim", "target", "measured", "met", "missed on"):
        table.add_column(heading)
    for row in aims.to_dict("records"):
        table.add_row(row["aim"], row["target"], row["measured"], "yes" if row["met"] else "no", row["where"])
    return table


def write_results(results: StudyResults, out: Path) -> Path:
    """Write every table as CSV and Markdown, the figures and the report; return the report's path."""
    for name, frame in results.tables().items():
        if len(frame.columns):
            write_atomically(out / f"{name}.csv", csv_bytes(frame))
    write_atomically(out / "summary.md", to_markdown(results).encode())
    write_figures(results, out / "figures")
    return report(results, path=out / "report.html")


def write_figures(results: StudyResults, folder: Path) -> None:
    """Write the study's figures as SVG."""
    make_folder(folder)
    figures = {"comparison": plots.plot_comparison(results.summary, "test_error")}
    for task, rows in results.networks.groupby("task", sort=False):
        figures[f"strengths-{_slug(task)}"] = plots.plot_strength_sweep(rows, "test_error")
        figures[f"pruning-{_slug(task)}"] = plots.plot_pruning(rows)
    if len(results.reach):
        figures["reach"] = plots.plot_reach(results.reach)
    for name, axes in figures.items():
        figure = axes.get_figure(root=True)
        assert figure is not None
        plots.save_figure(figure, folder / f"{name}.svg")
    for method, example in results.examples.items():
        maps = example if isinstance(example, HopMaps) else example[1]
        plots.save_figure(plots.plot_hop_grid(maps), folder / f"hops-{_slug(method)}.svg")


def _slug(text: object) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-")
