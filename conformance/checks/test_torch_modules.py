"""``import ssmcore_torch as ssm``: layers as torch.nn.Module."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from checks.small_layers import EVERY, SEVEN, assert_close, numbers

import ssmcore
from ssmcore import arrays, checkpoints

torch = pytest.importorskip("torch", reason="torch is not installed")
ssm: Any = pytest.importorskip("ssmcore_torch", reason="torch is not installed")


def _module(name: str, seed: int = 0, dtype: Any = "float32") -> Any:
    layer = EVERY[name]
    options = {field: getattr(layer, field) for field in inspect.signature(type(layer)).parameters}
    return getattr(ssm, name)(**options, seed=seed, dtype=dtype)


def _input(dtype: str = "float32", **options: Any) -> Any:
    return torch.tensor(numbers(dtype, **options))


@pytest.mark.parametrize("name", EVERY)
def test_parameters_have_the_dotted_names_and_the_numbers_of_the_dict(name: str) -> None:
    module = _module(name)
    drawn = dict(arrays.leaves(EVERY[name].init(0, backend="numpy")))
    assert list(module.state_dict()) == [key for key, _ in module.named_parameters()]
    assert set(module.state_dict()) == set(drawn)
    for key, x in module.named_parameters():
        assert x.requires_grad
        assert np.array_equal(x.detach().numpy(), drawn[key])
    assert module.layer == EVERY[name]
    assert list(arrays.leaves(module.params)) != []
    assert [key for key, _ in arrays.leaves(module.params)] == list(drawn)


@pytest.mark.parametrize("name", EVERY)
def test_forward_is_the_layer(name: str) -> None:
    module, u = _module(name), _input()
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 3] = True
    options = {"mode": "scan", "reset": reset, "lengths": torch.tensor([9, 5])}
    assert torch.equal(module(u), module.layer(module.params, u))
    assert torch.equal(module(u, **options), module.layer(module.params, u, **options))
    assert not torch.equal(module(u, **options), module(u))


@pytest.mark.parametrize("name", SEVEN)
def test_streaming(name: str) -> None:
    module, u = _module(name), _input()
    state = module.initial_state((2,))
    assert {key: tuple(x.shape) for key, x in state.items()} == {
        key: (2, *shape) for key, shape in module.layer.state_shapes().items()
    }
    head, state = module(u[:, :4], state, return_state=True)
    one, state = module.step(u[:, 4], state)
    tail = module(u[:, 5:], state)
    assert_close(name, torch.cat([head, one[:, None], tail], 1), module(u), "float32")


@pytest.mark.parametrize("name", SEVEN)
def test_system_and_eigenvalues_are_the_layers(name: str) -> None:
    module, u = _module(name), _input()
    given = u if module.layer.time_varying else None
    assert torch.equal(module.eigenvalues(given), module.layer.eigenvalues(module.params, given))
    assert type(module.system(given)) is type(module.layer.system(module.params, given))
    if module.layer.time_varying:
        with pytest.raises(ssm.SSMError, match="varies with the input"):
            module.system()


@pytest.mark.parametrize("name", EVERY)
def test_state_dict_round_trip(name: str) -> None:
    module, other, u = _module(name), _module(name, seed=1), _input()
    assert not torch.equal(module(u), other(u))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(module(u), other(u))


@pytest.mark.parametrize("name", EVERY)
def test_copies_are_equal_and_independent(name: str) -> None:
    module, u = _module(name), _input()
    y = module(u)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(twin) is type(module)
        assert torch.equal(twin(u), y)
        with torch.no_grad():
            for x in twin.parameters():
                x.mul_(0.5)
        assert not torch.equal(twin(u), y)
    assert torch.equal(module(u), y)


@pytest.mark.parametrize("name", EVERY)
def test_to_float64_and_back(name: str) -> None:
    module, u = _module(name), _input()
    y = module(u)
    module = module.to(torch.float64)
    assert module(u.double()).dtype == torch.float64
    assert_close(name, y, module(u.double()).float(), "float32")
    assert torch.equal(module.float()(u), y)


@pytest.mark.parametrize("dtype", ["float64", torch.float64])
def test_dtypes_of_torch_are_understood(dtype: Any) -> None:
    module = ssm.S6(4, seed=3, device=torch.device("cpu"), dtype=dtype)
    assert {x.dtype for x in module.parameters()} == {torch.float64}
    with pytest.raises(ssm.SSMError, match=r"'float16'.*'float32', 'float64'"):
        ssm.S6(4, dtype=torch.float16)


def _rate(group: ssmcore.ParamGroup) -> float:
    if group.lr_scale is not None:
        return 0.01 * group.lr_scale
    return 0.01 if group.lr is None else group.lr


@pytest.mark.parametrize("name", EVERY)
def test_param_groups_go_into_an_optimiser(name: str) -> None:
    module = _module(name)
    optimizer = torch.optim.AdamW(module.param_groups(lr=0.01), lr=0.01, weight_decay=0.1)
    ids = [id(x) for group in optimizer.param_groups for x in group["params"]]
    assert sorted(ids) == sorted(map(id, module.parameters()))
    wanted = {
        key: (0.1 if group.weight_decay else 0.0, _rate(group))
        for group in module.layer.param_groups()
        for key in group.names
    }
    of = {id(x): key for key, x in module.named_parameters()}
    found = {
        of[id(x)]: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for x in group["params"]
    }
    assert found == wanted


def test_a_scaled_learning_rate_needs_the_global_one() -> None:
    with pytest.raises(ssm.SSMError, match=r"nu_log.*0\.5.*param_groups\(lr=\.\.\.\)"):
        _module("LRU").param_groups()


@pytest.mark.parametrize("name", EVERY)
def test_training_reduces_a_loss(name: str) -> None:
    module, u = _module(name), _input()
    target = torch.roll(u, 1, dims=1)
    optimizer = torch.optim.Adam(module.param_groups(lr=0.01), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (module(u) - target).square().mean()
        loss.backward()
        assert all(torch.isfinite(x.grad).all() for x in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    print(f"{name}: loss {losses[0]:.3f} to {losses[-1]:.3f} in 20 steps")
    assert all(after < before for before, after in itertools.pairwise(losses))


# array-api-compat caches the class checks that torch.compile traces through, and torch says so.
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.parametrize("name", EVERY)
def test_torch_compile_takes_the_whole_graph(name: str) -> None:
    torch._dynamo.reset()
    module, u = _module(name), _input()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    y = compiled(u)
    y.square().sum().backward()
    grads = {key: x.grad.clone() for key, x in module.named_parameters()}
    module.zero_grad()
    module(u).square().sum().backward()
    assert_close(name, y.detach(), module(u).detach(), "float32")
    for key, x in module.named_parameters():
        assert_close(f"{name}, gradient of {key}", grads[key], x.grad, "float32")


@pytest.mark.parametrize("name", SEVEN)
def test_autocast_lowers_no_precision(name: str) -> None:
    module, u = _module(name), _input()
    y, (one, _) = module(u), module.step(u[:, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (u @ torch.ones(4, 4)).dtype == torch.bfloat16
        assert torch.equal(module(u), y)
        assert torch.equal(module.step(u[:, 0])[0], one)
    assert module(u.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", SEVEN)
def test_a_definition_runs_under_autocast(name: str) -> None:
    """Nothing keeps it from its products here; what it makes of them is of one dtype again."""
    layer, u = EVERY[name], _input()
    params = layer.init(0, backend="torch")
    expected = layer(params, u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for y in (layer(params, u), layer(params, u, mode="scan")):
            assert float((y - expected).abs().max() / expected.abs().max()) <= 0.1


@pytest.mark.parametrize("name", SEVEN)
def test_functional_call_and_per_sample_gradients(name: str) -> None:
    module, u = _module(name), _input()
    values = {key: x.detach() for key, x in module.named_parameters()}

    def loss(params: Any, one: Any) -> Any:
        return torch.func.functional_call(module, params, (one,)).square().sum()

    whole = torch.func.grad(loss)(values, u)
    parts = [torch.func.grad(loss)(values, one) for one in u]
    for key in values:
        assert_close(f"{name}, {key}", sum(p[key] for p in parts), whole[key], "float32")


def test_any_layer_with_parameters_that_are_there() -> None:
    layer = EVERY["S6"]
    params = layer.init(5, backend="numpy", dtype="float64")
    module = ssm.Layer(layer, params)
    assert_close(
        "S6", module(_input("float64")).detach(), layer(params, numbers("float64")), "float64"
    )
    params["D"][:] = 0.0
    assert torch.all(module.params["D"] == 1.0)
    twin = ssm.Layer(layer, module.params, dtype=torch.float32)
    assert {x.dtype for x in twin.parameters()} == {torch.float32}
    assert all(x.is_leaf and x.requires_grad for x in twin.parameters())
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
        ssm.SSMError, match=r"ssmcore_torch\.Layer: layer is .*; expected a layer of ssmcore"
    ):
        ssm.Layer(given)


def test_bidirectional_wraps_modules_and_layers() -> None:
    inner = ssm.LRU(d_model=4, d_state=6)
    both = ssm.Bidirectional.of(inner, combine="concat", seed=1, dtype="float64")
    assert both.layer == ssmcore.Bidirectional.of(inner.layer, combine="concat")
    assert both(_input("float64")).shape == (2, 9, 8)
    assert "causal.nu_log" in both.state_dict()
    tied = ssm.Bidirectional.of(inner.layer, share="all")
    assert set(tied.state_dict()) == set(inner.state_dict())
    assert isinstance(both, ssm.Layer)
    assert isinstance(both, torch.nn.Module)


def test_inside_a_larger_module() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), ssm.S6(d_model=4), torch.nn.Linear(4, 1))
    assert "1.dt_proj.weight" in net.state_dict()
    assert net(_input(shape=(2, 9, 3))).shape == (2, 9, 1)
    assert "d_state=16" in repr(net)


def test_a_misspelt_argument_is_answered_with_the_nearest() -> None:
    module = ssm.LRU(d_model=4, d_state=4)
    with pytest.raises(ssm.SSMError, match=r"option is 'mod'.*did you mean 'mode'"):
        module(torch.zeros(3, 4), mod="scan")
