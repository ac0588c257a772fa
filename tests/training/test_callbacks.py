"""Callbacks record what `hop_maps` says at each step, and change nothing."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import hoplens as hl
from hoplens.plots.films import map_image
from hoplens.training.callbacks import Callback


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.rnn, self.head = nn.RNN(2, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(16, 5, 2, generator=torch.Generator().manual_seed(seed))
    return x, x[:, 2]


def fit(net: Net, callback: Callback, steps: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(steps):
        x, y = data(step)
        loss = (net(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        callback.on_step(step, net, loss)


def test_records_what_the_library_says():
    net, penalty = Net(), hl.PathwayPenalty(5)
    states, losses = {}, {}

    class Keep:
        def on_step(self, step, model, loss):
            states[step], losses[step] = copy.deepcopy(model.state_dict()), float(loss.detach())
            logger.on_step(step, model, loss)

    logger = hl.callbacks.HopLogger(5, every=3, penalty=penalty)
    fit(net, Keep(), 8)
    assert [record.step for record in logger.records] == [0, 3, 6]
    for record in logger.records:
        old = Net()
        old.load_state_dict(states[record.step])
        graph = hl.read(old.rnn, readout=old.head).detach().to(torch.float64)
        wanted = hl.hop_maps(graph, 5)
        assert torch.equal(record.maps.values, wanted.values)
        assert record.active_hops == float(hl.active_hops(wanted).double().mean())
        assert record.penalty == float(penalty(graph))
        assert record.loss == losses[record.step]
    frame = logger.to_dataframe()
    assert list(frame["step"]) == [0, 3, 6]
    hops = frame[[f"hop_{k}" for k in range(2, 7)]]
    np.testing.assert_allclose(hops.sum(axis=1), frame["mass"])
    np.testing.assert_allclose(hops.iloc[2], logger.records[2].maps.values.abs().sum((1, 2)))


def test_training_is_the_same_with_and_without():
    with_logger, without = Net(), Net()
    fit(with_logger, hl.callbacks.HopLogger(5, every=1, penalty=hl.PathwayPenalty(5)), 5)

    class Nothing:
        def on_step(self, step, model, loss):
            pass

    assert isinstance(Nothing(), Callback)
    fit(without, Nothing(), 5)
    for a, b in zip(with_logger.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.grad, b.grad)
    rng = torch.get_rng_state()
    hl.callbacks.HopLogger(5).on_step(0, with_logger, 1.0)
    assert torch.equal(rng, torch.get_rng_state())
    assert with_logger.training


def test_finds_the_network_or_says_how_to_name_it():
    net, logger = Net(), hl.callbacks.HopLogger(3)
    graph = hl.read(net.rnn, net.head)
    for step, same in enumerate((net, graph)):
        logger.on_step(10 * step, same, 0.0)
        assert torch.equal(logger.records[step].maps.values, hl.hop_maps(graph.to(torch.float64), 3).values)
    two = nn.ModuleList([nn.RNN(2, 3), nn.RNN(2, 3)])
    for unclear in (two, nn.ModuleList([net, nn.Linear(6, 1)])):
        with pytest.raises(
            hl.errors.UnsupportedModelError, match=r"2 (recurrent|linear).*HopLogger\(read_model="
        ):
            logger.on_step(0, unclear, 0.0)
    with pytest.raises(hl.errors.UnsupportedModelError, match="cannot read a Linear"):
        logger.on_step(0, nn.Linear(2, 2), 0.0)
    logger = hl.callbacks.HopLogger(3, read_model=lambda model: hl.read(model[1]))
    logger.on_step(0, two, 0.0)
    assert logger.records[0].maps.values.shape == (3, 3, 2)
    assert math.isnan(logger.records[0].penalty)


def test_bad_options_are_refused(tmp_path):
    for options in ({"horizon": 0}, {"horizon": 3, "every": 0}, {"horizon": 3, "threshold": 1.0}):
        with pytest.raises(hl.errors.ParameterError):
            hl.callbacks.HopLogger(**options)
    logger = hl.callbacks.HopLogger(3)
    with pytest.raises(hl.errors.ParameterError, match="nothing was recorded"):
        logger.animate(tmp_path / "a.gif")
    ensemble = hl.Pathways(torch.ones(2, 3, 1), torch.ones(2, 3, 3), torch.ones(2, 1, 3))
    with pytest.raises(hl.errors.ShapeError, match="follows one network"):
        logger.on_step(0, ensemble, 0.0)
    logger.on_step(0, Net(), 0.0)
    with pytest.raises(hl.errors.ParameterError, match=r"writes a \.gif file, got 'a.mp4'"):
        logger.animate(tmp_path / "a.mp4")
    with pytest.raises(hl.errors.FileError):
        logger.animate(tmp_path / "nowhere" / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_animation_has_one_frame_a_record_and_changes(tmp_path):
    logger = hl.callbacks.HopLogger(5, every=1)
    fit(Net(), logger, 7)
    path = logger.animate(tmp_path / "a.gif", seconds=1.0)
    frames = []
    with Image.open(path) as film:
        assert film.n_frames == 7
        for n in range(7):
            film.seek(n)
            frames.append(np.asarray(film.convert("RGB")))
    assert all(bool((a != b).any()) for a, b in pairwise(frames))
    # the bar of progress: its dark part grows from frame to frame
    low = frames[0].shape[0] * 9 // 10
    dark = [int((frame[low:].sum(-1) < 150).sum()) for frame in frames]
    assert dark == sorted(dark)
    assert dark[-1] > dark[1] > dark[0]
    with Image.open(logger.animate(tmp_path / "b.gif", frames=3)) as short:
        assert short.n_frames == 3
    assert logger.animate(tmp_path / "c.gif", seconds=1.0).read_bytes() == path.read_bytes()


def test_small_images_show_signs():
    graph = hl.Pathways(torch.eye(2), torch.zeros(2, 2), torch.tensor([[1.0, -1.0]]))
    maps = hl.hop_maps(graph, 2)
    picture = map_image(maps)
    assert picture.shape == (16, 16, 3)
    assert picture[0, 0, 0] > picture[0, 0, 2]  # positive: orange
    assert picture[0, 15, 0] < picture[0, 15, 2]  # negative: blue
    assert picture[15].min() == 255  # zero: white


def test_tensorboard_receives_maps_active_hops_and_penalty(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = hl.callbacks.TensorBoardSink(tmp_path)
    logger = hl.callbacks.HopLogger(5, every=2, penalty=hl.PathwayPenalty(5), sinks=[sink])
    fit(Net(), logger, 5)
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    active = events.Scalars("hoplens/active_hops")
    assert [event.step for event in active] == [0, 2, 4]
    np.testing.assert_allclose([event.value for event in active], [r.active_hops for r in logger.records])
    for tag, name in (("penalty", "penalty"), ("loss", "loss"), ("mass/hop_4", "hop_4")):
        values = [event.value for event in events.Scalars(f"hoplens/{tag}")]
        np.testing.assert_allclose(values, logger.to_dataframe()[name], rtol=1e-6)
    images = events.Images("hoplens/hop_maps")
    assert [(image.width, image.height) for image in images] == [(32, 40)] * 3


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about this machine
def test_lightning_feeds_the_logger(tmp_path):
    pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch, batch_idx):
            x, y = batch
            return (self.net(x) - y).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    logger = hl.callbacks.HopLogger(5, every=2)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[logger.lightning()],
        default_root_dir=tmp_path,
    )
    x, y = data()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    module = Module()
    trainer.fit(module, loader)
    assert [record.step for record in logger.records] == [2, 4, 6, 8]
    final = hl.hop_maps(hl.read(module.net.rnn, readout=module.net.head).detach().to(torch.float64), 5)
    assert torch.equal(logger.records[-1].maps.values, final.values)
    assert all(math.isfinite(record.loss) for record in logger.records)


def test_missing_extras_are_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(hl.errors.ParameterError, match=r'pip install "hoplens\[lightning\]"'):
        hl.callbacks.HopLogger(3).lightning()
    with pytest.raises(hl.errors.ParameterError, match=r'pip install "hoplens\[tensorboard\]"'):
        hl.callbacks.TensorBoardSink("somewhere")
