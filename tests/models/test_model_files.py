"""Model files from outside: bare weights are built up, anything else is refused in one line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import hoplens as hl


@pytest.fixture(autouse=True)
def _own_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


CORES = {
    "rnn": lambda: nn.RNN(3, 5, 2, batch_first=True, bias=False),
    "relu": lambda: nn.RNN(3, 5, batch_first=True, nonlinearity="relu"),
    "gru": lambda: nn.GRU(3, 5, 2, batch_first=True, bidirectional=True),
    "lstm": lambda: nn.LSTM(3, 5, batch_first=True),
    "projected": lambda: nn.LSTM(3, 6, 2, batch_first=True, proj_size=4),
}


def net_of(kind):
    core = CORES[kind]()
    width = (getattr(core, "proj_size", 0) or core.hidden_size) * (2 if core.bidirectional else 1)
    return nn.ModuleDict({"encoder": core, "head": nn.Linear(width, 2, bias=kind != "lstm")})


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", CORES)
def test_bare_weights_run_as_the_module_did(kind, suffix, tmp_path):
    net = net_of(kind)
    file = tmp_path / f"net{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(net.state_dict(), file)
    numbers = torch.random.get_rng_state()
    model = hl.load(file, nonlinearity="relu" if kind == "relu" else None)
    assert torch.equal(torch.random.get_rng_state(), numbers)
    x = torch.randn(4, 6, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(x), net["head"](net["encoder"](x)[0][:, -1]))
        every = hl.load(file, nonlinearity="relu" if kind == "relu" else None, every_step=True)
        torch.testing.assert_close(every(x), net["head"](net["encoder"](x)[0]))


def test_cells_masks_and_prefixes(tmp_path):
    net = nn.ModuleDict({"cell": nn.GRUCell(3, 5), "a": nn.Linear(5, 2), "b": nn.Linear(5, 4)})
    prune.l1_unstructured(net["cell"], "weight_hh", 0.5)
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "net.pt")
    with pytest.raises(hl.errors.ParameterError, match="readout= must name one of: a, b"):
        hl.load(tmp_path / "net.pt")
    model = hl.load(tmp_path / "net.pt", readout="b")
    assert model.n_outputs == 4
    assert torch.equal(model.core.weight_hh_l0 == 0, net["cell"].weight_hh_mask == 0)
    x, state = torch.randn(2, 4, 3), None
    with torch.no_grad():
        for t in range(4):
            state = net["cell"](x[:, t], state)
        torch.testing.assert_close(model(x), net["b"](state))


def test_described_files_are_loaded_as_such(tmp_path):
    model = hl.RecurrentModel(hl.LeakyRNN(3, 5, 0.2), nn.Linear(5, 2), hl.ModelInfo(window=3))
    file = hl.save(model, tmp_path / "m.safetensors")
    assert hl.load(file).info == model.info
    with pytest.raises(hl.errors.ParameterError, match="says what it holds"):
        hl.load(file, rnn="core")


class Evil:
    def __reduce__(self):
        return print, ("ran code",)


def test_files_that_are_none_are_refused_in_one_line(tmp_path, capsys):
    file = tmp_path / "net.pt"
    net = net_of("gru")
    state = net.state_dict()

    def damaged():
        torch.save(state, file)
        return file.write_bytes(file.read_bytes()[:-300])

    head, encoder = net["head"].state_dict(), net["encoder"].state_dict()
    cases = [
        (lambda: None, hl.errors.FileError, "no file"),
        (lambda: torch.save({"w": Evil()}, file), hl.errors.FileError, "could run code"),
        (damaged, hl.errors.FileError, "cannot read"),
        (lambda: file.write_bytes(b""), hl.errors.FileError, "cannot read"),
        (
            lambda: torch.save(head, file),
            hl.errors.UnsupportedModelError,
            "no recurrent weights",
        ),
        (lambda: torch.save(encoder, file), hl.errors.UnsupportedModelError, "no linear layer"),
        (
            lambda: torch.save({**state, "encoder.weight_ih_l1": torch.zeros(15, 3)}, file),
            hl.HoplensError,
            "fit|must be followed",
        ),
        (
            lambda: torch.save({k: v for k, v in state.items() if k != "encoder.bias_hh_l1"}, file),
            hl.errors.FileError,
            "do not fit together",
        ),
    ]
    for write, raised, says in cases:
        write()
        with pytest.raises(raised, match=says) as caught:
            hl.load(file)
        assert "\n" not in str(caught.value)
    assert "ran code" not in capsys.readouterr().out


def test_what_compressing_returns_is_a_model_that_chains_saves_and_loads(tmp_path):
    model = hl.RecurrentModel(nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)).eval()
    x = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    small = hl.prune(model, 0.5, inputs=x)
    few = hl.quantise(hl.reduce(small, 5, inputs=x), "int4", inputs=x)
    for made in (small, few):
        assert len(repr(made)) < 200
        back = hl.load(hl.save(made, tmp_path / "m.safetensors"))
        torch.testing.assert_close(back(x), made(x))
        assert hl.read(made, at="origin").n_hidden == hl.read(back, at="origin").n_hidden
        assert hl.explain(made, x).values.shape == x.shape


def test_load_finds_out_what_a_file_holds(tmp_path):
    task = hl.tasks.make("averaging", modules=2, module_size=2, length=3)
    result = hl.train(task, hl.recipes.none(), hidden=4, steps=2)
    back = hl.load(hl.save(result, tmp_path / "r.safetensors"))
    assert isinstance(back, hl.TrainingResult)
    assert torch.equal(back.ensemble.weight, result.ensemble.weight)
