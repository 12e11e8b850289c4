"""Rows of diagonal_kernel and dplr_kernel, beside the table of powers and the Cauchy products."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact, floors
from benchmarks.libraries import library
from benchmarks.peers import kernels
from benchmarks.work import Bar, Numbers, Peer, Row, Work
from ssmcore.initialization import nplr
from ssmcore.verify import tolerance

__all__ = ["ROWS", "diagonal_work", "dplr_work"]

H, PAIRS, L = 256, 32, 16384
LONGEST = 2**20
CHECKED = 8  # channels that are compared with float64
ERROR = 1e-6
DECAY = 0.5


def step_sizes(channels: int, length: int) -> Numbers:
    """Return dt as S4 starts at L = 16384, scaled so that longer kernels last as long."""
    dt = np.exp(np.random.default_rng(0).uniform(np.log(1e-3), np.log(1e-1), channels))
    return (dt * min(1.0, L / length)).astype(np.float32)


def memory(dt: Numbers, length: int) -> float:
    """Return how many steps count in the slowest channel: min(L, 1 / (dt / 2))."""
    return min(length, 1 / (DECAY * float(dt.min())))


def complex_normal(*shape: int) -> Numbers:
    """Return complex64 standard normal numbers."""
    rng = np.random.default_rng(1)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def diagonal_values(channels: int, pairs: int, length: int) -> list[Numbers]:
    """Return log a, a and the coefficients, complex64, of S4D-Lin."""
    log_a = step_sizes(channels, length)[:, None] * (-DECAY + 1j * np.pi * np.arange(pairs))
    coefficients = 2 * complex_normal(channels, pairs)
    return [log_a.astype(np.complex64), np.exp(log_a).astype(np.complex64), coefficients]


def dplr_values(channels: int, pairs: int, length: int) -> list[Numbers]:
    """Return dt, Lambda, P, B, C of S4-LegS in single precision."""
    form = nplr("legs", 2 * pairs)
    Lambda, P, B = (
        np.tile(x, (channels, 1)).astype(np.complex64) for x in (form.Lambda, form.P[0], form.B)
    )
    return [step_sizes(channels, length), Lambda, P[None], B, complex_normal(channels, pairs)]


def diagonal_work(name: str, channels: int, pairs: int, length: int) -> Work:
    """Return diagonal_kernel on library ``name`` with the naive table as its peer."""
    lib, torch = library(name), library("torch")
    log_a, a, c = diagonal_values(channels, pairs, length)
    given, naive = lib.arrays([a, c]), torch.arrays([log_a, c])
    steps = memory(step_sizes(channels, length), length)

    def peer() -> Callable[[], Any]:
        return torch.forward(lambda x, y: kernels.vandermonde(x, y, length), naive)

    fits = channels * pairs * length <= 2**28  # complex numbers of the table: 2 GiB
    return Work(
        ours=lib.forward(lambda a, c: ssm.diagonal_kernel(a, c, length), given),
        numpy=lambda K: [lib.numpy(K)[0][:, :CHECKED]],
        exact=lambda: [exact.diagonal_kernel(a[:CHECKED], c[:CHECKED], length)],
        tolerances=[tolerance.oracle("float32", steps)],
        floors=floors.add(*[np.zeros(channels * length, np.float32)] * 2),
        peers={"exp_table": Peer(peer, lambda K: [torch.numpy(K)[0][:CHECKED].T])} if fits else {},
        left_out={} if fits else {"exp_table": "its table of powers is too large here"},
    )


def dplr_work(name: str, channels: int, pairs: int, length: int) -> Work:
    """Return dplr_kernel on library ``name`` with naive Cauchy products as its peer."""
    lib, torch = library(name), library(name if name.startswith("torch") else "torch")
    values = dplr_values(channels, pairs, length)
    steps = memory(values[0], length)
    given, naive = lib.arrays(values), torch.arrays(values)

    def peer() -> Callable[[], Any]:
        dt, Lambda, P, B, C = naive
        C_tilde = kernels.output_vector(dt, Lambda, P, C, length)
        return torch.forward(
            functools.partial(kernels.cauchy, length=length), [dt, Lambda, P, B, C_tilde]
        )

    dt, Lambda, P, B, C = (x[:, :CHECKED] if x.ndim == 3 else x[:CHECKED] for x in values)
    return Work(
        ours=lib.forward(functools.partial(ssm.dplr_kernel, length=length), given),
        numpy=lambda K: [lib.numpy(K)[0][:, :CHECKED]],
        exact=lambda: [exact.dplr_kernel(dt, Lambda, P, B, C, length)],
        tolerances=[tolerance.oracle("float32", steps)],
        floors=floors.add(*[np.zeros(channels * length, np.float32)] * 2),
        peers={"cauchy": Peer(peer, lambda K: [torch.numpy(K)[0][:CHECKED].T])},
    )


def _row(
    kind: str, lib: str, sizes: tuple[int, int, int], bars: tuple[Bar, ...], name: str = ""
) -> Row:
    make = {"diagonal": diagonal_work, "dplr": dplr_work}[kind]
    channels, pairs, length = sizes
    return Row(
        name=f"{kind}_kernel{name}_{lib}",
        what=f"{kind}_kernel float32, H {channels}, {pairs} pairs, L {length}",
        library=lib,
        build=lambda quick: make(lib, *((8, 4, 128) if quick else sizes)),
        bars=bars,
    )


LIBRARIES = ("numpy", "torch", "jax")
TYPICAL = (H, PAIRS, L)
ACCURATE = Bar("error", ERROR)
ROWS = [
    *(
        _row("diagonal", lib, TYPICAL, (Bar("faster", 40.0, ("exp_table",)), ACCURATE))
        for lib in LIBRARIES
    ),
    *(
        _row("diagonal", lib, (CHECKED, PAIRS, LONGEST), (ACCURATE,), "_longest")
        for lib in LIBRARIES
    ),
    *(_row("dplr", lib, TYPICAL, (Bar("faster", 5.0, ("cauchy",)), ACCURATE)) for lib in LIBRARIES),
]
