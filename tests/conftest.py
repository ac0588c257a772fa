"""Settings shared by all tests: reproducible Hypothesis runs and one torch thread."""

from __future__ import annotations

import torch
from hypothesis import settings

# derandomised: a failure seen once is seen by everybody, and nothing is written next to the tests
settings.register_profile("hoplens", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("hoplens")
torch.set_num_threads(1)
