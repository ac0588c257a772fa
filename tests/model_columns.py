"""What every function and command must do with every kind of model: the columns of the table.

A column takes a kind and an empty folder, and compares what the library says of the model with what the
model computes, run by plain PyTorch.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import torch
from in_process import hoplens
from model_kinds import I, Kind, O, ends
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import hoplens as hl
from hoplens.reports import explanation as words

X = torch.randn(4, 6, I, generator=torch.Generator().manual_seed(11))
OTHER = torch.randn(3, 9, I, generator=torch.Generator().manual_seed(12))  # another batch size and length
WIDE = torch.randn(64, 9, I, generator=torch.Generator().manual_seed(13)).clamp(-3, 3)  # of the same range
Column = Callable[[Kind, Path], None]


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(got.to(wanted), wanted, rtol=0, atol=tolerance * scale)


def given(kind: Kind) -> Any:
    """Return the inputs of the row: sequences of one length, or packed ones."""
    return pack(kind, X)


def pack(kind: Kind, x: Tensor) -> Any:
    if kind.lengths is None:
        return x
    return pack_padded_sequence(x, kind.lengths, batch_first=True, enforce_sorted=False)


def jacobian(kind: Kind, x: Tensor) -> Tensor:
    """Return d outputs / d inputs (B, L, O, I) of the model's own run, by differences."""
    slow = torch.empty(*x.shape[:2], O, I, dtype=torch.float64)
    for t in range(x.shape[1]):
        for i in range(I):
            step = torch.zeros_like(x)
            step[:, t, i] = 1e-3
            slow[:, t, :, i] = ((kind.run(x + step) - kind.run(x - step)) / 2e-3).double()
    return slow


def onnx_outputs(path: Path, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    feed = {"inputs": x.numpy()}
    if lengths is not None:
        feed[session.get_inputs()[1].name] = lengths.numpy()
    return torch.from_numpy(session.run(["outputs"], feed)[0])


def run(model: Any, x: Tensor, *more: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x, *more)


def read(kind: Kind, folder: Path) -> None:
    """The lags of the graph are the Jacobian of the model's own run, in a copy where zero stays zero."""
    net = hl.read(kind.model, kind.readout).detach()
    assert (net.n_inputs, net.n_outputs) == (I, O)
    if kind.base is not None:  # a file, a graph as of the module that it was written from
        return
    parts = [part for part in (kind.readout, inner(kind.model)) if isinstance(part, nn.Module)]
    biases = [value for part in parts for name, value in part.named_parameters() if "bias" in name]
    nonlinear = getattr(getattr(inner(kind.model), "core", kind.model), "nonlinearity", "")
    core = getattr(inner(kind.model), "core", kind.model)
    beyond = getattr(core, "bidirectional", False) and core.num_layers > 1  # its graph goes on after the end
    # no parameters at hand; no slope at zero; a read-out at the end of a sequence that the graph lacks
    if not biases or nonlinear == "relu" or beyond or kind.lengths is not None:
        return
    before = [value.detach().clone() for value in biases]
    try:
        with torch.no_grad():
            for value in biases:
                value.zero_()
        net = hl.read(kind.model, kind.readout, at="origin").detach().to(torch.float64)
        wanted = jacobian(kind, torch.zeros(1, *X.shape[1:]))[0].flip(0)
    finally:
        with torch.no_grad():
            for value, old in zip(biases, before, strict=True):
                value.copy_(old)
    window = getattr(getattr(inner(kind.model), "info", None), "window", None) or len(wanted)
    found = hl.lag_maps(net, X.shape[1])
    for lag, values in zip(found.lags.tolist(), found.values, strict=True):
        if 0 <= lag < window:
            close(values, wanted[lag], 2e-3)


def inner(model: Any) -> Any:
    """Return the module in what the library returns as a model."""
    return model if isinstance(model, nn.Module) else getattr(model, "model", None)


def graph_functions(kind: Kind, folder: Path) -> None:
    """Every function of a graph that needs nothing else says of the model what it says of its graph."""
    for name in GRAPH_FUNCTIONS:
        call = getattr(hl, name)
        answers = []
        for one in (hl.read(core_of(kind)), core_of(kind)):
            with torch.random.fork_rng(), torch.no_grad():
                try:
                    answers.append(numbers(call(one, **more_for(call))))
                except hl.HoplensError as error:
                    answers.append(str(error))
        assert not any(isinstance(answer, str) and "\n" in answer for answer in answers), name
        assert same(*answers), name


def core_of(kind: Kind) -> Any:
    """Return what is read without a second argument."""
    return kind.model


def numbers(answer: Any) -> Any:
    """Return what can be compared of an answer: tensors and numbers, by name."""
    if isinstance(answer, hl.Pathways):
        answer = answer.detach()
    if hasattr(answer, "__dataclass_fields__"):
        return {name: numbers(getattr(answer, name)) for name in answer.__dataclass_fields__}
    return answer


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor):
        return bool(torch.allclose(one.detach(), other.detach(), equal_nan=True))
    if isinstance(one, pd.DataFrame | pd.Series):
        return bool(one.equals(other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    if isinstance(one, float):
        return bool(np.isclose(one, other, equal_nan=True))
    return type(one) is type(other) and (one == other or type(one).__eq__ is object.__eq__)


def analyze(kind: Kind, folder: Path) -> None:
    found = hl.analyze(kind.model, kind.readout, inputs=given(kind), horizon=4)
    assert (found.net.n_inputs, found.net.n_outputs) == (I, O)
    slow = jacobian(kind, X)
    stops = [X.shape[1]] * len(X) if kind.lengths is None else kind.lengths.tolist()
    for lag, values in enumerate(found.maps.values):  # of a truncated model no longer than its window
        known = [slow[b, stop - 1 - lag] for b, stop in enumerate(stops) if stop > lag]
        close(values.double(), torch.stack(known).mean(0), 2e-3)
    shown = hl.read(kind.model, kind.readout)
    assert found.net.n_hidden == shown.n_hidden
    page = hl.report(found, path=folder / "page.html", title="of the table").read_text()
    strongest = found.maps.values.abs().max()
    assert any(repr(float(sign * strongest)) in page for sign in (1, -1))


def report(kind: Kind, folder: Path) -> None:
    """One call is the analysis and its page."""
    page = hl.report(kind.model, kind.readout, inputs=given(kind), horizon=4, path=folder / "page.html")
    found = hl.analyze(kind.model, kind.readout, inputs=given(kind), horizon=4)
    assert page.read_text() == hl.report(found, path=folder / "same.html").read_text()


def step_by_step(kind: Kind, folder: Path) -> None:
    """Steps one by one give what a run gives."""
    policy, state, steps = hl.data.step_by_step(kind.model, kind.readout), None, []
    for x in X.unbind(1):
        outputs, state = policy(x, state)
        steps.append(outputs[0] if outputs.dim() == 3 else outputs)
    last = torch.full((len(X),), X.shape[1]) if kind.lengths is None else kind.lengths
    close(torch.stack(steps, 1)[torch.arange(len(X)), last - 1].float(), kind.run(X))


def hop_logger(kind: Kind, folder: Path) -> None:
    logger = hl.callbacks.HopLogger(3)
    logger.on_step(0, kind.model, 0.0)
    close(logger.records[0].maps.values, hl.hop_maps(hl.read(kind.model).detach(), 3).values.double())


def trajectory_maps(kind: Kind, folder: Path) -> None:
    maps = hl.trajectory_maps(kind.model, given(kind), **kind.options)
    close(maps.values.double(), jacobian(kind, X), 2e-3)
    fit = hl.fidelity(hl.read(kind.model, kind.readout), maps)
    assert isinstance(fit, hl.Fidelity)


def interactions(kind: Kind, folder: Path) -> None:
    """Second derivatives are differences of the first."""
    pairs = hl.interactions(kind.model, given(kind), 1, rows=[(0, 0), (1, 2)], **kind.options)
    ends = torch.full((len(X),), X.shape[1]) if kind.lengths is None else kind.lengths
    kinds = pairs.values.new_zeros(2, *X.shape[1:])
    for row, (lag, place) in enumerate(pairs.rows.tolist()):
        step = torch.zeros_like(X)
        has = (ends > lag).nonzero()[:, 0]
        step[has, ends[has] - 1 - lag, place] = 1e-3
        up, down = (
            hl.trajectory_maps(kind.model, pack(kind, x), **kind.options).by_lag()[:, :, 1]
            for x in (X + step, X - step)
        )
        for other in range(X.shape[1]):
            some = ends > max(lag, other)
            kinds[row, other] = ((up - down)[some, other] / 2e-3).double().mean(0)
    close(pairs.values, kinds.nan_to_num(), 2e-3)
    flow = hl.hop_maps(kind.model, inputs=given(kind), **kind.options).absolute[:, 1]
    close(pairs.flow, flow.double())


def explain(kind: Kind, folder: Path) -> None:
    for output in range(O):
        why = hl.explain(kind.model, given(kind), output=output, method="secant", **kind.options)
        close(why.output, kind.run(X)[:, output].double())
        close(why.values.sum((1, 2)), (kind.run(X) - kind.run(0 * X))[:, output].double(), 2e-4)


def fixed_points(kind: Kind, folder: Path) -> None:
    found = hl.dynamics.fixed_points(kind.model, n=4)
    assert found.states.dtype == torch.float64
    assert bool((found.residual < 1e-9).all())
    core = getattr(inner(kind.model), "core", kind.model)
    if not isinstance(core, nn.RNN | nn.GRU | hl.LeakyRNN) or core.num_layers > 1 or not len(found.states):
        return  # its state is in no form that plain PyTorch takes
    state = found.states.float()
    still = torch.zeros(len(state), 1, I)
    with torch.no_grad():
        if isinstance(core, hl.LeakyRNN):
            drive = state @ core.weight_hh_l0.mT + core.bias_ih_l0 + core.bias_hh_l0
            f = {"tanh": torch.tanh, "relu": torch.relu, "linear": lambda z: z}[core.nonlinearity]
            after = (1 - core.leak) * state + core.leak * f(drive)
        else:
            after = core(still, state[None].contiguous())[0][:, 0]
    close(after, state, 1e-4)


def prune(kind: Kind, folder: Path) -> None:
    none, half = (hl.prune(kind.model, amount, **kind.options) for amount in (0.0, 0.5))
    close(run(none.model, X), ends(none.model.core, none.model.readout)(last(none.model, X)))
    close(valid(kind, none.model), kind.run(X))
    close(run(half.model, X), ends(half.model.core, half.model.readout)(last(half.model, X)))
    state = half.model.state_dict()
    for name, mask in half.masks.items():
        assert bool((state[name][~mask.bool()] == 0).all())
        assert abs(float(mask.float().mean()) - 0.5) < 0.1 or "Pruned" in str(type(kind.model))


def valid(kind: Kind, model: Any, x: Tensor = X) -> Tensor:
    """Run a model that the library made, on what the row calls valid."""
    return run(model, x) if kind.lengths is None else run(model, x, kind.lengths)


def last(model: Any, x: Tensor) -> Tensor:
    return x if model.info.window is None else x[:, -model.info.window :]


def quantise(kind: Kind, folder: Path) -> None:
    more = {} if kind.lengths is None else {"lengths": kind.lengths}
    if kind.lengths is None:
        made = hl.quantise(kind.model, inputs=WIDE, **kind.options)
    else:
        made = hl.quantise(kind.model, inputs=X, **more, **kind.options)
    close(run(made.model, X), ends(made.model.core, made.model.readout)(last(made.model, X)))
    close(valid(kind, made.model), kind.run(X), 0.2)
    done = hl.export_int8(made, folder / "i.onnx", inputs=X)
    close(onnx_outputs(done.path, OTHER), run(made.model, OTHER), 0.2)


def export_int8(kind: Kind, folder: Path) -> None:
    """Of what is not quantised yet: see `quantise` for the others."""
    hl.export_int8(kind.model, folder / "i.onnx", inputs=X)
    close(onnx_outputs(folder / "i.onnx", OTHER), kind.run(OTHER), 0.1)


def reduce(kind: Kind, folder: Path) -> None:
    small = hl.reduce(kind.model, 2, **kind.options)
    assert small.model.core.hidden_size == 2
    close(run(small.model, OTHER), ends(small.model.core, small.model.readout)(last(small.model, OTHER)))


def truncate(kind: Kind, folder: Path) -> None:
    whole = hl.truncate(kind.model, 6, **kind.options)
    own = getattr(getattr(inner(kind.model), "info", None), "window", None)
    if own is None:  # else a longer window takes the place of the shorter
        close(valid(kind, whole), kind.run(X))
    short = hl.truncate(kind.model, 2, **kind.options)
    if kind.lengths is None:
        close(run(short, X), kind.run(X[:, -2:]))


def remove_units(kind: Kind, folder: Path) -> None:
    small = hl.compress.remove_units(kind.model, [0], **kind.options)
    same_size = copy.deepcopy(hl.truncate(kind.model, 6, **kind.options))
    with torch.no_grad():  # what the unit says is nowhere heard
        same_size.core.weight_hh_l0[:, 0] = 0
        same_size.readout.weight[:, 0] = 0
    close(run(small, X[:, -3:]), ends(same_size.core, same_size.readout)(X[:, -3:]))


def effective_window(kind: Kind, folder: Path) -> None:
    more = {} if kind.lengths is None else {"lengths": kind.lengths}
    found = hl.effective_window(kind.model, X, 1e-3, **more, **kind.options)
    if kind.lengths is not None:
        return  # by plain PyTorch, the last steps of each: tests/test_window.py
    whole = getattr(inner(kind.model), "info", None) is None or inner(kind.model).info.window is None
    if not whole:
        return  # a window is sought in the model that runs all steps: tests/test_window.py
    for window, error in zip(found.windows.tolist(), found.errors.tolist(), strict=True):
        gap = (kind.run(X) - kind.run(X[:, X.shape[1] - window :])).abs().max()
        assert abs(error - float(gap)) < 1e-5


def measure_latency(kind: Kind, folder: Path) -> None:
    frame = hl.export.measure_latency(kind.model, X, runtimes=("eager",), seconds=1e-6, **kind.options)
    assert len(frame) > 0
    assert bool((frame["ms"] > 0).all())


def save_and_load(kind: Kind, folder: Path) -> None:
    path = hl.save(kind.model, folder / "m.safetensors", **kind.options)
    for open_it in (hl.load, hl.load):
        again = open_it(path)
        close(valid(kind, again), kind.run(X))
        assert again.info.assumed == ""
    close(hl.read(path).detach().w_rec, hl.read(kind.model, kind.readout).detach().w_rec)
    close(hl.explain(path, X, method="secant").output, run(again, X)[:, 0].double())


def open_file(kind: Kind, folder: Path) -> None:
    """Files: `read_model`, `load_model`, `load_stack`."""
    path = kind.model if kind.is_file else "no path"
    if path == "no path":
        hl.load(kind.model)
    again = hl.load(path)
    close(run(again, OTHER), kind.run(OTHER))
    assert (again.info.assumed != "") == (path.stem in ("bare tanh", "bare no bias"))
    stack = hl.models.load_stack(path)
    close(hl.explain(path, X, method="secant").output, kind.run(X)[:, 0].double())
    assert stack.n_inputs == I
    if path.stem.startswith("saved"):
        close(run(hl.load(path), OTHER), kind.run(OTHER))


def export_onnx(kind: Kind, folder: Path) -> None:
    done = hl.export_onnx(kind.model, folder / "m.onnx", **kind.options)
    if kind.lengths is None:
        close(onnx_outputs(done.path, OTHER), kind.run(OTHER))
    if kind.lengths is not None:
        hl.export_onnx(kind.model, folder / "m.onnx", lengths=True, **kind.options)
        close(onnx_outputs(folder / "m.onnx", X, kind.lengths), kind.run(X))


def export_nir(kind: Kind, folder: Path) -> None:
    """A spiking file is an approximation: its error is what the export says it is."""
    done = hl.export_nir(kind.model, folder / "m.nir", inputs=X, **kind.options)
    steps = X.repeat_interleave(done.substeps, dim=1)
    found = hl.export.simulate_nir(done.path, steps, dt=done.dt)[:, -1].double()
    wanted = kind.run(X).double()
    if done.form == "exact":
        close(found, wanted)
    error = (found - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean()
    assert abs(float(error) - done.error) < 1e-4


def event_cost(kind: Kind, folder: Path) -> None:
    close(hl.export.event_cost(kind.model, X, **kind.options).outputs, targets_of(kind, X))


def file_of(kind: Kind, folder: Path) -> Path:
    if kind.is_file:
        return kind.model
    return hl.save(kind.model, folder / "m.safetensors", **kind.options)


def command(folder: Path, *arguments: object) -> str:
    """Run a command; raise what it refuses as the library's error, and nothing else."""
    np.savez(folder / "data.npz", inputs=X.numpy())
    done = hoplens(*arguments)
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.strip().count("\n") == 0
        raise hl.HoplensError(done.stderr.strip())
    return " ".join(done.stdout.split())


def analyze_command(kind: Kind, folder: Path) -> None:
    file = file_of(kind, folder)
    shown = command(folder, "analyze", file, "--horizon", "4")
    assert " ".join(hl.analyze(file, horizon=4).to_text().split()) in shown


def report_command(kind: Kind, folder: Path) -> None:
    file = file_of(kind, folder)
    command(folder, "report", file, "-o", folder / "page.html", "--horizon", "4")
    strongest = hl.analyze(file, horizon=4).maps.values.abs().max()
    page = (folder / "page.html").read_text()
    assert any(repr(float(sign * strongest)) in page for sign in (1, -1))


def explain_command(kind: Kind, folder: Path) -> None:
    file = file_of(kind, folder)
    np.savez(folder / "data.npz", inputs=X.numpy())
    shown = command(folder, "explain", file, "--inputs", folder / "data.npz", "--output", "1")
    wanted = run(hl.load(file), X[:1])[0, 1]
    plain = kind.run(X)[0, 1]
    assert kind.lengths is not None or abs(float(wanted - plain)) < 1e-5
    why = hl.explain(file, X[:1], output=1)
    close(why.output[0], wanted.double())
    assert words.opening(why, 0) in shown


def onnx_command(kind: Kind, folder: Path) -> None:
    command(folder, "export", file_of(kind, folder), "-o", folder / "c.onnx")
    if kind.lengths is None:
        close(onnx_outputs(folder / "c.onnx", OTHER), kind.run(OTHER))
    else:
        command(folder, "export", file_of(kind, folder), "-o", folder / "c.onnx", "--lengths")
        close(onnx_outputs(folder / "c.onnx", X, kind.lengths), kind.run(X))


def nir_command(kind: Kind, folder: Path) -> None:
    np.savez(folder / "data.npz", inputs=X.numpy())
    shown = command(
        folder, "export", file_of(kind, folder), "-o", folder / "c.nir", "--data", folder / "data.npz"
    )
    substeps = 1 if "exact;" in shown else 32
    found = hl.export.simulate_nir(folder / "c.nir", X.repeat_interleave(substeps, 1), dt=1e-3 / substeps)[
        :, -1
    ]
    wanted = kind.run(X)
    error = (found - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean()
    assert f"squared error {float(error):.2g} of" in shown or float(error) < 1e-9


def compress_command(kind: Kind, folder: Path) -> None:
    draw = torch.Generator().manual_seed(5)
    for name in ("train", "test"):
        x = torch.randn(40, 6, I, generator=draw)
        np.savez(folder / f"{name}.npz", inputs=x.numpy(), targets=targets_of(kind, x).numpy())
    out = folder / "out"
    shown = command(
        *(folder, "compress", file_of(kind, folder), "--data", folder / "train.npz"),
        *("--test", folder / "test.npz", "-o", out, "--steps", "0", "--seconds", "0.001", "--quick"),
        *("--max-loss", "0.5", "--target-size", "1"),
    )
    assert "chosen:" in shown
    small = hl.load(out / "model.safetensors")
    close(onnx_outputs(out / "model.onnx", OTHER), run(small, OTHER), 0.2)
    assert (out / "card.md").is_file()


def targets_of(kind: Kind, x: Tensor) -> Tensor:
    """Return what the model says of further sequences (of a ragged row, of full ones)."""
    return kind.run(x) if kind.lengths is None else ends(kind.model, kind.readout)(x)


# What functions of a graph ask for besides, by the names of their parameters.
MORE: dict[str, Any] = {
    "horizon": 3,
    "rank": 1,
    "units": 2,
    "damping": 0.5,
    "radius": 0.5,
    "source": 0,
    "target": 0,
    "hops": 3,
    "measure": hl.analysis.temporal_sparsity,
    "null": "shuffle",
    "seed": 0,
    "n": 19,
    "frequencies": torch.tensor([0.0, 0.1]),
}


def more_for(call: Any) -> dict[str, Any]:
    """Return values for the parameters that have no default, and for those that cost time."""
    parameters = list(inspect.signature(call).parameters.values())[1:]
    cheap = ("n", "horizon")
    return {
        p.name: MORE[p.name]
        for p in parameters
        if p.default is inspect.Parameter.empty or (p.name in cheap and p.name in MORE)
    }


SEVERAL = {"fidelity", "strength_error"}  # of two networks, or of maps besides: other columns and tests


def takes(name: str) -> str:
    """Return what the first parameter of a public function is, in words of its signature."""
    first = next(iter(inspect.signature(getattr(hl, name)).parameters.values()), None)
    return "" if first is None else f"{first.name}: {first.annotation}"


GRAPH_FUNCTIONS = sorted(
    name
    for name in hl.__all__
    if inspect.isfunction(getattr(hl, name)) and takes(name) == "net: Pathways" and name not in SEVERAL
)
COLUMNS: dict[str, Column] = {
    "read": read,
    "analyze": analyze,
    "report": report,
    "trajectory_maps": trajectory_maps,
    "explain": explain,
    "interactions": interactions,
    "step_by_step": step_by_step,
    "HopLogger": hop_logger,
    "fixed_points": fixed_points,
    "prune": prune,
    "quantise": quantise,
    "export_int8": export_int8,
    "reduce": reduce,
    "truncate": truncate,
    "remove_units": remove_units,
    "effective_window": effective_window,
    "measure_latency": measure_latency,
    "save": save_and_load,
    "load": open_file,
    "export_onnx": export_onnx,
    "export_nir": export_nir,
    "event_cost": event_cost,
    "hoplens analyze": analyze_command,
    "hoplens report": report_command,
    "hoplens explain": explain_command,
    "hoplens export onnx": onnx_command,
    "hoplens export nir": nir_command,
    "hoplens compress": compress_command,
    "functions of a graph": graph_functions,
}
