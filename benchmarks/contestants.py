"""Contestants of training.py: one worker process each, which runs steps on demand and reports the time.

Usage: python contestants.py KIND SIZE SHARD SHARDS THREADS; then a number of steps a line on stdin.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

# networks E, hidden units H, time steps L, batch B, inputs I, outputs O
SIZES = {
    "a": (16, 32, 10, 64, 12, 4),
    "b": (60, 64, 20, 64, 16, 4),
    "c": (1, 512, 50, 64, 32, 8),
    "d": (1, 2048, 50, 64, 32, 8),
}
DAMPING, STRENGTH, LR = 0.9, 1e-3, 3e-3
Step = Callable[[], object]


def networks_of(size: str, shard: int, shards: int) -> range:
    """Return the numbers of the networks that one of several processes trains."""
    count = SIZES[size][0]
    return range(count)[shard * count // shards : (shard + 1) * count // shards]


def ours(size: str, networks: range, *, eager: bool = False) -> Step:
    """hoplens: the step that `hoplens.train` runs, with a penalty, clipping, schedules and checks."""
    import hoplens as hl
    from hoplens.training.recipes import PathwaySpec, Term
    from hoplens.training.settings import Network, Settings
    from hoplens.training.trainer import Trainer

    _, h, length, batch, i, o = SIZES[size]
    task = hl.tasks.make("averaging", signal="on-off", modules=o, module_size=i // o, length=length)
    recipe = hl.Recipe("hops", (Term(PathwaySpec("hops", damping=DAMPING)),))
    settings = Settings(hidden=h, steps=1000, batch=batch, lr=LR, eager=eager)
    trainer = Trainer(task, [Network(recipe, STRENGTH, n) for n in networks], settings)
    inputs, targets = trainer.data.batch(0)
    return lambda: trainer.step(0, inputs, targets)


def limit(size: str, networks: range) -> Step:
    """The bare products of a step, each in its fastest layout, and its memory traffic as plain copies."""
    import torch

    _, h, length, batch, i, o = SIZES[size]
    e, f, c = len(networks), h + i + 1, min(i, o)
    parts = [
        (fastest_product(e, h, f, batch), length),  # states
        (fastest_product(e, h, h, batch), length - 1),  # gradients by states
        (fastest_product(e, f, batch, h), length),  # gradients by weights
        (fastest_product(e, c, h, h), 2 * (length - 1)),  # thin products of the penalty, there and back
        (fastest_product(e, length * c, h, i), 1),  # its maps
        (fastest_product(e, length * c, i, h), 1),  # gradients by them
        (fastest_product(e, h, length * c, h), 1),  # its gradient by the weights
    ]
    state, params = torch.randn(2, e * h * batch), torch.randn(2, e * (f * h + o * h))

    def step() -> None:
        for product, times in parts:
            for _ in range(times):
                product()
        # activation: read and write forwards; backwards read two, write one. Adam: read four, write three
        for _ in range(5 * length // 2):
            state[0].copy_(state[1])
        for _ in range(3):
            params[0].copy_(params[1])
        params[0, ::2].copy_(params[1, ::2])

    return step


def fastest_product(e: int, m: int, k: int, n: int) -> Step:
    """Return the fastest way to multiply e times (m, k) by (k, n), out of all layouts."""
    import torch

    ways = []
    for turned in (False, True):
        for left_t in (False, True):
            for right_t in (False, True):
                left = torch.randn(e, k, m).mT if left_t else torch.randn(e, m, k)
                right = torch.randn(e, n, k).mT if right_t else torch.randn(e, k, n)
                if turned:
                    left, right = right.mT, left.mT
                out = torch.empty(e, left.shape[1], right.shape[2])
                ways.append((left, right, out))
    times = []
    for left, right, out in ways:
        torch.bmm(left, right, out=out)
        trials = []
        for _ in range(7):
            begin = time.perf_counter()
            torch.bmm(left, right, out=out)
            trials.append(time.perf_counter() - begin)
        times.append(min(trials))
    left, right, out = ways[times.index(min(times))]
    return lambda: torch.bmm(left, right, out=out)


def tidy(size: str, networks: range) -> Step:
    """What a user of PyTorch would write for an ensemble: batched products, autograd, fused Adam."""
    import torch

    _, h, length, batch, i, o = SIZES[size]
    e = len(networks)
    torch.manual_seed(0)
    w_in, w_rec = torch.randn(e, h, i) / i**0.5, torch.randn(e, h, h) / h**0.5
    w_out, bias = torch.randn(e, o, h) / h**0.5, torch.zeros(e, 1, h)
    offset, params = torch.zeros(e, 1, o), [w_in, w_rec, w_out, bias]
    params = [p.requires_grad_() for p in (*params, offset)]
    optimiser = torch.optim.Adam(params, lr=LR, fused=True)
    inputs, targets = torch.randn(e, length, batch, i), torch.randn(e, batch, o)

    def step() -> None:
        optimiser.zero_grad()
        driven = torch.baddbmm(bias, inputs.flatten(1, 2), w_in.mT).unflatten(1, (length, batch))
        state = torch.zeros(e, batch, h)
        for x in driven.unbind(1):
            state = torch.baddbmm(x, state, w_rec.mT).tanh()
        loss = (torch.baddbmm(offset, state, w_out.mT) - targets).square().mean(dim=(1, 2)).sum()
        rows, penalty = DAMPING * w_out, 0.0
        for n in range(length):
            rows = DAMPING * (rows @ w_rec) if n else rows
            penalty = penalty + DAMPING * (rows @ w_in).abs().sum()
        (loss + STRENGTH * penalty).backward()
        optimiser.step()

    return step


def paper(size: str, networks: range) -> Step:
    """The paper's way: one network at a time, powers of its whole adjacency matrix."""
    import torch
    from torch import nn

    _, h, length, batch, i, o = SIZES[size]
    torch.manual_seed(0)
    models = []
    for _ in networks:
        rnn, out = nn.RNN(i, h, batch_first=True), nn.Linear(h, o)
        optimiser = torch.optim.Adam([*rnn.parameters(), *out.parameters()], lr=LR)
        models.append((rnn, out, optimiser))
    inputs, targets = torch.randn(batch, length, i), torch.randn(batch, o)

    def step() -> None:
        for rnn, out, optimiser in models:
            optimiser.zero_grad()
            graph = torch.zeros(i + h + o, i + h + o)
            graph[:i, i : i + h] = rnn.weight_ih_l0.T
            graph[i : i + h, i : i + h] = rnn.weight_hh_l0.T
            graph[i : i + h, i + h :] = out.weight.T
            graph = DAMPING * graph
            power, penalty = graph, 0.0
            for _ in range(length):
                power = power @ graph
                penalty = penalty + power[:i, -o:].abs().sum()
            loss = (out(rnn(inputs)[0][:, -1]) - targets).square().mean() + STRENGTH * penalty
            loss.backward()
            optimiser.step()

    return step


def jax_step(size: str, networks: range, *, scan: bool) -> Step:
    """JAX: one network's loss, vmap over networks, jit of the whole step, optax's Adam."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    _, h, length, batch, i, o = SIZES[size]
    e, source = len(networks), np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(source.standard_normal(shape), jnp.float32)

    params = {
        "w_in": draw(e, i, h) / i**0.5,
        "w_rec": draw(e, h, h) / h**0.5,
        "w_out": draw(e, h, o) / h**0.5,
        "bias": jnp.zeros((e, h)),
        "offset": jnp.zeros((e, o)),
    }
    inputs, targets = draw(e, length, batch, i), draw(e, batch, o)

    def loss(p: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        driven = x @ p["w_in"] + p["bias"]
        state = jnp.zeros((batch, h))
        if scan:
            state, _ = jax.lax.scan(lambda s, u: (jnp.tanh(u + s @ p["w_rec"]), None), state, driven)
        else:
            for t in range(length):
                state = jnp.tanh(driven[t] + state @ p["w_rec"])

        def hop(rows: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return DAMPING * (rows @ p["w_rec"].T), DAMPING * jnp.abs(rows @ p["w_in"].T).sum()

        _, sizes = jax.lax.scan(hop, DAMPING * p["w_out"].T, None, length=length)
        error = jnp.square(state @ p["w_out"] + p["offset"] - y).mean()
        return error + STRENGTH * sizes.sum()

    optimiser = optax.adam(LR)

    def update(p: dict[str, jax.Array], s: optax.OptState) -> tuple[dict[str, jax.Array], optax.OptState]:
        grads = jax.grad(lambda q: jax.vmap(loss)(q, inputs, targets).sum())(p)
        changes, s = optimiser.update(grads, s, p)
        return optax.apply_updates(p, changes), s

    compiled = jax.jit(update, donate_argnums=(0, 1))
    held = [params, optimiser.init(params)]

    def step() -> None:
        held[:] = compiled(*held)
        jax.block_until_ready(held[0]["w_rec"])

    return step


KINDS: dict[str, Callable[[str, range], Step]] = {
    "ours": ours,
    "eager": lambda size, networks: ours(size, networks, eager=True),
    "limit": limit,
    "tidy": tidy,
    "paper": paper,
    "jax-unrolled": lambda size, networks: jax_step(size, networks, scan=False),
    "jax-scan": lambda size, networks: jax_step(size, networks, scan=True),
}


def main() -> None:
    """Build one contestant and serve."""
    kind, size, shard, shards, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    if shards > 1 and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[shard % len(cores)]})  # XLA has no other way to keep to one core
    if not kind.startswith("jax"):
        import torch

        torch.set_num_threads(threads)
    step = KINDS[kind](size, networks_of(size, shard, shards))
    print("ready", flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
