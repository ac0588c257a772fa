"""Train a GRU to read handwritten digits row by row, and compress it.

scikit-learn's digits are pictures of 8 x 8 pixels: 8 steps of 8 inputs. Needs scikit-learn and the extra onnx
(``pip install scikit-learn "hoplens[onnx]"``). Run: python examples/compress_digits.py [folder] [options]; a
second run in the same folder goes on where the first one stopped.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import hoplens as hl

TRAIN = 1200


def make_data(folder: Path) -> tuple[Path, Path]:
    """Write train.npz and test.npz: inputs (N, 8, 8) from 0 to 1, targets (N,) of classes."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    inputs = (digits.images[order] / 16).astype(np.float32)
    parts = {"train": slice(TRAIN), "test": slice(TRAIN, None)}
    for name, rows in parts.items():
        np.savez(folder / f"{name}.npz", inputs=inputs[rows], targets=digits.target[order][rows])
    return folder / "train.npz", folder / "test.npz"


def train(data: Path, *, hidden: int = 64, steps: int = 1200) -> hl.RecurrentModel:
    """Return a trained GRU with its read-out."""
    with np.load(data) as arrays:
        inputs, targets = torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["targets"])
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hl.RecurrentModel(nn.GRU(8, hidden, batch_first=True), nn.Linear(hidden, 10))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (64,), generator=draw)
        loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def main(folder: str = "digits", *options: str, hidden: int = 64, steps: int = 1200) -> None:
    """Train, save, and run ``hoplens compress`` on the file, with further options if you like."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    data, test = make_data(place)
    model = hl.save(train(data, hidden=hidden, steps=steps), place / "gru.safetensors")
    command = [sys.executable, "-m", "hoplens.cli.app", "compress", str(model), "--data", str(data)]
    command += ["--test", str(test), "--target-size", "0.25", "--max-loss", "0.01"]
    code = subprocess.run([*command, "-o", str(place / "out"), *options], check=False).returncode
    if code not in (0, 3):  # 3: a limit is missed, and the command has said which
        sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
