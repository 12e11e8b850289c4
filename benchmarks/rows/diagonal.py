"""Rows of diagonal_scan at the sizes of S5 and LRU, beside the recipe of the S5 paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact, floors
from benchmarks.libraries import library
from benchmarks.peers import diagonal, need
from benchmarks.work import Bar, Numbers, Peer, Row, Work
from ssmcore.verify import tolerance

__all__ = ["ROWS", "work"]

SIZES = (4, 4096, 256, 256)
QUICK = (2, 64, 16, 16)
SMALLEST, LARGEST = 0.9, 0.999


def draw(shape: tuple[int, ...]) -> list[Numbers]:
    """Return a, B, C, u: LRU's ring of eigenvalues, inputs normalised as there."""
    batch, length, channels, states = shape
    rng = np.random.default_rng(0)
    size = rng.uniform(SMALLEST, LARGEST, states)
    a = size * np.exp(1j * rng.uniform(0, 2 * np.pi, states))

    def weights(rows: int, columns: int) -> Numbers:
        z = rng.standard_normal((rows, columns)) + 1j * rng.standard_normal((rows, columns))
        scaled: Numbers = z / np.sqrt(2 * columns)
        return scaled

    B = np.sqrt(1 - size[:, None] ** 2) * weights(states, channels)
    u = rng.standard_normal((batch, length, channels), np.float32)
    return [*(x.astype(np.complex64) for x in (a, B, weights(channels, states))), u]


def work(name: str, shape: tuple[int, ...]) -> Work:
    """Return diagonal_scan on library ``name`` with its floor and its peers."""
    lib = library(name)
    values = draw(shape)
    given = lib.arrays(values)
    batch, length, channels, states = shape

    def recipe() -> Callable[[], Any]:
        need("jax")
        jax = library("jax")
        return jax.forward(diagonal.s5_jax, jax.arrays(values))

    peers = {"s5_jax": Peer(recipe, lambda y: [np.asarray(y)])}
    if lib.name == "torch":
        peers["s5_pytorch"] = Peer(lambda: lib.forward(diagonal.s5_pytorch, given), lib.numpy)
    return Work(
        ours=lib.forward(ssm.diagonal_scan, given),
        numpy=lib.numpy,
        exact=lambda: [exact.diagonal_scan(*values)],
        tolerances=[tolerance.oracle("float32", min(length, 1 / (1 - LARGEST)))],
        floors=floors.matmul(batch * length, channels, 2 * states),
        peers=peers,
    )


def _row(lib: str, faster: float) -> Row:
    batch, length, _, states = SIZES
    bars = (Bar("faster", faster, ("s5_jax",)), Bar("memory", 8.0 * batch * length * states / 2))
    return Row(
        name=f"diagonal_scan_{lib}",
        what="diagonal_scan float32, B 4, L 4096, H 256, P 256",
        library=lib,
        build=lambda quick: work(lib, QUICK if quick else SIZES),
        bars=bars,
    )


ROWS = [_row("numpy", 5.0), _row("torch", 5.0), _row("jax", 2.5)]
