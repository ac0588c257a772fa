"""The studies of the package in tiny: of tasks, as the paper's, and of data sets, as the real one."""

from __future__ import annotations

from typing import Any

from hoplens.studies.comparison.tables import ABLATION, REACH
from hoplens.studies.sweeps import make_study
from hoplens.studies.sweeps.config import Study

SEEDS = {"validation": [0, 1], "report": [100, 101, 102]}


def tiny_paper(**changes: Any) -> Study:
    """Two tasks, four methods, an ablation and two lags."""
    compared = [
        {"recipe": "l1", "strengths": [1e-4, 1e-3]},
        {"recipe": "paper", "strengths": [1e-4]},
        {"recipe": "recommended", "strengths": [1e-3]},
    ]
    methods = [{"recipe": "none"}, *compared]
    sparse = {"name": "subtraction", "signal": "sparse", "length": 4}
    tasks = [sparse | {"lag": 2}, {"name": "averaging", "length": 4}]
    values = {
        "name": "tiny",
        "seeds": SEEDS,
        "weights": [101],
        "report": ["best"],
        "aims": "paper",
        "training": {"hidden": 8, "steps": 20, "batch": 8},
        "tasks": tasks,
        "methods": methods,
        "parts": [
            {"name": ABLATION, "tasks": tasks[:1], "methods": compared},
            {"name": REACH, "tasks": [sparse | {"modules": 2, "lag": n} for n in (1, 3)], "methods": methods},
        ],
    }
    return make_study(values | changes)


def tiny_real(**changes: Any) -> Study:
    """A short cart pole with a leaky cell and four methods."""
    strengths = [1e-4, 1e-2]
    values = {
        "name": "real tiny",
        "seeds": SEEDS,
        "report": ["best", "pruned", "lean"],
        "aims": "real",
        "followed": [100],
        "training": {"cell": "leaky", "hidden": 6, "steps": 12, "batch": 4},
        "tasks": [{"name": "cartpole", "label": "cartpole", "options": {"episodes": 12, "length": 12}}],
        "methods": [
            {"recipe": "none"},
            {"recipe": "l1", "strengths": strengths},
            {"recipe": "paper", "strengths": strengths[:1]},
            {"recipe": "recommended", "strengths": strengths},
        ],
    }
    return make_study(values | changes)
