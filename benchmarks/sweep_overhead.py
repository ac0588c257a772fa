"""What a sweep costs over the training of its batches, and which batches and processes are fastest.

Run on an idle machine:  python benchmarks/sweep_overhead.py [sizes] [layouts] [overhead] [--steps N]

* sizes: time per network and step over the number of networks in a batch, for four shapes; the batch that
  `hoplens.sweeps` chooses is marked.
* layouts: one process, threads in one process, and processes of one thread each, on the same shards.
* overhead: 3 penalties x 10 strengths x 20 seeds on one task: wall time of the whole sweep (processes
  started, networks measured, all of it stored) over the time that pure training of its batches takes on as
  many processes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from hoplens import recipes
from hoplens.data.tasks import make
from hoplens.studies.sweeps import run_sweep
from hoplens.studies.sweeps.executors import cores, start_worker
from hoplens.studies.sweeps.plan import Member, Plan, shard_size
from hoplens.studies.sweeps.settings import TaskSetting
from hoplens.studies.sweeps.work import Shard, probe
from hoplens.training.settings import Network, Settings
from hoplens.training.training import train_networks

METHODS = (recipes.l1(), recipes.paper(), recipes.recommended())
STRENGTHS = tuple(round(10 ** (-4 + 2 * n / 9), 6) for n in range(10))
SHAPES = ((16, 8, 32), (48, 10, 64), (64, 20, 64), (128, 20, 64))  # hidden, length, batch
BATCHES = (8, 16, 32, 48, 64, 96, 128, 256)
MOST_BYTES = 160 << 20  # of states in one batch


def setting(hidden: int, length: int, batch: int, steps: int) -> TaskSetting:
    task = make("subtraction", signal="sparse", lag=length - 2, length=length)
    return TaskSetting(task, Settings(hidden=hidden, steps=steps, batch=batch))


def networks(seeds: int) -> list[Network]:
    return [Network(r, s, seed) for seed in range(seeds) for r in METHODS for s in STRENGTHS]


def sizes() -> None:
    print("\nmicroseconds per network and step, by networks in a batch (one thread; * = chosen)")
    mixed = networks(9)
    for shape in SHAPES:
        own = setting(*shape, steps=32)
        chosen = shard_size(own)
        cells = []
        for batch in sorted({*BATCHES, chosen}):
            if batch * own.state_bytes > MOST_BYTES:
                continue
            shard = Shard(own, tuple(mixed[:batch]))
            seconds = min(probe(shard) or 0.0 for _ in range(2))
            cells.append(f"{batch}{'*' if batch == chosen else ''}: {1e6 * seconds / 32 / batch:.0f}")
        print(f"  hidden, length, batch {shape}: " + ", ".join(cells), flush=True)


def train(shard: Shard, threads: int = 1) -> float:
    """Train a shard and do nothing else; return the seconds."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    own = shard.setting
    assert isinstance(own, TaskSetting)
    train_networks(own.task, shard.networks, own.settings)
    return time.perf_counter() - started


def layouts(steps: int) -> None:
    count = cores()
    print(f"\nseconds for the same {2 * count} shards, {steps} steps, {count} cores")
    for hidden in (32, 512):
        own = setting(hidden, 10, 64, steps if hidden < 100 else max(4, steps // 50))
        size = min(32, shard_size(own))
        all_networks = networks(9)
        shards = [Shard(own, tuple(all_networks[n * size : (n + 1) * size])) for n in range(2 * count)]
        one = sum(train(shard) for shard in shards)
        many = sum(train(shard, count) for shard in shards)
        with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=start_worker) as pool:
            list(pool.map(train, [Shard(setting(8, 4, 4, 2), tuple(all_networks[:1]))] * count))  # imports
            started = time.perf_counter()
            list(pool.map(train, shards))
            split = time.perf_counter() - started
        print(
            f"  {hidden} hidden units, {size} networks a shard: one thread {one:.2f}, {count} threads "
            f"{many:.2f}, {count} processes {split:.2f}",
            flush=True,
        )


def overhead(steps: int) -> None:
    own = setting(48, 10, 64, steps)
    members = tuple(Member("main", own.label, n, "report", own) for n in networks(20))
    plan, workers = Plan("overhead", members), cores()
    shards = plan.shards(workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with run_sweep(plan, folder, executor="processes", workers=workers) as store:
            wall = time.perf_counter() - started
            table = store.networks(details=True)
    pure = float(table["seconds_train"].sum())  # of all processes
    measured = float(table["seconds_measure"].sum())
    ratio = wall * workers / pure
    print(
        f"\n{len(table)} networks of {len(METHODS)} penalties x {len(STRENGTHS)} strengths x 20 seeds, "
        f"{steps} steps, {len(shards)} shards of up to {max(len(s.networks) for s in shards)}, "
        f"{workers} processes\n"
        f"  wall time {wall:.1f} s; training {pure / workers:.1f} s, measuring {measured / workers:.1f} s a "
        f"process\n  sweep over pure training of its batches: {ratio:.2f} (aim: at most 1.3)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["sizes", "layouts", "overhead"])
    parser.add_argument("--steps", type=int, default=500)
    chosen = parser.parse_args()
    parts = chosen.parts or ["sizes", "layouts", "overhead"]
    print(f"torch {torch.__version__}, {cores()} cores, load {os.getloadavg()[0]:.1f}")
    torch.set_num_threads(1)
    if "sizes" in parts:
        sizes()
    if "layouts" in parts:
        layouts(chosen.steps)
    if "overhead" in parts:
        overhead(chosen.steps)


if __name__ == "__main__":
    main()
