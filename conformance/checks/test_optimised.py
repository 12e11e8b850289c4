"""What XLA's optimisation does to numbers: the modes of the layers, compiled as users compile them.

The session ``tests`` compiles for JAX without optimising and by other emitters, because hundreds
of programs run once each there. What is sensitive to it (contracted products, reordered sums) is
compiled here the usual way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ssmcore_conformance import test_powers as of_powers
from ssmcore_conformance.models import LAYERS, slow
from ssmcore_conformance.test_equivalence import compare, noise_and_constant
from ssmcore_conformance.tolerances import bound, check

from ssmcore import backend, powers

jax = pytest.importorskip("jax")
USUAL = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
LENGTH = 1024


@pytest.mark.parametrize("name", LAYERS)
def test_modes_agree(worst: Any, name: str) -> None:
    """Recurrence = scan = convolution in float32, with slow channels, noise and constant input."""
    library, case = backend.load("jax"), LAYERS[name]
    library.enable_float64()
    params = backend.move(slow(case, case.layer.init(1, dtype="float32")), backend="jax")
    u = library.from_numpy(noise_and_constant(LENGTH, case.layer.d_model, "float32"))
    y = {}
    for mode in case.modes:
        run = jax.jit(lambda p, u, mode=mode: case.layer(p, u, mode=mode), compiler_options=USUAL)
        y[mode] = np.asarray(run(params, u))
    for mode in case.modes[1:]:
        compare(worst, f"{name}: {mode}, optimised", "jax", "float32", y[mode], y["recurrence"])


@pytest.mark.parametrize("dtype", of_powers.DTYPES)
@pytest.mark.parametrize("kind", of_powers.KINDS)
def test_squares(worst: Any, dtype: str, kind: str) -> None:
    """No product of the double-float arithmetic is contracted: a^(2^k) to one ulp."""
    backend.load("jax").enable_float64()
    a = of_powers.bases(dtype, kind)
    run = jax.jit(lambda a: powers.squares(a, of_powers.COUNT), compiler_options=USUAL)
    expected = of_powers.exact(a, [2**k for k in range(of_powers.COUNT)])
    tolerance = bound(dtype, of_powers.ONE_ULP, np.abs(expected))
    out = np.asarray(run(jax.numpy.asarray(a)))
    check(worst, "powers.squares, optimised", "jax", a.dtype, out, expected, tolerance)
