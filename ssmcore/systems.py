"""Discrete systems: what every model becomes, and what one engine runs.

All of them follow one convention: the output sees the state after the current input,
x_t = A_bar x_{t-1} + B_bar u_t, y_t = C x_t + D u_t. A half spectrum (``pairs``) stores one of each
conjugate pair; its output is 2 Re(C x).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ssmcore import arrays, powers
from ssmcore.primitives import (
    causal_convolution,
    diagonal_kernel,
    diagonal_scan,
    dplr_kernel,
)
from ssmcore.primitives._reference_kernel import bilinear_real, real_dplr
from ssmcore.primitives._reference_scan import constant_prefix
from ssmcore.time_varying import SelectiveSystem, StateSpace, TimeVaryingSystem
from ssmcore.typing import Array

__all__ = ["DPLRSystem", "DenseSystem", "DiagonalSystem", "StateSpace", "System"]


Step: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""From (x_{t-1}, u_t (..., H)) to (x_t, C x_t (..., H))."""


def _rotations(a: Array) -> Array:
    """Return [[Re a, -Im a], [Im a, Re a]] as a real matrix of a complex diagonal (..., n)."""
    xp = arrays.namespace(a)
    eye = xp.eye(a.shape[-1], dtype=xp.real(a).dtype, device=arrays.device(a))
    re, im = eye * xp.real(a)[..., None], eye * xp.imag(a)[..., None]
    top, bottom = xp.concat((re, -im), axis=-1), xp.concat((im, re), axis=-1)
    return xp.concat((top, bottom), axis=-2)


def _stack(z: Array, axis: int = -1, sign: float = 1.0) -> Array:
    """Return (Re z, sign Im z) one after the other along ``axis``."""
    xp = arrays.namespace(z)
    return xp.concat((xp.real(z), sign * xp.imag(z)), axis=axis)


def _unstack(x: Array) -> Array:
    """Undo ``_stack``: (..., 2n) real to (..., n) complex."""
    n = x.shape[-1] // 2
    return x[..., :n] + x[..., n:] * 1j


def _with_complex_state(x: Array, y: Array) -> tuple[Array, Array]:
    return _unstack(x), y


def _per_channel(table: Array, x: Array) -> Array:
    """Return sum_n table[h, l, n] x[..., h, n] as (..., L, H)."""
    xp = arrays.namespace(table, x)
    flat = xp.reshape(x, (-1, *x.shape[-2:]))
    y = table @ xp.permute_dims(flat, (1, 2, 0))
    return xp.reshape(xp.permute_dims(y, (2, 1, 0)), (*x.shape[:-2], table.shape[1], x.shape[-2]))


def _gather(table: Array, u: Array) -> Array:
    """Return sum_l table[h, l, n] u[..., l, h] as (..., H, N)."""
    xp = arrays.namespace(table, u)
    flat = xp.reshape(u, (-1, *u.shape[-2:]))
    x = xp.permute_dims(xp.astype(flat, table.dtype, copy=False), (2, 0, 1)) @ table
    return xp.reshape(xp.permute_dims(x, (1, 0, 2)), (*u.shape[:-2], u.shape[-1], table.shape[-1]))


def _real(y: Array) -> Array:
    return arrays.namespace(y).real(y) if arrays.is_complex(y) else y


@dataclass(frozen=True)
class DiagonalSystem:
    """Time-invariant diagonal system: S4D, S5, LRU.

    a (H, N) with B, C (H, N): H separate systems; or a (P,) with B (P, H), C (H, P): one system
    mixing all channels. D (H,). ``pairs``: half spectrum, output 2 Re(C x).
    """

    a: Array
    B: Array
    C: Array
    D: Array
    pairs: bool

    time_varying = False

    @property
    def dtype(self) -> Any:
        """Real dtype the system runs in."""
        return self.D.dtype

    @property
    def channels(self) -> bool:
        """Whether each channel has its own states."""
        return bool(self.a.ndim == 2)

    @property
    def _C(self) -> Array:
        return 2.0 * self.C if self.pairs else self.C

    def state(self, stored: Array) -> Array:
        """Return the state in the system's own form from its real pair form."""
        return arrays.join(stored) if arrays.is_complex(self.a) else stored

    def stored(self, x: Array) -> Array:
        """Undo ``state``."""
        return arrays.split(x) if arrays.is_complex(self.a) else x

    def _step(self, x: Array, u: Array) -> tuple[Array, Array]:
        xp = arrays.namespace(x, u)
        if self.channels:
            x = self.a * x + self.B * u[..., None]
            return x, _real(xp.sum(self._C * x, axis=-1))
        x = self.a * x + xp.astype(u, self.B.dtype, copy=False) @ xp.matrix_transpose(self.B)
        return x, _real(x @ xp.matrix_transpose(self._C))

    def stepper(self) -> Step:
        """Return the step (x_{t-1}, u_t) -> (x_t, C x_t)."""
        return self._step

    def scan(self, u: Array, x: Array, reset: Array | None) -> tuple[Array, Array]:
        """Return outputs C x_t + D u_t (..., L, H) and the last state, by a parallel scan."""
        out: tuple[Array, Array] = diagonal_scan(
            self.a, self.B, self._C, u, x, D=self.D, reset=reset, return_state=True
        )
        return out

    def convolve(self, u: Array, x: Array) -> Array:
        """Return outputs C x_t (..., L, H) from kernel and FFT, the initial state included."""
        xp = arrays.namespace(u)
        L = u.shape[-2]
        if not self.channels:
            drive = xp.astype(u, self.B.dtype, copy=False) @ xp.matrix_transpose(self.B)
            table = powers.powers(self.a, L)
            states = causal_convolution(drive, table) + table * (self.a * x)[..., None, :]
            return _real(states @ xp.matrix_transpose(self._C))
        forced = causal_convolution(u, diagonal_kernel(self.a, self._C * self.B, L))
        observe = xp.permute_dims(self._C * self.a * powers.powers(self.a, L), (1, 0, 2))
        return forced + _real(_per_channel(observe, x))

    def accumulate(self, backwards: Array) -> Array:
        """Return sum_j A^j B v_j for inputs ``backwards`` = v (..., L, H), newest first."""
        xp = arrays.namespace(backwards)
        table = powers.powers(self.a, backwards.shape[-2])
        if self.channels:
            return self.B * _gather(xp.permute_dims(table, (1, 0, 2)), backwards)
        drive = xp.astype(backwards, self.B.dtype, copy=False) @ xp.matrix_transpose(self.B)
        return xp.sum(table * drive, axis=-2)

    def advance(self, count: int) -> Callable[[int, Array], Array]:
        """Return f with f(k, x) = A^(2^k) x for k < count."""
        levels = powers.squares(self.a, count)
        return lambda k, x: levels[k, ...] * x

    def to_dense(self) -> StateSpace:
        """Return plain real matrices; for tests, analysis and control tools."""
        xp = arrays.namespace(self.a)
        eye = xp.eye(self.D.shape[0], dtype=self.dtype, device=arrays.device(self.D))
        complex_ = arrays.is_complex(self.a)
        A = _rotations(self.a) if complex_ else _diagonal(self.a)
        if self.channels:
            B = _stack(self.B)[..., None] if complex_ else self.B[..., None]
            C = _stack(self._C, sign=-1.0) if complex_ else self._C
            return StateSpace(A, B, C[:, None, :], self.D[:, None, None])
        B = _stack(self.B, axis=0) if complex_ else self.B
        C = _stack(self._C, sign=-1.0) if complex_ else self._C
        return StateSpace(A, B, C, eye * self.D)


def _diagonal(a: Array) -> Array:
    xp = arrays.namespace(a)
    return xp.eye(a.shape[-1], dtype=a.dtype, device=arrays.device(a)) * a[..., None]


@dataclass(frozen=True)
class DenseSystem:
    """Time-invariant dense real systems, one per channel: LSSL, and the oracle of the others.

    A (H, N, N), B (H, N), C (H, N), D (H,).
    """

    A: Array
    B: Array
    C: Array
    D: Array

    time_varying = False

    @property
    def dtype(self) -> Any:
        """Real dtype the system runs in."""
        return self.D.dtype

    def state(self, stored: Array) -> Array:
        """Return the state in the system's own form (it is real already)."""
        return stored

    def stored(self, x: Array) -> Array:
        """Undo ``state``."""
        return x

    def _step(self, x: Array, u: Array) -> tuple[Array, Array]:
        xp = arrays.namespace(x, u)
        x = (self.A @ x[..., None])[..., 0] + self.B * u[..., None]
        return x, xp.sum(self.C * x, axis=-1)

    def stepper(self) -> Step:
        """Return the step (x_{t-1}, u_t) -> (x_t, C x_t); in float32 it rounds x_t once."""
        if not powers.narrow(self.A):
            return self._step
        xp, transition = arrays.namespace(self.A), powers.accurate_product(self.A)

        def step(x: Array, u: Array) -> tuple[Array, Array]:
            high, low = transition(x)
            x, rest = arrays.two_sum(high, self.B * u[..., None])
            x = x + (rest + low)
            return x, xp.sum(self.C * x, axis=-1)

        return step

    def scan(self, u: Array, x: Array, reset: Array | None) -> tuple[Array, Array]:
        """Return outputs C x_t + D u_t (..., L, H) and the last state, by a parallel scan."""
        xp = arrays.namespace(u)
        if reset is not None:
            reset = xp.broadcast_to(reset, u.shape[:-1])
        keep = None if reset is None else ~reset[..., None, None]
        carried = (self.A @ x[..., None])[..., 0][..., None, :, :]
        if keep is not None:
            carried = xp.where(keep[..., :1, :, :], carried, xp.zeros_like(carried))
        drive = self.B * u[..., None]
        drive = xp.concat((drive[..., :1, :, :] + carried, drive[..., 1:, :, :]), axis=-3)
        keep_in_time = None if keep is None else arrays.moveaxis(keep, -3, 0)
        advance = self.advance(u.shape[-2].bit_length())
        states = constant_prefix(advance, keep_in_time, arrays.moveaxis(drive, -3, 0))
        h = arrays.moveaxis(states, 0, -3)
        return xp.sum(self.C * h, axis=-1) + self.D * u, h[..., -1, :, :]

    def convolve(self, u: Array, x: Array) -> Array:
        """Return outputs C x_t (..., L, H) from kernel and FFT, the initial state included."""
        xp = arrays.namespace(u)
        kernel = xp.sum(self.C[..., None] * powers.krylov(self.A, self.B, u.shape[-2]), axis=-2)
        return causal_convolution(u, xp.matrix_transpose(kernel)) + self.free(x, u.shape[-2])

    def free(self, x: Array, length: int) -> Array:
        """Return C A^(t+1) x, t = 0..length-1: the output of a state left alone (..., L, H)."""
        xp = arrays.namespace(x)
        transposed = xp.matrix_transpose(self.A)
        first = (transposed @ self.C[..., None])[..., 0]
        return _per_channel(xp.matrix_transpose(powers.krylov(transposed, first, length)), x)

    def accumulate(self, backwards: Array) -> Array:
        """Return sum_j A^j B v_j for inputs ``backwards`` = v (..., L, H), newest first."""
        xp = arrays.namespace(backwards)
        table = powers.krylov(self.A, self.B, backwards.shape[-2])
        return _gather(xp.matrix_transpose(table), backwards)

    def advance(self, count: int) -> Callable[[int, Array], Array]:
        """Return f with f(k, x) = A^(2^k) x for k < count."""
        levels = powers.matrix_squares(self.A, count)
        return lambda k, x: (levels[k] @ x[..., None])[..., 0]

    def to_dense(self) -> StateSpace:
        """Return plain real matrices with a leading axis H."""
        return StateSpace(self.A, self.B[..., None], self.C[:, None, :], self.D[:, None, None])


@dataclass(frozen=True)
class DPLRSystem:
    """S4: A = diag(Lambda) - P P*, bilinear, one per channel, half of the conjugate pairs stored.

    dt (H,), Lambda, B, C (H, N) complex, P (r, H, N) complex, D (H,).
    """

    dt: Array
    Lambda: Array
    P: Array
    B: Array
    C: Array
    D: Array

    time_varying = False

    @property
    def dtype(self) -> Any:
        """Real dtype the system runs in."""
        return self.D.dtype

    def state(self, stored: Array) -> Array:
        """Return the complex state from its real pair form."""
        return arrays.join(stored)

    def stored(self, x: Array) -> Array:
        """Undo ``state``."""
        return arrays.split(x)

    def _inner(self, x: Array, y: Array) -> Array:
        """Return Re sum_n conj(x_n) y_n over the stored half, times 2: the full inner product."""
        xp = arrays.namespace(x, y)
        return 2.0 * xp.sum(xp.real(x) * xp.real(y) + xp.imag(x) * xp.imag(y), axis=-1)

    def stepper(self) -> Step:
        """Return the step (x_{t-1}, u_t) -> (x_t, C x_t) in O(r N): Woodbury for the implicit half.

        (2/dt - A) x_t = (2/dt + A) x_{t-1} + 2 B u_t; what does not change is formed once.
        In float32 all modes run ``dense``, because two roundings of A would part them.
        """
        xp = arrays.namespace(self.D)
        if powers.narrow(self.D):
            real = self.dense().stepper()
            return lambda x, u: _with_complex_state(*real(_stack(x), u))
        P = [self.P[j, ...] for j in range(self.P.shape[0])]
        inverse = 1.0 / (2.0 / self.dt[:, None] - self.Lambda)
        forward = 2.0 / self.dt[:, None] + self.Lambda
        Q = self._solved(P, inverse)

        def step(x: Array, u: Array) -> tuple[Array, Array]:
            w = forward * x + 2.0 * self.B * u[..., None]
            for p in P:
                w = w - p * self._inner(p, x)[..., None]
            x = inverse * w
            low_rank = [
                inverse * p * self._inner(q, x)[..., None] for p, q in zip(P, Q, strict=True)
            ]
            for part in low_rank:
                x = x - part
            return x, 2.0 * xp.real(xp.sum(self.C * x, axis=-1))

        return step

    def _solved(self, P: list[Array], inverse: Array) -> list[Array]:
        """Return Q = P (I + P* inverse P)^-1 of the conjugate-expanded space, column by column."""
        xp = arrays.namespace(self.D)
        if not P:
            return []
        rows = [xp.stack([self._inner(p, inverse * q) for q in P], axis=-1) for p in P]
        eye = xp.eye(len(P), dtype=self.D.dtype, device=arrays.device(self.D))
        weights = xp.linalg.inv(xp.stack(rows, axis=-2) + eye)
        return [
            sum((weights[..., i, j, None] * P[j] for j in range(len(P))), xp.zeros_like(P[0]))
            for i in range(len(P))
        ]

    def dense(self) -> DenseSystem:
        """Return the same system on the real state (Re x, Im x)."""
        A, gain = bilinear_real(real_dplr(self.Lambda, self.P), self.dt)
        B = (gain @ _stack(self.B)[..., None])[..., 0]
        return DenseSystem(A, B, 2.0 * _stack(self.C, sign=-1.0), self.D)

    def scan(self, u: Array, x: Array, reset: Array | None) -> tuple[Array, Array]:
        """Return outputs C x_t + D u_t (..., L, H) and the last state, by a parallel scan."""
        y, last = self.dense().scan(u, _stack(x), reset)
        return y, _unstack(last)

    def convolve(self, u: Array, x: Array) -> Array:
        """Return outputs C x_t (..., L, H) from kernel and FFT, the initial state included."""
        if powers.narrow(self.D):
            return self.dense().convolve(u, _stack(x))
        kernel = dplr_kernel(self.dt, self.Lambda, self.P, self.B, self.C, u.shape[-2])
        return causal_convolution(u, kernel) + self.dense().free(_stack(x), u.shape[-2])

    def accumulate(self, backwards: Array) -> Array:
        """Return sum_j A^j B v_j for inputs ``backwards`` = v (..., L, H), newest first."""
        return _unstack(self.dense().accumulate(backwards))

    def advance(self, count: int) -> Callable[[int, Array], Array]:
        """Return f with f(k, x) = A^(2^k) x for k < count."""
        real = self.dense().advance(count)
        return lambda k, x: _unstack(real(k, _stack(x)))

    def to_dense(self) -> StateSpace:
        """Return plain real matrices with a leading axis H."""
        return self.dense().to_dense()


System: TypeAlias = DiagonalSystem | DenseSystem | DPLRSystem | TimeVaryingSystem | SelectiveSystem
