"""``hoplens analyze``: what a trained network or connectome routes where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from hoplens.analysis import analyze
from hoplens.connectome import celegans
from hoplens.errors import FileError, check_choice
from hoplens.pathways import Pathways
from hoplens.readers import read

EXAMPLES = ("celegans",)


def run_analyze(
    console: Console,
    model: str,
    *,
    rnn: str | None,
    readout: str | None,
    inputs: Path | None,
    horizon: int,
    out: Path | None,
    table_format: str,
) -> None:
    """Analyse a weights file or a shipped example; print the summary, write tables and figures to ``out``."""
    check_choice("table format", table_format, ("csv", "parquet"))
    if model in EXAMPLES:
        found = analyze(_worm(), horizon=horizon)
    else:
        path = Path(model)
        if not path.is_file():
            raise FileError(f"no such file: {model}; give a safetensors or state_dict file, or {EXAMPLES[0]}")
        sequences = None if inputs is None else load_inputs(inputs)
        found = analyze(path, readout, inputs=sequences, horizon=horizon, rnn=rnn)
    console.print(found.to_text(), markup=False, highlight=False)
    if out is not None:
        written = found.write(out, table_format=table_format)
        console.print(f"wrote {len(list(written))} files to {out}", markup=False)


def _worm() -> Pathways:
    """Return the worm's wiring from its sensory to its motor neurons."""
    graph = celegans()
    ends = {kind: [n for n in graph if graph.nodes[n]["kind"] == kind] for kind in ("sensory", "motor")}
    return read(graph, inputs=ends["sensory"], outputs=ends["motor"], attach=True)


def load_inputs(path: Path) -> Tensor:
    """Read sequences (B, L, I) from the array ``inputs`` of an .npz file, or its only array."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            name = "inputs" if "inputs" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise FileError(
                    f"{path} needs an array called 'inputs'; it holds {', '.join(names) or 'nothing'}"
                )
            values = archive[name]
    except FileError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        raise FileError(f"cannot read {path} as an .npz file of arrays ({error})") from None
    if values.ndim != 3 or not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        raise FileError(
            f"{path}: inputs must be finite numbers of shape (B, L, I), got {values.dtype} {values.shape}"
        )
    return torch.as_tensor(values)
