"""Every kind of model that the library takes or returns, each with a plain way to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import hoplens as hl
from hoplens.models.ensemble import create_ensemble

I, H, O = 3, 5, 2  # noqa: E741
HEAD = {"projected": 3, "both ways": 2 * H, "both ways and deep": 2 * H}


@dataclass(frozen=True)
class Kind:
    """A model, the read-out to pass beside it (None: it has one), and what it computes: inputs -> (B, O)."""

    model: Any
    readout: Any
    run: Callable[[Tensor], Tensor]
    core: bool = True  # of torch's kinds or a LeakyRNN, batch-first: can be made smaller, saved and exported

    @property
    def options(self) -> dict[str, Any]:
        return {} if self.readout is None else {"readout": self.readout}


CORES: dict[str, Callable[[], nn.Module]] = {
    "tanh": lambda: nn.RNN(I, H, batch_first=True),
    "relu": lambda: nn.RNN(I, H, batch_first=True, nonlinearity="relu"),
    "leaky tanh": lambda: hl.LeakyRNN(I, H, 0.4),
    "leaky relu": lambda: hl.LeakyRNN(I, H, 0.4, nonlinearity="relu"),
    "leaky linear": lambda: hl.LeakyRNN(I, H, 0.4, nonlinearity="linear"),
    "linear": lambda: hl.LeakyRNN(I, H, 1.0, nonlinearity="linear"),
    "gru": lambda: nn.GRU(I, H, batch_first=True),
    "lstm": lambda: nn.LSTM(I, H, batch_first=True),
    "projected": lambda: nn.LSTM(I, H, batch_first=True, proj_size=3),
    "deep": lambda: nn.GRU(I, H, batch_first=True, num_layers=2),
    "no bias": lambda: nn.RNN(I, H, batch_first=True, bias=False),
    "both ways": lambda: nn.LSTM(I, H, batch_first=True, bidirectional=True),
    "both ways and deep": lambda: nn.RNN(I, H, batch_first=True, bidirectional=True, num_layers=2),
}


def drawn(make: Callable[[], Any], seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def ends(core: nn.Module, head: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return head(core(x)[0][:, -1])

    return run


class Own(nn.Module):
    """A cell of a user's own, which nobody told hoplens the dtype of."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.candidate = nn.Linear(I + H, H), nn.Linear(I + H, H)

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([x, state], dim=-1)
        z = torch.sigmoid(self.gate(both))
        return (1 - z) * state + z * torch.tanh(self.candidate(both))

    def to_hoplens(self) -> hl.Cell:
        return hl.FunctionCell(self.step, n_inputs=I, n_state=H)


class Whole(nn.Module):
    """A module of a user's own that holds a core and a linear layer, and may do more."""

    def __init__(self, core: nn.Module, more: str = "") -> None:
        super().__init__()
        self.rnn, self.fc, self.more = core, nn.Linear(H, O), more

    def forward(self, x: Tensor) -> Tensor:
        states = self.rnn(x)[0]
        if self.more == "mean":
            states = states.mean(1, keepdim=True)
        if self.more == "relu":
            states = states.relu()
        return self.fc(states if self.more == "every step" else states[:, -1])


def kinds() -> dict[str, Kind]:
    """Return all kinds; new ones at each call, as some functions must leave them as they are."""
    found: dict[str, Kind] = {}
    for name, make in CORES.items():
        core, head = drawn(make), drawn(lambda n=name: nn.Linear(HEAD.get(n, H), O), 1)
        found[name] = Kind(core, head, ends(core, head))
    core, head = drawn(CORES["gru"]), drawn(lambda: nn.Linear(H, O), 1)
    model = hl.RecurrentModel(core, head)
    found["RecurrentModel"] = Kind(model, None, ends(core, head))
    short = hl.truncate(model, 3)
    found["truncated"] = Kind(short, None, lambda x: ends(short.core, short.readout)(x[:, -3:]))
    cut = hl.prune(model, 0.5)
    found["Pruned"] = Kind(cut, None, ends(cut.core, cut.readout))
    masked = cut.with_masks()
    found["masks held"] = Kind(masked, None, ends(masked.core, masked.readout))
    few = hl.quantise(
        model, "int4", calibration=torch.randn(8, 6, I, generator=torch.Generator().manual_seed(3))
    )
    found["Quantised"] = Kind(few, None, ends(few.model.core, few.model.readout))
    for name, small in (("Reduced", hl.reduce_balanced(model, 3)), ("low rank", hl.low_rank(model, 2))):
        found[name] = Kind(small, None, ends(small.model.core, small.model.readout))
    for activation in ("tanh", "relu", "linear"):
        one = create_ensemble(
            [4], ["gaussian"], n_inputs=I, hidden=H, n_outputs=O, length=4, activation=activation, leak=0.7
        )
        found[f"Ensemble {activation}"] = Kind(one, None, lambda x, one=one: one.predict(x)[0])
    whole = drawn(lambda: Whole(nn.GRU(I, H, batch_first=True)))
    found["module of core and head"] = Kind(whole, None, ends(whole.rnn, whole.fc))
    own, head = drawn(Own), drawn(lambda: nn.Linear(H, O), 1)

    def steps(x: Tensor) -> Tensor:
        with torch.no_grad():
            state = x.new_zeros(len(x), H)
            for part in x.unbind(1):
                state = own.step(state, part)
            return head(state)

    found["own cell"] = Kind(own, head, steps, core=False)
    return found


NAMES = tuple(kinds())
