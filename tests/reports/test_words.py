"""Laws for sentences: what pages and summaries say of random networks is true of their numbers."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from size import few
from torch import nn

import hoplens as hl
from hoplens.models.readers.models import parts_of
from hoplens.reports import explanation as words
from hoplens.reports import render_network_report
from hoplens.reports.explanation import render_page
from hoplens.reports.partners import acting_together
from hoplens.reports.prose import network_paragraph

KINDS = ["tanh", "relu", "leaky", "gru", "lstm", "stack", "bidirectional", "deep bidirectional"]
CLAIMS_OF_CAUSE = ("raises", "lowers", "raised", "lowered", "unexplained", "because of")


def model(kind: str, inputs: int, hidden: int, outputs: int, scale: float, seed: int) -> hl.Stack:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cores = {
            "tanh": lambda: nn.RNN(inputs, hidden, batch_first=True),
            "relu": lambda: nn.RNN(inputs, hidden, nonlinearity="relu", batch_first=True),
            "leaky": lambda: hl.LeakyRNN(inputs, hidden, 0.3),
            "gru": lambda: nn.GRU(inputs, hidden, batch_first=True),
            "lstm": lambda: nn.LSTM(inputs, hidden, batch_first=True),
            "stack": lambda: nn.RNN(inputs, hidden, 3, batch_first=True),
            "bidirectional": lambda: nn.RNN(inputs, hidden, batch_first=True, bidirectional=True),
            "deep bidirectional": lambda: nn.GRU(inputs, hidden, 2, batch_first=True, bidirectional=True),
        }
        core = cores[kind]()
        with torch.no_grad():
            for name, block in core.named_parameters():
                if "weight" in name:
                    block *= scale
        width = hidden * (2 if "bidirectional" in kind else 1)
        return core, nn.Linear(width, outputs)


@st.composite
def cases(draw):
    seed, kind = draw(st.integers(0, 10**6)), draw(st.sampled_from(KINDS))
    inputs, hidden, outputs = draw(st.tuples(*(st.integers(1, n) for n in (3, 5, 2))))
    scale = draw(st.sampled_from([0.0, 0.3, 1.0, 5.0]))
    core, head = model(kind, inputs, hidden, outputs, scale, seed)
    g = torch.Generator().manual_seed(seed)
    size, steps = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    x = draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0])) * torch.randn(size, steps, inputs, generator=g)
    lengths = torch.randint(1, steps + 1, (size,), generator=g)
    if draw(st.booleans()):
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        steps = int(lengths.max())
    return kind, core, head, x, steps


def check_lags(text: str, longest: int) -> None:
    """No sentence speaks of steps that the data do not have."""
    for found in re.findall(r"(?<!−\u00a0)\b(\d+) (?:time )?steps? before the (?:last|read-out)", text):
        assert int(found) <= longest
    for found in re.findall(r"lag (\d+)|\(lag\)|looks (\d+)", text):
        assert all(int(n) <= longest for n in found if n)


def check_shares(text: str) -> None:
    for found in re.findall(r"([\d.]+)\s?%", text.replace("\u00a0", " ")):
        assert 0 <= float(found) <= 100


@settings(max_examples=few(15), deadline=None)
@given(case=cases())
def test_what_a_network_is_said_to_do(case):
    kind, core, head, x, steps = case
    found = hl.analyze(core, head, inputs=x)
    page = render_network_report(found).split("<script")[0]
    text, paragraph = found.to_text(), network_paragraph(found)
    for said in (text, paragraph, page):
        check_lags(said, steps - 1)
        check_shares(re.sub(r"<style.*?</style>", "", said, flags=re.DOTALL))
        assert "nan" not in re.sub(r"<[^>]*>", "", said).lower().split()
    assert int(found.maps.hops[-1]) - found.maps.levels == steps
    if "bidirectional" in kind:
        assert not re.search(r"\blags?\b|inputs seen", page)
    else:
        assert f"k\u00a0−\u00a0{found.maps.levels + 1} steps" in page
    mass = found.maps.values.abs().sum((1, 2))
    if said := re.search(r"influence takes (\d+) hops?, the most of all", paragraph):
        assert mass[int(said[1]) - int(found.maps.hops[0])] == mass.max()
    if said := re.search(r"strongest pathway runs from (\S+) to (\S+) in (\d+) hops?", paragraph):
        frame = found.tables()["hop_maps"]
        if "hops are compared" not in paragraph and "compared within" not in paragraph:
            best = frame.loc[frame["weight"].abs().idxmax()]
            assert [best["input"], best["output"], str(best["hop"])] == list(said.groups())
    if said := re.search(r"one by one, (\S+) is the one without which (.*?) change most", paragraph):
        size = found.importance()
        assert size[found.net.hidden_names.index(said[1])] == size.max() > 0
        assert ("inputs given" in said[2]) == (found.ablations is not None)
    fit = found.fidelity
    if "close to what flows" in paragraph:
        assert min(fit.pooled_explained, fit.median_explained) >= 0.9
    if "nothing flows" in paragraph:
        core_maps = hl.trajectory_maps(core, x, readout=head)
        assert not core_maps.values.any()


@settings(max_examples=few(15), deadline=None)
@given(case=cases(), method=st.sampled_from(["orders", "secant"]))
def test_what_an_explanation_says(case, method):
    kind, core, head, x, _ = case
    found = hl.explain(core, x, readout=head, method=method)
    for sample in range(len(found.values)):
        length = int(found.lengths[sample])
        lines = words.lines(found, sample, 5)
        said = [words.opening(found, sample), words.meaning(found), words.timing(found, sample)]
        said += [words.sentence(line) for line in lines]
        together = acting_together(parts_of(core, head), found, sample)
        page = render_page(found, sample=sample, together=together)
        page = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
        for text in (*said, page):
            check_lags(text, length - 1)
            check_shares(text)
            assert not any(word in text for word in CLAIMS_OF_CAUSE)
            assert not re.search(r"\bnan\b", text)
        sizes = found.values[sample].abs()
        if said := re.search(r"^Steps? (.*?) (?:alone|of)", words.timing(found, sample)):
            named = [int(n) for n in re.findall(r"\d+", said[1])]
            others = [t for t in range(length) if t not in named]
            by_step = sizes.sum(1)
            assert float(by_step[named].sum() / by_step.sum()) >= 0.5 - 1e-12
            assert not others or float(by_step[named].min()) >= float(by_step[others].max())
        if "add up to it." in words.opening(found, sample):
            total = float(found.values[sample].sum())
            slack = 1e-5 * max(abs(float(found.difference[sample])), 1e-6 * float(sizes.sum()))
            assert abs(total - float(found.difference[sample])) <= slack
        assert ("over orders" in " ".join(map(words.sentence, lines))) == (method == "orders" and bool(lines))
        rows = words.hop_rows(found, sample)
        for hop, lag, _, _ in rows:
            if lag:
                assert int(lag) < length
                assert int(hop) == int(lag) + 1 + (3 if kind == "stack" else 1)
        assert kind == "deep bidirectional" or all(lag for _, lag, _, _ in rows)


def test_a_credit_is_not_called_an_effect():
    """Two inputs of which either saturates the unit: each is credited with half, and neither is missed."""
    cell = hl.models.RnnCell(torch.tensor([[40.0, 40.0]]), torch.zeros(1, 1))
    x = torch.ones(1, 1, 2)
    found = hl.explain(cell, x, readout=torch.ones(1, 1), orders=32)
    assert float(found.values[0, 0, 0]) == pytest.approx(0.5, abs=0.2)
    alone = float(torch.tanh(torch.tensor(80.0)) - torch.tanh(torch.tensor(40.0)))
    assert alone == 0.0  # what the output loses without one of them
    assert float(found.spread[0, 0, 0]) > 0.3  # between nothing and all
    line = words.sentence(words.lines(found, 0, 1)[0])
    assert "is credited with +" in line
    assert "spread 0.5" in line
    assert "not what the output would lose without that input" in words.meaning(found)
    linear = hl.models.RnnCell(torch.tensor([[2.0, 3.0]]), torch.zeros(1, 1), nonlinearity="linear")
    plain = hl.explain(linear, x, readout=torch.ones(1, 1), orders=32)
    torch.testing.assert_close(plain.spread, torch.zeros_like(plain.spread))
