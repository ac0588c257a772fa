"""The analysis as a whole: text, tables, figures, and the shipped connectome."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import scipy.sparse as sp
import torch
from torch import nn

import hoplens as hl
import hoplens.analysis.analysing
import hoplens.data.connectome
from hoplens.errors import FileError, ParameterError, ShapeError
from hoplens.reports import render_network_report


def model() -> tuple[nn.LSTM, nn.Linear]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)


def test_text_tables_and_files(tmp_path: Path) -> None:
    lstm, head = model()
    x = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    result = hl.analyze(lstm, head, inputs=x, horizon=6)
    text = result.to_text()
    assert result.fidelity.summary() in text
    assert "mean Jacobian of the step of nn.LSTM along 5 sequences" in text
    assert "along the inputs (exact maps, mean over 5 samples)" in text
    exact = hl.trajectory_maps(lstm, x, readout=head).by_lag().double().mean(0)[:6]
    torch.testing.assert_close(result.maps.values, exact, rtol=1e-6, atol=1e-9)
    assert f"graph of each step: {hl.read(lstm, head, inputs=x, at='steps').agreement}" in text
    assert f"static graph of the mean Jacobian: {hl.read(lstm, head, inputs=x).agreement}" in text
    torch.testing.assert_close(
        result.bare.values, hl.hop_maps(hl.read(lstm, head).to(torch.float64), 6).values
    )
    at_origin = hl.analyze(lstm, head, inputs=x, horizon=6, at="origin")
    assert "nn.LSTM at the origin" in at_origin.to_text()
    assert not at_origin.flows
    assert "float32; computed in float64" in text
    tables = result.tables()
    assert len(tables["hop_maps"]) == 6 * 2 * 3
    assert len(tables["pairs"]) == 6
    best = tables["hop_maps"].loc[tables["hop_maps"]["weight"].abs().idxmax()]
    assert f"{best['input']} -> {best['output']} at hop {best['hop']}" in text
    paths = tables["paths"]
    assert set(paths["hop"]) <= set(tables["hop_maps"]["hop"])
    assert abs(tables["units"]["share"].sum() - 1) < 1e-12
    written = result.write(tmp_path / "out")
    assert {p.name for p in written} >= {"summary.txt", "pairs.csv", "influence.png", "fidelity.csv"}
    assert all(p.stat().st_size > 0 for p in written)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="another folder"):
        result.write(tmp_path / "file" / "below")


def test_without_inputs_it_says_that_trust_is_unknown() -> None:
    lstm, head = model()
    assert "unknown" in hl.analyze(lstm, head, horizon=4).to_text()
    with pytest.raises(ParameterError, match="can be run"):
        hl.analyze(hl.read(lstm, head), inputs=torch.zeros(1, 2, 3))
    with pytest.raises(ShapeError, match="one network"):
        hl.analyze(hl.Pathways(*(torch.ones(2, 3, 3) for _ in range(3))))
    nothing = hl.Pathways(torch.eye(3)[:, :1], torch.zeros(3, 3), torch.eye(3)[2:])
    assert "no input reaches" in hl.analyze(nothing, horizon=3).to_text()


def test_half_precision_and_files(tmp_path: Path) -> None:
    lstm, head = model()
    half = hl.analyze(hl.read(lstm, head).detach().to(torch.float16), horizon=4)
    assert "float16; computed in float64" in half.to_text()
    torch.save(
        {**{f"rnn.{k}": v for k, v in lstm.state_dict().items()}, "out.weight": head.weight},
        tmp_path / "m.pt",
    )
    from_file = hl.analyze(str(tmp_path / "m.pt"), inputs=torch.ones(2, 5, 3), horizon=4)
    whole = hl.analyze(lstm, head, inputs=torch.ones(2, 5, 3), horizon=4)
    torch.testing.assert_close(from_file.maps.values, whole.maps.values)
    torch.testing.assert_close(from_file.fidelity.relative_error, whole.fidelity.relative_error)


def test_large_networks_are_ranked_by_an_estimate_and_the_first_are_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hoplens.analysis.analysing, "LESION_FLOPS", 4e5)
    monkeypatch.setattr(hoplens.analysis.analysing, "CANDIDATES", 5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = hl.read(nn.RNN(2, 40).double(), nn.Linear(40, 2).double()).detach()
    result = hl.analyze(net, horizon=6)
    known = ~result.lesions.isnan()
    assert int(known.sum()) == 5
    torch.testing.assert_close(result.lesions[known], hl.lesion(net, 6)[known])
    assert bool((result.lesion_estimates[known].min() >= result.lesion_estimates[~known]).all())
    assert {"lesion", "lesion_estimate"} <= set(result.tables()["units"].columns)
    assert any("estimate" in note for note in result.notes)
    for figure in result.figures().values():
        figure.canvas.draw()


def test_lesions_that_would_take_minutes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hoplens.analysis.analysing, "LESION_FLOPS", 1e3)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = hl.read(nn.RNN(2, 40).double(), nn.Linear(40, 2).double()).detach()
    result = hl.analyze(net, horizon=6)
    assert result.lesions is None
    assert any("left out" in note for note in result.notes)
    assert "change most" not in result.to_text()
    assert "lesion" not in result.tables()["units"].columns
    assert "lesions" not in result.figures()
    assert "change without it" not in render_network_report(result)


def test_radius_weighs_hops_and_growth_is_said() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = hl.Pathways(*(torch.randn(4, 4, dtype=torch.float64) for _ in range(3)))
    assert "walks grow" in hl.analyze(net, horizon=5).to_text()
    calm = hl.analyze(net, horizon=5, radius=0.5)
    assert abs(calm.spectral_radius - 0.5) < 1e-12
    assert "walks grow" not in calm.to_text()
    assert "scaled to spectral radius 0.5" in calm.net.provenance


def test_rescale_keeps_every_kind_of_network() -> None:
    g = torch.Generator().manual_seed(0)
    w_in, w_rec, w_out = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((6, 2), (6, 6), (3, 6)))
    u, v, own = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((6, 2), (6, 2), (6,)))
    kinds = [
        w_rec,
        torch.stack([w_rec, 3 * w_rec]),
        sp.csr_array(w_rec.numpy()),
        hl.graph.LowRank(u, v),
        hl.graph.LowRank(u, v, own),
    ]
    for w in kinds:
        wide = isinstance(w, torch.Tensor) and w.dim() == 3  # an ensemble
        net = hl.Pathways(w_in.expand(2, 6, 2) if wide else w_in, w, w_out.expand(2, 3, 6) if wide else w_out)
        scaled = hl.graph.rescale(net, 0.7)
        torch.testing.assert_close(
            hl.spectral_radius(scaled), torch.full(net.batch_shape, 0.7, dtype=torch.float64)
        )
        assert (scaled.is_sparse, scaled.factors is None) == (net.is_sparse, net.factors is None)
        factor = (0.7 / hl.spectral_radius(net)).reshape(*net.batch_shape, 1, 1, 1)
        powers = factor ** torch.arange(4.0, dtype=torch.float64)[:, None, None]
        torch.testing.assert_close(hl.hop_maps(scaled, 4).values, hl.hop_maps(net, 4).values * powers)
    with pytest.raises(ParameterError, match="no cycle"):
        hl.graph.rescale(hl.Pathways(w_in, w_rec.tril(-1), w_out), 0.5)


def test_the_worm() -> None:
    assert doctest.testmod(hoplens.data.connectome).failed == 0
    worm = hl.data.celegans()
    kinds = [data["kind"] for _, data in worm.nodes(data=True)]
    assert [kinds.count(kind) for kind in ("sensory", "inter", "motor")] == [83, 81, 116]
    assert worm["AVAL"]["VA6"]["weight"] == 4  # command interneuron to motor neuron, not the reverse
    assert not worm.has_edge("VA6", "AVAL")
    signed = hl.data.celegans(signed=True)
    flipped = {a for a, b, data in signed.edges(data=True) if data["weight"] == -worm[a][b]["weight"]}
    assert flipped == {n for n, data in worm.nodes(data=True) if data["gaba"] and worm.out_degree(n)}
    assert len(flipped) > 10
    gap = hl.data.celegans(edges="gap")
    assert all(gap[b][a]["weight"] == data["weight"] for a, b, data in gap.edges(data=True))
    net = hl.read(worm, input_nodes=["ASHL"], output_nodes=["VA6"], attach=True)
    # two synapses ASHL -> AVAL, four AVAL -> VA6, and the terminals' edges of weight 1
    best = hl.top_paths(net, "ASHL", "VA6", 4, 50)
    assert "ASHL > ASHL > AVAL > VA6 > VA6" in best["path"].tolist()
    assert float(best.loc[best["path"].str.contains("AVAL"), "product"].iloc[0]) == 8.0
    back = net.to_networkx()
    assert back["AVAL"]["VA6"]["weight"] == 4


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def running(kind: type[nn.Module], seed: int, layers: int = 1) -> tuple[nn.Module, nn.Linear, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        core, head = kind(3, 12, layers, batch_first=True).double(), nn.Linear(12, 2).double()
        for name, block in core.named_parameters():
            if "weight_hh" in name:  # a network that uses its memory, some units more than others
                block.data *= 2 * torch.rand(block.shape[1], dtype=torch.float64)
        return core, head, torch.randn(20, 8, 3, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_units_are_ranked_as_their_real_removal_from_a_trained_network_does(seed: int) -> None:
    """Removed by hand, by its weights, in torch's own module."""
    core, head, x = running(nn.RNN, seed)
    with torch.no_grad():
        core.bias_ih_l0.zero_()
        core.bias_hh_l0.zero_()
        whole = head(core(x)[0][:, -1])
        lost = []
        for unit in range(12):
            cut, last = nn.RNN(3, 12, batch_first=True).double(), nn.Linear(12, 2).double()
            cut.load_state_dict(core.state_dict())
            last.load_state_dict(head.state_dict())
            cut.weight_hh_l0[:, unit] = 0
            last.weight[:, unit] = 0
            lost.append((last(cut(x)[0][:, -1]) - whole).norm())
    real = torch.stack(lost)
    found = hl.analyze(core, head, inputs=x)
    torch.testing.assert_close(found.ablations * (whole - whole.mean(0)).norm(), real)
    bare = hl.analyze(core, head, horizon=8)
    assert bare.ablations is None
    assert rank_correlation(bare.importance(), real) > 0.8
    best = f"h{int(real.argmax())}"
    assert f"outputs on the inputs given change most: {best} " in found.to_text()
    table = render_network_report(found).split("Units that matter most")[2]
    assert table.index(f">{best}<") < min(table.index(f">h{j}<") for j in real.argsort()[2:11].tolist())


def test_lesions_of_a_linear_network_are_its_ablations_on_white_noise() -> None:
    g = torch.Generator().manual_seed(0)
    w_in, w_rec, w_out = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((9, 2), (9, 9), (2, 9)))
    cell = hl.models.RnnCell(w_in, 0.25 * w_rec, nonlinearity="linear")
    stack = hl.Stack(((cell,),), w_out, "linear")
    x = torch.randn(20_000, 6, 2, generator=g, dtype=torch.float64)
    found = hl.analyze(stack, inputs=x)
    torch.testing.assert_close(found.ablations, found.lesions, rtol=0.03, atol=0.01)
    assert rank_correlation(found.ablations, found.lesions) > 0.95


@pytest.mark.parametrize(("kind", "layers"), [(nn.GRU, 1), (nn.LSTM, 1), (nn.GRU, 2), (nn.RNN, 3)])
def test_every_cell_that_runs_forward_is_ablated(kind: type[nn.Module], layers: int) -> None:
    core, head, x = running(kind, 0, layers)
    lengths = torch.randint(2, 9, (20,), generator=torch.Generator().manual_seed(1))
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    found = hl.analyze(core, head, inputs=packed)
    assert len(found.ablations) == found.net.n_hidden == len(found.tables()["units"])
    assert int(found.maps.lags[-1]) == int(lengths.max()) - 1
    with torch.no_grad():  # the last layer's units feed nothing else than themselves and the read-out
        states, _ = nn.utils.rnn.pad_packed_sequence(core(packed)[0], batch_first=True)
        last = states[torch.arange(20), lengths - 1]
        spread = (head(last) - head(last).mean(0)).norm()
        core.get_parameter(f"weight_hh_l{layers - 1}")[:, 0] = 0
        states, _ = nn.utils.rnn.pad_packed_sequence(core(packed)[0], batch_first=True)
        cut = states[torch.arange(20), lengths - 1]
        cut[:, 0] = 0
        real = float((head(cut) - head(last)).norm() / spread)
    names = list(found.net.hidden_names)
    first = names.index("h0") if layers == 1 else names.index(f"l{layers - 1}.h0")
    if kind is not nn.GRU:  # a GRU keeps a part of its state besides what its weights bring
        assert float(found.ablations[first]) == pytest.approx(real)
    assert float(found.ablations.min()) >= 0


def test_the_horizon_is_that_of_the_data() -> None:
    core, head, x = running(nn.RNN, 0)
    assert len(hl.analyze(core, head, inputs=x).maps.hops) == 8
    assert len(hl.analyze(core, head, inputs=x, horizon=3).maps.hops) == 3
    assert len(hl.analyze(core, head).maps.hops) == 20
    with pytest.raises(ParameterError, match=r"horizon=9 looks 8 steps back, but .* 8 steps; .* at most 8"):
        hl.analyze(core, head, inputs=x, horizon=9)


def test_a_bidirectional_network_is_not_said_to_have_lags() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        core, head = nn.GRU(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 2)
    along = hl.analyze(core, head, inputs=torch.randn(4, 6, 3))
    assert along.maps.lags.tolist() == [0, 1, 2, 3, 4, 5]  # data have, whichever way walks go
    assert along.steps is None
    assert along.ablations is None
    render_network_report(along)
    found = hl.analyze(core, head, horizon=6)
    page = render_network_report(found)
    words = page.split("<script")[0]
    assert "lag" not in words.replace("flag", "")
    assert "inputs seen" not in words
    assert "also runs backward" in words
    assert '"lags":null' in page
    assert "(r = " not in found.to_text()
    assert "lag" not in found.tables()["hop_maps"].columns
    with pytest.raises(hl.errors.UnsupportedModelError, match="lag_maps"):
        _ = found.maps.lags
    assert found.ablations is None
    assert "hop maps change most" in found.to_text()
    for figure in found.figures().values():
        figure.canvas.draw()
    assert "lag" not in found.maps.plot().get_ylabel()


def test_a_stack_says_its_own_lag() -> None:
    core, head, x = running(nn.RNN, 0, layers=3)
    page = render_network_report(hl.analyze(core, head, inputs=x))
    assert "k\u00a0−\u00a04 steps before the read-out" in page
