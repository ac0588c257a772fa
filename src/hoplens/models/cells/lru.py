"""The linear recurrent unit: a diagonal complex linear recurrence, then a nonlinearity on what it shows.

Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences" (arXiv:2303.06349), with
tanh in place of the stack of dense layers of that paper:

    x' = lambda x + gamma B u        y' = tanh(Re(C x') + D u + b)

``lambda = exp(-exp(nu) + i exp(theta))`` lies inside the unit disc whatever nu and theta are, and
``gamma = sqrt(1 - |lambda|^2)`` keeps the size of x that of its input. All numbers are stored real.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hoplens.models.cells.algebra import Ops, V
from hoplens.models.cells.kernels import Kernel, State
from hoplens.models.cells.module import CellModule
from hoplens.models.cells.weights import Equations, WeightCell

LENGTH = 100  # time steps that a module is made for
KEPT = (0.1, 0.99)  # of |lambda|^length at the start


class LruEquations(Equations):
    """``y' = tanh(.)`` and ``re', im'``; one row each, as ``Re(C x')`` is a projection of x and u too."""

    from_input: tuple[int | None, ...] = (0, 1, 2)
    from_state: tuple[int | None, ...] = (0, 1, 2)
    parts = ("y", "re", "im")
    fed = (1, 2)

    def update(self, ops: Ops[V], rows: Sequence[V], state: Sequence[V]) -> tuple[V, ...]:  # noqa: ARG002
        """Return the next y, and real and imaginary parts of x."""
        return ops.apply("tanh", rows[0]), rows[1], rows[2]


class LruCell(LruEquations, WeightCell):
    """A linear recurrent unit as readers see it: state [y, re x, im x], 2 x 2 blocks in place of lambda.

    Parameters
    ----------
    w_ih : Tensor, shape (3H, I)
        ``Re(C gamma B) + D``, ``gamma Re B`` and ``gamma Im B``.
    w_hh : Tensor, shape (3H, 2H)
        ``[Re(C lambda), -Im(C lambda)]``, ``[Re lambda, -Im lambda]``, ``[Im lambda, Re lambda]`` (diagonal).
    b_ih, b_hh : Tensor, shape (3H,), optional
    label : str
    """

    def __init__(
        self,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
        *,
        label: str = "LRU",
    ) -> None:
        super().__init__(w_ih, w_hh, b_ih, b_hh, label=label)


class LruWeights(NamedTuple):
    """The weights of E units of one shape; see the module's text."""

    nu: Tensor  # (E, H)
    theta: Tensor  # (E, H)
    b_re: Tensor  # (E, H, I)
    b_im: Tensor
    c_re: Tensor  # (E, H, H)
    c_im: Tensor
    d: Tensor  # (E, H, I)
    bias_y: Tensor  # (E, H)

    @property
    def log_eigenvalues(self) -> Tensor:
        """Logarithms of lambda, complex, (E, H)."""
        return torch.complex(-self.nu.exp(), self.theta.exp())

    @property
    def entering(self) -> Tensor:
        """``gamma B``, complex, (E, H, I)."""
        gamma = (-torch.expm1(-2 * self.nu.exp())).sqrt().unsqueeze(-1)
        return torch.complex(gamma * self.b_re, gamma * self.b_im)

    @property
    def shown(self) -> Tensor:
        """``[Re C, -Im C]``, (E, H, 2H)."""
        return torch.cat([self.c_re, -self.c_im], dim=-1)

    def projections(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return W_ih (E, 3H, I), W_hh (E, 3H, 2H) and the bias (E, 3H) of `LruCell`."""
        turn, entering = self.log_eigenvalues.exp(), self.entering
        re, im = torch.diag_embed(turn.real), torch.diag_embed(turn.imag)
        states = torch.cat([torch.cat([re, -im], dim=-1), torch.cat([im, re], dim=-1)], dim=-2)
        inputs = torch.cat([entering.real, entering.imag], dim=-2)
        w_ih = torch.cat([self.shown @ inputs + self.d, inputs], dim=-2)
        w_hh = torch.cat([self.shown @ states, states], dim=-2)
        zeros = torch.zeros_like(self.nu)
        return w_ih, w_hh, torch.cat([self.bias_y, zeros, zeros], dim=-1)

    def drive(self, inputs: Tensor) -> Tensor:
        """Return ``gamma B u``, complex, for inputs (..., E or 1, I, B)."""
        entering = self.entering
        return torch.complex(entering.real @ inputs, entering.imag @ inputs)

    def states(self, inputs: Tensor) -> Tensor:
        """Return x, complex (L, E, H, B), after every step for inputs (L, E or 1, I, B)."""
        return scan(self.log_eigenvalues.exp().unsqueeze(-1), self.drive(inputs))

    def last_state(self, inputs: Tensor) -> Tensor:
        """Return x, complex (E, H, B), after the last step alone.

        ``x_L = sum_t lambda^(L - t) gamma B u_t`` as one product over time: no x of another step is made.
        """
        steps = torch.arange(len(inputs) - 1, -1, -1, device=inputs.device).to(self.nu)
        powers = (self.log_eigenvalues.unsqueeze(-1) * steps).exp()  # (E, H, L)
        over_time = inputs.permute(1, 0, 2, 3).flatten(2)  # (E or 1, L, I B)
        summed = torch.complex(powers.real @ over_time, powers.imag @ over_time)
        summed = summed.unflatten(-1, inputs.shape[-2:])  # (E, H, I, B)
        found: Tensor = (self.entering.unsqueeze(-2) @ summed).squeeze(-2)
        return found

    def show(self, x: Tensor, inputs: Tensor) -> Tensor:
        """Return y, (..., E, H, B), for x (..., E, H, B) and the inputs (..., E or 1, I, B)."""
        z = self.shown @ torch.cat([x.real, x.imag], dim=-2)
        return (z + self.d @ inputs + self.bias_y.unsqueeze(-1)).tanh()


def scan(turn: Tensor, drive: Tensor) -> Tensor:
    """Return ``x_t = lambda x_(t-1) + v_t`` over the first axis, from zero, about ``2 sqrt(L)`` steps deep.

    Time is cut into pieces, which run at once from zero; then what each piece hands on goes through the next
    one by a power of lambda.

    Parameters
    ----------
    turn : Tensor
        lambda; broadcasts with a step.
    drive : Tensor, shape (L, ...)
        v.

    Returns
    -------
    Tensor, shape (L, ...)
        Differentiable, any number of times.
    """
    found: Tensor = _Scan.apply(turn, drive)  # type: ignore[no-untyped-call]
    return found


class _Scan(torch.autograd.Function):
    # the gradient by v is the same scan backwards with the conjugate of lambda

    @staticmethod
    def forward(ctx: Any, turn: Tensor, drive: Tensor) -> Tensor:
        """Return x, shape of ``drive`` (L, ...), for lambda that broadcasts with a step (...)."""
        found = _scanned(turn, drive)
        ctx.save_for_backward(turn, found)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by lambda and by v."""
        turn, found = ctx.saved_tensors
        by_drive = scan(turn.conj(), grad.flip(0)).flip(0)
        by_turn = (by_drive[1:] * found[:-1].conj()).sum(0)
        return by_turn.sum_to_size(turn.shape), by_drive


def _scanned(turn: Tensor, drive: Tensor) -> Tensor:
    steps = len(drive)
    size = math.isqrt(steps - 1) + 1
    pieces = -(-steps // size)
    padded = drive.new_zeros(pieces * size, *drive.shape[1:])
    padded[:steps] = drive
    x = padded.unflatten(0, (pieces, size))
    turn = turn.view(*[1] * (drive.dim() - 1 - turn.dim()), *turn.shape)
    powers = [turn]
    for t in range(1, size):
        x[:, t] += turn * x[:, t - 1]
        powers.append(turn * powers[-1])
    for n in range(1, pieces):
        x[n] += torch.stack(powers) * x[n - 1, -1]
    return padded[:steps]


class LRU(CellModule):
    """``x' = lambda x + gamma B u``, ``y' = tanh(Re(C x') + D u + b)``: the linear recurrent unit.

    Orvieto et al. 2023 (arXiv:2303.06349): x is complex and has no nonlinearity, ``lambda = exp(-exp(nu) + i
    exp(theta))`` is diagonal and inside the unit disc, ``gamma = sqrt(1 - |lambda|^2)``. What it shows is y;
    tanh stands in place of that paper's dense layers. As nothing in x depends on y, time runs as a scan.

    Parameters
    ----------
    input_size, hidden_size : int
        I, and H: the numbers of x and of y.

    Raises
    ------
    ParameterError
        For sizes below 1.
    """

    kind = "lru"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        drawn = initial_weights(torch.rand(hidden_size), hidden_size, input_size, torch.randn)
        for name, value in drawn._asdict().items():
            setattr(self, name, nn.Parameter(value))

    def weights(self) -> LruWeights:
        """Return the weights of one unit, leading axis 1."""
        return LruWeights(*(getattr(self, name).unsqueeze(0) for name in LruWeights._fields))

    def to_hoplens(self) -> LruCell:
        """Return the cell that `hoplens.read` sees."""
        return LruCell(*(block[0] for block in self.weights().projections()))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (B, L, H) and the last state [y, re x, im x] (1, B, 3H) for inputs (B, L, I)."""
        weights, ahead = self.weights(), inputs.permute(1, 2, 0).unsqueeze(1)
        x = weights.states(ahead)
        y = weights.show(x, ahead)
        last = torch.cat([y[-1], x[-1].real, x[-1].imag], dim=-2)  # (1, 3H, B)
        return y.squeeze(1).permute(2, 0, 1), last.mT


def initial_weights(radii: Tensor, hidden: int, inputs: int, normal: Any, length: int = LENGTH) -> LruWeights:
    """Return the weights of a unit before training, no leading axis.

    ``|lambda|^length`` is uniform between the two of `KEPT`, and phases are spread evenly over (0, pi): with
    numbers drawn at random many would coincide, and lags with them.
    B and C are normal with variance 1 / (2 I) and 1 / H, D with variance 1 / I.

    Parameters
    ----------
    radii : Tensor, shape (H,)
        Uniform numbers in [0, 1).
    hidden, inputs : int
        H and I.
    normal : callable
        Draws standard normal numbers of a shape.
    length : int, default 100
        Time steps that things are to be kept for.
    """
    kept = KEPT[0] + (KEPT[1] - KEPT[0]) * radii
    nu = (-kept.log() / length).log()
    theta = (math.pi * (torch.arange(hidden, dtype=radii.dtype) + 0.5) / hidden).log()

    def draw(size: float, *shape: int) -> Tensor:
        drawn: Tensor = (size * normal(*shape)).to(radii)
        return drawn

    return LruWeights(
        nu,
        theta,
        draw((2 * inputs) ** -0.5, hidden, inputs),
        draw((2 * inputs) ** -0.5, hidden, inputs),
        draw(hidden**-0.5, hidden, hidden),
        draw(hidden**-0.5, hidden, hidden),
        draw(inputs**-0.5, hidden, inputs),
        torch.zeros_like(nu),
    )


class LruRun(Sequence[State]):
    """What units go through: y, and x as [re, im], of each step when it is asked for.

    Only the last step asked for: x by `LruWeights.last_state`. Any other one: by a scan, once for all.
    """

    def __init__(self, weights: LruWeights, inputs: Tensor) -> None:
        self.weights, self.inputs = weights, inputs
        self.made: dict[int, State] = {}
        self.x: Tensor | None = None
        self.tracked = torch.is_grad_enabled()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, t: Any) -> Any:
        t = range(len(self))[t]
        if t not in self.made:
            with torch.set_grad_enabled(self.tracked):
                if self.x is None and t < len(self) - 1:
                    self.x = self.weights.states(self.inputs)
                x = self.weights.last_state(self.inputs) if self.x is None else self.x[t]
                parts = torch.cat([x.real, x.imag], dim=-2)
                self.made[t] = self.weights.show(x, self.inputs[t]), parts
        return self.made[t]


class LruKernel(LruEquations, Kernel):
    """Many linear recurrent units; columns y, re, im, c of their weights.

    Rows from hidden units hold Re C in y and Im C in c; rows from inputs D, Re B and Im B; the last row the
    bias, nu and theta.
    """

    from_input = (0, 1, 2, None)
    from_state = (0, None, None, 1)
    unbiased = (3,)
    mixes = False
    module = LRU

    def unpack(self, weight: Tensor, hidden: int) -> LruWeights:
        """Return the weights of E units of their block (E, H + I + 1, 4H)."""
        states, inputs, last = weight.mT.split([hidden, weight.shape[1] - hidden - 1, 1], dim=2)
        (c_re, _, _, c_im), (d, b_re, b_im, _) = states.chunk(4, dim=1), inputs.chunk(4, dim=1)
        bias_y, nu, theta, _ = last[..., 0].chunk(4, dim=1)
        return LruWeights(nu, theta, b_re, b_im, c_re, c_im, d, bias_y)

    def pack(self, weights: LruWeights) -> Tensor:
        """Return the block of weights (E, ...)."""
        none_i, none_h = torch.zeros_like(weights.d), torch.zeros_like(weights.c_re)
        states = torch.cat([weights.c_re, none_h, none_h, weights.c_im], dim=1)
        inputs = torch.cat([weights.d, weights.b_re, weights.b_im, none_i], dim=1)
        last = torch.cat([weights.bias_y, weights.nu, weights.theta, torch.zeros_like(weights.nu)], dim=1)
        return torch.cat([states, inputs, last.unsqueeze(2)], dim=2).mT

    def projections(self, weight: Tensor, hidden: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return W_x, W_h and the bias of the rows that `update` takes."""
        w_x, w_h, bias = self.unpack(weight, hidden).projections()
        return w_x, w_h, bias.unsqueeze(2)

    def run(self, weight: Tensor, hidden: int, inputs: Tensor) -> Sequence[State]:
        """Run all units over time."""
        return LruRun(self.unpack(weight, hidden), inputs)

    def to_module(self, weight: Tensor, hidden: int) -> dict[str, Tensor]:
        """Return the weights of one unit by the names of the module."""
        found = self.unpack(weight.unsqueeze(0), hidden)._asdict()
        return {name: value[0] for name, value in found.items()}

    def from_module(self, state: Mapping[str, Tensor], hidden: int) -> Tensor:  # noqa: ARG002
        """Return the block of weights of a module's."""
        return self.pack(LruWeights(*(state[name].unsqueeze(0) for name in LruWeights._fields)))[0]

    def start(self, weight: Tensor, sources: Sequence[torch.Generator], length: int) -> Tensor:
        """Return the weights before training, see `initial_weights`."""
        hidden = weight.shape[2]
        drawn = []
        for source in sources:
            radii = torch.rand(hidden, generator=source, dtype=weight.dtype)
            normal = partial(torch.randn, generator=source, dtype=weight.dtype)
            drawn.append(initial_weights(radii, hidden, weight.shape[1] - hidden - 1, normal, length))
        return self.pack(LruWeights(*(torch.stack(parts) for parts in zip(*drawn, strict=True))))


__all__ = ["LRU", "LruCell", "LruKernel", "LruWeights", "scan"]
