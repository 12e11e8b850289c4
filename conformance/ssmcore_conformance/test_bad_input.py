"""Bad input to layers: SSMError with the offending value and what was expected, before any work.

Inputs are compared before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays, backend, checkpoints
from ssmcore.discretization import discretize_dense
from ssmcore.errors import SSMError
from ssmcore_conformance.models import LAYERS, inputs
from ssmcore_conformance.running import host

H, L = 4, 5
Call = dict[str, Any]


def usual(name: str, dtype: str = "float64") -> Call:
    """Return arguments that fit, in NumPy."""
    layer = LAYERS[name].layer
    params = layer.init(0, dtype=dtype)
    return {"params": params, "u": inputs((2, L, H), dtype)}


def moved(library: Any, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: moved(library, x) for key, x in tree.items()}
    return library.from_numpy(tree) if isinstance(tree, np.ndarray) else tree


def refused(library: Any, name: str, given: Call, message: str) -> None:
    """Assert that the layer refuses with ``message`` and leaves everything as it was."""
    layer = LAYERS[name].layer
    call = dict(given) if given.get("as is") else moved(library, given)
    call.pop("as is", None)
    untouched(call, message, lambda: layer(call["params"], call["u"], **rest(call)))


def rest(call: Call) -> Call:
    """Return what is neither params nor u."""
    return {key: x for key, x in call.items() if key not in ("params", "u")}


def untouched(given: Call, message: str, run: Callable[[], Any]) -> None:
    """Assert that ``run`` raises SSMError with ``message``, and leaves the arrays alone."""
    kept = [x for value in given.values() for _, x in arrays.leaves(value) if hasattr(x, "dtype")]
    before = [np.array(host(x)) for x in kept]
    with pytest.raises(SSMError, match=message):
        run()
    for old, x in zip(before, kept, strict=True):
        np.testing.assert_array_equal(old, host(x))


one = np.ones
EVERY: dict[str, tuple[Call, str]] = {
    "channels": ({"u": one((2, L, 3))}, r"u has shape \(2, 5, 3\); expected \(\.\.\., L, 4\)"),
    "axes": ({"u": one(H)}, r"u has shape \(4,\); expected \(\.\.\., L, 4\)"),
    "integer": ({"u": one((2, L, H), int)}, "u has dtype int64, the parameters float64"),
    "single": ({"u": one((2, L, H), np.float32)}, "u has dtype float32, the parameters float64"),
    "complex": ({"u": one((2, L, H), complex)}, "u has dtype complex128, the parameters float64"),
    "mode": ({"mode": "recurence"}, "mode is 'recurence'; .*did you mean 'recurrence'"),
    "mode, far": ({"mode": "xyz"}, "mode is 'xyz'; expected one of 'auto', 'recurrence', 'scan'"),
    "reset shape": ({"reset": one((2, L + 1), bool)}, r"reset has shape \(2, 6\); .*\(2, 5\)"),
    "reset dtype": ({"reset": one((2, L), int)}, "reset has dtype int64; expected bool"),
    "lengths shape": ({"lengths": one(3, int)}, r"lengths has shape \(3,\); expected .*\(2,\)"),
    "lengths dtype": ({"lengths": one(2)}, "lengths has dtype float64; expected integers"),
    "lengths above": ({"lengths": one(2, int) * 6}, "lengths go from 6 to 6; expected 0 to L = 5"),
    "lengths below": ({"lengths": -one(2, int)}, "lengths go from -1 to -1; expected 0 to L = 5"),
    "no state": ({"state": {}}, r"state of another layer\? got \[\], expected \['\w+'"),
    "state, array": ({"state": one(3)}, r"state of another layer\? got \w+"),
    "keyword": ({"mod": "scan"}, "option is 'mod'; expected one of .*did you mean 'mode'"),
    "mode, array": ({"mode": one(2)}, "mode is .*; expected one of 'auto'"),
    "params": ({"params": {}}, "parameters of another layer.*missing"),
    "params, array": ({"params": one(3)}, "parameters of another layer.*missing"),
}


@pytest.mark.parametrize("wrong", EVERY)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(ssm_backend: Any, name: str, wrong: str) -> None:
    """Every layer refuses what it cannot be called with, and leaves it as it was."""
    changes, message = EVERY[wrong]
    refused(ssm_backend, name, usual(name) | changes, f"{name}: {message}")


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_that_do_not_fit(ssm_backend: Any, name: str) -> None:
    """Of another layer, of another size, of several precisions, integer, half, complex."""
    given = usual(name)
    leaf = next(key for key, x in given["params"].items() if isinstance(x, np.ndarray))
    x = given["params"][leaf]
    other = "LRU" if name != "LRU" else "S5"
    wrong = [
        (usual(other)["params"], "parameters of another layer.*missing.*unexpected"),
        ({**given["params"], leaf: x[:-1]}, rf"{leaf} has shape \(.*\); expected \("),
        ({**given["params"], leaf: x.astype(np.float32)}, f".*one precision.*{leaf} float32"),
        ({**given["params"], leaf: x.astype(int)}, f"{leaf} has dtype int64; expected one of"),
        ({**given["params"], leaf: x.astype(complex)}, f"{leaf} has dtype complex128; .* real"),
    ]
    if hasattr(ssm_backend.xp, "float16"):
        halves = {**given["params"], leaf: x.astype(np.float16)}
        wrong.append((halves, f"{leaf} has dtype float16; expected one of float32, float64"))
    for params, message in wrong:
        refused(ssm_backend, name, given | {"params": params}, f"{name}: {message}")


@pytest.mark.parametrize("name", LAYERS)
def test_arguments_that_do_not_fit(name: str) -> None:
    """Too few, too many, misspelt: of the constructor and of every method."""
    layer: Any = LAYERS[name].layer
    kind, given = type(layer), usual(name)
    p, u = given["params"], given["u"]
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: kind(), r"missing .*'d_model'.*expected \(d_model, "),
        (lambda: kind(*range(1, 40)), "too many .* 39 unnamed; expected"),
        (lambda: kind(H, d_model=H), "multiple values .*'d_model'"),
        (lambda: layer(p), r"missing .*'u'.*expected \(params, u, state=None"),
        (lambda: layer(p, u, None, "scan"), "too many .* 4 unnamed"),
        (lambda: layer.step(p, u[:, 0], stat=None), "did you mean 'state'"),
        (lambda: layer.init(0, dtyp="float32"), "did you mean 'dtype'"),
        (lambda: layer.system(p, rest=None), "did you mean 'reset'"),
    ]
    for call, message in calls:
        untouched(given, f"{name}: .*{message}", call)


@pytest.mark.parametrize("name", LAYERS)
def test_initial_states_that_cannot_be(ssm_backend: Any, name: str) -> None:
    """initial_state refuses wrong parameters and batch shapes."""
    layer: Any = LAYERS[name].layer
    params = moved(ssm_backend, usual(name)["params"])
    for other in ({}, None, 3, [1.0], {"D": params}):
        message = f"{name}: parameters of another layer.*missing"
        untouched({"params": other}, message, partial(layer.initial_state, other))
    for batch in (3, [2], (-1,), (1.5,), (True,), "ab", None):
        message = f"{name}: batch_shape is .*; expected a tuple of whole numbers of at least 0"
        untouched({"params": params}, message, partial(layer.initial_state, params, batch))
    sizes = {key: (2, 0, *shape) for key, shape in layer.state_shapes().items()}
    fresh = layer.initial_state(params, (2, 0))
    assert {key: tuple(x.shape) for key, x in fresh.items()} == sizes


STEPS = {"LSSL": "log_dt", "S4": "log_dt", "S4D": "log_dt", "S5": "log_dt", "S6": "dt_proj.bias"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e3])
@pytest.mark.parametrize("name", STEPS)
def test_step_sizes_that_cannot_be(ssm_backend: Any, name: str, value: float) -> None:
    """Not finite, or too large for exp: 1e3 is fine for the softplus of S6."""
    given, layer = usual(name), LAYERS[name].layer
    flat = checkpoints.flatten(given["params"])
    flat[STEPS[name]] = flat[STEPS[name]].copy()
    flat[STEPS[name]][-1] = value
    given["params"] = checkpoints.unflatten(flat)
    message = rf"{name}: {STEPS[name]} holds {value!r}; expected finite numbers within \+-"
    if name == "S6" and np.isfinite(value):
        assert np.isfinite(host(layer(**moved(ssm_backend, given)))).all()
        return
    refused(ssm_backend, name, given, message)
    params = moved(ssm_backend, given["params"])
    for run in (layer.initial_state, layer.system):
        untouched({"params": params}, message, partial(run, params))


@pytest.mark.parametrize("name", ["S6", "RGLRU"])
def test_systems_of_inputs_that_do_not_fit(ssm_backend: Any, name: str) -> None:
    """As in a call: shape, dtype, library of u and reset. Half precision is fine, as there."""
    layer: Any = LAYERS[name].layer
    given = moved(ssm_backend, usual(name))
    params, u = given["params"], given["u"]
    for key in ("channels", "axes", "integer", "single", "reset shape", "reset dtype"):
        changes, message = EVERY[key]
        call = given | moved(ssm_backend, changes)
        system = partial(layer.system, call["params"], call["u"], call.get("reset"))
        untouched(call, f"{name}: {message}", system)
    for bad in ([[1.0] * H], "text", 3.0):
        message = f"{name}: u is .*expected an array"
        untouched(given, message, partial(layer.system, params, bad))
    untouched(given, f"{name}: u has shape", lambda: layer.eigenvalues(params, u[..., :3]))
    untouched(given, f"{name}: the system varies", lambda: layer.system(params))
    if hasattr(ssm_backend.xp, "float16"):
        half = ssm_backend.xp.astype(u, ssm_backend.xp.float16)
        wide = ssm_backend.xp.astype(half, u.dtype)
        a, b = (host(layer.system(params, x).a) for x in (half, wide))
        np.testing.assert_array_equal(a, b)


LISTS: dict[str, Callable[[Any], Any]] = {
    "linear_scan: a": lambda x: ssm.linear_scan(x, x),
    "diagonal_scan: a": lambda x: ssm.diagonal_scan(x, x, x, x),
    "selective_scan: u": lambda x: ssm.selective_scan(x, x, x, x, x),
    "causal_convolution: u": lambda x: ssm.causal_convolution(x, x),
    "short_convolution: u": lambda x: ssm.short_convolution(x, x),
    "diagonal_kernel: a": lambda x: ssm.diagonal_kernel(x, x, 3),
    "dplr_kernel: dt": lambda x: ssm.dplr_kernel(x, x, x, x, x, 3),
    "discretize: A": lambda x: ssm.discretize(x, 0.1),
    "discretize: dt": lambda x: ssm.discretize(one(2), x),
    "discretize_dense: B": lambda x: discretize_dense(one((2, 2)), x, 0.1),
    "reset_from_positions: segment_pos": lambda x: checkpoints.reset_from_positions(x),
    "selective_scan_arguments: u": lambda x: checkpoints.selective_scan_arguments(x, x, x, x, x),
}


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize("given", [[[1.0, 2.0]], (1.0,), "text", None, 3 + 1j])
def test_lists_and_numbers_where_arrays_are_expected(what: str, given: Any) -> None:
    """A list or a number where an array is expected is refused by name."""
    kept = repr(given)
    with pytest.raises(SSMError, match=rf"{what} is {type(given).__name__} .*; expected an array"):
        LISTS[what](given)
    assert repr(given) == kept


def test_none_beside_arrays() -> None:
    """What is left out on purpose may be None, the rest may not."""
    u = one((5, 2))
    for call, name in (
        (lambda: ssm.linear_scan(one(2), None), "b"),
        (lambda: ssm.diagonal_scan(one((2, 3)), one((2, 3)), None, u), "C"),
        (lambda: ssm.short_convolution(u, None), "weight"),
        (lambda: ssm.diagonal_kernel(u, None, 3), "coefficients"),
    ):
        with pytest.raises(SSMError, match=f"{name} is NoneType None; expected an array"):
            call()


def test_every_public_primitive_is_given_lists() -> None:
    """The lists above are given to every public primitive."""
    assert set(ssm.primitives.REFERENCES) <= {what.split(":")[0] for what in LISTS}


SHAPES: list[tuple[Callable[[], Any], str]] = [
    (lambda: ssm.discretize(one(2), one(3)), r"discretize: .*A \(2,\), dt \(3,\)"),
    (
        lambda: discretize_dense(one((4, 2, 2)), one((3, 2)), 0.1),
        r"discretize_dense: .*of A \(4,\), .*of B \(3,\), dt \(\)",
    ),
    (lambda: discretize_dense(one((4, 2, 2)), one(2), one(3)), r"of A \(4,\).*dt \(3,\)"),
    (lambda: discretize_dense(one((2, 2)), one(2), 0.1, alpha="a"), "alpha is 'a'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("at", range(len(SHAPES)))
def test_discretisations_that_do_not_fit(at: int) -> None:
    """Shapes and weights that do not fit a discretisation are refused."""
    call, message = SHAPES[at]
    with pytest.raises(SSMError, match=message):
        call()


def test_positions_are_integers(ssm_backend: Any) -> None:
    """Positions in a segment are whole numbers."""
    positions = ssm_backend.from_numpy(one(3))
    with pytest.raises(SSMError, match=r"segment_pos has dtype .*; expected integers"):
        checkpoints.reset_from_positions(positions)


@pytest.mark.parametrize("name", LAYERS)
def test_states_that_do_not_fit(ssm_backend: Any, name: str) -> None:
    """Of another batch, of another layer, of another precision."""
    given, layer = usual(name), LAYERS[name].layer
    state = {k: np.zeros((2, *s)) for k, s in layer.state_shapes().items()}
    key = next(iter(state))
    wrong = [
        ({**state, key: state[key][:1]}, rf"state\['{key}'\] has shape \(1, .*expected \(2, "),
        ({"z": state[key]}, r"state of another layer\? got \['z'\], expected"),
        ({**state, key: state[key].astype(np.float32)}, f"one precision.*{key} float32"),
        ({**state, key: state[key].astype(int)}, f"{key} has dtype int64"),
    ]
    for changed, message in wrong:
        refused(ssm_backend, name, given | {"state": changed}, f"{name}: .*{message}")


@pytest.mark.parametrize("name", LAYERS)
def test_libraries_do_not_mix(ssm_backend: Any, name: str) -> None:
    """Parameters, input, state, reset and lengths come from one library."""
    strange = backend.load("numpy" if ssm_backend.name != "numpy" else "array_api_strict")
    layer, given = LAYERS[name].layer, usual(name)
    given["state"] = {k: np.zeros((2, *s)) for k, s in layer.state_shapes().items()}
    given |= {"reset": np.zeros((2, L), bool), "lengths": np.ones(2, int)}
    for key in given:
        mixed = moved(ssm_backend, given) | {key: moved(strange, given[key]), "as is": True}
        message = r"arrays of one library.*got .*move them together"
        refused(ssm_backend, name, mixed, message)


@pytest.mark.parametrize("name", LAYERS)
def test_convolution_where_there_is_none(ssm_backend: Any, name: str) -> None:
    """Of a layer that varies with its input; with resets."""
    given = usual(name) | {"mode": "convolution"}
    if LAYERS[name].layer.time_varying:
        message = f"{name}: mode 'convolution' needs a time-invariant layer.*use 'scan' or"
        refused(ssm_backend, name, given, message)
    given["reset"] = np.zeros((2, L), bool)
    refused(ssm_backend, name, given, f"{name}: mode 'convolution' .*use 'scan' or 'recurrence'")


def test_not_an_array(ssm_backend: Any) -> None:
    """What is no array is refused by name."""
    params = moved(ssm_backend, usual("S4D")["params"])
    for u in ([[1.0] * H], "text", None, 3.0):
        with pytest.raises(SSMError, match=f"S4D: u is {type(u).__name__} .*; expected an array"):
            LAYERS["S4D"].layer(params, u)
    with pytest.raises(SSMError, match=r"S4D: D is list .*; expected an array"):
        LAYERS["S4D"].layer({**params, "D": [1.0] * H}, ssm_backend.from_numpy(one((L, H))))


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_takes_one_time_step(ssm_backend: Any, name: str) -> None:
    """step refuses an input with a wrong number of channels."""
    layer, params = LAYERS[name].layer, moved(ssm_backend, usual(name)["params"])
    with pytest.raises(SSMError, match=rf"{name}: u has shape .*expected \(\.\.\., 4\)"):
        layer.step(params, ssm_backend.from_numpy(one(())))
    with pytest.raises(SSMError, match=f"{name}: u has shape"):
        layer.step(params, ssm_backend.from_numpy(one((2, 3))))


@pytest.mark.parametrize("name", LAYERS)
def test_bad_seeds_dtypes_and_backends(name: str) -> None:
    """init refuses a seed, dtype or backend that cannot be."""
    layer = LAYERS[name].layer
    cases: list[tuple[Call, str]] = [
        ({"seed": -1}, f"{name}: seed is -1; expected a whole number of at least 0"),
        ({"seed": 1.5}, f"{name}: seed is 1.5"),
        ({"dtype": "float16"}, f"{name}: dtype is 'float16'; expected one of 'float32', 'float64'"),
        ({"dtype": "flaot32"}, "did you mean 'float32'"),
        ({"backend": "torhc"}, "backend is 'torhc'; .*did you mean 'torch'"),
    ]
    for options, message in cases:
        with pytest.raises(SSMError, match=message):
            layer.init(**options)


NAN, INF = float("nan"), float("inf")
OPTIONS: list[tuple[Callable[[], ssm.Layer], str]] = [
    *(
        (
            lambda kind=kind, key=key, value=value: kind(H, **{key: value}),
            f"{key} is {value!r}; exp",
        )
        for kind in (ssm.S4, ssm.S4D, ssm.S5, ssm.S6, ssm.LSSL)
        for key in ("dt_min", "dt_max", "dt_scale")
        for value in (-1.0, 0.0, NAN, INF)
    ),
    *(
        (lambda kind=kind: kind(H, dt_min=0.2), "dt_min 0.2 is above dt_max 0.1")
        for kind in (ssm.S4, ssm.S4D, ssm.S5, ssm.S6, ssm.LSSL)
    ),
    *(
        (lambda kind=kind, value=value: kind(value), f"d_model is {value!r}; expected a whole")
        for kind in (ssm.S4, ssm.S4D, ssm.S5, ssm.S6, ssm.LSSL, ssm.LRU, ssm.RGLRU)
        for value in (0, -1, 2.5, "4")
    ),
    *(
        (lambda kind=kind, value=value: kind(H, d_state=value), f"d_state is {value!r}; expected")
        for kind in (ssm.S4, ssm.S4D)
        for value in (3, 0, 1, 2.0)
    ),
    (lambda: ssm.S5(H, d_state=7), "d_state is 7; expected a multiple of 2 .*conjugate pairs"),
    (
        lambda: ssm.S5(H, d_state=12, blocks=4),
        "d_state is 12; expected a multiple of 8 for 4 block",
    ),
    (lambda: ssm.S4(H, rank=0), "rank is 0; expected a whole number"),
    (lambda: ssm.S4(H, n_ssm=3), "n_ssm is 3; expected a divisor of d_model = 4"),
    (lambda: ssm.S4D(H, n_ssm=8), "n_ssm is 8; expected a divisor of d_model = 4"),
    (lambda: ssm.S4(H, initialization="leg"), "initialization is 'leg'; .*did you mean 'leg[st]'"),
    (lambda: ssm.S4D(H, initialization="linn"), "did you mean 'lin'"),
    (lambda: ssm.LSSL(H, initialization="hippo"), "'hippo'; expected one of 'legs', 'legt'"),
    (lambda: ssm.LSSL(H, alpha=1.5), "alpha is 1.5; expected 0 to 1"),
    (lambda: ssm.LSSL(H, alpha=NAN), "alpha is nan; expected a finite number"),
    (lambda: ssm.S4D(H, discretization="bilinar"), "did you mean 'bilinear'"),
    (lambda: ssm.S5(H, discretization="mamba"), "'mamba'; expected one of 'zoh', 'bilinear'"),
    (lambda: ssm.S6(H, discretization="bilinear"), "'bilinear'; expected one of 'mamba', 'zoh'"),
    (lambda: ssm.S6(H, a_initialization="rael"), "did you mean 'real'"),
    (lambda: ssm.S6(H, dt_rank=0), "dt_rank is 0"),
    (lambda: ssm.S6(H, dt_init_floor=-1.0), "dt_init_floor is -1.0"),
    (lambda: ssm.RGLRU(H, heads=3), "heads is 3; expected a divisor of d_model = 4"),
    (lambda: ssm.RGLRU(H, c=0.0), "c is 0.0; expected a finite number above 0"),
    (lambda: ssm.RGLRU(H, min_rad=0.5, max_rad=0.4), "expected 0 < min_rad < max_rad < 1"),
    (lambda: ssm.RGLRU(H, max_rad=1.0), "max_rad are 0.9, 1.0"),
    (lambda: ssm.LRU(H, r_min=0.9, r_max=0.5), "expected 0 <= r_min < r_max <= 1"),
    (lambda: ssm.LRU(H, max_phase=-1.0), "max_phase is -1.0"),
]


@pytest.mark.parametrize("at", range(len(OPTIONS)))
def test_options(at: int) -> None:
    """Hyper-parameters that cannot be are refused with the value and what was expected."""
    make, message = OPTIONS[at]
    with pytest.raises(SSMError, match=message):
        make()
