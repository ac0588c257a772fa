"""Eigenvalues of the recurrent weights: `plot_spectrum`."""

import torch

import hoplens as hl
from hoplens.plots import plot_spectrum, save_figure


def main(folder: str = ".") -> str:
    generator = torch.Generator().manual_seed(0)
    w_rec = 0.9 / 128**0.5 * torch.randn(128, 128, generator=generator, dtype=torch.float64)
    net = hl.Pathways(torch.ones(128, 1, dtype=w_rec.dtype), w_rec, torch.ones(1, 128, dtype=w_rec.dtype))
    ax = plot_spectrum(net)
    return str(save_figure(ax.figure, f"{folder}/spectrum.svg"))


if __name__ == "__main__":
    print(main())
