"""Error over the strength of the penalty, several seeds each: `plot_strength_sweep`."""

import hoplens as hl
from hoplens.plots import plot_strength_sweep, save_figure


def main(folder: str = ".") -> str:
    task = hl.tasks.make("averaging", signal="on-off", modules=2, module_size=2, length=5)
    recipes = [hl.recipes.none(), hl.recipes.l1(), hl.recipes.paper()]
    result = hl.train(task, recipes, seeds=range(3), strengths=[1e-4, 1e-3, 1e-2], hidden=16, steps=200)
    ax = plot_strength_sweep(result.metrics, "test_error")
    return str(save_figure(ax.figure, f"{folder}/strength_sweep.svg"))


if __name__ == "__main__":
    print(main())
