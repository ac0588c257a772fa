"""Teach hoplens a recurrent layer of your own in a few lines.

Two ways: register a reader function for a class you cannot change, or give your class a method
``to_hoplens``. Both return a cell: a function ``(state, input) -> state``; torch.func gives its Jacobians.
"""

import torch
from torch import Tensor, nn

import hoplens as hl


class MinimalGate(nn.Module):
    """A gated unit of one gate (somebody else's class): h' = (1 - z) h + z tanh(W h + U x)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs + hidden, hidden)
        self.candidate = nn.Linear(inputs + hidden, hidden)

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([x, state], dim=-1)
        z = torch.sigmoid(self.gate(both))
        return (1 - z) * state + z * torch.tanh(self.candidate(both))


def read_minimal_gate(module: MinimalGate) -> hl.Cell:
    hidden = module.gate.out_features
    return hl.models.FunctionCell(module.step, n_inputs=module.gate.in_features - hidden, n_state=hidden)


class Oscillator(nn.Module):
    """A class of one's own: positions and velocities, only positions are passed on."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.drive = nn.Linear(inputs + units, units)

    def to_hoplens(self) -> hl.Cell:
        return OscillatorCell(self)


class OscillatorCell(hl.Cell):
    def __init__(self, module: Oscillator) -> None:
        self.module, self.units = module, module.drive.out_features
        super().__init__(module.drive.in_features - self.units, 2 * self.units, label="oscillator")

    def step(self, state: Tensor, x: Tensor) -> Tensor:
        position, velocity = state.split(self.units, dim=-1)
        pull = torch.tanh(self.module.drive(torch.cat([x, position], dim=-1)))
        velocity = 0.9 * velocity + 0.1 * (pull - position)
        return torch.cat([position + velocity, velocity], dim=-1)

    def emission(self) -> Tensor:
        return torch.eye(self.units, self.n_state)


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(16, 12, 3)
    readout = nn.Linear(8, 2)

    hl.extensions.register_reader(MinimalGate, read_minimal_gate)
    for module in (MinimalGate(3, 8), Oscillator(3, 8)):
        net = hl.read(module, readout, at="origin")
        exact = hl.trajectory_maps(module, inputs, readout=readout)
        print(net)
        print("  " + hl.fidelity(net, exact).summary())


if __name__ == "__main__":
    main()
