"""``hoplens reproduce --suite real``: run the study on real sequences, print and write what it found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hoplens import plots
from hoplens.cli.commands.progress import progress_bar
from hoplens.cli.commands.reproduce import aims_table, stopped
from hoplens.files import csv_bytes, make_folder, write_atomically
from hoplens.plots.real_study import plot_real_summary
from hoplens.studies.paper.aims import OURS
from hoplens.studies.real import RealResults, full_real_plan, quick_real_plan, run_real_study
from hoplens.studies.real.choosing import BEST, LEAN, PRUNED
from hoplens.studies.real.markdown import to_markdown

NOTE = (
    "at 90: error with 90 % of the recurrent weights removed, at the strength chosen for that; int8: weights "
    "rounded to 8 bits; hops: active hops; lean: those of the leanest network as good as L1 on validation"
)


def run_reproduce_real(console: Console, *, quick: bool, out: Path, workers: int | None) -> None:
    """Run or resume the study in ``out``; finished shards survive an interrupt."""
    plan = quick_real_plan() if quick else full_real_plan()
    with progress_bar(console, f"study {plan.name}", stopped=stopped(out)) as progress:
        results = run_real_study(plan, out, workers=workers, progress=progress)
    for task in dict.fromkeys(results.summary["task"]):
        console.print(_comparison(results, str(task)))
    console.print(NOTE)
    if len(results.wiring):
        console.print(_wiring(results.wiring))
    console.print(aims_table(results.aims, "Aims of the recommended recipe on real sequences"))
    write_real_results(results, out)
    console.print(f"\ntables, figure and summary.md: {out}")


def _comparison(results: RealResults, task: str) -> Table:
    unit = results.units.get(task, "")
    table = Table(
        title=f"{task}: {unit}; means, 95 % intervals",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    for heading in ("strength", "test error [95 %]", "at 90", "int8", "hops", "lean"):
        table.add_column(heading, justify="right", no_wrap=True)
    own = results.summary[results.summary["task"] == task]
    best, pruned, lean = (own[own["pick"] == pick].set_index("method") for pick in (BEST, PRUNED, LEAN))
    for method in best.index:
        row = best.loc[method]
        table.add_row(
            str(method),
            f"{row['strength']:g}" if row["strength"] else "",
            f"{row['test_error']:.4f} [{row['test_error_low']:.4f}, {row['test_error_high']:.4f}]",
            f"{pruned['test_error_90'][method]:.4f}",
            f"{row['test_error_int8']:.4f}",
            f"{row['active_hops']:.1f}",
            f"{lean['active_hops'][method]:.1f}",
            style="bold" if method == OURS else "",
        )
    return table


def _wiring(wiring: pd.DataFrame) -> Table:
    table = Table(title="The worm's wiring", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("set", "wiring", "networks", "test error [95 %]", "minus rewired, paired [95 %]"):
        table.add_column(heading)
    for row in wiring.to_dict("records"):
        table.add_row(
            row["task"],
            row["arm"],
            str(row["n"]),
            f"{row['test_error']:.4f} [{row['low']:.4f}, {row['high']:.4f}]",
            f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]",
        )
    return table


def write_real_results(results: RealResults, out: Path) -> None:
    """Write every table as CSV, all as Markdown, and the figure."""
    for name, frame in results.tables().items():
        write_atomically(out / f"{name}.csv", csv_bytes(frame))
    settings = "".join(f"- {name}: {value}\n" for name, value in results.settings.items())
    write_atomically(out / "summary.md", f"{settings}\n{to_markdown(results)}".encode())
    make_folder(out / "figures")
    plots.save_figure(plot_real_summary(results.summary), out / "figures" / "real.svg")


__all__ = ["run_reproduce_real", "write_real_results"]
