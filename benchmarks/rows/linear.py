"""Rows of linear_scan: four shapes, forward and forward + backward, beside loops and scans."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact, floors
from benchmarks.libraries import Library, library
from benchmarks.peers import scans
from benchmarks.work import Bar, Numbers, Peer, Row, Work
from ssmcore.verify import tolerance

__all__ = ["ROWS", "work"]

SHAPES = {
    "wide": ((4, 4096, 1024), "float32"),
    "wide_complex": ((4, 4096, 256), "complex64"),
    "long": ((1, 65536, 64), "float32"),
    "long_complex": ((1, 2**20, 16), "complex64"),
}
QUICK = 64
LARGEST, SMALLEST = 0.999, 0.9
LONGEST_LOOP = 65536  # steps that a Python loop of torch or NumPy is waited for
LONGEST_GRAPH = 4096  # the same where autograd keeps every step


def draw(shape: tuple[int, ...], dtype: str) -> list[Numbers]:
    """Return a, b and a cotangent; |a| in [0.9, 0.999]."""
    rng = np.random.default_rng(0)
    size = rng.uniform(SMALLEST, LARGEST, shape).astype(np.float32)
    b, g = (rng.standard_normal(shape, np.float32) for _ in range(2))
    if dtype == "float32":
        return [size, b, g]
    angle = rng.uniform(0, 1, shape).astype(np.float32)
    a = size * np.exp(1j * angle)
    b = b + 1j * rng.standard_normal(shape, np.float32)
    g = g + 1j * rng.standard_normal(shape, np.float32)
    return [x.astype(dtype) for x in (a, b, g)]


def work(name: str, shape: tuple[int, ...], dtype: str, backward: bool = False) -> Work:
    """Return linear_scan on library ``name`` with its floor and its peers."""
    lib = library(name)
    a, b, g = draw(shape, dtype)
    given, (cotangent,) = lib.arrays([a, b]), lib.arrays([g])
    step = tolerance.oracle("float32", min(shape[1], 1 / (1 - LARGEST)))
    exact_call: Callable[[], Any] = lambda: [exact.linear_scan(a, b)]  # noqa: E731
    if backward:
        exact_call = functools.partial(
            exact.linear_scan_gradient, a, b, g, conjugate=lib.name.startswith("torch")
        )
    peers, left_out = _peers(lib, shape, dtype, backward, given, cotangent)
    return Work(
        ours=_call(lib, ssm.linear_scan, given, cotangent if backward else None),
        numpy=lib.numpy,
        exact=exact_call,
        tolerances=[step, 2 * step, step] if backward else [step],
        floors=floors.add(a, b),
        peers=peers,
        left_out=left_out,
    )


def _call(
    lib: Library, fn: Callable[..., Any], given: list[Any], cotangent: Any
) -> Callable[[], Any]:
    if cotangent is None:
        return lib.forward(fn, given)
    return lib.backward(fn, given, cotangent)


def _peers(
    lib: Library, shape: tuple[int, ...], dtype: str, backward: bool, given: list[Any], g: Any
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the peers of a library at this size, and those left out with the reason."""
    cotangent = g if backward else None
    peers: dict[str, Peer] = {}
    left_out: dict[str, str] = {}

    def add(name: str, fn: Callable[..., Any], reason: str | None = None) -> None:
        if reason:
            left_out[name] = reason
        else:
            peers[name] = Peer(lambda: _call(lib, fn, given, cotangent), lib.numpy)

    longest = LONGEST_GRAPH if backward else LONGEST_LOOP
    too_long = f"{shape[1]} steps of Python take minutes" if shape[1] > longest else None
    if lib.name == "numpy":
        add("numpy_loop", scans.numpy_loop, too_long)
    if lib.name == "torch":
        add("torch_loop", scans.torch_loop, too_long)
        real = "complex numbers are not its business" if dtype != "float32" else None
        add("mambapy", scans.mambapy_scan, real)
        if not backward:
            peers["accelerated_scan"] = _accelerated(lib, given)
    if lib.name == "jax":
        add("associative_scan", scans.associative_scan)
    return peers, left_out


def _accelerated(lib: Library, given: list[Any]) -> Peer:
    """Return accelerated-scan's plain version, in its layout (B, C, L), turned before the clock."""

    def prepare() -> Callable[[], Any]:
        turned = [x.transpose(1, 2).contiguous() for x in given]
        return lib.forward(scans.accelerated_scan, turned)

    return Peer(prepare, lambda y: lib.numpy(y.transpose(1, 2)))


def _row(shape_name: str, lib: str, backward: bool) -> Row:
    shape, dtype = SHAPES[shape_name]
    way = "_backward" if backward else ""
    long = shape_name.startswith("long")
    if lib == "jax":
        bars = [Bar("faster", 4.0, ("associative_scan",))]
        if not long and not backward:
            bars.append(Bar("slower", 3.0, ("add",)))
        if long and not backward and dtype == "float32":
            bars.append(Bar("compile", 2.0))
    else:
        limit = (6.0 if backward else 2.2) if long else (4.0 if backward else 1.3)
        bars = [Bar("slower", limit, ("add",))]

    def build(quick: bool) -> Work:
        size = (min(shape[0], 2), QUICK, 32) if quick else shape
        return work(lib, size, dtype, backward)

    return Row(
        name=f"linear_scan_{shape_name}{way}_{lib}",
        what=f"linear_scan {dtype} {shape}{', forward + backward' if backward else ''}",
        library=lib,
        build=build,
        bars=tuple(bars),
    )


ROWS = [
    _row(shape, lib, backward)
    for backward in (False, True)
    for shape in SHAPES
    for lib in ("numpy", "torch", "jax")
    if not (backward and lib == "numpy")
]
