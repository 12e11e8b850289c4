"""Initialisation: what cannot be is refused, and the error says what was given and expected."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ssmcore import initialization as init
from ssmcore.errors import SSMError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


NAN, INF = float("nan"), float("inf")
EYE = np.eye(2, dtype=np.complex128)
ERRORS: list[tuple[Callable[[], object], str]] = [
    (lambda: init.hippo("leggs", 4), "name is 'leggs'.*did you mean 'legs'"),
    (lambda: init.hippo("legs", 0), "N is 0; expected a positive integer"),
    (lambda: init.hippo("fout", 5), "N is 5; expected a positive multiple of 2"),
    (lambda: init.low_rank_correction("legt", 4), "rank is 1.*use rank=2"),
    (lambda: init.low_rank_correction("legs", 4, 0), "rank is 0"),
    (lambda: init.nplr("legt", 4), "rank is 1.*use rank=2"),
    (lambda: init.nplr("legs", 7), "N is 7; expected a positive multiple of 2"),
    (lambda: init.nplr("legs", 4.0), "N is 4.0"),  # type: ignore[arg-type]
    (lambda: init.nplr("fou", 4), "name is 'fou'.*did you mean 'fout'"),
    (lambda: init.nplr("legs", 4, b_clip=-1.0), "b_clip is -1.0"),
    (lambda: init.nplr("legs", 4, b_clip=NAN), "b_clip is nan"),
    (lambda: init.s4d_eigenvalues("line", 4), "init is 'line'.*did you mean 'lin'"),
    (lambda: init.s4d_eigenvalues("lin", 3), "N is 3"),
    (lambda: init.s4d_eigenvalues("lin", 4, real_scale=0.0), "real_scale is 0.0"),
    (lambda: init.s4d_eigenvalues("lin", 4, imag_scale=INF), "imag_scale inf"),
    (lambda: init.s4d_eigenvalues("rand", 4), "rng is None; expected a generator"),
    (lambda: init.s4d_eigenvalues("lin", 4, imag_random=True), "rng is None"),
    (lambda: init.s4d_input_vector("random", 4), "rng is None"),
    (lambda: init.s4d_input_vector("unit_cw", 4), "did you mean 'unit-cw'"),
    (lambda: init.s4d_input_vector("constant", 5), "N is 5"),
    (lambda: init.s5_hippo_blocks(16, 3, True), "blocks is 3.*does not divide P_full = 16"),
    (lambda: init.s5_hippo_blocks(9, 3, True), "block size P_full / blocks is 3"),
    (lambda: init.s5_hippo_blocks(8, 0, True), "blocks is 0"),
    (lambda: init.s5_input_matrix(rng(), EYE, 0), "H is 0"),
    (lambda: init.s5_output_matrix(rng(), EYE, -1, "lecun_normal"), "H is -1"),
    (lambda: init.s5_output_matrix(rng(), EYE, 2, "lecun"), "did you mean 'lecun_normal'"),
    (lambda: init.ring(rng(), 0), "N is 0"),
    (lambda: init.ring(rng(), 4, 0.9, 0.5), "r_min is 0.9 and r_max 0.5"),
    (lambda: init.ring(rng(), 4, -0.1, 0.5), "r_min is -0.1"),
    (lambda: init.ring(rng(), 4, 0.0, 1.1), "r_max 1.1"),
    (lambda: init.ring(rng(), 4, NAN, 1.0), "r_min is nan"),
    (lambda: init.ring(rng(), 4, 0.0, 0.0), "not both 0"),
    (lambda: init.ring(rng(), 4, 1.0, 1.0), "not both 1"),
    (lambda: init.ring(rng(), 4, max_phase=0.0), "max_phase is 0.0"),
    (lambda: init.rglru_a_param(rng(), 4, 8.0, "b"), "kind is 'b'"),
    (lambda: init.rglru_a_param(rng(), 4, -8.0), "c is -8.0"),
    (lambda: init.rglru_a_param(rng(), 4, 8.0, "a", 0.99, 0.9), "min_rad is 0.99 and max_rad 0.9"),
    (lambda: init.log_uniform_timescale(rng(), 3, -1e-3, 0.1), "dt_min is -0.001"),
    (lambda: init.log_uniform_timescale(rng(), 3, 0.0, 0.1), "dt_min is 0.0"),
    (lambda: init.log_uniform_timescale(rng(), 3, 0.2, 0.1), "dt_min is 0.2 and dt_max 0.1"),
    (lambda: init.log_uniform_timescale(rng(), 3, 0.1, INF), "dt_max inf"),
    (lambda: init.log_uniform_timescale(rng(), 3, NAN, 0.1), "dt_min is nan"),
    (lambda: init.softplus_bias(rng(), 3, 0.2, 0.1), "dt_min is 0.2"),
    (lambda: init.softplus_bias(rng(), 3, floor=-1.0), "floor is -1.0"),
    (lambda: init.inverse_softplus(np.array([1.0, 0.0])), "x contains 0.0"),
    (lambda: init.inverse_softplus(NAN), "x contains nan"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    """What an initialisation cannot be given is refused."""
    with pytest.raises(SSMError, match=message):
        call()
