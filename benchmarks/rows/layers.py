"""Rows of the S4D layer: beside the FFT pipeline, and mode "auto" beside each mode."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact, floors
from benchmarks.libraries import Library, library
from benchmarks.peers import kernels
from benchmarks.work import Bar, Numbers, Peer, Row, Work
from ssmcore.verify import tolerance

__all__ = ["ROWS", "auto_work", "work"]

SIZES = (4, 16384, 256, 64)
QUICK = (2, 64, 8, 8)
GRID = ((1, 256, 64, 64), (16, 1024, 64, 16), (1, 8192, 256, 64), (4, 4096, 256, 16))
CHECKED = 4  # channels that are compared with float64
LONGEST_LOOP = 1024  # steps that mode "recurrence" is waited for where it is a loop of Python
MODES = ("recurrence", "scan", "convolution")


def draw(shape: tuple[int, ...]) -> tuple[Any, dict[str, Numbers], Numbers]:
    """Return an S4D layer, its parameters and an input."""
    batch, length, channels, states = shape
    layer = ssm.S4D(d_model=channels, d_state=states)
    u = np.random.default_rng(0).standard_normal((batch, length, channels), np.float32)
    return layer, layer.init(0), u


def discrete(params: dict[str, Numbers]) -> list[Numbers]:
    """Return a, B, C, D in float64 by the definition: zoh of each channel."""
    p = {name: exact.wide(x) for name, x in params.items()}
    lam = -np.exp(p["A_log_real"]) + 1j * p["A_imag"]
    a = np.exp(np.exp(p["log_dt"])[:, None] * lam)
    B, C = (p[name][..., 0] + 1j * p[name][..., 1] for name in ("B", "C"))
    return [a, (a - 1) / lam * B, C, p["D"]]


def _common(lib: Library, shape: tuple[int, ...]) -> tuple[Any, list[Any], dict[str, Any]]:
    """Return the layer, its arguments on ``lib`` and what every work on it shares."""
    layer, params, u = draw(shape)
    a, B, C, D = discrete(params)
    given = [ssm.move(params, backend=lib.owner.name, device=lib.device), *lib.arrays([u])]
    steps = min(shape[1], 1 / (1 - float(np.abs(a).max())))
    a, B, C, D = (x[:CHECKED] for x in (a, B, C, D))
    few = u[..., :CHECKED]
    return layer, given, {
        "numpy": lambda y: [lib.numpy(y)[0][..., :CHECKED]],
        "exact": lambda: [exact.diagonal_channels(a, B, C, D, few)],
        "tolerances": [tolerance.oracle("float32", steps)],
        "floors": floors.add(u, u),
    }  # fmt: skip


def work(name: str, shape: tuple[int, ...]) -> Work:
    """Return the S4D layer in mode "auto" with two FFT pipelines in torch as peers."""
    lib, torch = library(name), library("torch")
    layer, given, common = _common(lib, shape)
    _, params, u = draw(shape)
    a, B, C, D = discrete(params)
    length = shape[1]
    log_a, fast_a, c_t, D_t, u_t = torch.arrays(
        [
            *(x.astype(np.complex64) for x in (np.log(a), a, 2 * B * C)),
            D.astype(np.float32),
            np.swapaxes(u, 1, 2),
        ]
    )

    def with_fast_kernel(a: Any, c: Any, D: Any, u: Any) -> Any:
        return kernels.fft_pipeline(u, ssm.diagonal_kernel(a, c, length).T, D)

    def with_table(log_a: Any, c: Any, D: Any, u: Any) -> Any:
        return kernels.fft_pipeline(u, kernels.vandermonde(log_a, c, length), D)

    def peer(fn: Callable[..., Any], first: Any) -> Peer:
        return Peer(
            lambda: torch.forward(fn, [first, c_t, D_t, u_t]),
            lambda y: [np.swapaxes(torch.numpy(y)[0], 1, 2)[..., :CHECKED]],
        )

    return Work(
        ours=lib.forward(lambda p, u: layer(p, u), given),
        peers={
            "fft_fast_kernel": peer(with_fast_kernel, fast_a),
            "fft_exp_table": peer(with_table, log_a),
        },
        **common,
    )


def auto_work(name: str, shape: tuple[int, ...]) -> Work:
    """Return the S4D layer in mode "auto" with the named modes as what it is held against."""
    lib = library(name)
    layer, given, common = _common(lib, shape)

    def call(mode: str) -> Callable[[], Any]:
        return lib.forward(lambda p, u: layer(p, u, mode=mode), given)

    looped = lib.owner.name != "jax" and shape[1] > LONGEST_LOOP
    left_out = {"recurrence": "a loop of Python over more than 1024 steps"} if looped else {}
    modes = [mode for mode in MODES if mode not in left_out]
    return Work(
        ours=call("auto"),
        peers={mode: Peer(functools.partial(call, mode), common["numpy"]) for mode in modes},
        left_out=left_out,
        **common,
    )


def _auto_row(lib: str, shape: tuple[int, int, int, int]) -> Row:
    batch, length, channels, states = shape
    return Row(
        name=f"s4d_auto_b{batch}_l{length}_h{channels}_n{states}_{lib}",
        what=f'S4D float32, mode "auto": B {batch}, L {length}, H {channels}, N {states}',
        library=lib,
        build=lambda quick: auto_work(lib, QUICK if quick else shape),
        bars=(Bar("slower", 1.2, MODES),),
    )


def _layer_row(lib: str) -> Row:
    return Row(
        name=f"s4d_layer_{lib}",
        what='S4D float32 forward, mode "auto": B 4, L 16384, H 256, 32 pairs',
        library=lib,
        build=lambda quick: work(lib, QUICK if quick else SIZES),
        bars=(Bar("faster", 2.5, ("fft_fast_kernel",)),),
    )


LIBRARIES = ("numpy", "torch", "jax")
ROWS = [
    *(_layer_row(lib) for lib in LIBRARIES),
    *(_auto_row(lib, shape) for shape in GRID for lib in LIBRARIES),
]
