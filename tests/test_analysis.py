"""The analysis as a whole: text, tables, figures, and the shipped connectome."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import scipy.sparse as sp
import torch
from torch import nn

import hoplens as hl
import hoplens.analysis
import hoplens.connectome
from hoplens.errors import FileError, ParameterError, ShapeError
from hoplens.report import render_network_report


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
    assert "nn.LSTM at the origin" in text
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
    monkeypatch.setattr(hoplens.analysis, "LESION_FLOPS", 4e5)
    monkeypatch.setattr(hoplens.analysis, "CANDIDATES", 5)
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
    monkeypatch.setattr(hoplens.analysis, "LESION_FLOPS", 1e3)
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
        hl.LowRank(u, v),
        hl.LowRank(u, v, own),
    ]
    for w in kinds:
        wide = isinstance(w, torch.Tensor) and w.dim() == 3  # an ensemble
        net = hl.Pathways(w_in.expand(2, 6, 2) if wide else w_in, w, w_out.expand(2, 3, 6) if wide else w_out)
        scaled = hl.rescale(net, 0.7)
        torch.testing.assert_close(
            hl.spectral_radius(scaled), torch.full(net.batch_shape, 0.7, dtype=torch.float64)
        )
        assert (scaled.is_sparse, scaled.factors is None) == (net.is_sparse, net.factors is None)
        factor = (0.7 / hl.spectral_radius(net)).reshape(*net.batch_shape, 1, 1, 1)
        powers = factor ** torch.arange(4.0, dtype=torch.float64)[:, None, None]
        torch.testing.assert_close(hl.hop_maps(scaled, 4).values, hl.hop_maps(net, 4).values * powers)
    with pytest.raises(ParameterError, match="no cycle"):
        hl.rescale(hl.Pathways(w_in, w_rec.tril(-1), w_out), 0.5)


def test_the_worm() -> None:
    assert doctest.testmod(hoplens.connectome).failed == 0
    worm = hl.celegans()
    kinds = [data["kind"] for _, data in worm.nodes(data=True)]
    assert [kinds.count(kind) for kind in ("sensory", "inter", "motor")] == [83, 81, 116]
    assert worm["AVAL"]["VA6"]["weight"] == 4  # command interneuron to motor neuron, not the reverse
    assert not worm.has_edge("VA6", "AVAL")
    signed = hl.celegans(signed=True)
    flipped = {a for a, b, data in signed.edges(data=True) if data["weight"] == -worm[a][b]["weight"]}
    assert flipped == {n for n, data in worm.nodes(data=True) if data["gaba"] and worm.out_degree(n)}
    assert len(flipped) > 10
    gap = hl.celegans(edges="gap")
    assert all(gap[b][a]["weight"] == data["weight"] for a, b, data in gap.edges(data=True))
    net = hl.read(worm, inputs=["ASHL"], outputs=["VA6"], attach=True)
    # two synapses ASHL -> AVAL, four AVAL -> VA6, and the terminals' edges of weight 1
    best = hl.top_paths(net, "ASHL", "VA6", 4, 50)
    assert "ASHL > ASHL > AVAL > VA6 > VA6" in best["path"].tolist()
    assert float(best.loc[best["path"].str.contains("AVAL"), "product"].iloc[0]) == 8.0
    back = net.to_networkx()
    assert back["AVAL"]["VA6"]["weight"] == 4
