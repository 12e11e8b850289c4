"""``import ssmcore_jax as ssm``: layers as frozen pytrees."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from checks.small_layers import EVERY, SEVEN, assert_close, numbers

import ssmcore
from ssmcore import arrays, checkpoints

jax = pytest.importorskip("jax", reason="jax is not installed")
ssm: Any = pytest.importorskip("ssmcore_jax", reason="jax is not installed")


def _module(name: str, seed: int = 0) -> Any:
    layer = EVERY[name]
    options = {field: getattr(layer, field) for field in inspect.signature(type(layer)).parameters}
    return getattr(ssm, name)(**options, seed=seed)


def _input(**options: Any) -> Any:
    return jax.numpy.asarray(numbers("float32", **options))


_step = jax.jit(jax.value_and_grad(lambda module, u, target: ((module(u) - target) ** 2).mean()))
_run = jax.jit(lambda module, u: module(u))


@pytest.mark.parametrize("name", EVERY)
def test_leaves_have_the_dotted_names_and_the_numbers_of_the_dict(name: str) -> None:
    module = _module(name)
    drawn = dict(arrays.leaves(EVERY[name].init(0, backend="numpy")))
    paths, _ = jax.tree_util.tree_flatten_with_path(module)
    found = {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in paths}
    assert set(found) == {f"params.{key}" for key in drawn}
    assert all(np.array_equal(found[f"params.{key}"], x) for key, x in drawn.items())
    assert module.layer == EVERY[name]


@pytest.mark.parametrize("name", EVERY)
def test_call_is_the_layer_under_jit(name: str) -> None:
    module, u = _module(name), _input()
    y = _run(module, u)
    numpy_params = ssmcore.move(module.params, backend="numpy", dtype="float64")
    exact = module.layer(numpy_params, numbers("float32").astype("float64"))
    assert_close(name, y, exact.astype("float32"), "float32")


@pytest.mark.parametrize("name", SEVEN)
def test_streaming_under_jit(name: str) -> None:
    module, u = _module(name), _input()

    def stream(module: Any, u: Any) -> Any:
        state = module.initial_state((2,))
        head, state = module(u[:, :4], state, return_state=True)
        one, state = module.step(u[:, 4], state)
        lengths = jax.numpy.asarray([4, 4])
        tail = module(u[:, 5:], state, mode="scan", lengths=lengths)
        return jax.numpy.concatenate([head, one[:, None], tail], axis=1)

    assert_close(name, jax.jit(stream)(module, u), _run(module, u), "float32")


@pytest.mark.parametrize("name", SEVEN)
def test_system_and_eigenvalues_are_the_layers(name: str) -> None:
    module, u = _module(name), _input()
    given = u if module.layer.time_varying else None
    # not under jit: S4 and LSSL compute theirs on the host
    assert np.array_equal(module.eigenvalues(given), module.layer.eigenvalues(module.params, given))
    if module.layer.time_varying:
        with pytest.raises(ssm.SSMError, match="varies with the input"):
            module.system()
    else:
        assert module.system().dtype == module.layer.system(module.params).dtype


@pytest.mark.parametrize("name", ["S4", "S5", "S6", "Bidirectional"])
def test_training_reduces_a_loss(name: str) -> None:
    module, u = _module(name), _input()
    target = jax.numpy.roll(u, 1, axis=1)
    first, grads = _step(module, u, target)
    assert type(grads) is type(module)
    assert jax.tree.structure(grads) == jax.tree.structure(module)
    # Rate 0.01 loss / |g|^2: to first order each step takes away one part in a hundred.
    for _ in range(10):
        value, grads = _step(module, u, target)
        size = float(sum((g**2).sum() for g in jax.tree.leaves(grads)))
        assert 0 < size < float("inf")
        module = jax.tree.map(lambda p, g, rate=0.01 * value / size: p - rate * g, module, grads)
    last = float(_step(module, u, target)[0])
    print(f"{name}: loss {float(first):.4f} to {last:.4f} in 10 steps")
    assert last < float(first)


@pytest.mark.parametrize("name", ["S5", "S6"])
def test_vmap_over_inputs_and_over_modules(name: str) -> None:
    u = _input(shape=(3, 9, 4))
    modules = [_module(name, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *xs: jax.numpy.stack(xs), *modules)
    both = jax.jit(jax.vmap(lambda module, u: module(u)))(stacked, u)
    one_by_one = jax.numpy.stack([_run(m, x) for m, x in zip(modules, u, strict=True)])
    assert_close(f"{name}, modules", both, one_by_one, "float32")
    inputs = jax.jit(jax.vmap(modules[0]))(u)
    assert_close(f"{name}, inputs", inputs, _run(modules[0], u), "float32")


@pytest.mark.parametrize("open_axis", [0, 1])
def test_a_scan_is_exported_for_any_batch_and_length(open_axis: int) -> None:
    a, b = jax.numpy.asarray([0.5, -0.9], dtype="float32"), _input(shape=(3, 70, 2))
    run = jax.jit(lambda b: ssm.linear_scan(a, b))
    shape = list(b.shape)
    shape[open_axis] = jax.export.symbolic_shape("n")[0]
    exported = jax.export.export(run)(jax.ShapeDtypeStruct(shape, b.dtype))
    assert_close("linear_scan", exported.call(b), run(b), "float32")


def test_equal_layers_compile_once() -> None:
    traces = []

    def traced(module: Any, u: Any) -> Any:
        traces.append(module.layer)
        return module(u)

    run, u = jax.jit(traced), _input()
    run(_module("LRU", 0), u)
    run(_module("LRU", 1), u)
    assert len(traces) == 1
    run(ssm.LRU(d_model=4, d_state=8), u)
    assert len(traces) == 2


@pytest.mark.parametrize("name", EVERY)
def test_labels_name_the_groups_of_all_parameters(name: str) -> None:
    module = _module(name)
    labels, groups = module.labels(), module.param_groups()
    assert jax.tree.structure(labels) == jax.tree.structure(module)
    assert set(jax.tree.leaves(labels)) == set(groups)
    of = dict(arrays.leaves(labels.params))
    assert {key: groups[label]._replace(names=()) for key, label in of.items()} == {
        key: group._replace(names=())
        for group in module.layer.param_groups()
        for key in group.names
    }
    assert sorted(key for group in groups.values() for key in group.names) == sorted(of)


@pytest.mark.parametrize("name", EVERY)
def test_copies(name: str) -> None:
    module = _module(name)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(twin) is type(module)
        assert twin.layer == module.layer
        assert jax.tree.all(jax.tree.map(np.array_equal, twin, module))


def test_it_is_frozen() -> None:
    module = _module("LRU")
    with pytest.raises(AttributeError, match=r"frozen.*jax\.tree\.map"):
        module.layer = EVERY["S5"]


def test_dtypes_of_jax_are_understood() -> None:
    module = ssm.S6(4, seed=3, device=jax.devices()[0], dtype=jax.numpy.float32)
    assert {x.dtype for x in jax.tree.leaves(module)} == {np.dtype("float32")}
    with pytest.raises(ssm.SSMError, match=r"'float16'.*'float32', 'float64'"):
        ssm.S6(4, dtype=jax.numpy.float16)


def test_any_layer_with_parameters_that_are_there() -> None:
    layer = EVERY["S6"]
    params = layer.init(5, backend="numpy")
    module = ssm.Layer(layer, params)
    params["D"][:] = 0.0
    assert np.all(module.params["D"] == 1.0)
    assert repr(module) == f"Layer({layer!r})"
    with pytest.raises(ssm.SSMError, match="parameters of another layer"):
        ssm.Layer(EVERY["LRU"], params)


def test_parameters_by_dotted_names() -> None:
    flat = checkpoints.flatten(EVERY["S6"].init(5, backend="numpy"))
    module = ssm.Layer(EVERY["S6"], flat)
    names = dict(arrays.leaves(module.params))
    assert set(names) == set(flat)
    assert all(np.array_equal(ssmcore.to_numpy(names[key]), flat[key]) for key in flat)


@pytest.mark.parametrize("given", [3, None, ssmcore.S6, "S6"])
def test_what_is_no_layer(given: Any) -> None:
    with pytest.raises(
        ssm.SSMError, match=r"ssmcore_jax\.Layer: layer is .*; expected a layer of ssmcore"
    ):
        ssm.Layer(given)


def test_bidirectional_wraps_modules_and_layers() -> None:
    inner = ssm.LRU(d_model=4, d_state=6)
    both = ssm.Bidirectional.of(inner, combine="concat", seed=1)
    assert both.layer == ssmcore.Bidirectional.of(inner.layer, combine="concat")
    assert both(_input()).shape == (2, 9, 8)
    tied = ssm.Bidirectional.of(inner.layer, share="all")
    assert set(tied.params) == set(inner.params)
    assert repr(inner) == repr(inner.layer)


def test_a_misspelt_argument_is_answered_with_the_nearest() -> None:
    module = ssm.LRU(d_model=4, d_state=4)
    with pytest.raises(ssm.SSMError, match=r"option is 'mod'.*did you mean 'mode'"):
        module(jax.numpy.zeros((3, 4)), mod="scan")
