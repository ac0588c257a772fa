"""Settings that train nothing: for tests of what is around the training."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from hoplens import recipes
from hoplens.studies.sweeps.plan import SHARD_BYTES, Member, Plan
from hoplens.studies.sweeps.work import Outcome, Setting
from hoplens.training.settings import Network


@dataclass(frozen=True)
class Toy(Setting):
    """Rows that follow from seed and strength, shards of ``size`` networks, and faults on demand.

    ``dies`` holds seeds, and how often each kills its process; ``marks`` is the folder that counts it.
    """

    name: str = "toy"
    size: int = 4
    seconds: float = 0.0
    fails: tuple[int, ...] = ()
    dies: tuple[tuple[int, int], ...] = ()
    marks: str = ""
    diverges: tuple[tuple[float, int], ...] = ()  # strengths and seeds

    @property
    def label(self) -> str:
        return self.name

    @property
    def hidden(self) -> int:
        return 1

    @property
    def state_bytes(self) -> int:
        return SHARD_BYTES // self.size

    @property
    def network_bytes(self) -> int:
        return 1000

    @property
    def cost(self) -> float:
        return 1.0

    def run(self, networks: Sequence[Network]) -> Outcome:
        if self.marks:
            Path(self.marks, f"ran-{networks[0].seed}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        for network in networks:
            if network.seed in self.fails:
                raise ArithmeticError(f"seed {network.seed}\nis bad")
            times = dict(self.dies).get(network.seed, 0)
            died = len(list(Path(self.marks).glob(f"died-{network.seed}-*"))) if times else 0
            if died < times:
                Path(self.marks, f"died-{network.seed}-{time.monotonic_ns()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        errors = [
            float("nan")
            if (network.strength, network.seed) in self.diverges
            else network.strength + network.seed / 7
            for network in networks
        ]
        frame = pd.DataFrame(
            {"test_error": errors, "diverged_at": -1, "odd": float("nan"), "big": float("inf")}
        )
        tensors = {f"{n}/mark": torch.tensor([float(network.seed)]) for n, network in enumerate(networks)}
        return Outcome(frame, tensors, {"train": self.seconds})


def toy_plan(
    setting: Setting | None = None, *, seeds: int = 8, strengths: Sequence[float] = (0.1, 0.2)
) -> Plan:
    """Return a plan of L1 networks: seeds 0 and 1 validate, the others report."""
    setting = Toy() if setting is None else setting
    members = [
        Member("main", setting.label, Network(recipes.l1(), strength, seed), role, setting)
        for strength in strengths
        for seed in range(seeds)
        for role in ("validation" if seed < 2 else "report",)
    ]
    return Plan("toys", tuple(members))
