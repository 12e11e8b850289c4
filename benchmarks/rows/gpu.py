"""Rows on a GPU: scans, short_convolution and dplr_kernel at training sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact, floors_gpu
from benchmarks.libraries import GPU, Library, library
from benchmarks.peers import gpu
from benchmarks.rows import kernels, linear, selective
from benchmarks.work import Bar, Numbers, Peer, Row, Work
from ssmcore.verify import tolerance

__all__ = ["ROWS", "dplr_work", "linear_work", "selective_work", "short_work"]

SCANS = {
    "wide": ((8, 4096, 2048), "float32"),
    "wide_complex": ((8, 4096, 1024), "complex64"),
    "long": ((1, 2**20, 64), "float32"),
}
SELECTIVE = {"typical": (8, 4096, 2048, 16), "small": (2, 4096, 2048, 16)}
SHORT = (8, 4096, 2048)
QUICK = (2, 64, 32)
TAPS = 4


def linear_work(name: str, shape: tuple[int, ...], dtype: str, backward: bool) -> Work:
    """Return linear_scan beside the bytes it must move: 3 arrays forward, 5 more backward."""
    lib = library(name)
    a, b, g = linear.draw(shape, dtype)
    found = linear.work(name, shape, dtype, backward)
    peers = dict(found.peers) if lib.owner.name == "jax" else {}
    if name == "torch-cuda":
        given, cotangent = lib.arrays([a, b]), lib.arrays([g])[0] if backward else None
        peers["accelerated_scan"] = _turned(lib, gpu.accelerated_scan, given, cotangent)
        if dtype == "float32" and not backward:
            log_a = lib.arrays([np.log(a), b])
            call = lambda: lib.forward(gpu.fla_hgrn, log_a)  # noqa: E731
            peers["fla"] = Peer(call, lib.numpy)
    moved = (8 if backward else 3) * b.nbytes
    return dataclasses.replace(
        found, floors=floors_gpu.traffic(lib, moved), peers=peers, left_out={}
    )


def selective_work(name: str, shape: tuple[int, ...], backward: bool) -> Work:
    """Return selective_scan beside its bytes and its exponentials."""
    lib = library(name)
    *values, g = selective.draw(shape)
    found = selective.work(name, shape, backward)
    moved = sum(x.nbytes for x in values) + g.nbytes
    moved *= 3 if backward else 1  # inputs again and their gradients
    peers = {}
    if name == "torch-cuda":
        given, cotangent = lib.arrays(values), lib.arrays([g])[0] if backward else None
        peers["mamba_ssm"] = _turned(lib, gpu.mamba_ssm, given, cotangent)
    floors = {
        **floors_gpu.traffic(lib, moved),
        **floors_gpu.exp(lib, int(np.prod(shape)) * (2 if backward else 1)),
    }
    return dataclasses.replace(found, floors=floors, peers=peers, left_out={})


def short_work(name: str, shape: tuple[int, ...]) -> Work:
    """Return short_convolution beside reading its input and writing its output once."""
    lib = library(name)
    rng = np.random.default_rng(0)
    u, weight = (rng.standard_normal(x, np.float32) for x in (shape, (TAPS, shape[-1])))

    def wanted() -> Sequence[Numbers]:
        past = np.pad(exact.wide(u), ((0, 0), (TAPS - 1, 0), (0, 0)))
        return [sum(weight[k] * past[:, k : k + shape[1]] for k in range(TAPS))]

    return Work(
        ours=lib.forward(lambda u, w: ssm.short_convolution(u, w)[0], lib.arrays([u, weight])),
        numpy=lib.numpy,
        exact=wanted,
        tolerances=[tolerance.oracle("float32", TAPS)],
        floors=floors_gpu.traffic(lib, 2 * u.nbytes),
        repeats=lib.repeats,
        peak=lib.peak,
    )


def dplr_work(name: str, sizes: tuple[int, int, int]) -> Work:
    """Return dplr_kernel beside naive Cauchy products, which form arrays of (H, N, L / 2)."""
    lib = library(name)
    found = kernels.dplr_work(name, *sizes)
    peers = found.peers if name == "torch-cuda" else {}
    return dataclasses.replace(found, floors={}, peers=peers, repeats=lib.repeats, peak=lib.peak)


def _turned(lib: Library, fn: Callable[..., Any], given: list[Any], cotangent: Any) -> Peer:
    """Return a peer on layout (B, C, L), its sequences turned before the clock starts."""

    def turn(x: Any) -> Any:
        return x.transpose(1, 2).contiguous() if x.ndim == 3 else x

    def prepare() -> Callable[[], Any]:
        turned = [turn(x) for x in given]
        if cotangent is None:
            return lib.forward(fn, turned)
        return lib.backward(fn, turned, turn(cotangent))

    def numbers(results: Any) -> list[Numbers]:
        return [np.swapaxes(x, 1, 2) if x.ndim == 3 else x for x in lib.numpy(results)]

    return Peer(prepare, numbers)


def _row(
    name: str, what: str, lib: str, bars: tuple[Bar, ...], build: Callable[[bool], Work]
) -> Row:
    return Row(f"gpu_{name}_{lib}", what, lib, build, bars)


def _linear(key: str, lib: str, backward: bool) -> Row:
    shape, dtype = SCANS[key]
    bars = [Bar("slower", 1.5, ("traffic",))]
    if lib == "torch-cuda":
        bars.append(Bar("faster", 1.0, ("accelerated_scan", "fla")))
    return _row(
        f"linear_scan_{key}{'_backward' if backward else ''}",
        f"linear_scan {dtype} {shape}{', forward + backward' if backward else ''}",
        lib,
        tuple(bars),
        lambda quick: linear_work(lib, QUICK if quick else shape, dtype, backward),
    )


def _selective(key: str, lib: str, backward: bool) -> Row:
    shape = SELECTIVE[key]
    floor = "traffic" if backward or lib != "torch-cuda" else "exp"
    return _row(
        f"selective_scan_{key}{'_backward' if backward else ''}",
        f"selective_scan float32 {shape}{', forward + backward' if backward else ''}",
        lib,
        (Bar("slower", 3.0 if backward else 2.0, (floor,)),),
        lambda quick: selective_work(lib, selective.QUICK if quick else shape, backward),
    )


def _short(lib: str) -> Row:
    return _row(
        "short_convolution",
        f"short_convolution float32 {SHORT}, {TAPS} taps",
        lib,
        (Bar("slower", 1.3, ("traffic",)),),
        lambda quick: short_work(lib, QUICK if quick else SHORT),
    )


def _dplr(lib: str) -> Row:
    channels, pairs, length = kernels.TYPICAL
    return _row(
        "dplr_kernel",
        f"dplr_kernel float32, H {channels}, {pairs} pairs, L {length}",
        lib,
        (Bar("faster", 1.0, ("cauchy",)) if lib == "torch-cuda" else kernels.ACCURATE,),
        lambda quick: dplr_work(lib, (8, 4, 128) if quick else kernels.TYPICAL),
    )


ROWS = [
    *(
        _linear(key, lib, backward)
        for key in SCANS
        for lib in GPU
        for backward in (False, True)
        if not (backward and lib == "cupy")
    ),
    *(_selective("typical", lib, False) for lib in GPU),
    *(_selective("small", lib, True) for lib in GPU if lib != "cupy"),
    *(_short(lib) for lib in GPU),
    *(_dplr(lib) for lib in GPU),
]
