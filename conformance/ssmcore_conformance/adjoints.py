"""Analytic adjoints of every primitive, as loops backwards in time in float64 or complex128.

Nothing is shared with the library. A gradient is z_bar = dl/d(Re z) + i dl/d(Im z) of the loss
l = Re sum conj(y_bar) y, so that y = a h gives h_bar = conj(a) y_bar; that is also what both
libraries find for the real and imaginary parts of z. Where z is real, the real part is taken;
where it was broadcast, the sum. ``modulus=True`` runs the same loop on the moduli: the growth that
the tolerances need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmcore_conformance.oracles import dplr_matrices

__all__ = ["ADJOINTS"]

Numbers = np.ndarray[Any, Any]
Given = Mapping[str, Any]
Gradients = dict[str, Numbers]


def _wide(x: Any, modulus: bool) -> Numbers:
    wide: Numbers = np.asarray(x).astype(np.result_type(np.asarray(x).dtype, np.float64))
    return np.abs(wide) if modulus else wide


def _fit(grads: Gradients, given: Given) -> Gradients:
    """Of what was given: sum over broadcast axes and drop the imaginary part of what is real."""
    out = {}
    for name, z in grads.items():
        if name not in given:
            continue
        like = np.asarray(given[name])
        extra = tuple(range(z.ndim - like.ndim))
        z = z.sum(axis=extra)
        ones = tuple(i for i, n in enumerate(like.shape) if n == 1 and z.shape[i] != 1)
        z = z.sum(axis=ones, keepdims=True)
        out[name] = z if np.iscomplexobj(like) else z.real
    return out


def _restart(reset: Any, shape: tuple[int, ...]) -> Numbers:
    return np.broadcast_to(False if reset is None else reset, shape)


def linear_scan(given: Given, y_bar: tuple[Any, ...], *, modulus: bool = False) -> Gradients:
    """h_bar_{t-1} = y_bar_{t-1} + conj(a_t) h_bar_t, a_bar_t = conj(h_{t-1}) h_bar_t."""
    a, b, h0 = (_wide(given[name], modulus) for name in ("a", "b", "initial"))
    reverse, (g,) = bool(given.get("reverse")), (_wide(x, modulus) for x in y_bar)
    a = np.broadcast_to(a, b.shape)
    restart = _restart(given.get("reset"), b.shape[:-1])
    order = list(reversed(range(b.shape[-2]))) if reverse else list(range(b.shape[-2]))
    before, h = np.zeros(b.shape, np.result_type(a, b, h0)), h0
    for t in order:
        before[..., t, :] = np.where(restart[..., t, None], 0, h)
        h = a[..., t, :] * before[..., t, :] + b[..., t, :]
    h_bar = np.zeros(h0.shape, np.result_type(before, g))
    a_bar, b_bar = (np.zeros(b.shape, h_bar.dtype) for _ in range(2))
    for t in reversed(order):
        h_bar = h_bar + g[..., t, :]
        b_bar[..., t, :] = h_bar
        a_bar[..., t, :] = np.conj(before[..., t, :]) * h_bar
        h_bar = np.where(restart[..., t, None], 0, np.conj(a[..., t, :]) * h_bar)
    return _fit({"a": a_bar, "b": b_bar, "initial": h_bar}, given)


def diagonal_scan(given: Given, y_bar: tuple[Any, ...], *, modulus: bool = False) -> Gradients:
    """x_bar_t = C^* y_bar_t + conj(a) x_bar_{t+1}; one system (P,) or one a channel (H, N)."""
    a, B, C, u, x0 = (_wide(given[name], modulus) for name in ("a", "B", "C", "u", "initial"))
    D = _wide(given["D"], modulus) if "D" in given else np.zeros(u.shape[-1])
    reverse, (g, last_bar) = bool(given.get("reverse")), (_wide(x, modulus) for x in y_bar)
    separate, length = a.ndim == 2, u.shape[-2]
    restart = _restart(given.get("reset"), u.shape[:-1])
    order = list(reversed(range(length))) if reverse else list(range(length))
    states, before, x = [], [], x0
    for t in order:
        mask = restart[..., t].reshape(restart.shape[:-1] + (1,) * a.ndim)
        before.append(np.where(mask, 0, x))
        v = u[..., t, :]
        x = a * before[-1] + (B * v[..., None] if separate else v @ B.T)
        states.append(x)
    x_bar = last_bar.astype(np.result_type(a, B, C))
    grads = {name: np.zeros((), x_bar.dtype) for name in ("a", "B", "C")}
    u_bar = np.zeros(u.shape)
    for k in reversed(range(length)):
        t = order[k]
        gt, v = g[..., t, :], u[..., t, :]
        if separate:
            x_bar = x_bar + np.conj(C) * gt[..., None]
            C_bar = np.conj(states[k]) * gt[..., None]
            B_bar = x_bar * v[..., None]
            u_bar[..., t, :] = np.real((np.conj(B) * x_bar).sum(-1))
        else:
            x_bar = x_bar + gt @ np.conj(C)
            C_bar = np.conj(states[k])[..., None, :] * gt[..., :, None]
            B_bar = x_bar[..., :, None] * v[..., None, :]
            u_bar[..., t, :] = np.real(x_bar @ np.conj(B))
        steps = {"a": np.conj(before[k]) * x_bar, "B": B_bar, "C": C_bar}
        shapes = {"a": a.shape, "B": B.shape, "C": C.shape}
        for name, step in steps.items():
            grads[name] = grads[name] + step.reshape(-1, *shapes[name]).sum(0)
        mask = restart[..., t].reshape(restart.shape[:-1] + (1,) * a.ndim)
        x_bar = np.where(mask, 0, np.conj(a) * x_bar)
    empty = {"a": a, "B": B, "C": C} if length == 0 else {}
    grads |= {name: np.zeros_like(z) for name, z in empty.items()}
    through = {"D": g * u} if "D" in given else {}
    return _fit({**grads, **through, "u": u_bar + D * g, "initial": x_bar}, given)


def selective_scan(given: Given, y_bar: tuple[Any, ...], *, modulus: bool = False) -> Gradients:
    """With e_t = exp(delta_t A): e_bar_t = conj(h_{t-1}) h_bar_t, then through the exponential."""
    A = _wide(given["A"], False)
    decay = A.real if modulus else A
    names = ("u", "delta", "B", "C", "D", "initial")
    u, delta, B, C, D, h0 = (_wide(given[name], modulus) for name in names)
    g, last_bar = (_wide(x, modulus) for x in y_bar)
    rate = np.abs(A) if modulus else A
    twice = 2.0 if any(np.iscomplexobj(given[n]) for n in ("A", "B", "initial")) else 1.0
    full = (*u.shape, A.shape[-1])
    B, C = (np.broadcast_to(x if x.ndim == len(full) else x[..., None, :], full) for x in (B, C))
    restart, length = _restart(given.get("reset"), u.shape[:-1]), u.shape[-2]
    h, before, states = h0, [], []
    for t in range(length):
        before.append(np.where(restart[..., t, None, None], 0, h))
        step = delta[..., t, :, None]
        h = np.exp(step * decay) * before[t] + step * B[..., t, :, :] * u[..., t, :, None]
        states.append(h)
    kind = np.result_type(rate, B, C, h0)
    h_bar = last_bar.astype(kind)
    B_bar, C_bar = np.zeros(full, kind), np.zeros(full, kind)
    u_bar, delta_bar, A_bar = D * g, np.zeros(u.shape), np.zeros((*u.shape[:-2], *A.shape), kind)
    for t in reversed(range(length)):
        step, v, gt = delta[..., t, :, None], u[..., t, :, None], g[..., t, :, None]
        h_bar = h_bar + twice * np.conj(C[..., t, :, :]) * gt
        C_bar[..., t, :, :] = twice * np.conj(states[t]) * gt
        e = np.exp(step * decay)
        e_bar = np.conj(e * before[t]) * h_bar
        A_bar = A_bar + step * e_bar
        drive = np.conj(B[..., t, :, :]) * h_bar
        delta_bar[..., t, :] = np.real((np.conj(rate) * e_bar + v * drive).sum(-1))
        u_bar[..., t, :] = u_bar[..., t, :] + np.real((step * drive).sum(-1))
        B_bar[..., t, :, :] = step * v * h_bar
        h_bar = np.where(restart[..., t, None, None], 0, np.conj(e) * h_bar)
    shared = {"B": B_bar, "C": C_bar}
    summed = {n: z if np.ndim(given[n]) == z.ndim else z.sum(-2) for n, z in shared.items()}
    grads = {"u": u_bar, "delta": delta_bar, "A": A_bar, "D": g * u, "initial": h_bar}
    return _fit({**grads, **summed}, given)


def causal_convolution(given: Given, y_bar: tuple[Any, ...], *, modulus: bool = False) -> Gradients:
    """u_bar_s = sum_t conj(k_{t-s}) y_bar_t, k_bar_s = sum_t conj(u_{t-s}) y_bar_t."""
    u, kernel, g = (_wide(x, modulus) for x in (given["u"], given["kernel"], *y_bar))
    kind = np.result_type(u, kernel, g)
    u_bar = np.zeros(u.shape, kind)
    k_bar = np.zeros((*u.shape[:-2], *kernel.shape[-2:]), kind)
    for t in range(u.shape[-2]):
        for s in range(min(t + 1, kernel.shape[-2])):
            u_bar[..., t - s, :] += np.conj(kernel[..., s, :]) * g[..., t, :]
            k_bar[..., s, :] += np.conj(u[..., t - s, :]) * g[..., t, :]
    return _fit({"u": u_bar, "kernel": k_bar}, given)


def short_convolution(given: Given, y_bar: tuple[Any, ...], *, modulus: bool = False) -> Gradients:
    """Through the window of K inputs that each output sees, the last K - 1 handed on."""
    u, weight, state = (_wide(given[name], modulus) for name in ("u", "weight", "state"))
    g, last_bar = (_wide(x, modulus) for x in y_bar)
    taps, length = weight.shape[0], u.shape[-2]
    seen = np.concatenate([state, u], axis=-2)
    seen_bar = np.zeros(seen.shape)
    seen_bar[..., length:, :] = last_bar
    weight_bar = np.zeros((*u.shape[:-2], *weight.shape))
    for t in range(length):
        for k in range(taps):
            seen_bar[..., t + k, :] += weight[k] * g[..., t, :]
            weight_bar[..., k, :] += seen[..., t + k, :] * g[..., t, :]
    return _fit(
        {
            "u": seen_bar[..., taps - 1 :, :],
            "state": seen_bar[..., : taps - 1, :],
            "weight": weight_bar,
            "bias": g,
        },
        given,
    )


def diagonal_kernel(given: Given, y_bar: tuple[Any, ...], *, modulus: bool = False) -> Gradients:
    """c_bar = sum_l conj(a^l) K_bar_l, a_bar = sum_l l conj(c a^{l-1}) K_bar_l."""
    a, c, g = (_wide(x, modulus) for x in (given["a"], given["coefficients"], *y_bar))
    a_bar, c_bar = (np.zeros(a.shape, np.result_type(a, c)) for _ in range(2))
    power, slower = np.ones_like(a), np.zeros_like(a)
    for position in range(given["length"]):
        weight = g[position][:, None]
        c_bar = c_bar + np.conj(power) * weight
        a_bar = a_bar + position * np.conj(c * slower) * weight
        power, slower = power * a, power
    return _fit({"a": a_bar, "coefficients": c_bar}, given)


def dplr_kernel(given: Given, y_bar: tuple[Any, ...], *, modulus: bool = False) -> Gradients:
    """Of K_l = Re C A_bar^l B_bar on all conjugate states, through the solves of the bilinear rule.

    With M = (I - dt/2 A)^-1: d A_bar = M d(dt/2 A) (I + A_bar), d B_bar = M (d(dt/2 A) B_bar
    + d(dt B)). Its growth is taken from the plain adjoint: a modulus would lose what makes the
    system stable.
    """
    dt, Lambda, P, B, C = (_wide(given[name], False) for name in ("dt", "Lambda", "P", "B", "C"))
    (g,), n, length = (_wide(x, modulus) for x in y_bar), Lambda.shape[-1], given["length"]
    A_d, x = dplr_matrices(dt, Lambda, P, B)
    Cs, Bs, Ps = (np.concatenate([z, z.conj()], axis=-1) for z in (C, B, P))
    B_d, states = x, []
    for _ in range(length):
        states.append(x)
        x = (A_d @ x[..., None])[..., 0]
    x_bar, A_d_bar, C_bar = np.zeros_like(B_d), np.zeros_like(A_d), np.zeros_like(B_d)
    for k in reversed(range(length)):
        weight = g[k][:, None]
        if k + 1 < length:
            A_d_bar += x_bar[:, :, None] * states[k].conj()[:, None, :]
            x_bar = (A_d.conj().swapaxes(-1, -2) @ x_bar[..., None])[..., 0]
        x_bar = x_bar + Cs.conj() * weight
        C_bar += states[k].conj() * weight
    eye = np.eye(2 * n)
    A = np.concatenate([Lambda, Lambda.conj()], axis=-1)[..., None] * eye
    for row in Ps:
        A = A - row[:, :, None] * row.conj()[:, None, :]
    M_star = np.linalg.inv(eye - dt[:, None, None] / 2 * A).conj().swapaxes(-1, -2)
    right = (eye + A_d).conj().swapaxes(-1, -2)
    v_bar = (M_star @ x_bar[..., None])[..., 0]
    X_bar = M_star @ A_d_bar @ right + v_bar[:, :, None] * B_d.conj()[:, None, :]
    A_bar = dt[:, None, None] / 2 * X_bar
    dt_bar = np.real((X_bar * (A / 2).conj()).sum((-1, -2)) + (v_bar * Bs.conj()).sum(-1))
    turned = A_bar.conj().swapaxes(-1, -2)
    P_bar = np.stack([-((A_bar + turned) @ row[..., None])[..., 0] for row in Ps]) if len(P) else P
    both = {
        "Lambda": np.diagonal(A_bar, axis1=-2, axis2=-1),
        "P": P_bar,
        "B": dt[:, None] * v_bar,
        "C": C_bar,
    }
    halves = {name: z[..., :n] + z[..., n:].conj() for name, z in both.items() if z.size}
    halves |= {name: z for name, z in both.items() if not z.size}
    return _fit({"dt": dt_bar, **halves}, given)


ADJOINTS = {
    "linear_scan": linear_scan,
    "diagonal_scan": diagonal_scan,
    "selective_scan": selective_scan,
    "causal_convolution": causal_convolution,
    "short_convolution": short_convolution,
    "diagonal_kernel": diagonal_kernel,
    "dplr_kernel": dplr_kernel,
}
