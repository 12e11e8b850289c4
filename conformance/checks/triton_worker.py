"""The Triton kernels against the sequential float64 oracles, in a process of its own.

``python -m checks.triton_worker`` prints a line of JSON for every case: its name, the worst error
of each result, its tolerance. Without a GPU the kernels run under Triton's interpreter, which must
be asked for before Triton is imported.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from checks.triton_cases import CASES
from checks.triton_interpreted import interpret
from ssmcore_conformance import adjoints, oracles
from ssmcore_conformance.tolerances import bound, steps

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Result = tuple[str, Any, Any, Any]
random = np.random.default_rng(20)


def lay(x: torch.Tensor, layout: str | None) -> torch.Tensor:
    """Return ``x`` with the same values, lying in memory as ``layout`` says."""
    if layout == "transposed" and x.ndim > 1:
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "sliced":
        buffer = x.new_full((2 * x.numel() + 1,), float("nan"))
        return buffer[1::2].view(x.shape).copy_(x)
    if layout == "planar" and x.is_complex():
        return torch.stack((x.real, x.imag)).movedim(0, -1)
    if layout == "far" and x.ndim == 3 and x.shape[1] > 1:
        apart = 2**30 + 7
        buffer = torch.empty(apart * x.shape[1], dtype=x.dtype, device=x.device)
        return buffer.as_strided(x.shape, (0, apart, 1)).copy_(x)
    return x


def draw(dtype: str, *shape: int, positive: bool = False, layout: str | None = None) -> Any:
    """Return normal numbers, or uniform ones in (0, 1)."""
    values = random.uniform(size=shape) if positive else random.standard_normal(shape)
    if dtype.startswith("complex"):
        values = values + 1j * random.standard_normal(shape)
    return lay(torch.tensor(values).to(getattr(torch, dtype)).to(DEVICE), layout)


def number(x: torch.Tensor) -> Any:
    """Return ``x`` as the oracles take it: in float64 or complex128."""
    wide = x.detach().cpu().resolve_conj()
    return wide.to(torch.complex128 if x.is_complex() else torch.float64).numpy()


def limit(like: torch.Tensor, carry: str, count: float, growth: Any, sums: int = 1) -> Any:
    """Return what ``count`` roundings in the carried dtype and ``sums`` in the result's allow."""
    return bound(carry, count, growth) + torch.finfo(like.dtype).eps * sums * growth


def linear_scan(
    dtype: str = "float32",
    shape: tuple[int, int, int] = (2, 11, 3),
    a: tuple[int, int, int] | None = None,
    keep: int | None = None,
    reverse: bool = False,
    chunk: int | None = None,
    layout: str | None = None,
    poison: bool = False,
    twice: bool = False,
) -> Iterator[Result]:
    kernels: Any = importlib.import_module("ssmcore_torch._triton.linear_scan")

    R, L, P = shape
    # the values before they are laid out, which the oracles see
    given = [draw(dtype, *(a or shape)) * 0.7, draw(dtype, *shape), draw(dtype, R, P)]
    kept: Any = (
        None if keep is None else torch.tensor(random.uniform(size=(keep, L)) > 0.3).to(DEVICE)
    )
    if poison:
        given[1][:, 2], given[2][:] = float("inf"), float("nan")
        kept[:, 0] = kept[:, 3] = False
    transition, b, start = (lay(x, layout) for x in given)
    run: dict[str, Any] = {"keep": kept, "reverse": reverse, "chunk": chunk}
    h = kernels.linear_scan(transition, b, start, **run)
    if twice:
        assert torch.equal(h, kernels.linear_scan(transition, b, start, **run))
    reset = None if kept is None else ~kept.cpu().numpy()
    at, bt, st = (number(x) for x in given)
    options: dict[str, Any] = {"reset": reset, "reverse": reverse}
    carry = "float32" if "16" in dtype else "float64"
    got = number(torch.view_as_complex(h.contiguous()) if layout == "planar" else h)
    expected = oracles.linear_scan(at, bt, st, **options)
    growth = oracles.linear_scan(at, bt, st, **options, modulus=True)
    yield "h", got, expected, limit(given[0], carry, steps(L), growth)
    if poison:
        return
    g = draw(dtype, *shape)
    near = torch.tensor(expected).to(given[0].dtype).to(DEVICE)
    back: list[Any] = [given[0].conj(), near.conj(), g, given[2].conj()]
    if layout:  # else they are conjugated lazily, and the kernels do it
        back = [lay(x.resolve_conj(), layout) for x in back]
    grads = kernels.linear_scan_backward(*back, **run)
    what = {"a": at, "b": bt, "initial": st, **options}
    reference = adjoints.linear_scan(what, (number(g),))
    growths = adjoints.linear_scan(what, (number(g),), modulus=True)
    for name, grad in zip(("a", "b", "initial"), grads, strict=True):
        found = number(torch.view_as_complex(grad.contiguous()) if layout == "planar" else grad)
        sums = L + 2 + R  # h itself is rounded, and rows are summed in the result's dtype
        yield (
            f"d{name}",
            found,
            reference[name],
            limit(given[0], carry, steps(2 * L, R), growths[name], sums if name == "a" else 1),
        )


def selective_scan(
    dtype: str = "float32",
    shape: tuple[int, int, int, int] = (2, 11, 5, 3),
    keep: int | None = None,
    chunk: int | None = None,
    layout: str | None = None,
    D: bool = True,
    twice: bool = False,
) -> Iterator[Result]:
    kernels: Any = importlib.import_module("ssmcore_torch._triton.selective_scan")

    R, L, H, N = shape
    given = {
        "u": draw(dtype, R, L, H),
        "delta": draw(dtype, R, L, H, positive=True),
        "A": -draw(dtype, H, N, positive=True),
        "B": draw(dtype, R, L, N),
        "C": draw(dtype, R, L, N),
        "D": draw(dtype, H) if D else torch.zeros(H, device=DEVICE),
        "initial": draw(dtype, R, H, N),
    }
    rest: list[Any] = [lay(x, layout) for x in given.values()]
    rest[5] = rest[5] if D else None
    kept: Any = (
        None if keep is None else torch.tensor(random.uniform(size=(keep, L)) > 0.3).to(DEVICE)
    )
    run: dict[str, Any] = {"keep": kept, "chunk": chunk}
    y, last, marks = kernels.selective_scan(*rest, checkpoint=True, **run)
    if twice:
        assert torch.equal(y, kernels.selective_scan(*rest, **run)[0])
    wide = {name: number(x) for name, x in given.items()}
    wide["reset"] = None if kept is None else ~kept.cpu().numpy()
    carry = "float64" if dtype == "float64" else "float32"
    results = oracles.selective_scan(**wide), oracles.selective_scan(**wide, modulus=True)
    largest = float(np.max(wide["delta"]) * np.max(-wide["A"]))
    count = steps(L, N) * (2 + largest)  # the exponential's argument is rounded twice
    for name, got, expected, growth in zip(["y", "last"], (y, last), *results, strict=False):
        yield name, number(got), expected, limit(got, carry, count, growth)
    gy, glast = draw(dtype, R, L, H), draw(dtype, R, H, N)
    back: list[Any] = [*rest[:6], marks, lay(gy, layout), glast]
    grads = kernels.selective_scan_backward(*back, **run)
    bars = number(gy), number(glast)
    reference = adjoints.selective_scan(wide, bars)
    growths = adjoints.selective_scan(wide, bars, modulus=True)
    for name, grad in zip(given, grads, strict=True):
        if grad is not None:
            more = 2 * count + steps(L * R, H)
            yield f"d{name}", number(grad), reference[name], limit(grad, carry, more, growths[name])


def short_convolution(
    dtype: str = "float32",
    shape: tuple[int, int, int] = (2, 11, 5),
    taps: int = 4,
    bias: bool = True,
    chunk: int | None = None,
    layout: str | None = None,
) -> Iterator[Result]:
    kernels: Any = importlib.import_module("ssmcore_torch._triton.short_convolution")

    R, L, H = shape
    u, state = (draw(dtype, R, n, H, layout=layout) for n in (L, taps - 1))
    weight = draw(dtype, taps, H, layout=layout)
    b = draw(dtype, H) if bias else torch.zeros(H, device=DEVICE)
    y, after = kernels.short_convolution(u, weight, b if bias else None, state, chunk=chunk)
    wide = {"u": number(u), "weight": number(weight), "bias": number(b), "state": number(state)}
    results = oracles.short_convolution(**wide), oracles.short_convolution(**wide, modulus=True)
    carry = "float64" if dtype == "float64" else "float32"
    for name, got, expected, growth in zip(["y", "state"], (y, after), *results, strict=False):
        yield name, number(got), expected, limit(u, carry, steps(taps), growth)
    gy, gafter = draw(dtype, R, L, H, layout=layout), draw(dtype, R, taps - 1, H)
    grads = kernels.short_convolution_backward(u, weight, state, gy, gafter, chunk=chunk)
    bars = number(gy), number(gafter)
    reference = adjoints.short_convolution(wide, bars)
    growths = adjoints.short_convolution(wide, bars, modulus=True)
    for name, grad in zip(("u", "weight", "bias", "state"), grads, strict=True):
        count = steps(L * R, taps)
        yield f"d{name}", number(grad), reference[name], limit(u, carry, count, growths[name])


def selective_step(
    dtype: str = "float32",
    shape: tuple[int, int, int] = (2, 5, 3),
    layout: str | None = None,
    D: bool = True,
    place: bool = False,
) -> Iterator[Result]:
    kernels: Any = importlib.import_module("ssmcore_torch._triton.selective_step")

    R, H, N = shape
    u, B, C = (draw(dtype, R, n, layout=layout) for n in (H, N, N))
    delta = draw(dtype, R, H, positive=True)
    A = -draw(dtype, H, N, positive=True, layout=layout)
    skip = draw(dtype, H) if D else torch.zeros(H, device=DEVICE)
    state = draw(dtype, R, H, N, layout=layout)
    sequence = (number(x)[:, None] for x in (u, delta, B, C))
    wide = dict(zip(("u", "delta", "B", "C"), sequence, strict=True))
    wide |= {"A": number(A), "D": number(skip), "initial": number(state)}
    y, after = kernels.selective_step(
        u, delta, A, B, C, skip if D else None, state, out=state if place else None
    )
    assert not place or after is state
    results = oracles.selective_scan(**wide), oracles.selective_scan(**wide, modulus=True)
    carry = "float64" if dtype == "float64" else "float32"
    count = steps(1, N) * 3
    (expected, last), (growth, of_last) = results
    yield "y", number(y), expected[:, 0], limit(y, carry, count, growth[:, 0])
    yield "state", number(after), last, limit(after, carry, count, of_last)


def cauchy_sums(dtype: str, S: int = 4, N: int = 3, F: int = 70, H: int = 2) -> Iterator[Result]:
    kernels: Any = importlib.import_module("ssmcore_torch._triton.cauchy")

    z, c, x, v = draw(dtype, F), draw(dtype, F), draw(dtype, H, N), draw(dtype, H, N, S)
    g = draw(dtype, H, F, S)
    x.real.abs_().neg_()
    z.real.abs_().add_(1)
    c.copy_(c.real.abs())  # poles on the left, nodes on the right: no denominator near zero
    sums = kernels.cauchy_sums(z, c, x, v)
    zw, cw, xw, vw = (number(t)[:, None, None] for t in (z, c, x, v))
    zw, cw = zw[None, ..., 0], cw[None, ..., 0]
    xw, vw = xw[:, 0].swapaxes(1, 2).swapaxes(1, 2), vw[:, 0]
    one, two = 1 / (zw - cw * xw), 1 / (zw - cw * xw.conj())
    vw = vw.reshape(H, 1, N, S)
    expected = (one[..., None] * vw + two[..., None] * vw.conj()).sum(2)
    modulus = ((np.abs(one) + np.abs(two))[..., None] * np.abs(vw)).sum(2)
    # every denominator has a real part of 1 at least, and rounds by its terms' size
    worse = np.max(np.abs(zw) + np.abs(cw * xw))
    count = steps(N + 8) * (1 + worse)
    kind = number(v.real).dtype.type if dtype == "complex128" else np.float32
    yield "sums", number(sums), expected, bound(kind, count, modulus)
    dx, dv = kernels.cauchy_sums_backward(z, c, x, v, g)
    gw = number(g)[:, :, None]
    dv_terms = one.conj()[..., None] * gw + (two.conj()[..., None] * gw).conj()
    size = ((np.abs(one) + np.abs(two))[..., None] * np.abs(gw)).sum(1)
    yield "dv", number(dv), dv_terms.sum(1), bound(kind, steps(F + 8) * (1 + worse), size)
    slopes = [(cw * w**2).conj() for w in (one, two)]
    through = (gw * vw.conj()).sum(-1), (gw * vw).sum(-1)
    dx_terms = slopes[0] * through[0] + (slopes[1] * through[1]).conj()
    strong = np.abs(slopes[0]) + np.abs(slopes[1])
    size = (strong * (np.abs(gw) * np.abs(vw)).sum(-1)).sum(1)
    yield "dx", number(dx), dx_terms.sum(1), bound(kind, steps(F + S + 16) * (1 + worse), size)


def worst(got: Any, expected: Any, tolerance: Any) -> dict[str, float]:
    """Return the error, and its tolerance, where it is largest in proportion."""
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if not got.size:
        return {"error": 0.0, "tolerance": 0.0}
    with np.errstate(invalid="ignore"):
        error = np.where(got == expected, 0.0, np.abs(got - expected))
    error = np.where(np.isnan(error) & np.isnan(got) & np.isnan(expected), 0.0, error)
    error = np.where(np.isnan(error), np.inf, error).ravel()
    allowed = np.broadcast_to(tolerance, expected.shape).ravel()
    at = np.argmax(np.where(error == 0, 0.0, error / allowed))
    return {"error": float(error[at]), "tolerance": float(allowed[at])}


def main() -> None:
    if DEVICE == "cpu":
        interpret()
        from checks.triton_probe import trouble

        if reason := trouble():
            print(json.dumps({"unusable": reason}))
            return
    for name, cases in CASES.items():
        for case, arguments in cases.items():
            results = globals()[name](**arguments)
            found = {result: worst(*values) for result, *values in results}
            print(json.dumps({"case": f"{name}: {case}", "results": found}), flush=True)


if __name__ == "__main__":
    main()
