"""The same input gives the same bits, from run to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore_conformance.models import LAYERS, inputs
from ssmcore_conformance.problems import PROBLEMS, WITH_STATE
from ssmcore_conformance.running import call, compiled, flat, host

L = 129


def same_bits(runs: list[Any]) -> None:
    """Compare every array of the runs with that of the first."""
    first, *others = (flat(run) for run in runs)
    for other in others:
        for x, y in zip(first, other, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("title", PROBLEMS)
def test_primitives_give_the_same_bits_again(ssm_backend: Any, title: str) -> None:
    """A primitive run three times on the same input returns the same bits."""
    name, draw = PROBLEMS[title]
    given = draw(np.random.default_rng(1))
    extra = {"return_state": True} if name in WITH_STATE[:2] else {}
    same_bits([call(ssm_backend, getattr(ssm, name), **given, **extra) for _ in range(3)])


@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_the_same_bits_again(ssm_backend: Any, name: str) -> None:
    """A layer run three times in the same mode returns the same bits, states included."""
    layer = LAYERS[name].layer
    params, u = layer.init(0), inputs((2, L, layer.d_model), "float32")
    for mode in LAYERS[name].modes if ssm_backend.name != "jax" else ("auto",):
        run = compiled(ssm_backend.name, layer, mode, True)
        same_bits([call(ssm_backend, run, params, u) for _ in range(3)])


@pytest.mark.parametrize("name", LAYERS)
def test_one_seed_one_set_of_bits(ssm_backend: Any, name: str) -> None:
    """init(seed) does not depend on what was drawn before, nor on the backend."""
    layer = LAYERS[name].layer
    names = ("numpy", ssm_backend.name, ssm_backend.name)
    same_bits([host(layer.init(7, backend=name)) for name in names])
