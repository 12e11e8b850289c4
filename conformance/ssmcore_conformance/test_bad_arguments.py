"""Flags, numbers, generators, names and step sizes: what is accepted, and what SSMError says."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays, checkpoints
from ssmcore import initialization as init
from ssmcore.discretization import discretize_dense
from ssmcore.errors import SSMError
from ssmcore_conformance.models import LAYERS, inputs
from ssmcore_conformance.running import host

one = np.ones
Cases = list[tuple[Callable[[], Any], str]]


def layer_call(**options: Any) -> Any:
    """Run a small layer with ``options`` of any kind."""
    layer: Any = ssm.LRU(4, d_state=2)
    return layer(layer.init(0), one((3, 4), np.float32), **options)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def kernel(dt: Any) -> Any:
    """Run dplr_kernel of two systems of one pair with step sizes ``dt``."""
    xp = arrays.namespace(dt)
    z = xp.astype(xp.ones_like(dt), arrays.complex_dtype(xp, dt.dtype))[:, None]
    return ssm.dplr_kernel(dt, -z, z[None, ...], z, z, 3)


S5_PARAMS = {
    "Lambda_re": -one(2), "Lambda_im": one(2), "B": one((2, 3, 2)), "C": one((3, 2, 2)),
    "D": one(3), "log_step": np.zeros((2, 1)),
}  # fmt: skip
FLAGS: dict[str, Callable[[Any], Any]] = {
    "S5: conj_sym": lambda x: ssm.S5(4, conj_sym=x),
    "S5: clip_eigs": lambda x: ssm.S5(4, clip_eigs=x),
    "LSSL: per_feature": lambda x: ssm.LSSL(4, per_feature=x),
    "LSSL: learn": lambda x: ssm.LSSL(4, learn=x),
    "S4D: is_real": lambda x: ssm.S4D(4, initialization="real", is_real=x),
    "read_s5: conj_sym": lambda x: checkpoints.read_s5(S5_PARAMS, conj_sym=x),
    "read_s5: clip_eigs": lambda x: checkpoints.read_s5(S5_PARAMS, clip_eigs=x),
    "read_s5: bidirectional": lambda x: checkpoints.read_s5(
        S5_PARAMS | {"C": one((3, 4 if x is True or x is np.True_ else 2, 2))}, bidirectional=x
    ),
    "selective_scan_arguments: delta_softplus": lambda x: checkpoints.selective_scan_arguments(
        one((1, 2, 3)), one((1, 2, 3)), one((2, 4)), one((2, 4)), one((2, 4)), delta_softplus=x
    ),
    "linear_scan: reverse": lambda x: ssm.linear_scan(one(1), one((3, 1)), reverse=x),
    "diagonal_scan: reverse": lambda x: ssm.diagonal_scan(
        one(1), one((1, 2)), one((2, 1)), one((3, 2)), reverse=x
    ),
    "diagonal_scan: return_state": lambda x: ssm.diagonal_scan(
        one(1), one((1, 2)), one((2, 1)), one((3, 2)), return_state=x
    ),
    "selective_scan: return_state": lambda x: ssm.selective_scan(
        one((3, 2)), one((3, 2)), -one((2, 1)), one((3, 1)), one((3, 1)), return_state=x
    ),
    "LRU: return_state": lambda x: layer_call(return_state=x),
    "s5_hippo_blocks: conj_sym": lambda x: init.s5_hippo_blocks(4, 1, x),
    "s4d_eigenvalues: real_random": lambda x: init.s4d_eigenvalues(
        "lin", 4, real_random=x, rng=rng()
    ),
}


@pytest.mark.parametrize("what", FLAGS)
def test_flags_are_true_or_false(what: str) -> None:
    """A flag is True or False, of Python or of NumPy; text, numbers and None are refused."""
    for good in (True, False, np.True_, np.False_):
        FLAGS[what](good)
    wrong: list[Any] = ["False", "no", 1, None, [], np.ones(2)]
    for bad in wrong:
        with pytest.raises(SSMError, match=f"{what} is .*; expected True or False"):
            FLAGS[what](bad)


def test_numbers_of_numpy_are_numbers() -> None:
    """Whole and real numbers of NumPy are accepted and kept as Python's own."""
    S4D: Any = ssm.S4D
    layer = S4D(np.int64(4), d_state=np.uint8(6), n_ssm=np.int32(2), dt_scale=np.float32(0.5))
    assert layer == ssm.S4D(4, d_state=6, n_ssm=2, dt_scale=0.5)
    kinds = {type(getattr(layer, name)) for name in ("d_model", "d_state", "n_ssm")}
    assert kinds == {int}
    assert type(layer.dt_scale) is float
    assert type(ssm.S5(4, conj_sym=np.True_).conj_sym) is bool  # type: ignore[arg-type]
    assert ssm.diagonal_kernel(one((2, 1)), one((2, 1)), np.int64(3)).shape == (3, 2)  # type: ignore[arg-type]
    state = layer.initial_state(layer.init(0), (np.int64(2),))
    assert state["x_s4d"].shape == (2, 4, 3, 2)
    assert discretize_dense(-np.eye(2), one(2), 0.1, alpha=np.float32(0.5))[1].shape == (2,)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, np.True_, 4.0, "4", np.float64(4), np.ones(1, int)])
def test_other_things_are_no_whole_numbers(value: Any) -> None:
    """Flags, fractions, text and arrays are no counts, lengths or sizes."""
    params = ssm.LRU(4).init(0)
    cases: Cases = [
        (lambda: ssm.S4D(value), "d_model is .*; expected a whole number"),
        (lambda: ssm.diagonal_kernel(one((1, 1)), one((1, 1)), value), "length is .*; expected"),
        (lambda: ssm.LRU(4).initial_state(params, (value,)), "batch_shape is .*; expected a tuple"),
    ]
    for call, message in cases:
        with pytest.raises(SSMError, match=message):
            call()


Generators = dict[str, Callable[[Any], Any]]
GENERATORS: Generators = {
    "ring": lambda x: init.ring(x, 4),
    "rglru_a_param": lambda x: init.rglru_a_param(x, 4),
    "s4d_eigenvalues": lambda x: init.s4d_eigenvalues("rand", 4, rng=x),
    "s4d_input_vector": lambda x: init.s4d_input_vector("random", 4, rng=x),
    "log_uniform_timescale": lambda x: init.log_uniform_timescale(x, (3,)),
    "s5_input_matrix": lambda x: init.s5_input_matrix(x, one((2, 4), complex), 3),
    "s5_output_matrix": lambda x: init.s5_output_matrix(x, one((4, 2), complex), 3, "lecun_normal"),
}


@pytest.mark.parametrize("what", GENERATORS)
def test_a_seed_is_no_generator(what: str) -> None:
    """Random draws take a generator of NumPy; a seed is refused."""
    GENERATORS[what](rng())
    for bad in (0, None, "seed", np.random):
        with pytest.raises(SSMError, match=rf"{what}: rng is .*; expected a generator.*seed\)"):
            GENERATORS[what](bad)


BAD_NUMBERS: Cases = [
    (lambda: init.s4d_eigenvalues("lin", 4, real_scale="a"), "real_scale is 'a'"),  # type: ignore[arg-type]
    (lambda: init.s4d_eigenvalues("lin", 4, imag_scale=None), "imag_scale None"),  # type: ignore[arg-type]
    (lambda: init.nplr("legs", 4, b_clip="a"), "b_clip is 'a'"),  # type: ignore[arg-type]
    (lambda: init.ring(rng(), 4, "a", 1.0), "r_min is 'a'"),  # type: ignore[arg-type]
    (lambda: init.ring(rng(), 4, max_phase="a"), "max_phase is 'a'"),  # type: ignore[arg-type]
    (lambda: init.rglru_a_param(rng(), 4, "a"), "c is 'a'"),  # type: ignore[arg-type]
    (lambda: init.log_uniform_timescale(rng(), (-3,)), r"shape is \(-3,\); expected whole numbers"),
    (lambda: init.log_uniform_timescale(rng(), 1.5), r"shape is 1.5"),  # type: ignore[arg-type]
    (lambda: init.log_uniform_timescale(rng(), 3, "a"), "dt_min is 'a'"),  # type: ignore[arg-type]
    (lambda: init.softplus_bias(rng(), 3, floor="a"), "floor is 'a'"),  # type: ignore[arg-type]
    (lambda: init.inverse_softplus("a"), "x is 'a'; expected real numbers above 0"),  # type: ignore[arg-type]
    (lambda: init.inverse_softplus(None), "x contains nan|x is None"),  # type: ignore[arg-type]
    (lambda: ssm.S5(4, d_state="8"), "d_state is '8'; expected a whole number"),  # type: ignore[arg-type]
    (lambda: ssm.S5(4, dt_scale=10**400), "dt_scale is 1000.*; expected a finite number above 0"),
    (lambda: layer_call(state={1: one(2), "x": 1}), r"got \[1, 'x'\], expected \['x_lru'\]"),
]


@pytest.mark.parametrize("at", range(len(BAD_NUMBERS)))
def test_what_is_no_number(at: int) -> None:
    """Text, None and sizes below 0 where numbers are expected are refused by name."""
    call, message = BAD_NUMBERS[at]
    with pytest.raises(SSMError, match=message):
        call()


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_step_sizes_of_a_kernel(ssm_backend: Any, value: float) -> None:
    """dplr_kernel takes finite step sizes of at least 0, zero included."""
    zero = host(kernel(ssm_backend.from_numpy(np.asarray([0.0, 0.1]))))
    assert np.isfinite(zero).all()
    assert not zero[:, 0].any()
    with pytest.raises(SSMError, match=f"dplr_kernel: dt has the value {value!r}; expected finite"):
        kernel(ssm_backend.from_numpy(np.asarray([0.1, value])))


def test_a_step_size_beyond_the_dtype() -> None:
    """A number that overflows in the dtype of A is refused, not turned into NaN."""
    for dt in (1e60, 10**400):
        with pytest.raises(
            SSMError, match=r"discretize: dt holds 1.*expected a step from 0 to 3.4"
        ):
            ssm.discretize(-one(1, np.float32), dt)
    assert np.isfinite(ssm.discretize(-one(1), 1e60)[0]).all()


def test_a_singular_system(ssm_backend: Any) -> None:
    """The bilinear rule of a system with a pole at 2/dt is refused on every library."""
    A, B = (ssm_backend.from_numpy(x) for x in (20.0 * np.eye(2), one(2)))
    with pytest.raises(SSMError, match="discretize_dense: I - alpha dt A is singular"):
        discretize_dense(A, B, 0.1)
    A_bar, _ = discretize_dense(ssm_backend.from_numpy(np.full((2, 2), np.nan)), B, 0.1)
    assert np.isnan(host(A_bar)).all()  # not singular: NaN in, NaN out


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_matrix_is_no_array(name: str) -> None:
    """np.matrix, whose products are others, is refused before it is computed with."""
    given: dict[str, Any] = {"a": one(1), "b": one((3, 1))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of matrices itself, but only once
        given[name] = np.asmatrix(one((3, 1)))
    with pytest.raises(SSMError, match=r"expected an array of a known library .*numpy\.matrix"):
        ssm.linear_scan(**given)


@pytest.mark.parametrize("name", LAYERS)
def test_flat_parameters(ssm_eager: Any, name: str) -> None:
    """Dotted names, as in a torch state_dict, are taken for the nested parameters they mean."""
    layer: Any = LAYERS[name].layer
    params = arrays.tree_map(ssm_eager.from_numpy, layer.init(0, dtype="float64"))
    flat = checkpoints.flatten(params)
    u = ssm_eager.from_numpy(inputs((2, 5, layer.d_model), "float64"))
    calls: list[Callable[[Any], Any]] = [
        lambda p: layer(p, u, mode="recurrence"),
        lambda p: layer.step(p, u[:, 0, :])[0],
        lambda p: layer.eigenvalues(p, u),
        *(lambda p, key=key: layer.initial_state(p, (2,))[key] for key in layer.state_shapes()),
    ]
    if not layer.state_shapes():  # two directions do not stream
        calls = [calls[0], calls[2]]
    for call in calls:
        np.testing.assert_array_equal(host(call(flat)), host(call(params)))
    if layer.state_shapes():
        assert type(layer.system(flat, u)) is type(layer.system(params, u))


def test_half_flat_parameters_and_clashes() -> None:
    """Groups may be flat inside; a name given twice is refused."""
    layer = ssm.Bidirectional.of(ssm.S6(2, d_state=2))
    params = layer.init(0)
    u = one((3, 2), np.float32)
    mixed = {way: checkpoints.flatten(params[way]) for way in params}
    np.testing.assert_array_equal(layer(mixed, u), layer(params, u))
    twice = params["causal"] | {"dt_proj.bias": one(2, np.float32)}
    with pytest.raises(SSMError, match=r"'dt_proj\.bias' clashes with another"):
        ssm.S6(2, d_state=2)(twice, u)


@pytest.mark.parametrize("name", LAYERS)
def test_half_precision_names_what_is_allowed(name: str) -> None:
    """Parameters are real: the message lists float32 and float64, no complex dtype."""
    layer: Any = LAYERS[name].layer
    params = arrays.tree_map(lambda x: x.astype(np.float16), layer.init(0))
    with pytest.raises(SSMError, match="dtype float16; expected one of float32, float64; convert"):
        layer(params, one((3, layer.d_model), np.float32))


def test_step_sizes_may_underflow_to_zero() -> None:
    """A shut gate of S6 is a step of zero; what is refused is said truly."""
    layer = ssm.S6(2, d_state=2)
    params = layer.init(0, dtype="float64")
    shut = params | {"dt_proj": params["dt_proj"] | {"bias": np.full(2, -800.0)}}
    system: Any = layer.system(shut, np.zeros((3, 2)))
    assert not system.delta.any()
    params["dt_proj"]["bias"][0] = np.inf
    with pytest.raises(SSMError, match=r"dt_proj\.bias holds inf; .* the step size is finite$"):
        layer(params, one((3, 2)))
