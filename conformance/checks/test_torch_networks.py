"""Blocks and networks as torch.nn.Module."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks.small_layers import EVERY, assert_close
from checks.small_networks import CLASSIFIER, DROPPING, GRIFFIN, MAMBA, NETWORKS, inputs, wide

import ssmcore
from ssmcore import arrays, blocks

torch = pytest.importorskip("torch", reason="torch is not installed")
ssm: Any = pytest.importorskip("ssmcore_torch", reason="torch is not installed")


def _input(definition: Any) -> Any:
    return torch.tensor(inputs(definition))


def _gradients(module: Any, u: Any, **options: Any) -> dict[str, Any]:
    module.zero_grad()
    module(u, **options).float().square().sum().backward()
    return {name: x.grad.clone() for name, x in module.named_parameters()}


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_has_the_dotted_names_and_the_numbers_of_the_dict(name: str) -> None:
    definition = NETWORKS[name]
    module = ssm.Module(definition, seed=3)
    drawn = dict(arrays.leaves(definition.init(3, backend="numpy")))
    assert list(module.state_dict()) == list(drawn)
    assert all(np.array_equal(x.numpy(), drawn[key]) for key, x in module.state_dict().items())
    assert {key for key, _ in module.named_buffers()} == set(definition._statistics())
    assert all(x.requires_grad for x in module.parameters())
    assert [key for key, _ in arrays.leaves(module.params)] == list(drawn)


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_the_definition(name: str) -> None:
    definition = NETWORKS[name]
    module, u = ssm.Module(definition).eval(), _input(definition)
    numpy_params = ssmcore.move(module.params, backend="numpy", dtype="float64")
    exact = definition(numpy_params, wide(inputs(definition))).astype("float32")
    assert_close(name, module(u).detach(), exact, "float32")


def test_named_classes_are_made_from_hyper_parameters_and_modules() -> None:
    inner = ssm.SSMBlock(ssm.S5(8, d_state=8), norm="batch")
    model = ssm.SequenceClassifier(4, 5, (inner, inner.definition), n_layers=2, seed=0)
    assert model.definition.block == (CLASSIFIER.block,) * 2
    other = ssm.Module(CLASSIFIER, seed=0)
    assert all(torch.equal(x, other.state_dict()[key]) for key, x in model.state_dict().items())
    assert isinstance(model, ssm.SequenceClassifier)


def test_parts_are_modules_that_share_the_parameters() -> None:
    model = ssm.Module(MAMBA)
    part = model.get_submodule("layers.1.mixer.ssm")
    assert type(part) is ssm.S6
    assert part.A_log is dict(model.named_parameters())["layers.1.mixer.ssm.A_log"]
    assert isinstance(model.get_submodule("layers.1"), ssm.Residual)
    u = torch.ones(3, 8)
    assert torch.equal(part.eigenvalues(u), part.layer.eigenvalues(part.params, u))


def test_streaming() -> None:
    model, tokens = ssm.Module(MAMBA), _input(MAMBA)
    with torch.no_grad():
        head, state = model(tokens[:, :2], model.initial_state((2,)), return_state=True)
        one, state = model.step(tokens[:, 2], state)
        tail = model(tokens[:, 3:], state)
        assert_close("mamba", torch.cat([head, one[:, None], tail], 1), model(tokens), "float32")


def test_running_statistics_are_those_of_torch() -> None:
    ours, theirs = ssm.BatchNorm(4), torch.nn.BatchNorm1d(4)
    for seed in range(3):
        u = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        y = theirs(u.transpose(1, 2)).transpose(1, 2)
        assert_close("BatchNorm", ours(u).detach(), y.detach(), "float32")
    assert_close("mean", ours.mean, theirs.running_mean, "float32")
    assert_close("var", ours.var, theirs.running_var, "float32")
    before = ours.var.clone()
    y = theirs.eval()(u.transpose(1, 2)).transpose(1, 2)
    assert_close("BatchNorm, eval", ours.eval()(u).detach(), y.detach(), "float32")
    assert torch.equal(ours.var, before)


def test_a_state_and_statistics_at_once() -> None:
    model = ssm.Module(ssmcore.blocks.SSMBlock(ssmcore.LRU(4, d_state=4), norm="batch"))
    y, state = model(torch.ones(2, 3, 4), return_state=True)
    assert y.shape == (2, 3, 4)
    assert set(dict(arrays.leaves(state))) == {"layer.x_lru"}
    assert float(model.norm.var[0].detach()) == pytest.approx(0.9)


def test_the_default_generator_governs_dropout() -> None:
    model, u = ssm.Module(DROPPING), _input(DROPPING)
    torch.manual_seed(1)
    first, second = model(u), model(u)
    torch.manual_seed(1)
    assert torch.equal(model(u), first)
    assert not torch.equal(first, second)
    by_key = model(u, key=5)
    state = torch.get_rng_state()
    assert torch.equal(model(u, key=5), by_key)
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    assert torch.equal(model(u), model(u))
    assert not torch.equal(model(u, key=5), model(u))


def test_copies_are_equal_and_independent() -> None:
    model, u = ssm.Module(DROPPING).eval(), _input(DROPPING)
    y = model(u)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(u), y)
        twin.train()(u)
        assert not torch.equal(twin.eval()(u), y)
    assert torch.equal(model(u), y)


def test_a_tied_head_stays_tied_in_files(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model, other, tokens = ssm.Module(MAMBA), ssm.Module(MAMBA, seed=1), _input(MAMBA)
    safetensors.save_model(model, tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert not [key for key in file.keys() if "head" in key]  # noqa: SIM118
    safetensors.load_model(other, tmp_path / "model.safetensors")
    assert torch.equal(other(tokens), model(tokens))
    # the gradient of the one matrix has both its uses: embedding rows, and every row of the head
    assert _gradients(model, tokens)["embedding.weight"].abs().min() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_param_groups_hold_every_parameter_once(name: str) -> None:
    model = ssm.Module(NETWORKS[name])
    optimizer = torch.optim.AdamW(model.param_groups(lr=0.01), lr=0.01, weight_decay=0.1)
    ids = [id(x) for group in optimizer.param_groups for x in group["params"]]
    assert sorted(ids) == sorted(map(id, model.parameters()))
    wanted = {
        key: group.weight_decay
        for group in model.definition.param_groups()
        for key in group.names
        if key not in model.definition._statistics()
    }
    decayed = {
        id(x) for group in optimizer.param_groups if group["weight_decay"] for x in group["params"]
    }
    assert {key: id(x) in decayed for key, x in model.named_parameters()} == wanted


def _is_product(name: str) -> bool:
    return any(f"{part}." in name for part in ("proj", "linear", "encoder", "head", "embedding"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_half_precision_is_for_weights_of_products(wrapped: bool) -> None:
    model, u = ssm.Module(CLASSIFIER).eval(), _input(CLASSIFIER)
    y = model(u)
    outer = torch.nn.Sequential(model) if wrapped else model
    assert outer.to(torch.bfloat16) is outer
    dtypes = {key: x.dtype for key, x in model.state_dict().items()}
    assert dtypes == {key: torch.bfloat16 if _is_product(key) else torch.float32 for key in dtypes}
    # three products in a row round their weights and inputs to 8 bits: 2^-8 each, twice
    assert 0 < (model(u) - y).abs().max() <= 3 * 2 * 2**-8 * y.abs().max()
    assert {x.dtype for x in outer.double().state_dict().values()} == {torch.float64}
    assert {x.dtype for x in outer.half().state_dict().values()} == {torch.float64, torch.float16}


def test_dt_proj_inside_a_layer_keeps_its_precision() -> None:
    dtypes = {key: x.dtype for key, x in ssm.Module(MAMBA).half().state_dict().items()}
    assert dtypes["layers.0.mixer.ssm.dt_proj.weight"] == torch.float32
    assert dtypes["layers.0.mixer.in_proj.weight"] == torch.float16


def test_autocast_lowers_products_alone() -> None:
    model, tokens = ssm.Module(GRIFFIN), _input(GRIFFIN)
    y = model(tokens)
    groups = model.definition.param_groups()
    loose = {key for group in groups if not group.keep_float32 for key in group.names}
    lowered = {
        key: x.bfloat16() if key in loose and x.ndim == 2 else x
        for key, x in arrays.leaves(model.params)
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(tokens)
        grads = _gradients(model, tokens)
    assert torch.equal(low, model.definition(lowered, tokens))
    assert low.dtype == torch.float32
    assert not torch.equal(low, y)
    assert {x.dtype for x in grads.values()} == {torch.float32}


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_on_the_meta_device(name: str) -> None:
    model, u = ssm.Module(NETWORKS[name]).eval(), _input(NETWORKS[name])
    shape = model(u).shape
    y = model.to("meta")(u.to("meta"))
    assert y.is_meta
    assert y.shape == shape


def test_checkpointing_keeps_less_for_the_same_gradient() -> None:
    model, u = ssm.Module(DROPPING), _input(DROPPING)
    kept, found = {}, {}
    for checkpoint in (False, True):
        sizes: list[int] = []

        def pack(x: Any, sizes: list[int] = sizes) -> Any:
            sizes.append(x.numel())
            return x

        twin = copy.deepcopy(model)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            y = twin(u, key=3, checkpoint=checkpoint)
        y.square().sum().backward()
        kept[checkpoint] = sum(sizes)
        found[checkpoint] = [x.grad for x in twin.parameters()] + list(twin.buffers())
    print(f"numbers kept for the gradient: {kept[False]}, with checkpointing {kept[True]}")
    assert kept[True] < kept[False] / 2
    assert all(torch.equal(a, b) for a, b in zip(found[False], found[True], strict=True))


# array-api-compat caches the class checks that torch.compile traces through, and torch says so.
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.parametrize("name", ["language", "dropping"])
def test_torch_compile_takes_the_whole_graph(name: str) -> None:
    torch._dynamo.reset()
    if name == "language":
        model = ssm.LanguageModel(7, ssm.Residual(ssm.ShortConvolution(4)))
        u, options = torch.tensor([[1, 0, 6]]), {}
    else:
        inner = ssm.ShortConvolution(4)  # compiled as layers are in test_torch_modules.py, faster
        model = ssm.Stack((ssm.SSMBlock(inner, norm="batch", dropout=0.25),))
        u, options = torch.ones(2, 3, 4).cumsum(1), {"key": torch.tensor(3), "checkpoint": True}
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    got, expected = _gradients(compiled, u, **options), _gradients(model, u, **options)
    for key in expected:
        assert_close(f"gradient of {key}", got[f"_orig_mod.{key}"], expected[key], "float32")
    for (key, x), (_, y) in zip(twin.named_buffers(), model.named_buffers(), strict=True):
        assert_close(key, x, y, "float32")


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
def test_export_for_any_batch() -> None:
    model = ssm.SSMBlock(ssm.LRU(4, d_state=4), norm="batch").eval()
    u = torch.ones(2, 3, 4).cumsum(1)
    with torch.no_grad():
        dynamic = ({0: torch.export.Dim("batch", min=2, max=64)},)
        exported = torch.export.export(model, (u,), dynamic_shapes=dynamic).module()
        more = torch.cat([u, 2 * u, u])
        assert_close("block", exported(more), model(more), "float32")


def test_initial_parameters_survive_the_initialisers_of_frameworks() -> None:
    own = ssm.Module(MAMBA)
    net = torch.nn.ModuleDict({"ours": own, "theirs": torch.nn.Linear(2, 2)})
    before = copy.deepcopy(net.state_dict())

    def reset(module: Any) -> None:
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding | torch.nn.LayerNorm):
            torch.nn.init.zeros_(module.weight)
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    net.apply(reset)
    for key, x in net.state_dict().items():
        assert torch.equal(x, before[key]) == key.startswith("ours"), key


def test_inside_the_users_own_modules() -> None:
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 8),
        ssm.Stack((ssm.SSMBlock(ssm.LRU(8, d_state=4), dropout=0.1), ssm.Residual(ssm.Mamba(8)))),
        torch.nn.Linear(8, 1),
    )
    assert "1.0.layer.nu_log" in net.state_dict()
    u = torch.ones(2, 9, 3)
    net(u).sum().backward()
    assert all(x.grad is not None for x in net.parameters())
    assert torch.equal(net.eval()(u), net(u))
    assert "(mixer): Mamba(" in repr(net)


def test_what_does_not_fit() -> None:
    with pytest.raises(ssm.SSMError, match=r"ssmcore_torch\.Module: definition is 3; expected a"):
        ssm.Module(3)
    with pytest.raises(ssm.SSMError, match=r"ssmcore_torch\.Layer: layer is Mamba\(.*a layer of"):
        ssm.Layer(blocks.Mamba(4))
    model = ssm.SSMBlock(ssm.S5(4, d_state=4))
    with pytest.raises(ssm.SSMError, match=r"training is what train\(\) and eval\(\) say"):
        model(torch.ones(3, 4), training=True)
    with pytest.raises(ssm.SSMError, match=r"option is 'kee'.*did you mean 'key'"):
        model(torch.ones(3, 4), kee=1)
    with pytest.raises(ssm.SSMError, match="parameters of another layer"):
        ssm.Module(MAMBA, CLASSIFIER.init(0))


@pytest.mark.parametrize("name", ["LRU", "S6"])
def test_a_layer_is_the_same_within_a_block(name: str) -> None:
    layer = EVERY[name]
    options = {field: getattr(layer, field) for field in inspect.signature(type(layer)).parameters}
    alone = getattr(ssm, name)(**options, seed=4)
    block = ssm.Module(
        blocks.SSMBlock(layer, norm="none", activation="identity", glu="none"),
        {"layer": alone.params},
    )
    u = torch.ones(3, 4)
    assert torch.equal(block(u), u + alone(u))
