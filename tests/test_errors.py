"""Errors say what was expected, what came and what to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import hoplens as hl
from hoplens.errors import check_choice, check_count, check_number


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (hl.errors.ShapeError, ValueError),
        (hl.errors.NonFiniteError, ValueError),
        (hl.errors.UnstableError, ValueError),
        (hl.errors.RangeError, OverflowError),
        (hl.errors.ConvergenceError, ArithmeticError),
        (hl.errors.ParameterError, ValueError),
        (hl.errors.UnknownNameError, KeyError),
        (hl.errors.UnsupportedModelError, TypeError),
        (hl.errors.FileError, OSError),
    ],
)
def test_errors_are_caught_as_hoplens_errors_and_as_builtin_ones(error, builtin):
    assert issubclass(error, hl.HoplensError)
    assert issubclass(error, builtin)
    assert str(error("a plain sentence")) == "a plain sentence"


def test_check_choice_returns_the_name():
    assert check_choice("fruit", "apple", ("pear", "apple")) == "apple"


def test_check_choice_suggests_the_nearest_name():
    with pytest.raises(
        hl.errors.UnknownNameError, match=r"unknown fruit 'aple'; known: apple, pear; .*'apple'"
    ):
        check_choice("fruit", "aple", ("pear", "apple"))


def test_check_choice_suggests_nothing_when_nothing_is_near():
    with pytest.raises(hl.errors.UnknownNameError) as caught:
        check_choice("fruit", "zzz", ("pear", "apple"))
    assert "did you mean" not in str(caught.value)
    assert "apple, pear" in str(caught.value)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_check_count_takes_every_kind_of_whole_number(value):
    count = check_count("steps", value)
    assert count == 3
    assert type(count) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, 2.5, "3", None, True, math.nan, [3], torch.tensor([1, 2])])
def test_check_count_refuses_everything_else(value):
    with pytest.raises(hl.errors.ParameterError, match="steps must be a whole number of at least 1"):
        check_count("steps", value)


def test_check_count_has_an_inclusive_lower_bound():
    assert check_count("lag", 0, least=0) == 0
    with pytest.raises(hl.errors.ParameterError, match="at least 2, got 1"):
        check_count("lag", 1, least=2)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5)])
def test_check_number_takes_every_kind_of_number(value):
    number = check_number("damping", value, above=0.0, most=1.0)
    assert number == 0.5
    assert type(number) is float


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "0.5", b"0.5", None, [], 10**400, 1j, torch.tensor([0.1, 0.2])]
)
def test_check_number_refuses_what_is_no_finite_number(value):
    with pytest.raises(hl.errors.ParameterError, match="damping must be a finite number"):
        check_number("damping", value)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"above": 0.0}, 1e-300, 0.0),
        ({"least": 0.0}, 0.0, -1e-300),
        ({"below": 1.0}, math.nextafter(1.0, 0.0), 1.0),
        ({"most": 1.0}, 1.0, math.nextafter(1.0, 2.0)),
    ],
)
def test_check_number_bounds_are_exact(bounds, inside, outside):
    assert check_number("x", inside, **bounds) == inside
    with pytest.raises(hl.errors.ParameterError):
        check_number("x", outside, **bounds)


def test_check_number_names_its_bounds():
    with pytest.raises(
        hl.errors.ParameterError, match="x must be a finite number above 0 and at most 1, got 2"
    ):
        check_number("x", 2, above=0.0, most=1.0)
    with pytest.raises(
        hl.errors.ParameterError, match="x must be a finite number at least 0 and below 1, got -1"
    ):
        check_number("x", -1, least=0.0, below=1.0)
