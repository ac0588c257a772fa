"""Every kind of model that the library takes or returns, each with a plain way to run it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import hoplens as hl
from hoplens.models.cells import CORES as REGISTRY
from hoplens.models.initial import create_ensemble

I, H, O = 3, 5, 2  # noqa: E741
HEAD = {"projected": 3, "both ways": 2 * H, "both ways and deep": 2 * H}


@dataclass(frozen=True)
class Kind:
    """A model, the read-out to pass beside it (None: it has one), and what it computes: inputs -> (B, O)."""

    model: Any
    readout: Any
    run: Callable[[Tensor], Tensor]
    core: bool = True  # of torch's kinds or a LeakyRNN, batch-first: can be made smaller, saved and exported
    lengths: Tensor | None = None  # valid steps of X, where the row is one of ragged sequences
    base: Any = None  # the module that the runs come from, where the model itself is none (a file)

    @property
    def is_file(self) -> bool:
        return isinstance(self.model, Path)

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
# cells of the registry that PyTorch does not have come by themselves
OWN = {kind: module for kind, module in REGISTRY.items() if kind not in ("rnn", "gru", "lstm", "leaky")}
CORES |= {kind: lambda module=module: module(I, H) for kind, module in OWN.items()}


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
        return hl.models.FunctionCell(self.step, n_inputs=I, n_state=H)


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


SAVED = (*OWN, "relu", "leaky tanh", "leaky relu", "leaky linear", "lstm", "projected", "both ways and deep")
BARE = ("tanh", "gru", "lstm", "projected", "deep", "no bias", "both ways")  # units that a state_dict tells


def files(folder: Path) -> dict[str, Kind]:
    """Return models in files, with the description of `save_model` and without."""
    found: dict[str, Kind] = {}
    for name in dict.fromkeys([*SAVED, *BARE]):
        core, head = drawn(CORES[name]), drawn(lambda n=name: nn.Linear(HEAD.get(n, H), O), 1)
        if name in SAVED:
            path = hl.save(core, folder / f"saved {name}.safetensors", readout=head)
            found[f"saved {name}"] = Kind(path, None, ends(core, head), base=core)
        if name in BARE:
            path = folder / f"bare {name}.pt"
            torch.save(nn.ModuleDict({"rnn": core, "out": head}).state_dict(), path)
            found[f"bare {name}"] = Kind(path, None, ends(core, head), base=core)
    net = nn.ModuleDict({"rnn": drawn(CORES["gru"]), "out": drawn(lambda: nn.Linear(H, O), 1)})
    save_file(net.state_dict(), folder / "bare.safetensors")
    run = ends(net["rnn"], net["out"])
    found["bare safetensors"] = Kind(folder / "bare.safetensors", None, run, base=net["rnn"])
    short = hl.truncate(net["rnn"], 3, readout=net["out"])
    path = hl.save(short, folder / "saved truncated.safetensors")
    found["saved truncated"] = Kind(path, None, lambda x: run(x[:, -3:]), base=net["rnn"])
    few = hl.quantise(net["rnn"], "int4", readout=net["out"])
    path = hl.save(few, folder / "saved Quantised.safetensors")
    found["saved Quantised"] = Kind(path, None, ends(few.model.core, few.model.readout), base=few.model.core)
    return found


def kinds(folder: Path | None = None) -> dict[str, Kind]:
    """Return all kinds; new ones at each call, as some functions must leave them as they are."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return {**in_memory(), **files(Path(made))}
    return {**in_memory(), **files(folder)}


def in_memory() -> dict[str, Kind]:
    """Return the models that are objects."""
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
    few = hl.quantise(model, "int4", inputs=torch.randn(8, 6, I, generator=torch.Generator().manual_seed(3)))
    found["Quantised"] = Kind(few, None, ends(few.model.core, few.model.readout))
    small = hl.reduce(model, 3)
    found["Reduced"] = Kind(small, None, ends(small.model.core, small.model.readout))
    for activation in ("tanh", "relu", "linear"):
        one = create_ensemble(
            [4], ["gaussian"], n_inputs=I, hidden=H, n_outputs=O, length=4, cell=activation, leak=0.7
        )
        found[f"Ensemble {activation}"] = Kind(one, None, lambda x, one=one: one.predict(x)[0])
    whole = drawn(lambda: Whole(nn.GRU(I, H, batch_first=True)))
    found["module of core and head"] = Kind(whole, None, ends(whole.rnn, whole.fc))
    core, head = drawn(CORES["gru"]), drawn(lambda: nn.Linear(H, O), 1)
    sizes = torch.tensor([6, 2, 5, 3])

    def at_ends(x: Tensor) -> Tensor:
        with torch.no_grad():
            return head(core(x)[0][torch.arange(len(x)), sizes - 1])

    found["ragged"] = Kind(core, head, at_ends, lengths=sizes)
    own, head = drawn(Own), drawn(lambda: nn.Linear(H, O), 1)

    def steps(x: Tensor) -> Tensor:
        with torch.no_grad():
            state = x.new_zeros(len(x), H)
            for part in x.unbind(1):
                state = own.step(state, part)
            return head(state)

    found["own cell"] = Kind(own, head, steps, core=False)
    bare = drawn(CORES["gru"])
    net = nn.ModuleDict({"rnn": bare, "out": drawn(lambda: nn.Linear(H, O, bias=False), 1)})
    with tempfile.TemporaryDirectory() as made:
        torch.save(net.state_dict(), Path(made) / "net.pt")
        stack = hl.models.load_stack(Path(made) / "net.pt")
    found["Stack"] = Kind(stack, None, ends(bare, net["out"]), core=False)
    found["Cell"] = Kind(bare_cell(bare), net["out"], ends(bare, net["out"]), core=False)
    return found


def bare_cell(core: nn.GRU) -> hl.Cell:
    """Return a cell made by hand of a module's weights."""
    return hl.models.GruCell(core.weight_ih_l0, core.weight_hh_l0, core.bias_ih_l0, core.bias_hh_l0)


NAMES = tuple(kinds())
