"""A task, a penalty and a measure of your own, each proved in one line.

Run it as a script, or name the file in a study: what it registers then has these names.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

import hoplens as hl
from hoplens import testing


@hl.extensions.register_task("cued recall")
@dataclass(frozen=True)
class CuedRecall:
    """Output the first input of ``lag`` steps ago, times the cue that comes with the last step."""

    lag: int = 2
    length: int = 5
    n_inputs: int = 2
    n_outputs: int = 1
    form: str = "regression"

    def sample(self, n: int, *, generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(n, self.length, self.n_inputs, generator=generator, dtype=dtype)
        return inputs, inputs[:, self.length - 1 - self.lag, :1] * inputs[:, -1, 1:]


class GroupLasso(hl.Penalty):
    """Sum over hidden units of the norm of what each sends to the others: silences whole units."""

    def forward(self, net: hl.Pathways) -> Tensor:
        return torch.linalg.vector_norm(net.w_rec, dim=-2).sum(dim=-1)


def group_lasso(length: int) -> hl.Penalty:  # noqa: ARG001 - a penalty may depend on the task's length
    return GroupLasso()


@hl.extensions.register_recipe("group lasso")
def group_lasso_recipe() -> hl.Recipe:
    return hl.Recipe("group lasso", (hl.recipes.Term(group_lasso),))


@hl.extensions.register_measure("senders")
def senders(net: hl.Pathways, task: object) -> Tensor:  # noqa: ARG001 - a measure may ask the task
    """Return how many hidden units send more than a tenth of what the strongest sends."""
    sent = torch.linalg.vector_norm(net.w_rec, dim=-2)
    return (sent > 0.1 * sent.amax(dim=-1, keepdim=True)).sum(dim=-1)


def main() -> None:
    task = hl.extensions.make_task("cued recall", {"lag": 1, "length": 3})
    recipe = hl.extensions.make_recipe("group lasso")

    testing.check_task(task)
    testing.check_recipe(recipe)
    testing.check_measure(senders)
    print("the task, the recipe and the measure keep their contracts")

    run = hl.train(
        task, [hl.recipes.none(), recipe], seeds=range(12), strengths=[1e-3, 1e-2], hidden=12, steps=400
    )
    networks = run.metrics
    networks["senders"] = senders(run.pathways, task).numpy()
    networks = hl.statistics.assign_roles(networks, validation=range(4))
    for metric in ("test_error", "senders"):
        table = hl.statistics.compare(networks, metric, choose_by="test_error")
        print(f"\n{metric}\n{table[['method', 'strength', 'n', 'mean', 'low', 'high', 'p']].to_string()}")


if __name__ == "__main__":
    main()
