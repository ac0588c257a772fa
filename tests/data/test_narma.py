"""The tenth-order system: its equation, its memory, and what runs away."""

from __future__ import annotations

import numpy as np
import pytest

import hoplens as hl
from hoplens.data.narma import response


def test_states_obey_the_equation() -> None:
    inputs = np.random.default_rng(0).uniform(0, 0.5, 30)
    u, y = [0.0] * 9 + list(inputs), [0.0] * 10  # zero before the start; y[9] and u[9] are those of step 0
    for t in range(9, 39):
        y.append(0.3 * y[t] + 0.05 * y[t] * sum(y[t - 9 : t + 1]) + 1.5 * u[t - 9] * u[t] + 0.1)
    assert np.allclose(response(inputs[None])[0], y[10:], atol=1e-12)


def test_the_input_of_nine_steps_before_counts() -> None:
    inputs = np.full((1, 30), 0.25)
    bent = inputs.copy()
    bent[0, 5] = 0.3
    change = np.abs(response(bent) - response(inputs))[0]
    assert not change[:14].any()  # before step 9 the earlier factor is 0, so nothing is seen until then
    assert change[14] == pytest.approx(1.5 * 0.25 * 0.05)


def test_what_runs_away_is_drawn_anew() -> None:
    assert (response(np.full((1, 60), 0.5)) > 1).any()
    data = hl.data.narma(length=2000, n=40)
    targets = np.concatenate([split.targets.numpy() for split in (data.train, data.validation, data.test)])
    assert targets.max() <= 1
    assert targets.shape == (40, 2000, 1)
    for wrong in (9, 20_000):
        with pytest.raises(hl.errors.ParameterError, match="length must"):
            hl.data.narma(length=wrong)
