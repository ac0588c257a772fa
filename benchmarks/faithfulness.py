"""How faithful explanations are: hoplens beside captum on trained networks, in one run.

Run: python benchmarks/faithfulness.py [--write docs/explain.md]. Needs scikit-learn and captum:
pip install "hoplens[bench]". One thread, under four minutes. With --write, the tables replace what
stands between the two markers of that page.

Measures, means over samples with 95 % bootstrap intervals:

* deletion: cells (time step, input) go to the baseline, largest contribution first; mean output over the
  curve. Lower is better.
* insertion: cells return from the baseline, largest first. Higher is better.
* both for the output itself and, for classes, for the probability of the predicted class.
* ground truth, on tasks that say which cells carry signal: area under the ROC curve of |contribution|,
  precision at k (k: the number of such cells), the same for time steps.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from captum import attr
from sklearn.datasets import load_digits
from torch import Tensor, nn

import hoplens as hl
from hoplens.studies.statistics import bootstrap_mean

SAMPLES = 120
POINTS = 33  # sets on a curve
ROUNDS = 5  # of timing
OURS = "hoplens"
Method = Callable[["Case"], Tensor]


class Predictor(nn.Module):
    """A recurrent module and its read-out at the last step."""

    def __init__(self, kind: str, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.kind = kind
        self.rnn = getattr(nn, kind)(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Unrolled(nn.Module):
    """The same network with a module for each activation and step, as captum's DeepLift needs it."""

    def __init__(self, net: Predictor, steps: int) -> None:
        super().__init__()
        self.net, self.steps = net, steps
        count = {"RNN": 1, "GRU": 3, "LSTM": 5}[net.kind]
        kinds = {"RNN": "t", "GRU": "sst", "LSTM": "sstst"}[net.kind]
        made = [nn.Tanh() if k == "t" else nn.Sigmoid() for _ in range(steps) for k in kinds]
        self.acts = nn.ModuleList(made)
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        rnn = self.net.rnn
        w_ih, w_hh, b_ih, b_hh = rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0
        h = c = x.new_zeros(x.shape[0], rnn.hidden_size)
        for t in range(self.steps):
            act = self.acts[t * self.count : (t + 1) * self.count]
            i, s = x[:, t] @ w_ih.T + b_ih, h @ w_hh.T + b_hh
            if self.net.kind == "RNN":
                h = act[0](i + s)
            elif self.net.kind == "GRU":
                (i_r, i_z, i_n), (s_r, s_z, s_n) = i.chunk(3, 1), s.chunk(3, 1)
                n = act[2](i_n + act[0](i_r + s_r) * s_n)
                h = n + act[1](i_z + s_z) * (h - n)
            else:
                z_i, z_f, z_g, z_o = (i + s).chunk(4, 1)
                c = act[1](z_f) * c + act[0](z_i) * act[2](z_g)
                h = act[3](z_o) * act[4](c)
        return self.net.head(h)


@dataclass(eq=False)
class Case:
    """One trained network and the samples to explain."""

    name: str
    net: Predictor
    x: Tensor  # (B, L, I)
    baseline: Tensor  # (L, I)
    output: Tensor  # (B,)
    skill: str
    truth: Tensor | None = None  # (B, L, I), which cells carry signal for this output
    classes: bool = False
    unrolled: Unrolled = field(init=False)

    def __post_init__(self) -> None:
        self.net.eval()
        self.unrolled = Unrolled(self.net, self.x.shape[1]).eval()
        with torch.no_grad():
            assert torch.allclose(self.unrolled(self.x), self.net(self.x), atol=1e-4)
            ends = [self.net(z).gather(1, self.output[:, None])[:, 0] for z in (self.x, self.base)]
        self.change = ends[0] - ends[1]
        # a class is to be supported; a number is explained in the direction in which it moved
        self.sign = torch.ones_like(self.change) if self.classes else self.change.sign()

    @property
    def base(self) -> Tensor:
        return self.baseline.expand_as(self.x).contiguous()


def ours(method: str = "orders", orders: int = 8, blocks: int = 4, steps: int | None = None) -> Method:
    def run(case: Case) -> Tensor:
        return hl.explain(
            case.net.rnn,
            case.x,
            readout=case.net.head,
            output=case.output,
            baseline=case.baseline,
            method=method,
            orders=orders,
            blocks=blocks,
            steps=steps,
        ).values.float()

    return run


def integrated(nodes: int) -> Method:
    return lambda case: attr.IntegratedGradients(case.net).attribute(
        case.x, case.base, target=case.output, n_steps=nodes
    )


def deep_lift(case: Case) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it sets hooks
        return attr.DeepLift(case.unrolled).attribute(case.x, case.base, target=case.output).detach()


def occlusion(case: Case) -> Tensor:
    return attr.Occlusion(case.net).attribute(
        case.x, (1, 1), baselines=case.base, target=case.output, perturbations_per_eval=32
    )


def gradient(case: Case) -> Tensor:
    slope = attr.Saliency(case.net).attribute(case.x, target=case.output, abs=False)
    return slope * (case.x - case.baseline)


def sampling(rounds: int) -> Method:
    def run(case: Case) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return attr.ShapleyValueSampling(case.net).attribute(
                case.x, case.base, target=case.output, n_samples=rounds, perturbations_per_eval=32
            )

    return run


RIVALS: dict[str, Method] = {
    "captum IntegratedGradients (50)": integrated(50),
    "captum DeepLift": deep_lift,
    "captum Occlusion": occlusion,
    "gradient x input": gradient,
}
FURTHER: dict[str, Method] = {  # what else we tried, and captum's own Shapley values
    "captum ShapleyValueSampling (10)": sampling(10),
    "hoplens secant": ours("secant"),
    "hoplens path": ours("path"),
}
LADDER: dict[str, Method] = {  # by cost
    "secant": ours("secant"),
    "secant, 2 steps": ours("secant", steps=2),
    "orders 2 x 2": ours(orders=2, blocks=2),
    "orders 4 x 2": ours(orders=4, blocks=2),
    "orders 4 x 4": ours(orders=4, blocks=4),
    "orders 8 x 4": ours(),
}
STEPS = (5, 10, 20, 50)


def train(net: Predictor, batches: Callable[[], tuple[Tensor, Tensor]], loss: nn.Module, steps: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        x, y = batches()
        optimiser.zero_grad()
        loss(net(x), y).backward()
        optimiser.step()
    net.requires_grad_(False)


def digits(kind: str) -> Case:
    data = load_digits()
    x, y = torch.tensor(data.images / 16, dtype=torch.float32), torch.tensor(data.target)
    place = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    seen, kept = place[:1200], place[1200:]
    torch.manual_seed(0)
    net, g = Predictor(kind, 8, 48, 10), torch.Generator().manual_seed(1)

    def batches() -> tuple[Tensor, Tensor]:
        chosen = seen[torch.randint(len(seen), (64,), generator=g)]
        return x[chosen], y[chosen]

    train(net, batches, nn.CrossEntropyLoss(), 800)
    right = float((net(x[kept]).argmax(1) == y[kept]).float().mean())
    shown = x[kept[:SAMPLES]]
    skill = f"test accuracy {right:.3f}"
    return Case(f"digits, {kind}", net, shown, torch.zeros(8, 8), net(shown).argmax(1), skill, classes=True)


def known(kind: str, name: str) -> Case:
    task = hl.tasks.make(name, signal="sparse", modules=4, module_size=3, length=10, seed=1)
    torch.manual_seed(0)
    net, g = Predictor(kind, task.n_inputs, 32, task.n_outputs), torch.Generator().manual_seed(1)
    if kind == "RNN":
        nn.init.orthogonal_(net.rnn.weight_hh_l0)
    train(net, lambda: tuple(task.sample(64, generator=g)), nn.MSELoss(), 1500)
    test = task.sample(2000, generator=3)
    error = float((net(test.inputs) - test.targets).square().mean())
    output = torch.arange(SAMPLES) % task.n_outputs
    carries = (task.target_maps.flip(0) != 0)[:, output].transpose(0, 1)  # hop k is step L - 1 - (k - 2)
    base = task.mean_input.float()
    x = task.sample(SAMPLES, generator=9).inputs
    return Case(f"{name}, {kind}", net, x, base, output, f"test error {error:.3f}", carries)


def curve(case: Case, values: Tensor) -> dict[str, Tensor]:
    """Return the areas of deletion and insertion of every sample, (B,) each."""
    size = values.flatten(1) * case.sign[:, None]
    rank = size.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    x, base = case.x.flatten(1), case.base.flatten(1)
    areas: dict[str, list[Tensor]] = {}
    for k in np.linspace(0, x.shape[1], POINTS).round():
        first = rank < int(k)
        for name, z in (
            ("deletion", torch.where(first, base, x)),
            ("insertion", torch.where(first, x, base)),
        ):
            out = case.net(z.view_as(case.x))
            own = out.gather(1, case.output[:, None])[:, 0]
            areas.setdefault(name, []).append(own * case.sign)
            if case.classes:
                share = out.softmax(1).gather(1, case.output[:, None])[:, 0]
                areas.setdefault(f"{name} p", []).append(share)
    return {name: torch.stack(found).mean(0) for name, found in areas.items()}


def found_signal(case: Case, values: Tensor) -> dict[str, Tensor]:
    """Return how well sizes of contributions find the cells and the steps that carry signal."""
    assert case.truth is not None
    size, truth = values.abs().flatten(1), case.truth.flatten(1).double()
    rank = size.argsort(dim=1).argsort(dim=1).double() + 1
    ones, zeros = truth.sum(1), (1 - truth).sum(1)
    area = ((rank * truth).sum(1) - ones * (ones + 1) / 2) / (ones * zeros)
    k = int(ones[0])
    best = truth.gather(1, size.argsort(dim=1, descending=True)[:, :k]).mean(1)
    steps, true_steps = values.abs().sum(2), case.truth.any(2).double()
    chosen = steps.argsort(dim=1, descending=True)[:, : int(true_steps[0].sum())]
    return {"signal AUC": area, "signal at k": best, "steps at k": true_steps.gather(1, chosen).mean(1)}


def measure(case: Case, values: Tensor) -> dict[str, np.ndarray]:
    found = curve(case, values)
    found["insertion - deletion"] = found["insertion"] - found["deletion"]
    if case.truth is not None:
        found |= found_signal(case, values)
    return {name: own.double().numpy() for name, own in found.items()}


def seconds(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def better(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return by how much a is better than b, sample by sample."""
    return b - a if name.startswith("deletion") else a - b


def shown(values: np.ndarray) -> str:
    mean, low, high = bootstrap_mean(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def climb(case: Case, values: Tensor, rounds: int = 40) -> Tensor:
    """Search the ranking itself: swap neighbours wherever that raises insertion - deletion.

    Swapping places n and n + 1 changes the two curves at one point each, so that all even places, then all
    odd ones, can be tried at once. Returns a stand-in for contributions that has the ranking found.
    """
    order = (values.flatten(1) * case.sign[:, None]).argsort(dim=1, descending=True, stable=True)
    x, base = case.x.flatten(1), case.base.flatten(1)
    size, cells = order.shape

    def height(chosen: Tensor) -> Tensor:  # (B, S, C), which cells are present
        inside = (
            torch.where(chosen, x[:, None], base[:, None]),
            torch.where(chosen, base[:, None], x[:, None]),
        )
        index = case.output.repeat_interleave(chosen.shape[1])[:, None]
        out = [case.net(z.reshape(-1, *case.x.shape[1:])).gather(1, index).view(size, -1) for z in inside]
        return (out[0] - out[1]) * case.sign[:, None]

    for turn in range(rounds):
        places = torch.arange(turn % 2, cells - 1, 2)
        rank = order.argsort(dim=1)
        now = rank[:, None] <= places[None, :, None]  # the first n + 1 cells
        other = now.clone()
        rows = torch.arange(size)[:, None]
        spots = torch.arange(len(places))[None]
        first, second = order[:, places], order[:, places + 1]
        other[rows, spots, first], other[rows, spots, second] = False, True
        better_ = height(other) > height(now)
        order[:, places], order[:, places + 1] = (
            torch.where(better_, second, first),
            torch.where(better_, first, second),
        )
    return (cells - order.argsort(dim=1)).view_as(values) * case.sign[:, None, None]


def limits(case: Case) -> str:
    """Return a table row: what direct search finds, and the rivals' best single measures together."""
    own, found = (measure(case, v) for v in (ours()(case), climb(case, ours()(case))))
    rivals = [measure(case, run(case)) for run in RIVALS.values()]
    insertion = max(float(r["insertion"].mean()) for r in rivals)
    deletion = min(float(r["deletion"].mean()) for r in rivals)
    cells = [
        f"{float(part['insertion'].mean()):.3f}, {float(part['deletion'].mean()):.3f}, "
        f"{float(part['insertion - deletion'].mean()):.3f}"
        for part in (own, found)
    ]
    cells.append(f"{insertion:.3f}, {deletion:.3f}, {insertion - deletion:.3f}")
    return f"| {case.name} | {' | '.join(cells)} |"


def report(case: Case) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Return the Markdown of one case, and (measure, best rival, verdict) of each measure."""
    methods = {OURS: ours(), **RIVALS, **FURTHER}
    values = {name: run(case) for name, run in methods.items()}
    scores = {name: measure(case, own) for name, own in values.items()}
    spent = {name: seconds(lambda run=run: run(case)) for name, run in methods.items()}
    names = list(scores[OURS])
    lines = [f"### {case.name} ({case.skill}, {len(case.x)} samples)", ""]
    arrows = ["lower" if name.startswith("deletion") else "higher" for name in names]
    lines.append("| method | " + " | ".join(names) + " | relative gap | ms |")
    lines.append("|---|" + "---|" * (len(names) + 2))
    lines.append("| *better is* | " + " | ".join(arrows) + " | lower | lower |")
    for name, own in scores.items():
        gap = (case.change - values[name].sum((1, 2))).abs() / case.change.abs().clamp_min(1e-3)
        cells = [shown(own[key]) for key in names]
        lines.append(
            f"| {name} | " + " | ".join(cells) + f" | {float(gap.median()):.0e} | {1e3 * spent[name]:.1f} |"
        )
    verdicts = []
    for key in names:
        best = max(
            RIVALS, key=lambda name, key=key: float(better(key, scores[name][key], scores[OURS][key]).mean())
        )
        mean, low, high = bootstrap_mean(better(key, scores[OURS][key], scores[best][key]))
        word = "better" if low > 0 else "worse" if high < 0 else "equal"
        verdicts.append((key, best, f"{word} by {mean:+.3f} [{low:+.3f}, {high:+.3f}]"))
    return [*lines, ""], verdicts


def race(case: Case) -> list[str]:
    """Return table rows: the cheapest of our settings that is as faithful as each rival at its cheapest."""
    key = "insertion - deletion"
    own = [
        (n, measure(case, run(case))[key], seconds(lambda run=run: run(case))) for n, run in LADDER.items()
    ]
    rows = []
    rivals: dict[str, list[tuple[str, Method]]] = {
        "captum IntegratedGradients": [(f"{n} nodes", integrated(n)) for n in STEPS],
        "captum DeepLift": [("", deep_lift)],
        "captum Occlusion": [("", occlusion)],
        "gradient x input": [("", gradient)],
    }
    for name, kinds in rivals.items():
        tried = [
            (label, measure(case, run(case))[key], seconds(lambda run=run: run(case))) for label, run in kinds
        ]
        best = max(float(score.mean()) for _, score, _ in tried)
        label, score, spent = next(t for t in tried if float(t[1].mean()) >= best - 0.01 * abs(best))
        enough = [t for t in own if float(t[1].mean()) >= float(score.mean())]
        match = min(enough, key=lambda t: t[2], default=None)
        ending = "none of ours reaches it | |"
        if match is not None:
            ratio = spent / match[2]
            ending = f"{match[0]}: {match[1].mean():.3f}, {1e3 * match[2]:.1f} ms | {ratio:.1f} x |"
        rival = f"{name} {label}".strip()
        rows.append(f"| {case.name} | {rival}: {score.mean():.3f}, {1e3 * spent:.1f} ms | {ending}")
    return rows


def write(path: Path, lines: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    body = "<!-- faithfulness -->\n" + "\n".join(lines) + "\n<!-- /faithfulness -->"
    done, count = re.subn(
        r"<!-- faithfulness -->.*?<!-- /faithfulness -->", lambda _: body, text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{path} lacks the two markers <!-- faithfulness --> and <!-- /faithfulness -->")
    path.write_text(done, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="page whose tables to replace")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    cases = [digits(kind) for kind in ("RNN", "GRU", "LSTM")]
    cases += [known("RNN", "subtraction")]
    cases += [known(kind, "multiplication") for kind in ("RNN", "GRU", "LSTM")]
    tables, verdicts, races, searched = [], [], [], []
    for case in cases:
        lines, found = report(case)
        tables += lines
        verdicts += [(case.name, *row) for row in found]
        races += race(case)
        searched += [limits(case)]
        print(f"{case.name}: {time.perf_counter() - start:.0f} s", flush=True)
    words = [row[3].split()[0] for row in verdicts]
    lines = [
        f"Against the best of captum's four, sample by sample: better on {words.count('better')}, equal on "
        f"{words.count('equal')}, worse on {words.count('worse')} of {len(words)} measures.",
        "",
        "| network | measure | best rival | hoplens is |",
        "|---|---|---|---|",
        *[f"| {' | '.join(row)} |" for row in verdicts],
        "",
        "### What any ranking can reach",
        "",
        "Insertion, deletion, and their difference:",
        "",
        "| network | hoplens | direct search from there | best rival of each, taken together |",
        "|---|---|---|---|",
        *searched,
        "",
        "### Time at equal faithfulness (insertion - deletion)",
        "",
        "| network | rival at its cheapest good setting | our cheapest setting that is as good | faster by |",
        "|---|---|---|---|",
        *races,
        "",
        *tables,
        f"torch {torch.__version__}, one thread, {time.perf_counter() - start:.0f} s for all of this.",
    ]
    print("\n".join(lines))
    if options.write:
        write(options.write, lines)


if __name__ == "__main__":
    main()
