"""``hoplens export``: a trained network in a format that runs elsewhere."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hoplens.cli.commands.units import assumed_words, check_units
from hoplens.data.arrays import load_arrays, sequences_of
from hoplens.errors import ParameterError
from hoplens.export.exporters import EXPORTERS
from hoplens.models.readers.opening import read_model

DEFAULTS = {"lengths": False, "stateful": False, "dt": 1e-3, "method": "euler"}


def run_export(
    console: Console,
    model: str,
    *,
    out: Path,
    file_format: str | None,
    data: Path | None,
    rnn: str | None,
    readout: str | None,
    nonlinearity: str | None,
    every_step: bool,
    lengths: bool,
    stateful: bool,
    dt: float,
    method: str,
) -> None:
    """Write the file by the exporter of its format, and say how it compares with the model."""
    exporter = EXPORTERS.get(file_format or out.suffix.lstrip(".").lower())
    given = {"lengths": lengths, "stateful": stateful, "dt": dt, "method": method}
    options = {name: value for name, value in given.items() if value != DEFAULTS[name]}
    for name in options:
        if name not in exporter.options:
            takes = [kind for kind in EXPORTERS.names() if name in EXPORTERS.get(kind).options]
            raise ParameterError(f"--{name} goes with --format {' or '.join(takes)}")
    own = read_model(
        model,
        rnn=rnn,
        readout=readout,
        nonlinearity=nonlinearity,
        every_step=True if every_step else None,
    )
    if data is not None:
        check_units(console, model, rnn=rnn, readout=readout, nonlinearity=nonlinearity, data=data)
    arrays = None if data is None else load_arrays(data)
    inputs = None if arrays is None or data is None else sequences_of(arrays, data)
    assumed = f"\n{assumed_words(own.info.assumed)}" if own.info.assumed else ""
    targets = None if arrays is None else arrays.get("targets")
    done = exporter.write(own, out, inputs=inputs, targets=targets, **options)
    console.print(exporter.words(done) + assumed, markup=False, highlight=False, soft_wrap=True)
