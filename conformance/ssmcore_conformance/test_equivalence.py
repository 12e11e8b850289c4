"""Recurrence = scan = convolution = any chunking with a carried state, for every layer.

The bars are those of the requirement (tolerances.EQUIVALENCE), as shares of each channel's peak.
The parameters forget slowly in two of the four channels (models.slow), where rounding adds up
longest.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ssmcore as ssm
from ssmcore_conformance.models import CASES, LAYERS, H, inputs, slow
from ssmcore_conformance.running import call, compiled
from ssmcore_conformance.strategies import cuts
from ssmcore_conformance.test_transformations import thorough
from ssmcore_conformance.tolerances import EQUIVALENCE

ALL_MODES = ("recurrence", "scan", "convolution")
LENGTHS = (1, 2, 33, 257, 4096)
SHORT = LENGTHS[:-1]
STRICT = LENGTHS[:3]
"""On array_api_strict, which computes as NumPy does behind a checker, and slowly step by step."""
DTYPES = ("float32", "float64")
COMPILED_LENGTHS = (33, 4096)
"""On JAX each length takes seconds to compile: the longest for layers, a short one for variants."""
COMPILED_CHUNKS = (0, 1, 2, 3, 8, 19)
"""On JAX, in any order: every other length would be one more program for each mode."""


def runner(library: str, name: str, mode: str, with_state: bool = False) -> Any:
    """Return a layer as a function of arrays."""
    return compiled(library, CASES[name].layer, mode, with_state)


def parameters(name: str, dtype: str, slowly: bool) -> Any:
    params = CASES[name].layer.init(1, dtype=dtype)
    return slow(CASES[name], params) if slowly else params


def compare(worst: Any, name: str, library: str, dtype: str, got: Any, expected: Any) -> None:
    """Compare per channel, relative to its peak."""
    peak = np.abs(expected).max(axis=-2, keepdims=True)
    error = np.abs(got.astype(float) - expected) / np.where(peak > 0, peak, 1.0)
    limit = EQUIVALENCE[dtype]
    worst(name, library, dtype, error.max(initial=0.0), limit)
    assert np.all(error <= limit), (
        f"{name} on {library}, {dtype}: {error.max(axis=tuple(range(error.ndim - 1)))} of the "
        f"channels' peaks; expected at most {limit}"
    )


def test_every_length_is_tried() -> None:
    """The lengths tried on a compiling library are among those tried elsewhere."""
    assert set(COMPILED_LENGTHS) < set(LENGTHS)


def lengths(library: str, name: str) -> tuple[int, ...]:
    """Return the lengths to try; the longest, for variants of a layer, on NumPy only."""
    if library == "array_api_strict":
        return STRICT if name not in LAYERS else SHORT
    if library == "jax":
        return COMPILED_LENGTHS[-1:] if name in LAYERS else COMPILED_LENGTHS[:1]
    return LENGTHS if name in LAYERS or library == "numpy" else SHORT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_modes_agree(ssm_backend: Any, worst: Any, name: str, dtype: str) -> None:
    """Recurrence = scan = convolution, up to L = 4096, with slow and fast channels."""
    library, case = ssm_backend.name, CASES[name]
    if library == "jax" and name not in LAYERS:
        thorough(ssm_backend, name)  # against the oracle they run in every profile: test_layers
    for length in lengths(library, name):
        u = noise_and_constant(length, case.layer.d_model, dtype)
        for slowly in (False, True) if length in SHORT else (True,):
            params = parameters(name, dtype, slowly)
            outputs = {
                mode: call(ssm_backend, runner(library, name, mode), params, u)
                for mode in case.modes
            }
            for mode in case.modes[1:]:
                row = f"{name}: {mode}"
                compare(worst, row, library, dtype, outputs[mode], outputs["recurrence"])


def noise_and_constant(length: int, width: int, dtype: str) -> Any:
    """Return two sequences: the second never changes, and rounding errors all point one way."""
    return np.stack([inputs((length, width), dtype), np.ones((length, width), dtype)])


@pytest.mark.parametrize("damping", [1e-3, 1e-7, 1e-11])
@pytest.mark.parametrize("initialization", ["legs", "lagt", "fout", "fourier2"])
def test_kernels_of_states_that_hardly_forget(
    ssm_eager: Any, worst: Any, initialization: str, damping: float
) -> None:
    """S4's convolution = recurrence however near the poles are to the unit circle, and to 1."""
    layer = ssm.S4(H, d_state=16, initialization=initialization)
    if ssm_eager.name == "array_api_strict" and damping > 1e-11:
        pytest.skip("array_api_strict computes as NumPy does, and slowly: the hardest damping only")
    params = layer.init(1, dtype="float64")
    params["A_log_real"][:] = np.log(damping)
    params["P"] *= np.sqrt(damping)
    params["log_dt"][:] = np.log([1e-6, 1e-4, 1e-2, 1.0])
    params["D"][:] = 0
    u = noise_and_constant(257, H, "float64")
    y = [call(ssm_eager, compiled(ssm_eager.name, layer, m), params, u) for m in ALL_MODES]
    for got in y[1:]:
        row = f"S4 {initialization}, damping {damping}"
        compare(worst, row, ssm_eager.name, "float64", got, y[0])


def chunked(
    library: Any, name: str, params: Any, u: Any, edges: list[int], modes: list[str]
) -> Any:
    """Return the outputs of the chunks, the state carried from each to the next."""
    state, parts = None, []
    for k, (start, stop) in enumerate(itertools.pairwise(edges)):
        run = runner(library.name, name, modes[k % len(modes)], with_state=True)
        y, state = call(library, run, params, u[start:stop], state)
        parts.append(y)
    return np.concatenate(parts, axis=-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_any_chunks(ssm_eager: Any, worst: Any, name: str, dtype: str) -> None:
    """Random cuts, empty chunks and single steps included, each chunk in a random mode."""
    strict = ssm_eager.name == "array_api_strict"
    if name not in LAYERS and (strict or dtype == "float32") and ssm_eager.name != "numpy":
        pytest.skip("variants of a layer are cut on NumPy, and in float64 on compiled libraries")
    length = sum(COMPILED_CHUNKS)
    orders = st.permutations(COMPILED_CHUNKS).map(lambda sizes: [0, *itertools.accumulate(sizes)])
    case, params = CASES[name], parameters(name, dtype, slowly=True)
    u = inputs((length, case.layer.d_model), dtype)
    whole = call(ssm_eager, runner(ssm_eager.name, name, "recurrence"), params, u)

    @given(
        edges=orders if ssm_eager.name == "jax" else cuts(length),
        modes=st.lists(st.sampled_from((*case.modes, "auto")), min_size=1),
    )
    def try_cuts(edges: list[int], modes: list[str]) -> None:
        got = chunked(ssm_eager, name, params, u, edges, modes)
        compare(worst, f"{name}: chunks", ssm_eager.name, dtype, got, whole)

    try_cuts()


@pytest.mark.parametrize("name", LAYERS)
def test_long_chunks(ssm_backend: Any, worst: Any, name: str) -> None:
    """Half of a long sequence in one mode, nothing, then the rest in another."""
    length = SHORT[-1] if ssm_backend.name == "array_api_strict" else LENGTHS[-1]
    dtype = "float32"
    case, params = CASES[name], parameters(name, dtype, slowly=True)
    u = inputs((length, case.layer.d_model), dtype)
    whole = call(ssm_backend, runner(ssm_backend.name, name, "recurrence"), params, u)
    edges = [0, length // 2, length // 2, length]
    modes = [case.modes[-1], "auto", "recurrence"]
    got = chunked(ssm_backend, name, params, u, edges, modes)
    compare(worst, f"{name}: chunks", ssm_backend.name, dtype, got, whole)
