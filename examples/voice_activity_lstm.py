"""Read the LSTM inside the PyPI package silero-vad (weights only), and a GRU trained on the spot.

``pip install --no-deps silero-vad`` is enough: the weights are read from its .safetensors file, none of its
code is run and torchaudio is not needed. Without the package, pass the path of the file, or only the GRU is
shown.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

import hoplens as hl


def voice_activity(path: Path) -> None:
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
    stack = hl.load_stack(path, rnn="lstm_cell", readout="final_conv")
    features = torch.rand(4, 12, 128, generator=torch.Generator().manual_seed(0)).square()
    exact = hl.trajectory_maps(stack, features)
    print("  at the origin: " + hl.fidelity(net, exact).summary())
    mean = hl.read(stack, at="mean", trajectory=features)
    print("  at the mean of these states: " + hl.fidelity(mean, exact).summary())


def trained_gru() -> None:
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
    for place in ("origin", "mean"):
        net = hl.read(gru, head, at=place, trajectory=x if place == "mean" else None)
        print(f"  at the {place}: " + hl.fidelity(net, exact).summary())


def find_weights() -> Path | None:
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    spec = importlib.util.find_spec("silero_vad")  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "data" / "silero_vad_16k.safetensors"


if __name__ == "__main__":
    weights = find_weights()
    if weights is None:
        print("silero-vad is not installed: pip install --no-deps silero-vad")
    else:
        voice_activity(weights)
    trained_gru()
