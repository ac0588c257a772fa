"""Performance kept while recurrent weights are removed: `plot_pruning`."""

import hoplens as hl
from hoplens.plots import plot_pruning, save_figure
from hoplens.studies.measuring import measure


def main(folder: str = ".") -> str:
    task = hl.tasks.make("averaging", signal="on-off", modules=2, module_size=2, length=5)
    recipes = [hl.recipes.none(), hl.recipes.recommended()]
    result = hl.train(task, recipes, seeds=range(3), strengths=[1e-3], hidden=16, steps=300)
    ax = plot_pruning(measure(result))
    return str(save_figure(ax.figure, f"{folder}/pruning.svg"))


if __name__ == "__main__":
    print(main())
