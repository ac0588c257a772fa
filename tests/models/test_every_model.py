"""Whatever the library takes or returns as a model, every function that takes a model takes, and rightly."""

from __future__ import annotations

import copy
import inspect
import re

import pytest
import torch
from model_columns import COLUMNS, GRAPH_FUNCTIONS, X, close, takes
from model_kinds import CORES, HEAD, NAMES, OWN, H, I, O, Own, Whole, drawn, ends, kinds
from size import FULL
from torch import nn

import hoplens as hl
from hoplens.cli import app as cli
from hoplens.models.initial import create_ensemble
from hoplens.studies.compression import candidates
from hoplens.studies.testing import check_reader

ort = pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
    pytest.mark.filterwarnings("ignore:nothing was pruned"),
]
ALL = pytest.mark.parametrize("name", NAMES)

# Cells in which a call is refused: columns, rows, words of the one line. Every other cell must be right.
PATHS = tuple(name for name in NAMES if name.startswith(("saved", "bare")))
TWO_WAYS = tuple(name for name in NAMES if "both ways" in name)
BY_HAND = ("own cell", "Stack", "Cell")  # cells without torch's module and nn.Linear: read, but not remade
NO_NIR = ("tanh", "relu", "no bias")  # without leak a spiking unit cannot smooth
GATED = tuple(
    name
    for name in NAMES
    if (
        name.endswith(("gru", "lstm", "projected", "deep", "safetensors", "truncated", "Quantised"))
        and "mingru" not in name
    )
    or name in ("RecurrentModel", "Pruned", "masks held", "Reduced", "ragged", "Stack", "Cell")
    or name == "module of core and head"
)
REMAKE = ("prune", "quantise", "truncate", "effective_window", "measure_latency", "save")
SMALLER = ("reduce", "remove_units")
COMMANDS = tuple(name for name in COLUMNS if name.startswith("hoplens "))
OBJECTS = tuple(name for name in NAMES if name not in PATHS)
NO_FILE = r"core must be|nn\.Linear that follows"
# cells of the registry that lack weights of torch's names say so
LACKING = {
    part: tuple(kind for kind, module in OWN.items() if not hasattr(module(I, H), f"{part}_l0"))
    for part in ("weight_ih", "weight_hh")
}
HIDDEN = tuple(kind for kind, module in OWN.items() if module(I, H).to_hoplens().emission() is not None)
REFUSED = (
    (("prune", *SMALLER), LACKING["weight_hh"], "weights weight_hh of a core"),
    (("hoplens compress",), tuple(f"saved {n}" for n in LACKING["weight_hh"]), "weights weight_hh of a core"),
    (("quantise",), LACKING["weight_ih"], "weights weight_ih of a core"),
    (("event_cost",), HIDDEN, "not what it shows"),
    (("export_nir", "hoplens export nir"), (*OWN, *(f"saved {kind}" for kind in OWN)), "no gates"),
    ((*REMAKE, *SMALLER), BY_HAND, NO_FILE),
    (
        (*REMAKE, *SMALLER, "trajectory_maps", "interactions", "fixed_points"),
        PATHS,
        "open it with hoplens.load",
    ),
    (("export_onnx", "export_nir", "event_cost", "step_by_step"), PATHS, "open it with hoplens.load"),
    (("export_int8",), tuple(name for name in NAMES if name != "Quantised"), "hl.quantise returns"),
    (("load",), OBJECTS, "expected a path"),
    (("fixed_points", "event_cost"), TWO_WAYS, "forward"),
    (("step_by_step",), TWO_WAYS, "reads the future"),
    (("step_by_step",), ("truncated",), "no single step"),
    (("export_onnx", "export_nir", "event_cost"), ("own cell",), "can be exported"),
    (("export_nir", "hoplens export nir"), GATED, "no gates|runs forward in time"),
    (("export_nir", "hoplens export nir"), TWO_WAYS, "no gates|runs forward in time"),
    (("export_nir", "hoplens export nir"), (*NO_NIR, *(f"saved {n}" for n in NO_NIR)), "the spiking network"),
    (("export_nir", "hoplens export nir"), tuple(f"bare {n}" for n in NO_NIR), "the spiking network"),
    (("reduce",), ("projected", "deep", *TWO_WAYS), "for one layer that runs forward"),
    (("remove_units",), ("projected", "saved projected", "bare projected"), "proj_size"),
    (("remove_units",), ("deep", *TWO_WAYS), "layer"),
)


def said_to_be_refused(column, name):
    return [words for columns, names, words in REFUSED if column in columns and name in names]


@pytest.fixture
def few(monkeypatch):
    """A few candidates of `hoplens compress`, so that a cell takes a second."""
    monkeypatch.setattr(candidates, "UNITS", (0.5,))
    monkeypatch.setattr(candidates, "WEIGHTS", (0.8,))
    monkeypatch.setattr(candidates, "FORMS", ("float32", "int8"))


@pytest.mark.parametrize("column", COLUMNS)
def test_every_cell_is_right_or_refused_in_one_line(column, tmp_path, few):
    pytest.importorskip("nir")
    wrong = []
    for number, (name, kind) in enumerate(kinds(tmp_path).items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        if column == "hoplens compress" and not FULL and number % 3:
            continue  # every candidate is trained and measured
        if column in COMMANDS and not kind.is_file:
            continue  # commands take files; as a file of `save_model` the row is in the column save_model
        module = kind.model if isinstance(kind.model, nn.Module) else None
        before = copy.deepcopy(module.state_dict()) if module is not None else {}
        said = said_to_be_refused(column, name)
        try:
            COLUMNS[column](kind, folder)
        except hl.HoplensError as error:
            text = str(error)
            if "\n" in text or not any(re.search(words, text) for words in said):
                wrong.append(f"{name}: refused: {text}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            if said:
                wrong.append(f"{name}: takes what the table says is refused")
        if any(not torch.equal(value, module.state_dict()[key]) for key, value in before.items()):
            wrong.append(f"{name}: its weights were changed")
    assert not wrong, "\n".join(wrong)


# Public functions that take a model or a file and are no columns of their own, and why.
NO_COLUMN = {
    "fidelity": "in trajectory_maps",
    "hop_maps": "of a graph in read, along data in trajectory_maps",
    "simulate_nir": "in export_nir",
    "strength_error": "of a graph and one drawn after it",
}


def test_every_function_and_command_that_takes_a_model_is_a_column():
    for name in hl.__all__:
        if not inspect.isfunction(getattr(hl, name)):
            continue
        first = takes(name)
        if name in GRAPH_FUNCTIONS or name in COLUMNS or name in NO_COLUMN:
            continue
        assert not first.startswith(("model", "net:", "path:", "quantised:", "graph:")), name
    for command in cli.app.registered_commands:
        named = command.name or command.callback.__name__
        if {"model", "source"} & set(inspect.signature(command.callback).parameters):
            assert any(f"{column} ".startswith(f"hoplens {named} ") for column in COLUMNS), named


def test_every_class_that_the_library_returns_as_a_model_is_a_row():
    rows = {type(kind.model) for kind in kinds().values()}
    # results hold models
    others = {"TrainingResult", "ScheduledPenalty"}
    for name in hl.__all__:
        value = getattr(hl, name)
        if not inspect.isclass(value) or issubclass(value, Exception) or name in others:
            continue
        fields = set(getattr(value, "__dataclass_fields__", ()))
        runs = hasattr(value, "predict") or {"model", "ensemble"} & fields or issubclass(value, nn.Module)
        if runs and not issubclass(value, hl.Penalty):
            assert any(issubclass(row, value) for row in rows), name


@ALL
def test_a_readout_beside_one_that_it_has_is_refused_everywhere(name, tmp_path):
    kind = kinds()[name]
    if kind.readout is not None or kind.is_file or name in BY_HAND:
        return
    head = nn.Linear(H, O)
    for call in (
        lambda: hl.read(kind.model, head),
        lambda: hl.analyze(kind.model, head),
        lambda: hl.explain(kind.model, X, readout=head),
        lambda: hl.prune(kind.model, 0.5, readout=head),
        lambda: hl.quantise(kind.model, readout=head),
        lambda: hl.truncate(kind.model, 3, readout=head),
        lambda: hl.compress.remove_units(kind.model, [0], readout=head),
        lambda: hl.reduce(kind.model, 2, readout=head),
        lambda: hl.effective_window(kind.model, X, 0.1, readout=head),
        lambda: hl.export.event_cost(kind.model, X, readout=head),
        lambda: hl.export_onnx(kind.model, tmp_path / "m.onnx", readout=head),
        lambda: hl.save(kind.model, tmp_path / "m.safetensors", readout=head),
        lambda: hl.export.measure_latency(kind.model, X, readout=head),
    ):
        with pytest.raises(hl.errors.ParameterError, match="own read-out"):
            call()
    # a module that hoplens does not know is differentiated as it is, and its outputs are no hidden units
    with pytest.raises(hl.HoplensError, match=r"own read-out|the readout takes 5 features"):
        hl.trajectory_maps(kind.model, X, readout=head)


@pytest.mark.parametrize("kind", CORES)
def test_integer_files_are_held_against_the_model(kind, tmp_path):
    core, head = drawn(CORES[kind]), drawn(lambda: nn.Linear(HEAD.get(kind, H), O), 1)
    if kind in LACKING["weight_ih"]:
        return  # refused: the row of its column
    quantised = hl.quantise(core, readout=head, inputs=X)
    hl.export_int8(quantised, tmp_path / "m.onnx", inputs=X)
    session = ort.InferenceSession((tmp_path / "m.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    got = torch.from_numpy(session.run(["outputs"], {"inputs": X.numpy()})[0])
    close(got, ends(core, head)(X), 0.05)


def test_a_file_of_a_mistaken_simulation_is_not_written(tmp_path, monkeypatch):
    quantised = hl.quantise(hl.LeakyRNN(I, H, 0.5), readout=nn.Linear(H, O), inputs=X)
    wrong = hl.LeakyRNN(I, H, 0.5, nonlinearity="relu").to_hoplens()
    monkeypatch.setattr("hoplens.compress.simulation.weight_levels", lambda _: [[wrong]])
    with pytest.raises(hl.errors.ExportError, match="simulation differs from the model"):
        hl.export_int8(quantised, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


class Misread(nn.Module):
    """A module whose reader says relu, and which computes tanh."""

    batch_first = True

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(I, H, batch_first=True)

    def forward(self, x):
        return self.rnn(x)

    def to_hoplens(self):
        own = self.rnn
        parts = (own.weight_ih_l0, own.weight_hh_l0, own.bias_ih_l0, own.bias_hh_l0)
        return hl.models.RnnCell(*parts, nonlinearity="linear")


@pytest.mark.parametrize("export", ["onnx", "nir"])
def test_exports_are_compared_with_the_module_and_not_with_what_was_read_of_it(export, tmp_path):
    model, head = drawn(Misread), drawn(lambda: nn.Linear(H, O), 1)
    if export == "nir":
        pytest.importorskip("nir")
    write = {
        "onnx": lambda: hl.export_onnx(model, tmp_path / "m.onnx", readout=head),
        "nir": lambda: hl.export_nir(model, tmp_path / "m.nir", readout=head),
    }
    with pytest.raises(hl.errors.ExportError, match="differs from"):
        write[export]()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("leak", [1.0, 0.4])
def test_linear_networks_become_exact_neuromorphic_files(leak, tmp_path):
    pytest.importorskip("nir")
    core, head = (
        drawn(lambda: hl.LeakyRNN(I, H, leak, nonlinearity="linear")),
        drawn(lambda: nn.Linear(H, O), 1),
    )
    done = hl.export_nir(core, tmp_path / "m.nir", readout=head)
    assert done.form == "exact"
    found = hl.export.simulate_nir(tmp_path / "m.nir", X, dt=done.dt)[:, -1]
    close(found.float(), ends(core, head)(X))


def test_units_that_are_none_are_refused():
    with pytest.raises(hl.errors.UnknownNameError, match="unknown nonlinearity 'gelu'"):
        hl.LeakyRNN(I, H, 0.5, nonlinearity="gelu")
    with pytest.raises(hl.errors.ParameterError, match="hidden_size"):
        hl.LeakyRNN(I, 0, 0.5)
    core = hl.LeakyRNN(I, H, 0.5)
    core.nonlinearity = "gelu"  # set afterwards
    with pytest.raises(hl.errors.UnknownNameError, match="gelu"):
        hl.quantise(core, readout=nn.Linear(H, O), inputs=X)


@pytest.mark.parametrize("more", ["mean", "relu"])
def test_a_module_that_does_more_than_its_core_and_head_is_not_misread(more):
    whole = drawn(lambda: Whole(nn.GRU(I, H, batch_first=True), more))
    for call in (
        lambda: hl.read(whole),
        lambda: hl.explain(whole, X),
        lambda: hl.prune(whole, 0.5),
        lambda: hl.analyze(whole, inputs=X),
    ):
        with pytest.raises(hl.errors.UnsupportedModelError, match=r"something else than.*model\.rnn"):
            call()
    maps = hl.trajectory_maps(whole, X)  # any module can be followed by autograd
    assert maps.values.shape == (4, 6, O, I)


def test_a_module_that_reads_out_after_every_step_is_known_as_such():
    whole = drawn(lambda: Whole(nn.GRU(I, H, batch_first=True), "every step"))
    made = hl.prune(whole, 0.0).model
    assert made.info.every_step
    with torch.no_grad():
        close(made(X), whole(X))


class Loud(nn.GRU):
    def forward(self, x, state=None):
        states, last = super().forward(x, state)
        return states * 2, last


def test_a_subclass_that_runs_another_way_is_not_misread():
    with pytest.raises(hl.errors.UnsupportedModelError, match="a forward of its own"):
        hl.read(drawn(lambda: Loud(I, H, batch_first=True)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv1d(6, 4, 1),
        lambda: nn.Conv1d(3, 4, 3),
        lambda: nn.MultiheadAttention(3, 1),
        lambda: nn.TransformerEncoderLayer(3, 1, 4),
        lambda: nn.Transformer(4, 2, 1, 1, 8, batch_first=True),
        lambda: nn.Linear(3, 2),
        lambda: nn.Embedding(3, 2),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 2)),
        lambda: nn.Identity(),
        lambda: nn.LSTM,
        lambda: object(),
        lambda: None,
        lambda: "no such file.pt",
        lambda: 3,
    ],
)
def test_what_is_not_recurrent_is_refused_in_one_line(make):
    model = make()
    for call in (
        lambda: hl.read(model),
        lambda: hl.analyze(model),
        lambda: hl.explain(model, X),
        lambda: hl.dynamics.fixed_points(model),
        lambda: hl.prune(model, 0.5),
        lambda: hl.quantise(model),
        lambda: hl.export.event_cost(model, X),
        lambda: hl.hop_maps(model, 3),
    ):
        with pytest.raises(hl.HoplensError) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv1d(6, 4, 1), lambda: nn.MultiheadAttention(3, 1), nn.Embedding]
)
def test_layers_over_other_axes_are_not_followed(make):
    model = make(3, 2) if make is nn.Embedding else make()
    with pytest.raises(hl.errors.UnsupportedModelError):
        hl.trajectory_maps(model, X)


def test_samples_that_depend_on_each_other_are_not_followed():
    mixer = drawn(lambda: nn.GRU(I, H))  # time first: run on (B, L, I) it takes sequences for steps
    with pytest.raises(hl.errors.UnsupportedModelError, match="another output alone"):
        hl.trajectory_maps(lambda x: mixer(x)[0], X)


def test_ensembles_of_several_networks_are_refused_in_one_line_and_compared_by_identity():
    several = create_ensemble([0, 1], ["gaussian"] * 2, n_inputs=I, hidden=H, n_outputs=O, length=4)
    assert several == several
    assert several != several.clone()
    assert hl.read(several).batch_shape == (2,)
    for call in (
        lambda: hl.explain(several, X),
        lambda: hl.trajectory_maps(several, X),
        lambda: hl.quantise(several),
        lambda: hl.dynamics.fixed_points(several),
    ):
        with pytest.raises(hl.errors.ParameterError, match="ensemble of 2"):
            call()


def test_a_reader_of_ones_own_runs_in_any_precision():
    own, head = drawn(Own), drawn(lambda: nn.Linear(H, O), 1)
    x = X.double()
    maps = hl.trajectory_maps(own, x, readout=head)
    assert hl.analyze(own, head, inputs=x, horizon=4).fidelity is not None
    why = hl.explain(own, x, readout=head, tolerance=1e-9)
    assert float(why.gap.abs().max()) < 1e-9
    double, twin = copy.deepcopy(own).double(), copy.deepcopy(head).double()
    exact = hl.trajectory_maps(double, X, readout=twin)
    assert exact.values.dtype == torch.float64
    close(maps.values.double(), exact.values, 1e-5)
    wide = hl.read(double, twin).detach()
    assert wide.w_rec.dtype == torch.float64
    close(hl.read(own, head).detach().w_rec.double(), wide.w_rec, 1e-6)
    promoted, plain = (hl.dynamics.fixed_points(m, n=3).states for m in (own, double))
    close(promoted, plain, 1e-9)


def test_a_reader_is_compared_with_the_module_itself():
    rnn, head = drawn(lambda: nn.GRU(I, H, batch_first=True)), drawn(lambda: nn.Linear(H, O), 1)
    model = hl.RecurrentModel(rnn, head)
    check_reader(model, inputs=X, forward=model)
    check_reader(model, inputs=X, forward=lambda x: model(x))

    class Runs(Own):
        def forward(self, x):
            state = x.new_zeros(len(x), H)
            for part in x.unbind(1):
                state = self.step(state, part)
            return state

    own = drawn(Runs)
    check_reader(own, inputs=X, forward=own)
    check_reader(own, inputs=X, forward=lambda x: own(x))
    wrong = drawn(Misread)
    with pytest.raises(hl.errors.ContractError, match="do not compute"):
        check_reader(wrong, inputs=X, forward=wrong)


def test_a_module_that_clamps_large_inputs_is_not_misread():
    class Clamps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.RNN(I, H, batch_first=True, nonlinearity="relu"), nn.Linear(H, O)

        def forward(self, x):
            return self.fc(self.rnn(x.clamp(-5, 5))[0][:, -1])

    with pytest.raises(hl.errors.UnsupportedModelError, match="Clamps"):
        hl.read(Clamps())
