"""All benchmarks, one after the other, into RESULTS.md: what ``make bench`` does, in under ten minutes.

Each is a process of its own. Nothing else should run meanwhile: ratios are measured side by side and bear
some noise, but two threads beside a busy process do not tell the truth.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# script, what it shows, seconds to ask for
PARTS = [
    ("training", "Training of ensembles: hoplens, its limit, PyTorch, JAX, the paper's way", 100),
    ("penalty_cost", "The penalty inside a user's own nn.RNN loop", 100),
    ("penalty_memory", "Peak memory of a training step", 45),
    ("sparse_scale", "Very large sparse networks", 120),
    ("solve_scale", "Full resolvents at size", 30),
    ("range_cost", "Number range: denormals and large radii", 20),
    ("cost_plot", "Cost against hidden units, time steps and networks", 45),
    ("bench_readers", "Hop maps and trajectory maps of read networks", 40),
    ("latency", "Latency before and after compression", 60),
]


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Run the parts and write their reports; a part that fails is named, and the others go on."""
    from rich.console import Console
    from rich.progress import track

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=[name for name, *_ in PARTS], help="some of the parts")
    parser.add_argument("--full", action="store_true", help="the largest sizes too: about an hour")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="where to write")
    options = parser.parse_args()
    console = Console()
    if os.getloadavg()[0] > 0.5:
        console.print("[yellow]something else is running: ratios on both cores will be off[/]")
    chosen = [part for part in PARTS if not options.only or part[0] in options.only]
    sections, failed, begin = [], [], time.perf_counter()
    for name, title, seconds in track(chosen, "benchmarks", console=console):
        command = [sys.executable, str(HERE / f"{name}.py"), "--seconds", str(seconds)]
        started = time.perf_counter()
        result = subprocess.run(
            command + ["--full"] * options.full, capture_output=True, text=True, check=False, cwd=HERE
        )
        took = time.perf_counter() - started
        if result.returncode:
            failed.append(name)
            console.print(f"[red]{name} failed[/]: {result.stderr.strip().splitlines()[-1:]}")
            continue
        sections.append(
            f"## {title}\n\n`python benchmarks/{name}.py`, {took:.0f} s\n\n{result.stdout.strip()}\n"
        )
        console.print(result.stdout, markup=False, highlight=False)
    if not failed and not options.only:
        import torch

        head = (
            "# Benchmark results\n\nWritten by `make bench`; ratios are medians over rounds in which the "
            "contestants take turns, with quartiles.\n\n"
            f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, torch "
            f"{torch.__version__}; {datetime.date.today()}; {time.perf_counter() - begin:.0f} s in all.\n"
        )
        options.out.write_text(head + "\n" + "\n".join(sections))
        console.print(f"wrote {options.out}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; {options.out} was left as it was")


if __name__ == "__main__":
    main()
