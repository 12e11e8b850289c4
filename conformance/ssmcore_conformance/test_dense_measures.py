"""The initialisations of LSSL beyond the normal plus low-rank measures."""

from __future__ import annotations

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import initialization as init
from ssmcore.errors import SSMError
from ssmcore_conformance.tolerances import eps

SIZES = [1, 2, 5, 8]


@pytest.mark.parametrize("N", SIZES)
def test_matrices_entry_by_entry(N: int) -> None:
    """As the definitions have them, one entry at a time."""
    for name in ("lmu", "tlagt", "glagt"):
        A, B = init.hippo(name, N)
        for n in range(N):
            for k in range(N):
                below = {"lmu": (2 * n + 1) * (-1) ** (n - k + 1), "tlagt": -1, "glagt": -1}[name]
                above = {"lmu": -(2 * n + 1), "tlagt": 0, "glagt": 0}[name]
                on = {"lmu": -(2 * n + 1), "tlagt": -1, "glagt": -0.505}[name]
                value = on if n == k else above if n < k else below
                assert abs(A[n, k] - value) <= eps("float64") * abs(value)
            assert B[n] == {"lmu": (-1) ** n * (2 * n + 1), "tlagt": 1, "glagt": 0.1}[name]


@pytest.mark.parametrize("N", SIZES)
def test_the_memory_unit_is_legt_in_other_coordinates(N: int) -> None:
    """Same transfer function: C_n of legt, rescaled and twice as fast, has the same moments.

    With T = diag((-1)^n sqrt(2n+1)), T^-1 A_lmu T = 2 A_legt and T^-1 B_lmu = 2 B_legt.
    """
    A, B = init.hippo("lmu", N)
    A_legt, B_legt = init.hippo("legt", N)
    scale = (-1.0) ** np.arange(N) * np.sqrt(2 * np.arange(N) + 1)
    tolerance = 8 * eps("float64") * (2 * N + 1)
    assert np.abs(A * scale / scale[:, None] - 2 * A_legt).max() <= tolerance
    assert np.abs(B / scale - 2 * B_legt).max() <= tolerance


@pytest.mark.parametrize("name", ssm.LSSL.INITS)
def test_every_initialisation_runs(name: str) -> None:
    """The matrices of the layer are those of the measure, and a call gives finite numbers."""
    layer = ssm.LSSL(2, d_state=4, initialization=name)
    params = layer.init(3, dtype="float64")
    assert np.all(np.isfinite(layer(params, np.ones((9, 2)))))
    if name not in ("random", "diagonal"):
        np.testing.assert_array_equal(params["A"], init.hippo(name, 4)[0])
    elif name == "diagonal":
        assert np.all(np.diag(params["A"]) < 0)
        assert np.count_nonzero(params["A"]) == 4


def test_no_low_rank_form() -> None:
    """What has none is refused with the names that have one."""
    with pytest.raises(SSMError, match="low_rank_correction: name is 'lmu'"):
        init.low_rank_correction("lmu", 4)
    with pytest.raises(SSMError, match="initialization is 'lmu'"):
        ssm.S4(2, initialization="lmu")
