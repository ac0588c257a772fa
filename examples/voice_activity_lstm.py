"""Read the LSTM inside the PyPI package silero-vad (weights only), and a GRU trained on the spot.

``pip install silero-vad`` is enough: the weights are read from its .safetensors file and none of its code is
run. Without the package only the GRU is shown. Run: python examples/voice_activity_lstm.py [folder for the
picture].
"""

import importlib.util
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import hoplens as hl
from hoplens.plots import save_figure

Curves = dict[str, Tensor]  # influence by lag, one curve a way of looking


def by_lag(maps: Tensor) -> Tensor:
    """Return the summed magnitude of maps (..., L, O, I) by lag, (L,), mean over samples."""
    return maps.double().abs().sum((-2, -1)).reshape(-1, maps.shape[-3]).mean(0)


def voice_activity(path: Path) -> Curves:
    net = hl.read(path, "final_conv", rnn="lstm_cell")
    print(net)
    maps = hl.hop_maps(net.detach().to(torch.float64), 12)
    size = maps.values.abs().sum((1, 2))
    print("influence of each hop on the speech probability, hop 2 = 1:")
    print(
        "  " + "  ".join(f"{int(k)}: {float(s / size[0]):.2f}" for k, s in zip(maps.hops, size, strict=True))
    )
    # how far is the origin from what happens on data? Random features, non-negative as after a ReLU: the
    # encoder that makes the real ones is not recurrent and is not read
    stack = hl.models.load_stack(path, rnn="lstm_cell", readout="final_conv")
    features = torch.rand(4, 12, 128, generator=torch.Generator().manual_seed(0)).square()
    exact = hl.trajectory_maps(stack, features)
    print("  at the origin: " + hl.fidelity(net, exact).summary())
    mean = hl.read(stack, at="mean", inputs=features)
    print("  at the mean of these states: " + hl.fidelity(mean, exact).summary())
    return {
        "exact, along the inputs": by_lag(exact.by_lag()),
        "weights at the mean state": by_lag(hl.lag_maps(mean.detach(), 12).values),
        "weights at the origin": by_lag(hl.lag_maps(net.detach(), 12).values),
    }


def trained_gru() -> Curves:
    """A GRU that must recall its first input two steps later."""
    torch.manual_seed(0)
    gru, head = nn.GRU(2, 16, batch_first=True), nn.Linear(16, 1)
    optimiser = torch.optim.Adam([*gru.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(400):
        x = torch.randn(64, 6, 2)
        loss = (head(gru(x)[0][:, -1])[:, 0] - x[:, -3, 0]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"GRU trained to recall input 0 of two steps before, loss {loss.item():.4f}")
    x = torch.randn(64, 6, 2)
    exact = hl.trajectory_maps(gru, x, readout=head)
    lags = exact.by_lag().mean(0)[:, 0]  # (L, I)
    for lag, (first, second) in enumerate(lags.tolist()):
        print(f"  lag {lag}: exact mean map {first:+.2f} (input 0), {second:+.2f} (input 1)")
    curves = {"exact, along the inputs": by_lag(exact.by_lag())}
    for place, name in (("mean", "weights at the mean state"), ("origin", "weights at the origin")):
        net = hl.read(gru, head, at=place, inputs=x if place == "mean" else None)
        print(f"  at the {place}: " + hl.fidelity(net, exact).summary())
        curves[name] = by_lag(hl.lag_maps(net.detach(), 6).values)
    return curves


def draw(panels: dict[str, Curves], path: Path) -> None:
    figure = Figure(figsize=(3.4 * len(panels), 2.9), layout="constrained")
    looks = (("#1c2024", "o", "-"), ("#1f63a8", "s", "--"), ("#bf4208", "^", ":"))
    for axes, (title, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for (name, curve), (colour, marker, line) in zip(curves.items(), looks, strict=True):
            axes.plot(
                range(len(curve)), curve, color=colour, marker=marker, ls=line, ms=4, lw=1.2, label=name
            )
        axes.set_yscale("log")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("lag (time steps)", fontsize=8)
        axes.set_ylabel("influence, sum of |map|", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False
    )
    save_figure(figure, path)


def find_weights() -> Path | None:
    spec = importlib.util.find_spec("silero_vad")  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "data" / "silero_vad_16k.safetensors"


if __name__ == "__main__":
    weights = find_weights()
    shown: dict[str, Curves] = {}
    if weights is None:
        print("silero-vad is not installed: pip install silero-vad")
    else:
        shown["LSTM of silero-vad, random features"] = voice_activity(weights)
    shown["GRU that recalls two steps back"] = trained_gru()
    if len(sys.argv) > 1:
        draw(shown, Path(sys.argv[1]) / "gated.png")
