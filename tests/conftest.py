"""Settings shared by all tests: reproducible Hypothesis runs and one torch thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from size import few

# derandomised: a failure seen once is seen by everybody, and nothing is written next to the tests
settings.register_profile("hoplens", deadline=None, max_examples=few(50), derandomize=True, database=None)
settings.load_profile("hoplens")
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What hoplens remembers about its user goes to a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
            patch.setenv(name, str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _same_modules_in_any_order() -> Iterator[None]:
    """Fresh torch modules draw from the global generator: a test must not depend on those before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
