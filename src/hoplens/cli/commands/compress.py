"""``hoplens compress``: a trained network made smaller within limits, and written in every format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hoplens.cli.commands.units import assumed_words, check_units
from hoplens.errors import FileError, NonFiniteError, ParameterError, check_count, check_number
from hoplens.files import csv_bytes, write_atomically
from hoplens.models.readers.opening import read_model
from hoplens.plots import plot_compression, save_figure
from hoplens.reports.compression import FIGURE, cells, content, render_card, verdict
from hoplens.studies.compression.candidates import QUICK_STEPS, Candidate, TuningSettings
from hoplens.studies.compression.data import every_step, fit_info, halves, load_split
from hoplens.studies.compression.result import Result, files_of, measure, torch_bytes
from hoplens.studies.compression.search import (
    HOPELESS,
    MODEL,
    CandidateRecord,
    CandidateSearch,
    Choice,
    choose,
    exporters,
    file_name,
)
from hoplens.threads import threads, threads_for

LIMITS_MISSED = 3  # exit code: all files are written, but a limit is not met


def run_compress(
    console: Console,
    model: str,
    *,
    data: Path,
    test: Path,
    target_size: float,
    max_loss: float,
    out: Path,
    rnn: str | None,
    readout: str | None,
    nonlinearity: str | None,
    steps: int,
    lr: float,
    batch: int,
    seed: int,
    seconds: float,
    quick: bool = False,
) -> int:
    """Search, choose, measure on held-back sequences, write all files, print before and after.

    Returns the exit code: 0 where the chosen model is within both limits.
    """
    check_number("--target-size", target_size, above=0.0, most=1.0)
    check_number("--max-loss", max_loss, least=0.0)
    check_number("--seconds", seconds, above=0.0)
    settings = TuningSettings(
        -(-check_count("--steps", steps, least=0) // (QUICK_STEPS if quick else 1)),
        check_number("--lr", lr, above=0.0),
        check_count("--batch", batch),
        check_count("--seed", seed, least=0),
    )
    own = read_model(model, rnn=rnn, readout=readout, nonlinearity=nonlinearity).float()
    if not all(bool(value.isfinite().all()) for value in own.state_dict().values()):
        raise NonFiniteError(f"some weights in {model} are NaN or infinite; take one that did not diverge")
    check_units(console, model, rnn=rnn, readout=readout, nonlinearity=nonlinearity, data=data)
    if own.info.assumed:
        _say(console, assumed_words(own.info.assumed))
    train, unseen = load_split(data), load_split(test)
    if every_step(train) != every_step(unseen):
        raise ParameterError(f"{data} and {test} must both have targets after every step, or at the end")
    fit_info(own, test, unseen)
    fit_info(own, data, train)
    if train.targets.is_floating_point() != unseen.targets.is_floating_point():
        raise ParameterError(
            f"{data} and {test} must both have classes (whole numbers) or both values (floats) as targets"
        )
    if own.info.every_step != every_step(train):
        own.info = type(own.info)(**{**vars(own.info), "every_step": every_step(train)})
    if own.core.bidirectional and not bool(train.mask.all() and unseen.mask.all()):
        raise ParameterError("a bidirectional model needs sequences of one length; cut or group them")
    with _one_line_for_a_full_disk(), threads(threads_for(own.core.hidden_size)):
        chosen_on, reported_on = halves(unseen, seed)
        search = CandidateSearch(own, train, chosen_on, reported_on, settings, out, quick=quick)
        records = _search(console, search, max_loss)
        choice = choose(records, target_size, max_loss)
        result = measure(search, records, choice, reported_on, seconds=seconds)
        limits = {"target_size": target_size, "max_loss": max_loss}
        _write(search, choice, result, settings, title=f"{Path(model).stem}, compressed", test=test, **limits)
    _show(console, result, choice, target_size, max_loss)
    names = ", ".join([*files_of(out), "card.md", "card.html", FIGURE, "candidates.csv"])
    _say(console, f"wrote {names} to {out}")
    return 0 if all(result.keeps(target_size, max_loss)) else LIMITS_MISSED


@contextmanager
def _one_line_for_a_full_disk() -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise FileError(f"cannot write{where} ({error.strerror or type(error).__name__})") from None


def _search(console: Console, search: CandidateSearch, max_loss: float) -> list[CandidateRecord]:
    kept = sum(bool(search.load(candidate)) for candidate in search.candidates)
    if kept:
        console.print(
            f"{kept} of {len(search.candidates)} candidates are there from an earlier run", highlight=False
        )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task("candidates", total=len(search.candidates))

        def show(candidate: Candidate) -> None:
            bar.update(row, advance=1, description=candidate.name)
            if not console.is_terminal:  # a log shows no bar
                done = int(bar.tasks[row].completed)
                _say(console, f"{done} of {len(search.candidates)} candidates: {candidate.name}")

        try:
            return search.run(give_up=HOPELESS + max_loss, progress=show)
        except KeyboardInterrupt:
            done = sum(bool(search.load(candidate)) for candidate in search.candidates)
            bar.stop()
            _say(console, f"{done} of {len(search.candidates)} candidates are kept; the same command goes on")
            raise


def _write(
    search: CandidateSearch,
    choice: Choice,
    result: Result,
    settings: TuningSettings,
    *,
    title: str,
    test: Path,
    target_size: float,
    max_loss: float,
) -> None:
    place, out = search.place(choice.record.candidate), search.folder
    model = search.model_of(choice.record.candidate)
    for name in (*map(file_name, exporters()), MODEL):
        (out / name).unlink(missing_ok=True)  # of an earlier search in the same folder
        if (place / name).is_file():
            write_atomically(out / name, (place / name).read_bytes())
    write_atomically(out / "model.pt", torch_bytes(model))
    write_atomically(out / "candidates.csv", csv_bytes(result.table))
    figure = plot_compression(result.table, score=result.score_name, target_size=target_size)
    save_figure(figure, out / FIGURE)
    card = content(
        title,
        model,
        result,
        choice,
        settings,
        test=test.name,
        target_size=target_size,
        max_loss=max_loss,
        files=files_of(out),
        padded=not bool(search.choose.mask.all()),
    )
    markdown, page = render_card(card, figure)
    write_atomically(out / "card.html", page.encode())
    write_atomically(out / "card.md", markdown.encode())


def _show(console: Console, result: Result, choice: Choice, target_size: float, max_loss: float) -> None:
    table = Table(title=f"chosen: {choice.record.name}", title_justify="left")
    table.add_column("")
    for heading in ("before", "after", "after / before"):
        table.add_column(heading, justify="right")
    scores = f"{result.score_before:.4f}", f"{result.score_after:.4f}"
    table.add_row(f"{result.score_name}, {result.n_report} held-back sequences", *scores, "")
    for line in result.lines:
        text = cells(line)
        table.add_row(text["label"], text["before"], text["after"], text["ratio"])
    console.print(table)
    _say(console, verdict(result, choice, target_size, max_loss))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
