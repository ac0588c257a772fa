"""Training steps of ensembles on a GPU: ours, as a CUDA graph, eager, torch.compile, cuDNN one by one.

Run: python benchmarks/gpu.py. First checks results against the CPU (hop maps, penalty and its gradients,
predictions and gradients of an ensemble), then prints a Markdown table of milliseconds a step. Without a
CUDA device it says so and stops.

One step is forward, backward, pathway penalty, Adam; float32, TF32 off everywhere. cuDNN's nn.RNN runs with
the thin recursion left to autograd, one network after the other: a few networks are timed and the time is
scaled to the whole ensemble. Sizes that do not fit say so. The memory of a GPU holds one contestant at a
time, so that they take turns size by size, not round by round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

import torch
from contest import run, table
from torch import Tensor, nn

import hoplens as hl
from hoplens.models.ensemble import Ensemble
from hoplens.training.objective import Objective, PenaltyGroup

LENGTH, BATCH, INPUTS, OUTPUTS, STRENGTH, LR = 20, 64, 16, 4, 1e-3, 1e-3
BATCHES = SimpleNamespace(size=BATCH, form="regression", every_step=False)  # what an objective asks for
SIZES = [
    (64, 32), (512, 32), (4096, 32), (64, 128), (512, 128), (4096, 128), (64, 512), (512, 512), (64, 2048),
    (1, 2048), (1, 8192), (64, 8192),
]  # fmt: skip
ONE_BY_ONE = 8  # networks that cuDNN is timed on
WARM_UP = 4
TOLERANCE = 2e-4  # of float32 sums in another order, relative to the largest entry
NO_DEVICE = "no CUDA device at hand: nothing was measured"

Step = Callable[[], object]


def ensemble(networks: int, hidden: int, device: torch.device | str, seed: int = 0) -> Ensemble:
    """Draw an ensemble where it will live."""
    g = torch.Generator(device).manual_seed(seed)
    rows = hidden + INPUTS + 1
    weight = torch.randn(networks, rows, hidden, generator=g, device=device).div_(hidden**0.5)
    readout = torch.randn(networks, OUTPUTS, hidden, generator=g, device=device).div_(hidden**0.5)
    return Ensemble(weight, readout, torch.zeros(networks, OUTPUTS, 1, device=device))


def data(networks: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Draw inputs (L, E, I, B) and targets (1, E, O, B)."""
    g = torch.Generator(device).manual_seed(1)
    inputs = torch.randn(LENGTH, networks, INPUTS, BATCH, generator=g, device=device)
    return inputs, torch.randn(1, networks, OUTPUTS, BATCH, generator=g, device=device)


def penalty_group(networks: int, device: torch.device | str) -> PenaltyGroup:
    """Return the hop penalty with one strength for all."""
    penalty = hl.schedules.ScheduledPenalty([(1.0, hl.PathwayPenalty(LENGTH), hl.schedules.constant())])
    return PenaltyGroup(slice(0, networks), penalty, torch.full((networks,), STRENGTH, device=device))


def plain_loss(weight: Tensor, readout: Tensor, offset: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return loss and penalty of all networks, as one would write them: what is compiled."""
    h, i = weight.shape[-1], inputs.shape[2]
    w_rec, w_in, bias = weight[:, :h].mT, weight[:, h : h + i].mT, weight[:, h + i :].mT
    state = torch.tanh(w_in @ inputs[0] + bias)
    for x in inputs.unbind(0)[1:]:
        state = torch.tanh(w_rec @ state + w_in @ x + bias)
    loss = (readout @ state + offset - targets[0]).square().mean(dim=(1, 2)).sum()
    rows, size = 0.9 * readout, weight.new_zeros(())
    for n in range(len(inputs)):
        rows = 0.9 * (rows @ w_rec) if n else rows
        size = size + 0.9 * (rows @ w_in).abs().sum()
    return loss + STRENGTH * size


# contestants


def ours(networks: int, hidden: int, device: torch.device, *, eager: bool = False) -> Step:
    """Return our step, by the fused kernels or by plain autograd."""
    nets, batch, group = (
        ensemble(networks, hidden, device),
        data(networks, device),
        penalty_group(networks, device),
    )
    objective = Objective(nets, BATCHES, [group], length=LENGTH, eager=eager)
    for tensor, grad in zip(nets.tensors, objective.grads, strict=True):
        tensor.grad = grad
    # capturable: the count of steps stays on the device, as a CUDA graph needs it
    optimiser = torch.optim.Adam(nets.tensors, lr=LR, fused=True, capturable=device.type == "cuda")

    def step() -> None:
        objective.run(*batch, None, progress=0.5)
        optimiser.step()

    return step


def replayed(networks: int, hidden: int, device: torch.device) -> Step:
    """Return our step as one CUDA graph."""
    step = ours(networks, hidden, device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # allocations and library handles must exist before the capture
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def compiled(networks: int, hidden: int, device: torch.device) -> Step:
    """Return the plain loss under torch.compile with a fused Adam."""
    nets, batch = ensemble(networks, hidden, device), data(networks, device)
    leaves = [tensor.requires_grad_() for tensor in nets.tensors]
    optimiser = torch.optim.Adam(leaves, lr=LR, fused=True)
    torch.compiler.reset()  # else the eighth size falls back on eager, and sizes become dynamic before
    loss = torch.compile(plain_loss)

    def step() -> None:
        optimiser.zero_grad()
        loss(*leaves, *batch).backward()
        optimiser.step()

    return step


def one_by_one(networks: int, hidden: int, device: torch.device) -> Step:
    """Return steps of some networks as nn.RNN modules, one after the other."""
    modules = []
    for _ in range(min(networks, ONE_BY_ONE)):
        rnn, out = nn.RNN(INPUTS, hidden).to(device), nn.Linear(hidden, OUTPUTS).to(device)
        parameters = [*rnn.parameters(), *out.parameters()]
        modules.append((rnn, out, torch.optim.Adam(parameters, lr=LR, fused=True)))
    inputs, targets = data(1, device)
    x, y = inputs[:, 0].mT.contiguous(), targets[0, 0].mT.contiguous()

    def step() -> None:
        for rnn, out, optimiser in modules:
            optimiser.zero_grad()
            loss = (out(rnn(x)[0][-1]) - y).square().mean()
            rows, size = 0.9 * out.weight, loss.new_zeros(())
            for n in range(LENGTH):
                rows = 0.9 * (rows @ rnn.weight_hh_l0) if n else rows
                size = size + 0.9 * (rows @ rnn.weight_ih_l0).abs().sum()
            (loss + STRENGTH * size).backward()
            optimiser.step()

    return step


def contestants(
    networks: int, hidden: int, device: torch.device
) -> Iterator[tuple[str, Callable[[], Step], float]]:
    """Yield name, a function that builds the step, and what its time is to be multiplied with."""
    yield "ours", lambda: ours(networks, hidden, device), 1.0
    if device.type == "cuda":
        yield "ours, CUDA graph", lambda: replayed(networks, hidden, device), 1.0
    yield "ours, eager", lambda: ours(networks, hidden, device, eager=True), 1.0
    yield "torch.compile", lambda: compiled(networks, hidden, device), 1.0
    yield (
        "nn.RNN one by one",
        lambda: one_by_one(networks, hidden, device),
        networks / min(networks, ONE_BY_ONE),
    )


# measuring


def wait(device: torch.device) -> None:
    """Wait for all work queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clear(device: torch.device) -> None:
    """Give all memory of the last contestant back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def milliseconds(step: Step, device: torch.device, seconds: float) -> float:
    """Return the median time of a step; each is waited for."""
    for _ in range(WARM_UP):
        step()
    wait(device)
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < stop:
        begin = time.perf_counter()
        step()
        wait(device)
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def measure(build: Callable[[], Step], device: torch.device, seconds: float, factor: float = 1.0) -> str:
    """Return milliseconds a step as text, or why there are none."""
    try:
        return f"{factor * milliseconds(build(), device, seconds):.2f}"
    except torch.cuda.OutOfMemoryError:
        return "out of memory"
    except (RuntimeError, ImportError) as error:  # a compiler or a capture that does not work here
        return f"failed: {type(error).__name__}"
    finally:
        clear(device)


def rows(sizes: Iterable[tuple[int, int]], device: torch.device, seconds: float) -> Iterator[list[str]]:
    """Yield one table row a size."""
    for networks, hidden in sizes:
        cells = [
            measure(build, device, seconds, factor)
            for _, build, factor in contestants(networks, hidden, device)
        ]
        yield [str(networks), str(hidden), *cells]


# checks against the CPU


def differences(device: torch.device) -> dict[str, float]:
    """Return the largest difference between device and CPU of each result, relative to its largest entry."""
    here = torch.device("cpu")
    nets = ensemble(3, 48, here)
    there = Ensemble(*(tensor.to(device) for tensor in nets.tensors))
    inputs, targets = data(3, here)
    found = {
        "hop maps": [hl.hop_maps(e.pathways(), LENGTH).values for e in (nets, there)],
        "predictions": [e.predict(inputs.permute(1, 3, 0, 2).to(e.weight.device)) for e in (nets, there)],
    }
    for n, one in enumerate((nets, there)):
        where = one.weight.device
        net = one.pathways()
        leaves = [block.detach().clone().requires_grad_() for block in (net.w_in, net.w_rec, net.w_out)]
        value = hl.PathwayPenalty(LENGTH)(hl.Pathways(*leaves))
        gradients = torch.autograd.grad(value.sum(), leaves)
        objective = Objective(one, BATCHES, [penalty_group(3, where)], length=LENGTH)
        losses = objective.run(inputs.to(where), targets.to(where), None, progress=0.5)
        results = {"penalty": value.detach(), "losses": losses}
        results |= {f"penalty by {k}": g for k, g in zip(("w_in", "w_rec", "w_out"), gradients, strict=True)}
        results |= {
            f"step by {k}": g for k, g in zip(("weight", "readout", "offset"), objective.grads, strict=True)
        }
        for name, result in results.items():
            found.setdefault(name, [result]) if n == 0 else found[name].append(result)
    return {name: relative(*pair) for name, pair in found.items()}


def relative(wanted: Tensor, got: Tensor) -> float:
    """Return the largest difference relative to the largest entry."""
    return float((got.detach().cpu() - wanted.detach()).abs().max() / wanted.detach().abs().max())


def report(seconds: float = 300.0, *, full: bool = False) -> str:
    """Return checks and times as Markdown, or one line where there is no GPU.

    Parameters
    ----------
    seconds : float
        About how long to measure; compiling comes on top.
    full : bool
        Ten times as long.
    """
    if not torch.cuda.is_available():
        return NO_DEVICE
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda", torch.cuda.current_device())
    errors = differences(device)
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    checks = table(
        ["result", "largest relative difference to the CPU"], [[k, f"{v:.1e}"] for k, v in errors.items()]
    )
    if wrong:
        raise SystemExit(f"{checks}\nwrong on {torch.cuda.get_device_name(device)}: {', '.join(wrong)}")
    names = [name for name, *_ in contestants(1, 1, device)]
    each = seconds * (10 if full else 1) / (len(SIZES) * len(names))
    times = table(["E", "H", *names], list(rows(SIZES, device, each)))
    sizes = f"L = {LENGTH}, B = {BATCH}, I = {INPUTS}, O = {OUTPUTS}"
    title = f"{torch.cuda.get_device_name(device)}; milliseconds a step, {sizes}"
    return f"{checks}\n{title}\n\n{times}"


if __name__ == "__main__":
    if torch.cuda.is_available():
        run(report, __doc__, seconds=300.0)
    else:
        print(NO_DEVICE)
