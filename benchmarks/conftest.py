"""Fixtures of the benchmark files: every library, size and mode, each figure beside its floor."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.libraries import CPU, GPU, library
from benchmarks.work import Numbers
from ssmcore import backend
from ssmcore.bench import machine, timing

ROUNDS = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the benchmark files."""
    group = parser.getgroup("ssmcore benchmarks")
    group.addoption("--gpu", action="store_true", help="the libraries on the GPU, not the CPU")
    group.addoption("--quick", action="store_true", help="small sizes, single rounds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each function on every library, and on the SIZES and MODES of its file."""
    config, module = metafunc.config, metafunc.module
    if "lib" in metafunc.fixturenames:
        metafunc.parametrize("lib", GPU if config.getoption("--gpu") else CPU)
    if "size" in metafunc.fixturenames:
        sizes = module.QUICK if config.getoption("--quick") else module.SIZES
        metafunc.parametrize("size", sizes, ids=lambda size: "x".join(map(str, size)))
    if "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", module.MODES)


Run = Callable[..., None]


@pytest.fixture
def run(benchmark: Any, lib: str, request: pytest.FixtureRequest) -> Run:
    """Return a function that times ``fn(*values)`` on the library and notes what lies beside it.

    ``exact`` gives the results in float64; ``cotangent`` asks for forward + backward.
    """
    name = lib.removesuffix("-cuda")
    if name not in backend.available():
        pytest.skip(f"{name} is not installed; install it with: {backend._entry(name).install}")
    try:
        owner = library(lib)
        owner.owner.devices()
    except Exception as error:  # whatever a library without its device raises
        pytest.skip(f"{lib}: no device answers: {error}")
    quick = request.config.getoption("--quick")

    def run(
        fn: Callable[..., Any],
        values: Sequence[Numbers],
        exact: Callable[[], Sequence[Numbers]] | None = None,
        cotangent: Numbers | None = None,
    ) -> None:
        given = owner.arrays(values)
        if cotangent is None:
            call = owner.forward(fn, given)
        elif owner.owner.gradients:
            call = owner.backward(fn, given, owner.arrays([cotangent])[0])
        else:
            pytest.skip(f"{lib} has no automatic differentiation")
        results, first = timing.first_call(call)
        found = owner.numpy(results)
        benchmark.extra_info |= {
            "library": lib,
            "first_call_s": first,
            "machine": machine.describe(),
            "add_s": _add(owner, sum(x.nbytes for x in (*values, *found))),
        }
        if exact is not None:
            benchmark.extra_info["errors"] = [
                float(np.linalg.norm((x - y).ravel()) / np.linalg.norm(y.ravel()))
                for x, y in zip(found, exact(), strict=True)
            ]
        del results, found
        gc.collect()
        benchmark.pedantic(call, rounds=1 if quick else ROUNDS, warmup_rounds=1)
        benchmark.extra_info["compile_s"] = max(0.0, first - benchmark.stats.stats.median)

    return run


def _add(owner: Any, size: int) -> float:
    """Return the seconds of one addition that moves ``size`` bytes, in the same library."""
    x, y = owner.arrays([np.zeros(max(1, size // 12), np.float32)] * 2)
    call = owner.forward(lambda x, y: x + y, [x, y])
    call()
    times: float = timing.interleave({"add": call}, seconds=0.05)["add"].median
    return times
