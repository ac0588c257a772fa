"""What the page of an explanation says of inputs that act together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hoplens as hl
from hoplens.models.readers.models import parts_of
from hoplens.reports import partners
from hoplens.reports.explanation import render_page
from hoplens.reports.partners import acting_together

ONE = torch.ones(1, 1, dtype=torch.float64)


def products():
    """``y = sum_t a_t b_t + c_t``."""

    def step(state, x):
        return state + x[..., :1] * x[..., 1:2] + x[..., 2:]

    return hl.models.FunctionCell(step, n_inputs=3, n_state=1)


def explained(x, **options):
    cell = products()
    return parts_of(cell, ONE), hl.explain(cell, x, readout=ONE, input_names=["a", "b", "c"], **options)


def test_partners_are_the_factors_of_products_with_what_the_product_adds():
    x = torch.tensor([[[2.0, 3.0, 0.5], [1.0, -1.0, 0.25], [9.0, 9.0, 9.0]]], dtype=torch.float64)
    parts, why = explained(x, lengths=torch.tensor([2]))
    found = acting_together(parts, why, 0)
    assert found.note == ""
    assert {row[:2]: row[3] for row in found.rows} == {
        ("a", "0"): "b at step 0 (+6)",
        ("b", "0"): "a at step 0 (+6)",
        ("a", "1"): "b at step 1 (-1)",
        ("b", "1"): "a at step 1 (-1)",
    }
    credits = {(row.input, row.step): row.contribution for row in why.top(20).itertuples()}
    for name, step, credit, _ in found.rows:
        assert float(credit) == pytest.approx(credits[name, int(step)])
    page = render_page(why, together=found)
    assert "What they act together with" in page
    assert "b at step 0 (+6)" in page
    assert "act together" not in render_page(why)
    # away from another baseline the product adds the product of both changes
    parts, why = explained(x[:, :1], baseline=torch.tensor([1.0, 1.0, 0.0]))
    assert {row[3] for row in acting_together(parts, why, 0).rows} == {"a at step 0 (+2)", "b at step 0 (+2)"}


@pytest.mark.parametrize("batch_first", [True, False])
def test_layouts_give_the_same(batch_first):
    core, head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)
    with torch.no_grad():
        for value in core.parameters():
            value.mul_(3)
    x = torch.randn(2, 4, 3)
    wanted = acting_together(parts_of(core, head), hl.explain(core, x, readout=head, output=1), 1)
    assert wanted.rows
    other = nn.GRU(3, 5, batch_first=batch_first)
    other.load_state_dict(core.state_dict())
    given = x if batch_first else x.transpose(0, 1)
    assert (
        acting_together(parts_of(other, head), hl.explain(other, given, readout=head, output=1), 1) == wanted
    )


def test_what_is_negligible_or_takes_too_long_is_one_line(monkeypatch):
    core, head = nn.RNN(3, 5, nonlinearity="relu", batch_first=True), nn.Linear(5, 2)
    x = torch.randn(2, 4, 3)
    why = hl.explain(core, x, readout=head)
    found = acting_together(parts_of(core, head), why, 0)
    assert not found.rows
    assert "negligible" in found.note
    page = render_page(why, together=found)
    assert found.note in page
    assert "acts together with</th>" not in page
    nothing = acting_together(parts_of(core, head), hl.explain(core, 0 * x, readout=head), 0)
    assert nothing == partners.Together((), "No input is credited with anything.")
    monkeypatch.setattr(partners, "MOST_STEPS", 3)
    skipped = acting_together(parts_of(core, head), why, 0)
    assert not skipped.rows
    assert "24 runs of 4 steps" in skipped.note
    short = hl.truncate(core, 2, readout=head)
    assert "negligible" in acting_together(parts_of(short), hl.explain(short, x), 0).note
    monkeypatch.setattr(partners, "MOST_PRODUCTS", 1.0)
    assert "takes long" in acting_together(parts_of(short), hl.explain(short, x), 0).note
