"""S4 and LSSL on JAX without 64-bit types, where everything is float32.

JAX hides its 64-bit types unless told otherwise, for a whole process; so each case runs in an
interpreter of its own, and leaves its outputs in a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import fresh
from ssmcore_conformance import oracles
from ssmcore_conformance.tolerances import EQUIVALENCE, eps, steps

pytest.importorskip("jax")

LENGTH = 4096
SHORT = 256
"""Long enough for gradients, which take JAX long to compile."""

START = """
import sys
import jax
jax.config.update("jax_enable_x64", {wide})
import jax.numpy as jnp
import numpy as np
import ssmcore as ssm
from ssmcore_conformance.models import Case, inputs, slow

dtype = "float64" if {wide} else "float32"
layer = ssm.{layer}
drawn = layer.init(1, dtype="float32")
params = dict(init=drawn, slow=slow(Case(layer, {{}}), drawn))
params = {{k: {{n: jnp.asarray(x.astype(dtype)) for n, x in p.items()}} for k, p in params.items()}}
u = jnp.asarray(inputs(({length}, layer.d_model), "float32").astype(dtype))
MODES = ("recurrence", "scan", "convolution")
out = {{}}
"""
RUN = """
def chunks(p):
    half = u.shape[0] // 2
    first, state = layer(p, u[:half], mode="convolution", return_state=True)
    second, state = layer(p, u[half:-1], state, mode="scan", return_state=True)
    third, _ = layer.step(p, u[-1], state)
    return jnp.concatenate((first, second, third[None]))

runs = {{mode: jax.jit(lambda p, mode=mode: layer(p, u, mode=mode)) for mode in MODES}}
for kind, p in params.items():
    for name, run in (*runs.items(), ("chunks", jax.jit(chunks))):
        out[f"{{kind}} {{name}}"] = np.asarray(run(p))
np.savez(r"{file}", **out)
"""
GRADIENTS = """
weights = jnp.asarray(inputs(u.shape, "float32", 7).astype(dtype)) / u.shape[0]
for mode in MODES:
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(layer(p, u, mode=mode) * weights)))
    for kind, p in params.items():
        out |= {{f"{{kind}} {{mode}} {{n}}": np.asarray(g) for n, g in gradient(p).items()}}
np.savez(r"{file}", **out)
"""


def results(code: str, file: Path, layer: str, length: int, wide: bool = False) -> dict[str, Any]:
    """Return what ``code`` found for ``layer``, with or without 64-bit types."""
    fresh.output((START + code).format(layer=layer, length=length, wide=wide, file=file))
    return {name: x.astype(float) for name, x in np.load(file).items()}


S4 = [
    "S4(4, d_state=4, initialization='legt', rank=2)",
    "S4(4, d_state=4, initialization='fout')",
    "S4(4, d_state=64, initialization='lagt')",
]
LSSL = ["LSSL(4, d_state=4, per_feature=True)"]


def thorough(config: pytest.Config) -> None:
    """Skip what takes JAX long to compile, unless the profile takes its time."""
    if config.getoption("ssm_profile") != "nightly":
        pytest.skip("takes JAX half a minute to compile: in the profile nightly only")


@pytest.mark.parametrize("layer", S4 + LSSL)
def test_modes_agree(pytestconfig: pytest.Config, worst: Any, tmp_path: Path, layer: str) -> None:
    """As drawn, and with |lambda| = 1 - 1e-6 in two channels: relative to each channel's peak."""
    if layer not in (S4[0], LSSL[0]):
        thorough(pytestconfig)
    found = results(RUN, tmp_path / "y.npz", layer, LENGTH)
    for kind in ("init", "slow"):
        expected = found[f"{kind} recurrence"]
        peak = np.abs(expected).max(axis=0)
        for mode in ("scan", "convolution", "chunks"):
            error = (np.abs(found[f"{kind} {mode}"] - expected) / peak).max()
            print(f"{layer}, {kind}: {mode} {error:.1e}")
            worst(f"{layer} {kind}: {mode}", "jax", "float32", error, EQUIVALENCE["float32"])
            assert error <= EQUIVALENCE["float32"], (kind, mode)


@pytest.mark.parametrize("layer", [S4[0]])
def test_gradients(pytestconfig: pytest.Config, worst: Any, tmp_path: Path, layer: str) -> None:
    """Those of float64, up to the rounding of as many steps, as shares of each gradient's peak."""
    thorough(pytestconfig)
    found = results(GRADIENTS, tmp_path / "narrow.npz", layer, SHORT)
    expected = results(GRADIENTS, tmp_path / "wide.npz", layer, SHORT, wide=True)
    limit = eps("float32") * steps(SHORT, 4)
    for name, exact in expected.items():
        error = np.abs(found[name] - exact).max() / np.abs(exact).max()
        print(f"{layer}, {name}: {error:.1e}")
        worst(f"{layer}: gradient", "jax", "float32", error, limit)
        assert error <= limit, name


SCAN = """
import jax
if {old}:
    del jax.enable_x64  # jax before 0.8 has no such context
import jax.numpy as jnp
import ssmcore as ssm

def loss(a, b):
    return ssm.linear_scan(a, b, reset=jnp.arange({length}) == 7).sum()

b = jnp.ones(({length}, 3))
for a in (jnp.full(3, 1 - 1e-5), jnp.full(({length}, 3), 1 - 1e-5)):
    grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(a, b)
    print(ssm.linear_scan(a, b).dtype, float(ssm.linear_scan(a, b)[-1, 0]), grads[0].dtype)
"""


@pytest.mark.parametrize("old", [False, True])
def test_scans_where_float64_is_hidden(old: bool) -> None:
    """Values and gradients, in chunks, with and without the context that shows float64."""
    length = 1024
    lines = fresh.output(SCAN.format(old=old, length=length), JAX_ENABLE_X64="0").splitlines()
    exact = float(np.sum(float(np.float32(1 - 1e-5)) ** np.arange(length)))
    assert len(lines) == 2
    for dtype, value, of_gradient in (line.split() for line in lines):
        assert dtype == of_gradient == "float32"
        assert abs(float(value) - exact) <= eps("float32") * steps(length) * exact


KERNEL = """
import jax.numpy as jnp
import numpy as np
import ssmcore as ssm
K = ssm.dplr_kernel(*map(jnp.asarray, np.load(r"{file}").values()), {length})
assert K.dtype == jnp.float32
np.save(r"{out}", K)
"""


def test_kernel_where_float64_is_hidden(worst: Any, tmp_path: Path) -> None:
    """Each doubling errs by n roundings; A_bar alone in float32 would by one for every step."""
    states, length = 3, 2**15
    rng = np.random.default_rng(0)
    dt, P, B, C = np.asarray([1e-3, 1e-2]), *rng.standard_normal((3, 2, states))
    Lambda = np.broadcast_to(-0.05 + 1j * np.asarray([1.0, 30.0, 90.0]), (2, states))
    given = [dt, Lambda, 0.1 * P[None], B, C]
    given = [x.astype(np.float32 if x is dt else np.complex64) for x in given]
    np.savez(tmp_path / "given.npz", *given)
    files = {"file": tmp_path / "given.npz", "out": tmp_path / "K.npy"}
    fresh.output(KERNEL.format(length=length, **files), JAX_ENABLE_X64="0")
    found, expected = np.load(tmp_path / "K.npy"), oracles.dplr_kernel(*[*given, length])
    _, B_bar = oracles.dplr_matrices(*given[:4])
    largest = 2 * np.linalg.norm(C, axis=-1) * np.linalg.norm(B_bar, axis=-1)
    n = 2 * states
    limit = eps("float32") / 2 * n**1.5 * np.log2(length) * largest
    error = np.abs(found - expected).max(axis=0)
    worst("dplr_kernel", "jax", "float32", error.max(), limit.min())
    assert np.all(error <= limit)
    assert np.all(limit < np.finfo(np.float32).eps * length / 32 * largest)
