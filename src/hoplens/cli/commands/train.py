"""``hoplens train`` and ``hoplens tasks``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from hoplens.cli.commands.report import write_run_report
from hoplens.data import tasks as task_library
from hoplens.data.tasks.registry import TASKS
from hoplens.errors import check_count, check_number
from hoplens.files import make_folder
from hoplens.studies.extensions import make_recipe
from hoplens.studies.measuring import measure
from hoplens.studies.runs import save_run
from hoplens.training.training import train

SHOWN = {
    "test_error": "error",
    "accuracy": "accuracy",
    "active_hops": "hops",
    "target_active_hops": "true",
    "alignment": "alignment",
    "kept_70": "at 70",
    "kept_90": "at 90",
}


def run_train(
    console: Console,
    task: str,
    *,
    recipe: str,
    signal: str,
    lag: int | None,
    length: int,
    strength: float,
    seeds: int,
    hidden: int,
    steps: int,
    out: Path | None,
) -> None:
    """Train some networks, print their measures, and keep them with their page in ``out``."""
    method = make_recipe(recipe)
    made = task_library.make(task, signal=signal, lag=lag, length=length)
    count = check_count("seeds", seeds)
    check_number("strength", strength, least=0.0)
    if out is not None:
        make_folder(out)  # before the work, not after it
    result = train(
        made, method, seeds=range(count), strengths=strength, hidden=hidden, steps=steps, progress=True
    )
    frame = measure(result)
    table = Table(
        title=f"{made.label}: {method.name}, {hidden} hidden units, {steps} steps", title_justify="left"
    )
    for heading in ("seed", *SHOWN.values()):
        table.add_column(heading, justify="right")
    for values in frame.to_dict("records"):
        table.add_row(str(values["seed"]), *(f"{values[name]:.4f}" for name in SHOWN))
    console.print(table)
    if out is not None:
        save_run(out, result, frame, f"{made.label}: {method.name}")
        page = write_run_report(out, out / "report.html")
        console.print(f"report: {page}", markup=False, soft_wrap=True)


def run_tasks(console: Console) -> None:
    """Print what tasks there are."""
    table = Table(title="Tasks", title_justify="left")
    for heading in ("name", "target of a module", "ground truth"):
        table.add_column(heading)
    meaning = {
        "averaging": "its own aggregate",
        "subtraction": "its aggregate minus its sibling's",
        "addition": "its aggregate plus its sibling's",
        "multiplication": "its aggregate times its sibling's",
    }
    for name in task_library.names():
        exact = task_library.FUNCTIONS[name].linear
        table.add_row(
            name, meaning.get(name, ""), "exact hop maps" if exact else "Jacobian at the mean input"
        )
    for name in TASKS.names():
        if name not in task_library.FUNCTIONS:
            table.add_row(name, f"of {TASKS.source(name)}", "")
    console.print(table)
    console.print(f"signals: {', '.join(task_library.SIGNALS)} (sparse takes a lag or a number of steps)")
