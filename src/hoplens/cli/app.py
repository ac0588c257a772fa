"""The ``hoplens`` command."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from hoplens.cli.console import SafeConsole
from hoplens.errors import HoplensError, ParameterError, check_choice
from hoplens.lookup import look_up

HORIZON_HELP = "Time steps considered; those of the longest of the inputs, 20 without inputs."
# options that several commands share
Rnn = Annotated[str | None, typer.Option(help="Prefix of the recurrent module's keys.")]
Readout = Annotated[str | None, typer.Option(help="Prefix of the read-out's keys.")]
Inputs = Annotated[Path | None, typer.Option(help="An .npz file with sequences (B, L, I).")]
Nonlinearity = Annotated[
    str | None, typer.Option(help="Of a plain RNN, where its file does not say: tanh, relu or linear.")
]
At = Annotated[
    str | None, typer.Option(help="Where to linearise: raw, origin, or flow, mean (over --inputs).")
]
Horizon = Annotated[int | None, typer.Option(help=HORIZON_HELP)]
Model = Annotated[str, typer.Argument(help="A file of save_model, or a safetensors or state_dict file.")]
INTERRUPTED = 130  # the shell's code for a process ended by Ctrl-C

app = typer.Typer(
    name="hoplens",
    help="See and train the multi-hop pathways of recurrent networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts are plain: brackets in one are no markup
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = SafeConsole()
errors = SafeConsole(stderr=True)


def main() -> None:
    """Run the command line; one line and exit code 2 for every error that a user can cause."""
    try:
        app()
    except HoplensError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(INTERRUPTED)


def command(place: str) -> Callable[[Callable[..., None]], Callable[..., Any]]:
    """Make a command of a signature: its options go, by name, to a function that is loaded when it runs.

    A command that has something to tell the shell returns the code to end with.
    """

    def make(signature: Callable[..., None]) -> Callable[..., Any]:
        @app.command()
        @functools.wraps(signature)
        def run(**options: Any) -> None:
            code = look_up(f"hoplens.cli.commands.{place}")(console, **options)
            if code:
                raise typer.Exit(code)

        return run

    return make


@app.command()
def reproduce(
    suite: Annotated[
        str, typer.Option(help="synthetic (the paper's tasks), or real (speech, text, music, control ...).")
    ] = "synthetic",
    quick: Annotated[
        bool, typer.Option("--quick", help="Four tasks, fewer seeds: minutes, not half an hour.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Results folder; an interrupted study in it goes on.",
            show_default="results, or results-real for the real suite",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0 takes one a core.")] = 0,
) -> None:
    """Run a study: no penalty, L1, L2, the paper's, the recommended recipe and others, compared."""
    from hoplens.cli.commands.reproduce import run_reproduce

    if workers < 0:
        raise ParameterError(f"--workers must be 0 or more, got {workers}")
    check_choice("suite", suite, ("synthetic", "real"))
    name, folder = ("real", "results-real") if suite == "real" else ("paper", "results")
    run_reproduce(
        console, f"{name}-quick" if quick else name, out=out or Path(folder), workers=workers or None
    )


@command("train:run_train")
def train(
    task: Annotated[str, typer.Argument(help="Task name; see `hoplens tasks`.")],
    recipe: Annotated[str, typer.Option(help="none, l1, l2, paper or recommended.")] = "recommended",
    signal: Annotated[str, typer.Option(help="every, on-off or sparse.")] = "every",
    lag: Annotated[int | None, typer.Option(help="Sparse only: steps between signal and read-out.")] = None,
    length: Annotated[int, typer.Option(help="Time steps.")] = 8,
    strength: Annotated[float, typer.Option(help="Factor of the penalty.")] = 1e-3,
    seeds: Annotated[int, typer.Option(help="Number of networks.")] = 8,
    hidden: Annotated[int, typer.Option(help="Hidden units.")] = 32,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the networks and their page in.")] = None,
) -> None:
    """Train networks on one task and print what their pathways look like."""


@app.command()
def sweep(
    study: Annotated[
        Path | None,
        typer.Argument(help="A study file; with --example, if you like, paper or real, or their -quick."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder to keep the networks in; by default NAME.store.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in --store.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many networks, how long and how much memory.")
    ] = False,
    show_example: Annotated[
        bool, typer.Option("--example", help="Print a small study, or one of the package, and stop.")
    ] = False,
    executor: Annotated[
        str | None,
        typer.Option(help="in-process, processes, dask://HOST:PORT or slurm://?OPTIONS; chosen if left out."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes or jobs at once; 0 takes one a core.")] = 0,
    attempts: Annotated[int, typer.Option(help="Workers that may be lost over one batch.")] = 3,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --resume: run Python code that only the store has.")
    ] = False,
) -> None:
    """Run a study of any size into a store; what is there is never trained again."""
    from hoplens.cli.commands.sweep import example, run_sweep_command

    if show_example:
        typer.echo(example(None if study is None else str(study)), nl=False)
        return
    if workers < 0:
        raise ParameterError(f"--workers must be 0 or more, got {workers}")
    code = run_sweep_command(
        console,
        study,
        store=store,
        resume=resume,
        dry_run=dry_run,
        executor=executor,
        workers=workers or None,
        attempts=attempts,
        trust_code=trust_code,
    )
    if code:
        raise typer.Exit(code)


@command("status:run_status")
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A store of `hoplens sweep`.")],
    study: Annotated[str | None, typer.Option(help="Name or id; the latest if left out.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write all networks to this file, .csv or .parquet.")
    ] = None,
) -> None:
    """Say how far a sweep is, running or not."""


@command("analyze:run_analyze")
def analyze(
    model: Annotated[
        str, typer.Argument(help="A safetensors or state_dict file, or the example `celegans`.")
    ],
    rnn: Rnn = None,
    readout: Readout = None,
    inputs: Inputs = None,
    nonlinearity: Nonlinearity = None,
    at: At = None,
    radius: Annotated[
        float | None, typer.Option(help="Scale recurrent weights to this spectral radius (celegans: 0.5).")
    ] = None,
    horizon: Horizon = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and figures.")] = None,
    table_format: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
) -> None:
    """Read a trained network and say what it routes where, when and over which units."""


@command("report:run_report")
def report(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="A folder of `reproduce` or `train --out`, or what `analyze` takes."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    rnn: Rnn = None,
    readout: Readout = None,
    inputs: Inputs = None,
    nonlinearity: Nonlinearity = None,
    at: At = None,
    horizon: Horizon = None,
) -> None:
    """Write one HTML page about a study, a training run or a trained network."""


@command("explain:run_explain")
def explain(
    model: Annotated[str, typer.Argument(help="A safetensors or state_dict file.")],
    inputs: Annotated[
        Path,
        typer.Option(help="An .npz file: inputs (B, L, I), and if you like input_names, output_names."),
    ],
    sample: Annotated[int, typer.Option(help="Which sequence, from 0.")] = 0,
    rnn: Rnn = None,
    readout: Readout = None,
    nonlinearity: Nonlinearity = None,
    output: Annotated[str | None, typer.Option(help="Name or number; default the largest output.")] = None,
    baseline: Annotated[str, typer.Option(help="zeros, or mean (over all sequences).")] = "zeros",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML page to write.")] = None,
) -> None:
    """Say which inputs at which steps made one output what it is."""


@command("compress:run_compress")
def compress(
    model: Model,
    data: Annotated[
        Path,
        typer.Option(help="Training .npz: inputs (N, L, I), targets, and lengths (N,) if sequences differ."),
    ],
    test: Annotated[
        Path, typer.Option(help="Test .npz of the same form; half of it chooses, half of it reports.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Results folder; an interrupted search in it goes on.")
    ],
    target_size: Annotated[
        float, typer.Option(help="Largest size of the file, as a share of the given model's ONNX file.")
    ] = 0.25,
    max_loss: Annotated[float, typer.Option(help="Largest loss of accuracy or explained variance.")] = 0.01,
    rnn: Rnn = None,
    readout: Readout = None,
    nonlinearity: Nonlinearity = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps of each fine-tuning.")] = 300,
    lr: Annotated[float, typer.Option(help="Learning rate of fine-tuning.")] = 1e-3,
    batch: Annotated[int, typer.Option(help="Sequences an optimiser step.")] = 64,
    seed: Annotated[int, typer.Option(help="Of batches and of the halves of the test data.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long each comparison of latencies takes.")] = 1.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="At most ten candidates, a third of the steps of fine-tuning.")
    ] = False,
) -> None:
    """Make a trained network smaller within limits, and write it in every format with a model card.

    Exits with 3 where the chosen model, on sequences that the choice has not seen, misses a limit.
    """


@command("export:run_export")
def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="onnx, int8, nir, or a registered one; default --out's suffix."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="An .npz file: inputs, and if you like targets, to compare on too.")
    ] = None,
    rnn: Rnn = None,
    readout: Readout = None,
    nonlinearity: Nonlinearity = None,
    every_step: Annotated[bool, typer.Option("--every-step", help="Read out after every step.")] = False,
    lengths: Annotated[bool, typer.Option("--lengths", help="ONNX: an input for valid steps.")] = False,
    stateful: Annotated[
        bool, typer.Option("--stateful", help="ONNX: states as inputs and outputs, for streams.")
    ] = False,
    dt: Annotated[float, typer.Option(help="NIR: seconds a time step lasts.")] = 1e-3,
    method: Annotated[str, typer.Option(help="NIR: euler or zoh.")] = "euler",
) -> None:
    """Write a trained network as ONNX or NIR, after comparing the file with it."""


@command("train:run_tasks")
def tasks() -> None:
    """List the tasks and signal patterns."""


if __name__ == "__main__":
    main()
