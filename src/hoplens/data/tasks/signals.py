"""When the input carries signal and when only noise."""

from __future__ import annotations

from hoplens.errors import ParameterError, check_count
from hoplens.seeds import signal_order

SIGNALS = ("every", "on-off", "sparse")


def signal_steps(signal: str, length: int, lag: int | None, steps: int | None, seed: int) -> tuple[int, ...]:
    """Return the time steps (0 .. length - 1) that carry signal.

    ``every``: all; ``on-off``: alternate steps, the last one among them; ``sparse``: the one step ``lag``
    steps before the last, or ``steps`` steps drawn by ``seed`` (a quarter of all by default).
    """
    if signal != "sparse" and (lag is not None or steps is not None):
        raise ParameterError(f'lag= and steps= go with signal="sparse", not with signal={signal!r}')
    if signal == "every":
        return tuple(range(length))
    if signal == "on-off":
        return tuple(range((length - 1) % 2, length, 2))
    if lag is not None:
        if steps is not None:
            raise ParameterError("give either lag= (one signal step) or steps= (several), not both")
        if check_count("lag", lag, least=0) >= length:
            raise ParameterError(f"lag must be below the length {length}, got {lag}")
        return (length - 1 - lag,)
    count = max(1, length // 4) if steps is None else check_count("steps", steps)
    if count > length:
        raise ParameterError(f"steps must be at most the length {length}, got {count}")
    return tuple(sorted(signal_order(length, seed)[:count]))
