"""Blocks and networks: value, any chunking, steps, documents, padding on either side, batches."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmcore import arrays, backend
from ssmcore_conformance import block_oracles
from ssmcore_conformance.running import call, examples
from ssmcore_conformance.scaffolds import (
    BLOCKS,
    MODULES,
    NETWORKS,
    L,
    Scenario,
    scenario,
    state_of,
)
from ssmcore_conformance.tolerances import EQUIVALENCE, check

Numbers = np.ndarray[Any, Any]
Tree = dict[str, Any]
COMPILED = ("S5 block", "Mamba", "Griffin LM")
"""What JAX, which compiles for seconds, runs of all modules."""


def share(worst: Any, what: str, library: Any, got: Numbers, expected: Numbers) -> None:
    """Compare by the bar of equivalence, a share of the peak."""
    dtype = str(got.dtype)
    peak = np.max(np.abs(expected), initial=0.0)
    tolerance = EQUIVALENCE[dtype] * (peak or 1.0)
    check(worst, what, library.name, dtype, got, expected, tolerance)


def same_state(worst: Any, what: str, library: Any, got: Tree, expected: Tree) -> None:
    """Compare every array of a state."""
    one, two = dict(arrays.leaves(got)), dict(arrays.leaves(expected))
    assert one.keys() == two.keys()
    for name, x in two.items():
        share(worst, f"{what}, state", library, one[name], x)


def row(tree: Tree, index: tuple[int, ...]) -> Tree:
    """Return the state of one sequence."""
    found: Tree = arrays.tree_map(lambda x: x[index], tree)
    return found


def rows(s: Scenario) -> list[tuple[int, ...]]:
    """Return the index of every sequence of the batch."""
    return list(np.ndindex(s.batch[:1] if s.pooled else s.batch))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_value(ssm_eager: Any, worst: Any, name: str, dtype: str) -> None:
    """Fresh sequences against a loop over time."""
    s = scenario(name, dtype)
    y = call(ssm_eager, s.module, s.params, s.u)
    exact = arrays.tree_map(lambda x: x.astype("float64"), s.params)
    wide = s.u if s.module.tokens else s.u.astype("float64")
    expected = np.stack([block_oracles.run(s.module, exact, wide[i]) for i in rows(s)])
    assert str(y.dtype) == dtype
    share(worst, f"{name} = oracle", ssm_eager, y, expected)


@pytest.mark.parametrize("name", MODULES)
def test_everything_at_once(ssm_backend: Any, worst: Any, name: str) -> None:
    """State, reset and lengths in one compiled call: the same on every library."""
    if ssm_backend.name == "jax" and name not in COMPILED:
        pytest.skip("JAX compiles a few of the modules only")
    s = scenario(name)
    state = state_of(s)
    module = s.module

    def run(params: Tree, u: Any, state: Tree, masks: Tree) -> Any:
        return module(params, u, state or None, **masks, return_state=True)

    masks = {"lengths": s.lengths} | ({} if s.reset is None else {"reset": s.reset})
    y, after = call(ssm_backend, ssm_backend.compile(run), s.params, s.u, state, masks)
    expected, last = run(s.params, s.u, state, masks)
    share(worst, f"{name} = NumPy", ssm_backend, y, expected)
    same_state(worst, f"{name} = NumPy", ssm_backend, after, last)


@pytest.mark.parametrize("name", MODULES)
def test_any_chunks(ssm_eager: Any, worst: Any, name: str) -> None:
    """Chunks of any length, 0 and 1 too, with resets and padding: outputs and state of one pass."""

    @settings(max_examples=max(3, examples(ssm_eager) // 8))
    @given(st.lists(st.integers(0, L), max_size=4), st.integers(0, 3))
    def chunks(inner: list[int], seed: int) -> None:
        s = scenario(name, seed=seed)
        state = state_of(s)
        whole, last = s.module(s.params, s.u, state, **masks(s, 0, L), return_state=True)
        ends, parts = sorted([0, *inner, L]), []
        for start, end in itertools.pairwise(ends):
            u = s.u[..., start:end] if s.module.tokens else s.u[..., start:end, :]
            y, state = call(
                ssm_eager,
                s.module,
                s.params,
                u,
                state or None,
                **masks(s, start, end),
                return_state=True,
            )
            parts.append(y)
        y = parts[-1] if s.pooled else np.concatenate(parts, axis=-2)
        share(worst, f"{name} in chunks", ssm_eager, y, whole)
        same_state(worst, f"{name} in chunks", ssm_eager, state, last)

    chunks()


def masks(s: Scenario, start: int, end: int) -> Tree:
    """Return reset and lengths of the steps from ``start`` to ``end``."""
    found: Tree = {"lengths": np.clip(s.lengths - start, 0, end - start)}
    return found if s.reset is None else found | {"reset": s.reset[..., start:end]}


@pytest.mark.parametrize("name", MODULES)
def test_steps(ssm_eager: Any, worst: Any, name: str) -> None:
    """Step by step from nothing, outputs and state of one pass; state None begins."""
    s = scenario(name)
    whole, last = s.module(s.params, s.u, return_state=True)
    state, outputs = None, []
    for t in range(L):
        u = s.u[..., t] if s.module.tokens else s.u[..., t, :]
        y, state = call(ssm_eager, s.module.step, s.params, u, state)
        outputs.append(y)
    y = outputs[-1] if s.pooled else np.stack(outputs, axis=-2)
    share(worst, f"{name} by steps", ssm_eager, y, whole)
    same_state(worst, f"{name} by steps", ssm_eager, state or {}, last)


@pytest.mark.parametrize("name", [n for n in MODULES if scenario(n).reset is not None])
def test_documents(ssm_eager: Any, worst: Any, name: str) -> None:
    """Packed documents are the documents run one by one; a reset at step 0 forgets the state."""
    s = scenario(name)
    assert s.reset is not None
    reset = s.reset.copy()
    reset[..., 0] = True
    options = {"reset": reset, "return_state": True}
    y, last = call(ssm_eager, s.module, s.params, s.u, state_of(s) or None, **options)
    for i in rows(s):
        starts = [*np.flatnonzero(reset[i]), L]
        parts, state = [], {}
        for start, end in itertools.pairwise(starts):
            part, state = s.module(s.params, s.u[i][start:end], return_state=True)
            parts.append(part)
        share(worst, f"{name} packed", ssm_eager, y[i], np.concatenate(parts))
        same_state(worst, f"{name} packed", ssm_eager, row(last, i), state)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", MODULES)
def test_padding(ssm_eager: Any, worst: Any, name: str, side: str) -> None:
    """Whatever is in the padding: every row is that row alone, its padding gives 0."""
    if side == "left" and name in BLOCKS:
        return
    s = scenario(name)
    valid = np.arange(L) < s.lengths[..., None]
    if side == "left":
        valid = np.flip(valid, axis=-1)
    bad = -100 if s.module.tokens else np.nan
    u = np.where(valid if s.module.tokens else valid[..., None], s.u, bad)
    state = state_of(s)
    options: Tree = {"lengths": s.lengths, "return_state": True}
    options |= {"padding": side} if name in NETWORKS else {}
    options |= {} if s.reset is None else {"reset": s.reset}
    y, last = call(ssm_eager, s.module, s.params, u, state or None, **options)
    for i in rows(s):
        if s.pooled and np.ndim(s.lengths[i]):
            continue  # rows of a pair differ in length
        own = row(state, i) or None
        reset = {} if s.reset is None else {"reset": s.reset[i][valid[i]]}
        expected, after = s.module(s.params, s.u[i][valid[i]], own, **reset, return_state=True)
        got = y[i] if s.pooled else y[i][valid[i]]
        share(worst, f"{name} padded", ssm_eager, got, expected)
        after_i = row(last, i)
        same_state(worst, f"{name} padded", ssm_eager, after_i, after)
        assert s.pooled or not np.any(y[i][~valid[i]])


@pytest.mark.parametrize("name", NETWORKS)
def test_last_logits(ssm_eager: Any, name: str) -> None:
    """logits="last" are the last valid ones of all; 0 where there is no step."""
    s = scenario(name)
    if not hasattr(s.module, "tied"):
        return
    every = call(ssm_eager, s.module, s.params, s.u, lengths=s.lengths)
    last = call(ssm_eager, s.module, s.params, s.u, lengths=s.lengths, logits="last")
    for i, n in enumerate(s.lengths):
        expected = every[i, n - 1] if n else np.zeros(s.module.d_output)
        np.testing.assert_allclose(last[i], expected, rtol=0, atol=EQUIVALENCE["float64"])


@pytest.mark.parametrize("name", MODULES)
def test_half_precision_activations(name: str) -> None:
    """float16 in, float16 out; states stay in the dtype of the parameters."""
    s = scenario(name, "float32")
    if s.module.tokens:
        return
    u = s.u.astype("float16")
    y, state = s.module(s.params, u, return_state=True)
    full = s.module(s.params, u.astype("float32"))
    assert y.dtype == np.float16
    assert {str(x.dtype) for _, x in arrays.leaves(state)} <= {"float32"}
    peak = np.max(np.abs(full))
    depth = (
        16  # roundings to float16 on the way, each passed on at most doubled, as measured by peak
    )
    np.testing.assert_allclose(y, full, rtol=0, atol=depth * 2.0**-11 * peak)


@pytest.mark.parametrize("name", MODULES)
def test_initial_state_is_no_state(ssm_eager: Any, worst: Any, name: str) -> None:
    """A given initial state gives what None gives."""
    s = scenario(name)
    state = s.module.initial_state(s.params, s.batch)
    y = call(ssm_eager, s.module, s.params, s.u)
    z = call(ssm_eager, s.module, s.params, s.u, state or None)
    share(worst, f"{name} from the start", ssm_eager, y, z)


def test_the_bar_can_be_missed(worst: Any) -> None:
    """A value that is wrong in one place misses its tolerance."""
    library = backend.load("numpy")
    with pytest.raises(AssertionError):
        share(worst, "nothing", library, np.ones(3), np.ones(3) + 1e-6)
