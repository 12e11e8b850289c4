"""Blocks and networks as frozen pytrees."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import numpy as np
import pytest
from checks.small_layers import assert_close
from checks.small_networks import CLASSIFIER, DROPPING, GRIFFIN, MAMBA, NETWORKS, inputs, wide

import ssmcore
from ssmcore import arrays, blocks

jax = pytest.importorskip("jax", reason="jax is not installed")
ssm: Any = pytest.importorskip("ssmcore_jax", reason="jax is not installed")
jnp = jax.numpy

_run = jax.jit(lambda module, u: module(u))


def _input(definition: Any) -> Any:
    return jnp.asarray(inputs(definition))


def _loss(module: Any, u: Any, key: Any, checkpoint: bool = False) -> Any:
    y, statistics = module(u, training=True, key=key, checkpoint=checkpoint)
    return (y**2).sum(), statistics


@pytest.mark.parametrize("name", NETWORKS)
def test_leaves_have_the_dotted_names_and_the_numbers_of_the_dict(name: str) -> None:
    definition = NETWORKS[name]
    module = ssm.Module(definition, seed=3)
    drawn = dict(arrays.leaves(definition.init(3, backend="numpy")))
    paths, _ = jax.tree_util.tree_flatten_with_path(module)
    found = {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in paths}
    assert set(found) == {f"params.{key}" for key in drawn}
    assert all(np.array_equal(found[f"params.{key}"], x) for key, x in drawn.items())


@pytest.mark.parametrize("name", ["mamba", "classifier"])
def test_call_is_the_definition_under_jit(name: str) -> None:
    definition = NETWORKS[name]
    module = ssm.Module(definition)
    numpy_params = ssmcore.move(module.params, backend="numpy", dtype="float64")
    exact = definition(numpy_params, wide(inputs(definition))).astype("float32")
    assert_close(name, _run(module, _input(definition)), exact, "float32")


def test_named_classes_are_made_from_hyper_parameters_and_modules() -> None:
    inner = ssm.SSMBlock(ssm.S5(8, d_state=8), norm="batch")
    model = ssm.SequenceClassifier(4, 5, (inner, inner.definition), n_layers=2, seed=0)
    assert model.definition.block == (CLASSIFIER.block,) * 2
    assert isinstance(model, ssm.SequenceClassifier)
    other = ssm.Module(CLASSIFIER, seed=0)
    assert jax.tree.all(jax.tree.map(np.array_equal, model.params, other.params))


def test_parts_are_pytrees_with_their_parameters() -> None:
    model = ssm.Module(MAMBA)
    part = model.part("layers.1.mixer.ssm")
    assert type(part) is ssm.S6
    assert part.params["A_log"] is model.params["layers"]["1"]["mixer"]["ssm"]["A_log"]
    with pytest.raises(ssm.SSMError, match=r"Residual: part is 'mixe'.*did you mean 'mixer'"):
        model.part("layers.1.mixe")


def test_a_training_step_is_compiled_once_and_gives_its_arrays_away() -> None:
    traces = []

    @functools.partial(jax.jit, donate_argnums=0)
    def step(model: Any, u: Any, key: Any) -> Any:
        traces.append(model.definition)
        (loss, statistics), grads = jax.value_and_grad(_loss, has_aux=True)(model, u, key)
        size = sum((g**2).sum() for g in jax.tree.leaves(grads))
        model = jax.tree.map(lambda p, g: p - 0.01 * loss / size * g, model, grads)
        return model.with_statistics(statistics), loss

    model, u = ssm.Module(DROPPING), _input(DROPPING)
    first = model.part("0.norm").params
    before = np.array(first["mean"])
    losses = []
    for _ in range(5):
        model, loss = step(model, u, jnp.asarray([0, 1]))
        losses.append(float(loss))
    assert len(traces) == 1
    assert first["mean"].is_deleted()
    # the input of the first norm stays: five steps make (1 - 0.9^5) of its mean
    mean = before + (1 - 0.9**5) * (np.asarray(u).mean((0, 1)) - before)
    assert_close("running mean", model.part("0.norm").params["mean"], mean, "float32")
    assert losses[-1] < losses[0]


def test_statistics_are_those_of_numpy() -> None:
    model = ssm.Module(CLASSIFIER)
    (_, statistics) = jax.jit(lambda m, u: m(u, training=True))(model, _input(CLASSIFIER))
    params = ssmcore.move(model.params, backend="numpy", dtype="float64")
    _, exact = CLASSIFIER(params, wide(inputs(CLASSIFIER)), training=True)
    exact = dict(arrays.leaves(exact))
    new = dict(arrays.leaves(model.with_statistics(statistics).params))
    assert set(exact) == set(CLASSIFIER._statistics())
    for name, x in exact.items():
        assert_close(name, new[name], x.astype("float32"), "float32")


def test_keys_of_jax_itself() -> None:
    model, u = ssm.Module(DROPPING), _input(DROPPING)
    key = jax.random.key(7)
    run = jax.jit(lambda model, key: model(u, key=key))
    assert np.array_equal(run(model, key), run(model, jax.random.key_data(key)))
    assert not np.array_equal(run(model, key), run(model, jax.random.key(8)))
    with pytest.raises(ssmcore.SSMError, match="key_data"):  # a plain function takes its words only
        DROPPING(model.params, u, key=key)


def test_vmap_over_sequences() -> None:
    model, tokens = ssm.Module(MAMBA), _input(MAMBA)
    assert_close("mamba", jax.jit(jax.vmap(model))(tokens), _run(model, tokens), "float32")


def test_scan_over_layers() -> None:
    stack = ssm.Stack((ssm.SSMBlock(ssm.LRU(4, d_state=4)),) * 3)
    u = _input(CLASSIFIER)
    each = [stack.part(str(i)) for i in range(3)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *each)

    def through(stacked: Any, u: Any) -> Any:
        return jax.lax.scan(lambda x, block: (block(x), None), u, stacked)[0]

    assert_close("three blocks", jax.jit(through)(stacked, u), _run(stack, u), "float32")


def test_checkpointing_keeps_less_for_the_same_gradient() -> None:
    model, u = ssm.Module(DROPPING), _input(DROPPING)

    def pulled(checkpoint: bool) -> Any:
        def both(model: Any) -> Any:
            loss = functools.partial(_loss, u=u, key=3, checkpoint=checkpoint)
            return jax.vjp(loss, model, has_aux=True)[1]

        return both

    kept = {
        checkpoint: sum(x.size for x in jax.tree.leaves(jax.eval_shape(pulled(checkpoint), model)))
        for checkpoint in (False, True)
    }
    print(f"numbers kept for the gradient: {kept[False]}, with checkpointing {kept[True]}")
    assert kept[True] < kept[False] / 2
    grads = [
        jax.jit(jax.grad(functools.partial(_loss, checkpoint=c), has_aux=True))(model, u, 3)[0]
        for c in (False, True)
    ]
    plain, again = ({**dict(arrays.leaves(g.params))} for g in grads)
    for name in set(plain) - set(DROPPING._statistics()):
        assert_close(f"gradient of {name}", again[name], plain[name], "float32")


def test_statistics_are_labelled_as_not_trained() -> None:
    model = ssm.Module(CLASSIFIER)
    labels = model.labels()
    assert jax.tree.structure(labels) == jax.tree.structure(model)
    frozen = {
        name for name, label in arrays.leaves(labels.params) if model.param_groups()[label].lr == 0
    }
    assert frozen == set(CLASSIFIER._statistics())


def test_copies_and_equal_definitions() -> None:
    model = ssm.Module(GRIFFIN)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert jax.tree.structure(twin) == jax.tree.structure(model)
        assert jax.tree.all(jax.tree.map(np.array_equal, twin, model))
    with pytest.raises(AttributeError, match="frozen"):
        model.params = {}
    with pytest.raises(ssm.SSMError, match=r"ssmcore_jax\.Module: definition is 3; expected a"):
        ssm.Module(3)
    with pytest.raises(ssm.SSMError, match=r"ssmcore_jax\.Layer: layer is Mamba\(.*a layer of"):
        ssm.Layer(blocks.Mamba(4))
