"""Whatever a module, a file or an input holds: an answer, or one line of the library's own."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from size import few
from torch import nn
from torch.nn.utils import prune

import hoplens as hl
from hoplens.models.readers.saved import KEY
from hoplens.models.recurrent_model import describe_model

X = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
HEAD = nn.Linear(4, 2)
SCRATCH = Path(tempfile.mkdtemp())
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int8,
    torch.int64,
    torch.bool,
    torch.complex64,
]
KINDS = {"rnn": (nn.RNN, 1), "gru": (nn.GRU, 3), "lstm": (nn.LSTM, 4)}

MODELS = {
    "read": lambda m, h, x: hl.read(m, h),
    "origin": lambda m, h, x: hl.read(m, h, at="origin"),
    "analyze": lambda m, h, x: hl.analyze(m, h, inputs=x, horizon=2),
    "explain": lambda m, h, x: hl.explain(m, x, readout=h, method="secant"),
    "trajectory_maps": lambda m, h, x: hl.trajectory_maps(m, x, readout=h),
    "fixed_points": lambda m, h, x: hl.dynamics.fixed_points(m, n=1),
    "hop_maps": lambda m, h, x: hl.hop_maps(m, 2),
    "spectral_radius": lambda m, h, x: hl.spectral_radius(m),
    "event_cost": lambda m, h, x: hl.export.event_cost(m, x, readout=h),
    "export_onnx": lambda m, h, x: hl.export_onnx(m, SCRATCH / "m.onnx", readout=h, inputs=x),
    "prune": lambda m, h, x: hl.prune(m, 0.5, readout=h, inputs=x),
    "quantise": lambda m, h, x: hl.quantise(m, readout=h, inputs=x),
    "reduce": lambda m, h, x: hl.reduce(m, 2, readout=h, inputs=x),
    "window": lambda m, h, x: hl.effective_window(m, x, 0.1, readout=h),
    "remove_units": lambda m, h, x: hl.compress.remove_units(m, [0], readout=h),
    "save_model": lambda m, h, x: hl.save(m, SCRATCH / "m.safetensors", readout=h),
    "latency": lambda m, h, x: hl.export.measure_latency(m, x, readout=h, runtimes=("eager",), seconds=1e-9),
}


def only_own_errors(call, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = "an answer"
        try:
            call(*arguments)
        except hl.HoplensError as error:
            said = str(error)
    assert said
    assert "\n" not in said


@st.composite
def tensors(draw, right=()):
    """A tensor that may be anything: shape, dtype, layout, device, values."""
    shape = draw(st.one_of(st.just(right), st.lists(st.integers(0, 5), max_size=4).map(tuple)))
    value = draw(st.sampled_from([0.5, 0.0, float("nan"), float("inf"), 1e30, -3.0]))
    dtype = draw(st.sampled_from(DTYPES))
    made = torch.full(shape, value, dtype=torch.float64)
    if not dtype.is_floating_point and not dtype.is_complex:
        made = made.nan_to_num(1.0, 1.0, -1.0).clamp(-3, 3)
    made = made.to(dtype)
    layout = draw(st.sampled_from(["dense", "dense", "dense", "sparse", "csr", "meta", "view"]))
    try:
        if layout == "sparse":
            return made.to_sparse()
        if layout == "csr":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return made.to_sparse_csr()
        if layout == "meta":
            return made.to("meta")
        return made.mT if layout == "view" and made.dim() > 1 else made
    except (RuntimeError, IndexError):
        return made  # a layout that torch does not have for this tensor


@st.composite
def modules(draw):
    """A module of torch with one tensor of it replaced."""
    make, _ = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make(3, 4, batch_first=True)
    names = sorted(module._parameters)
    change = draw(st.sampled_from(["one", "mask", "gone", "device", "dtype"]))
    name = draw(st.sampled_from(names))
    old = module._parameters[name]
    if change == "one":
        new = draw(tensors(tuple(old.shape)))
        module._parameters[name] = nn.Parameter(new, requires_grad=False)
    elif change == "mask":
        prune.identity(module, name)
        module._buffers[f"{name}_mask"] = draw(tensors(tuple(old.shape)))
    elif change == "gone":
        module._parameters[name] = None
    elif change == "device":
        module = module.to("meta")
    else:
        module = module.to(draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float64])))
    return module


QUICK = settings(max_examples=few(12), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", MODELS)
@given(module=modules())
@QUICK
def test_odd_modules(name, module):
    only_own_errors(MODELS[name], module, HEAD, X)


@pytest.mark.parametrize("name", MODELS)
@given(weight=tensors((2, 4)), bias=tensors((2,)), which=st.sampled_from(["weight", "bias", "matrix"]))
@settings(QUICK, max_examples=8)
def test_odd_readouts(name, weight, bias, which):
    head = nn.Linear(4, 2)
    if which == "matrix":
        head = weight
    else:
        odd = weight if which == "weight" else bias
        head._parameters[which] = nn.Parameter(odd, requires_grad=False)
    with torch.random.fork_rng():
        only_own_errors(MODELS[name], nn.GRU(3, 4, batch_first=True), head, X)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"read", "origin", "hop_maps", "spectral_radius"}))
@given(
    inputs=st.one_of(tensors((2, 4, 3)), st.sampled_from([None, "text", [[1]], object(), 3, [[[1, 2, 3]]]]))
)
@settings(QUICK, max_examples=8)
def test_odd_inputs(name, inputs):
    with torch.random.fork_rng():
        core = nn.GRU(3, 4, batch_first=True)
    only_own_errors(MODELS[name], core, HEAD, inputs)
    only_own_errors(hl.RecurrentModel(core, nn.Linear(4, 2)), inputs)


@given(
    lengths=st.one_of(
        tensors((2,)), st.sampled_from(["ab", [1, 9], [0, 1], [1.5, 2], object(), 3, [1, 2, 3]])
    )
)
@QUICK
def test_odd_lengths(lengths):
    model = hl.RecurrentModel(nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2))
    only_own_errors(model, X, lengths)
    only_own_errors(lambda: hl.quantise(model, inputs=X, lengths=lengths))
    only_own_errors(lambda: hl.effective_window(model, X, 0.1, lengths=lengths))


@st.composite
def states(draw):
    """A state dict of a recurrent network and a read-out with up to two entries changed, lost or added."""
    make, _ = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    with torch.random.fork_rng():
        net = nn.ModuleDict({"rnn": make(3, 4), "out": nn.Linear(4, 2)})
    state = {key: value.clone() for key, value in net.state_dict().items()}
    for _ in range(draw(st.integers(0, 2))):
        key = draw(
            st.sampled_from([*sorted(state), "rnn.weight_hh_l0_mask", "rnn.weight_hh_l1", "rnn.weight_hr_l0"])
        )
        change = draw(st.sampled_from(["tensor", "lost", "masked", "value"]))
        if change == "lost":
            state.pop(key, None)
        elif change == "masked" and isinstance(state.get(key), torch.Tensor):
            state[f"{key}_orig"] = state.pop(key)
            state[f"{key}_mask"] = draw(tensors(tuple(state[f"{key}_orig"].shape)))
        elif change == "tensor":
            old = state.get(key)
            state[key] = draw(tensors(tuple(old.shape) if isinstance(old, torch.Tensor) else ()))
        else:
            state[key] = draw(st.sampled_from([None, 3, "text", [1, 2]]))
    return state


FILES = {
    "read": lambda f: hl.read(f),
    "read_model": lambda f: hl.load(f),
    "load_model": lambda f: hl.load(f),
    "load_stack": lambda f: hl.models.load_stack(f),
    "analyze": lambda f: hl.analyze(f, inputs=X, horizon=2),
    "explain": lambda f: hl.explain(f, X, method="secant"),
}


@pytest.mark.parametrize("name", FILES)
@given(state=states(), kind=st.sampled_from(["torch", "safetensors"]))
@QUICK
def test_odd_files(name, state, kind):
    file = SCRATCH / "odd.file"
    if kind == "torch":
        torch.save(state, file)
    else:
        dense = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and not v.is_meta}
        try:
            save_file({k: v.contiguous() for k, v in dense.items()}, file)
        except (ValueError, RuntimeError, KeyError, NotImplementedError):
            return  # nothing that safetensors can hold
    only_own_errors(FILES[name], file)


TOLD = sorted(describe_model(hl.RecurrentModel(nn.GRU(3, 4, batch_first=True), HEAD)))
DESCRIBED = st.one_of(
    st.none(),
    st.integers(-2, 10**12),
    st.text(max_size=3),
    st.floats(),
    st.booleans(),
    st.lists(st.integers()),
)


@given(
    key=st.sampled_from([*TOLD, "packed"]),
    value=DESCRIBED,
    core=st.sampled_from(["rnn", "leaky"]),
)
@settings(QUICK, max_examples=few(60))
def test_odd_descriptions(key, value, core):
    made = nn.RNN(3, 4, batch_first=True) if core == "rnn" else hl.LeakyRNN(3, 4, 0.5)
    hl.save(hl.RecurrentModel(made, nn.Linear(4, 2)), SCRATCH / "good.safetensors")
    with safe_open(SCRATCH / "good.safetensors", "pt") as opened:
        told = json.loads(opened.metadata()[KEY])
    told[key] = value
    save_file(load_file(SCRATCH / "good.safetensors"), SCRATCH / "odd.st", metadata={KEY: json.dumps(told)})
    for call in (hl.load, hl.load, hl.read):
        only_own_errors(call, SCRATCH / "odd.st")


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3)])
def test_no_sequences_and_no_steps_are_called_what_they_are(shape):
    model = hl.RecurrentModel(nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2))
    for call in (
        model,
        lambda x: hl.explain(model, x),
        lambda x: hl.trajectory_maps(model, x),
        lambda x: hl.quantise(model, inputs=x),
        lambda x: hl.prune(model, 0.5, inputs=x),
        lambda x: hl.export.event_cost(model, x),
        lambda x: hl.export.measure_latency(model, x),
        lambda x: hl.export_onnx(model, SCRATCH / "m.onnx", inputs=x),
    ):
        with pytest.raises(hl.errors.ShapeError, match="at least one sequence of at least one step"):
            call(torch.zeros(shape))


@pytest.mark.parametrize(
    "targets",
    [
        torch.full((6, 2), math.nan),
        torch.zeros(6, 2, dtype=torch.complex64),
        torch.zeros(6, dtype=torch.bool),
        torch.zeros(5, 2),
        torch.zeros(6, 3),
        torch.zeros(0),
        torch.tensor(1.0),
        torch.full((6,), 2),
        torch.zeros(6, 2, device="meta"),
        torch.zeros(6, 2).to_sparse(),
        "targets",
        None,
    ],
    ids=str,
)
def test_odd_targets_are_refused_in_one_line(targets):
    model = hl.RecurrentModel(nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2))
    x = torch.randn(6, 5, 3)
    calls = [
        lambda: hl.prune(model, 0.5, by="taylor", inputs=x, targets=targets),
        lambda: hl.prune(model, 0.5, inputs=x, targets=targets, steps=2),
        lambda: hl.quantise(model, "int8", inputs=x, targets=targets, steps=2),
    ]
    for call in calls:
        if targets is None and call in (calls[1], calls[2]):
            continue  # then the model's own outputs are the targets
        with pytest.raises(hl.HoplensError, match=r"targets|classes"):
            call()
