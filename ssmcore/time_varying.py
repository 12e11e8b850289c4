"""Time-varying discrete systems: S6 and RG-LRU, whose coefficients the input chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ssmcore import arrays
from ssmcore.discretization import apply_method
from ssmcore.primitives import implementation, linear_scan
from ssmcore.typing import Array

__all__ = ["SelectiveSystem", "StateSpace", "TimeVaryingSystem"]


class StateSpace(NamedTuple):
    """A plain real discrete system, as control tools want it.

    A (..., n, n), B (..., n, m), C (..., p, n), D (..., p, m); H separate systems have a leading
    axis H and m = p = 1, time-varying ones the axes (..., L, H): x_t = A_t x_{t-1} + B_t u_t.
    """

    A: Array
    B: Array
    C: Array
    D: Array


@dataclass(frozen=True)
class TimeVaryingSystem:
    """Diagonal system with its own coefficients at every step: RG-LRU, and S6 written out.

    a, B (..., L, H, N), C the same or with axes of 1, D (H,) or None. Real.
    """

    a: Array
    B: Array
    C: Array
    D: Array | None

    time_varying = True

    @property
    def dtype(self) -> Any:
        """Real dtype the system runs in."""
        return self.a.dtype

    def to_dense(self) -> StateSpace:
        """Return plain real matrices of every step, with leading axes (..., L, H)."""
        xp = arrays.namespace(self.a)
        eye = xp.eye(self.a.shape[-1], dtype=self.dtype, device=arrays.device(self.a))
        C = xp.broadcast_to(self.C, self.a.shape)
        D = xp.zeros_like(self.a[..., 0])
        D = D if self.D is None else D + self.D
        return StateSpace(
            eye * self.a[..., None], self.B[..., None], C[..., None, :], D[..., None, None]
        )

    def coefficients(self) -> dict[str, Array]:
        """Return what changes with time, each with its time axis at -3."""
        return {"a": self.a, "B": self.B, "C": self.C}

    @staticmethod
    def step(x: Array, u: Array, now: dict[str, Array]) -> tuple[Array, Array]:
        """Return (x_t, C_t x_t) from x_{t-1}, u_t (..., H) and this step's coefficients."""
        x = now["a"] * x + now["B"] * u[..., None]
        return x, arrays.namespace(x).sum(now["C"] * x, axis=-1)

    def hold(self, valid: Array) -> TimeVaryingSystem:
        """Return the system that keeps its state where ``valid`` (..., L) is False."""
        xp = arrays.namespace(self.a)
        mask = valid[..., None, None]
        a = xp.where(mask, self.a, xp.ones_like(self.a))
        return replace(self, a=a, B=xp.where(mask, self.B, xp.zeros_like(self.B)))

    def scan(self, u: Array, x: Array, reset: Array | None) -> tuple[Array, Array]:
        """Return outputs C_t x_t + D u_t (..., L, H) and the last state, by a parallel scan."""
        xp = arrays.namespace(u)
        states = math.prod(self.a.shape[-2:])
        flat = (*u.shape[:-1], states)
        drive = xp.broadcast_to(self.B * u[..., None], self.a.shape)
        start = xp.reshape(x, (*x.shape[:-2], states))
        h = linear_scan(xp.reshape(self.a, flat), xp.reshape(drive, flat), start, reset=reset)
        h = xp.reshape(h, self.a.shape)
        y = xp.sum(self.C * h, axis=-1)
        return (y if self.D is None else y + self.D * u), h[..., -1, :, :]


@dataclass(frozen=True)
class SelectiveSystem:
    """S6 before it is written out: delta (..., L, H), A (H, N), B, C (..., L, N), D (H,).

    ``method`` is "mamba" (Euler for B, run by the fused selective scan) or "zoh".
    """

    delta: Array
    A: Array
    B: Array
    C: Array
    D: Array
    method: str

    time_varying = True

    @property
    def dtype(self) -> Any:
        """Real dtype the system runs in."""
        return self.A.dtype

    @property
    def a(self) -> Array:
        """A_bar (..., L, H, N)."""
        return self.written_out().a

    def written_out(self) -> TimeVaryingSystem:
        """Return A_bar_t and B_bar_t explicitly."""
        a, gain = apply_method(self.A, self.delta[..., None], self.method)
        return TimeVaryingSystem(a, gain * self.B[..., None, :], self.C[..., None, :], self.D)

    def to_dense(self) -> StateSpace:
        """Return plain real matrices of every step, with leading axes (..., L, H)."""
        return self.written_out().to_dense()

    def coefficients(self) -> dict[str, Array]:
        """Return what changes with time, each with its time axis at -3, as the fused scan has it.

        It moves a state by exp(delta_t A) in the widest float: what the rounding of that takes from
        a slow state at every step would add up.
        """
        if self.method != "mamba":
            return self.written_out().coefficients()
        delta, A, B, C = (arrays.widen(x) for x in (self.delta, self.A, self.B, self.C))
        return replace(self, delta=delta, A=A, B=B, C=C).written_out().coefficients()

    step = staticmethod(TimeVaryingSystem.step)

    def hold(self, valid: Array) -> SelectiveSystem:
        """Return the system that keeps its state where ``valid`` (..., L) is False."""
        xp = arrays.namespace(self.delta)
        delta = xp.where(valid[..., None], self.delta, xp.zeros_like(self.delta))
        return replace(self, delta=delta)

    def scan(self, u: Array, x: Array, reset: Array | None) -> tuple[Array, Array]:
        """Return outputs C_t x_t + D u_t (..., L, H) and the last state, by the fused scan."""
        if self.method != "mamba":
            return self.written_out().scan(u, x, reset)
        # Not the public function: a step size from a NaN in the input is the layer's own output.
        run = implementation("selective_scan", u, self.A)
        out: tuple[Array, Array] = run(
            u, self.delta, self.A, self.B, self.C, self.D, initial=x, reset=reset
        )
        return out
