"""Models with their read-out: run, save, load, refuse."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import hoplens as hl
from hoplens.models.cells import LeakyRNN
from hoplens.models.readers.saved import KEY, load_model, save_model
from hoplens.models.recurrent_model import ModelInfo, RecurrentModel


def cores():
    torch.manual_seed(0)
    return [
        nn.RNN(3, 5, batch_first=True, nonlinearity="relu"),
        nn.GRU(3, 5, num_layers=2, batch_first=True, bias=False),
        nn.LSTM(3, 5, batch_first=True, proj_size=4, bidirectional=True),
        LeakyRNN(3, 5, 0.3),
    ]


def model_of(core, **info):
    width = getattr(core, "proj_size", 0) or 5
    return RecurrentModel(core, nn.Linear(width * (2 if core.bidirectional else 1), 2), ModelInfo(**info))


@pytest.mark.parametrize("core", cores(), ids=lambda core: type(core).__name__)
def test_saved_model_comes_back_with_its_outputs_and_description(core, tmp_path):
    model = model_of(core, every_step=True, input_names=("a", "b", "c"), input_scale=(1.0, 2.0, 0.5)).double()
    inputs = torch.randn(4, 6, 3, dtype=torch.float64)
    before = torch.random.get_rng_state()
    back = load_model(save_model(model, tmp_path / "model.safetensors"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(back(inputs), model(inputs))
    assert back.info == model.info


def test_lengths_read_out_after_the_last_valid_step():
    model = model_of(nn.GRU(3, 5, batch_first=True))
    inputs = torch.randn(2, 6, 3)
    found = model(inputs, torch.tensor([4, 6]))
    torch.testing.assert_close(found[0], model(inputs[:1, :4])[0])
    torch.testing.assert_close(found[1], model(inputs[1:])[0])


def test_leaky_rnn_follows_its_equation_and_is_read():
    core = LeakyRNN(2, 3, 0.25).double()
    x = torch.randn(1, 2, 2, dtype=torch.float64)
    h = torch.zeros(3, dtype=torch.float64)
    for t in range(2):
        z = core.weight_hh_l0 @ h + core.weight_ih_l0 @ x[0, t] + core.bias_ih_l0 + core.bias_hh_l0
        h = 0.75 * h + 0.25 * z.tanh()
    torch.testing.assert_close(core(x)[0][0, -1], h)
    net = hl.read(core)
    torch.testing.assert_close(net.w_rec, 0.75 * torch.eye(3, dtype=torch.float64) + 0.25 * core.weight_hh_l0)


def test_unfit_parts_are_refused():
    with pytest.raises(hl.errors.UnsupportedModelError, match="batch_first"):
        RecurrentModel(nn.RNN(3, 5), nn.Linear(5, 2))
    with pytest.raises(hl.errors.ShapeError, match="takes 4 units"):
        RecurrentModel(nn.RNN(3, 5, batch_first=True), nn.Linear(4, 2))
    with pytest.raises(hl.errors.ShapeError, match="I = 3"):
        model_of(nn.RNN(3, 5, batch_first=True))(torch.zeros(1, 4, 2))
    both_ways = model_of(nn.RNN(3, 5, batch_first=True, bidirectional=True))
    with pytest.raises(hl.errors.UnsupportedModelError, match="one way"):
        both_ways(torch.zeros(1, 4, 3), torch.tensor([3]))


def test_files_that_are_no_models_are_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(hl.errors.FileError, match="no file"):
        load_model(file)
    save_model(model_of(nn.RNN(3, 5, batch_first=True)), file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(hl.errors.FileError, match="cannot read"):
        load_model(file)
    save_file({"w": torch.zeros(2)}, file)
    with pytest.raises(hl.errors.FileError, match="without a description"):
        load_model(file)
    save_file({"w": torch.zeros(2)}, file, metadata={KEY: json.dumps({"format": 99})})
    with pytest.raises(hl.errors.FileError, match="format 99"):
        load_model(file)
    save_file({"w": torch.zeros(2)}, file, metadata={KEY: json.dumps({"format": 1, "core": "rnn"})})
    with pytest.raises(hl.errors.FileError, match="does not describe"):
        load_model(file)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("form", ["int8", "int4", "ternary"])
@pytest.mark.parametrize("core", cores(), ids=lambda core: type(core).__name__)
def test_quantised_models_are_saved_in_few_bits(core, form, tmp_path):
    quantised = hl.quantise(model_of(core), form)
    back = load_model(save_model(quantised, tmp_path / "model.safetensors"))
    inputs = torch.randn(4, 6, 3)
    assert torch.equal(back(inputs), quantised.model(inputs))


def test_few_bits_make_small_files_and_damaged_ones_are_refused(tmp_path):
    model = RecurrentModel(nn.GRU(8, 64, batch_first=True), nn.Linear(64, 10))
    whole = save_model(model, tmp_path / "m.safetensors").stat().st_size
    file = save_model(hl.quantise(model, "int4"), tmp_path / "q.safetensors")
    assert file.stat().st_size < 0.25 * whole
    content = file.read_bytes()
    file.write_bytes(content.replace(b'\\"int4\\"', b'\\"int9\\"'))
    with pytest.raises(hl.errors.FileError, match="does not describe"):
        load_model(file)
