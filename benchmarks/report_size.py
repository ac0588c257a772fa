"""Seconds, peak memory and page size of a report of a large network.

Run: python benchmarks/report_size.py [--hidden 4096 --inputs 64 --outputs 16 --horizon 200]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import torch

import hoplens as hl
from hoplens.reports import write_network_report

KIB_PER_MIB = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--outputs", type=int, default=16)
    parser.add_argument("--horizon", type=int, default=200)
    sizes = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    hidden = sizes.hidden
    net = hl.Pathways(
        torch.randn(hidden, sizes.inputs, generator=generator) / sizes.inputs**0.5,
        torch.randn(hidden, hidden, generator=generator).mul_(0.98 / hidden**0.5),
        torch.randn(sizes.outputs, hidden, generator=generator) / hidden**0.5,
    )
    started = time.perf_counter()
    found = hl.analyze(net, horizon=sizes.horizon)
    analysed = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        page = write_network_report(found, Path(folder) / "report.html")
        done = time.perf_counter()
        size = page.stat().st_size
        print(f"H {hidden}, I {sizes.inputs}, O {sizes.outputs}, horizon {sizes.horizon}")
        parts = f"analysis {analysed - started:.1f} s, page {done - analysed:.1f} s"
        print(f"{parts}, together {done - started:.1f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB
        library = len(files("hoplens.reports").joinpath("vendor/echarts.min.js").read_bytes())
        print(
            f"peak memory {peak:.0f} MiB, page {size / 1e6:.2f} MB (plotting library {library / 1e6:.2f} MB)"
        )


if __name__ == "__main__":
    main()
