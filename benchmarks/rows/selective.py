"""Rows of selective_scan: Mamba's sizes, beside transformers' loop, mambapy and plain JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact, floors
from benchmarks.libraries import Library, library
from benchmarks.peers import selective
from benchmarks.work import Bar, Numbers, Peer, Row, Work
from ssmcore.verify import tolerance

__all__ = ["ROWS", "work"]

SHAPES = {
    "l2048": (1, 2048, 768, 16),
    "l1024": (4, 1024, 256, 16),
    "l16384": (1, 16384, 768, 16),
}
QUICK = (1, 32, 32, 16)
ERROR = 3e-7
LARGEST_STATES = 2**26  # elements of one (B, L, H, N) array that peers may form several of


def draw(shape: tuple[int, ...]) -> list[Numbers]:
    """Return u, delta, A, B, C, D and a cotangent, as Mamba starts."""
    batch, L, H, N = shape
    rng = np.random.default_rng(0)
    u, raw, g = (rng.standard_normal((batch, L, H), np.float32) for _ in range(3))
    delta = np.log1p(np.exp(raw - 4))
    A = -np.tile(np.arange(1, N + 1, dtype=np.float32), (H, 1))
    B, C = (rng.standard_normal((batch, L, N), np.float32) for _ in range(2))
    return [u, delta, A, B, C, np.ones(H, np.float32), g]


def work(name: str, shape: tuple[int, ...], backward: bool = False) -> Work:
    """Return selective_scan on library ``name`` with its floor and its peers."""
    lib = library(name)
    values = draw(shape)
    given, (g,) = lib.arrays(values[:-1]), lib.arrays(values[-1:])
    step = tolerance.oracle("float32", shape[1])
    peers, left_out = _peers(lib, shape, backward, given, g)
    return Work(
        ours=_call(lib, ssm.selective_scan, given, g, backward),
        numpy=lib.numpy,
        exact=lambda: (
            exact.selective_scan_gradient(*values)
            if backward
            else [exact.selective_scan(*values[:-1])]
        ),
        tolerances=[step] + [2 * step] * (len(given) if backward else 0),
        floors=floors.exp(shape),
        peers=peers,
        left_out=left_out,
    )


def _call(
    lib: Library, fn: Callable[..., Any], given: list[Any], g: Any, backward: bool
) -> Callable[[], Any]:
    return lib.backward(fn, given, g) if backward else lib.forward(fn, given)


def _peers(
    lib: Library, shape: tuple[int, ...], backward: bool, given: list[Any], g: Any
) -> tuple[dict[str, Peer], dict[str, str]]:
    peers: dict[str, Peer] = {}
    left_out: dict[str, str] = {}
    large = int(np.prod(shape)) > LARGEST_STATES

    def add(name: str, fn: Callable[..., Any], reason: str | None = None) -> None:
        if reason:
            left_out[name] = reason
        else:
            peers[name] = Peer(lambda: _call(lib, fn, given, g, backward), lib.numpy)

    memory = "forms arrays of (B, L, H, N), too large here" if large else None
    if lib.name == "jax":
        add("associative_scan", selective.associative_scan, memory)
        add("lax_scan", selective.lax_scan)
    else:
        torch = library("torch")
        inputs = (
            given if lib.name == "torch" else torch.arrays([lib.owner.to_numpy(x) for x in given])
        )
        if backward:
            left_out["transformers"] = "minutes: autograd keeps every step of its loop"
        else:
            peers["transformers"] = _transformers(torch, inputs)
        if memory:
            left_out["mambapy"] = memory
        else:
            peers["mambapy"] = Peer(
                lambda: _call(torch, selective.mambapy_scan, inputs, g, backward), torch.numpy
            )
    return peers, left_out


def _transformers(torch: Library, given: list[Any]) -> Peer:
    """Return transformers' loop in its own layout, turned before the clock starts."""

    def prepare() -> Callable[[], Any]:
        u, delta, A, B, C, D = given
        u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
        return torch.forward(selective.transformers_loop, [u, delta, A, B, C, D])

    return Peer(prepare, lambda y: torch.numpy(y.transpose(1, 2)))


def _row(shape_name: str, lib: str, backward: bool) -> Row:
    shape = SHAPES[shape_name]
    states = 4 * int(np.prod(shape))  # bytes of one float32 (B, L, H, N) array
    if lib == "jax":
        bars = [Bar("faster", 6.0, ("associative_scan",)), Bar("faster", 1.5, ("lax_scan",))]
    elif backward:
        bars = [Bar("faster", 15.0, ("mambapy",))]
    else:
        bars = [Bar("faster", 18.0, ("transformers", "mambapy"))]
    if backward:
        bars.append(Bar("memory", states / 8))
    else:
        bars.append(Bar("error", ERROR))

    def build(quick: bool) -> Work:
        return work(lib, QUICK if quick else shape, backward)

    return Row(
        name=f"selective_scan_{shape_name}{'_backward' if backward else ''}_{lib}",
        what=f"selective_scan float32 {shape}{', forward + backward' if backward else ''}",
        library=lib,
        build=build,
        bars=tuple(bars),
    )


ROWS = [
    *(_row(shape, lib, False) for shape in SHAPES for lib in ("numpy", "torch")),
    _row("l2048", "torch", True),
    _row("l2048", "jax", True),
]
