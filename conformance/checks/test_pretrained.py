"""Checkpoint folders: the originals' logits, every layout back and forth, precisions, devices."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks.pretrained_cases import (
    GRIFFIN,
    INDEX,
    MAMBA,
    WEIGHTS,
    copy,
    dtypes,
    edit,
    io,
    shard,
    tiny_mamba,
)
from safetensors.numpy import load_file

import ssmcore as ssm
from ssmcore import backend, blocks, checkpoints, networks
from ssmcore.arrays import leaves
from ssmcore.checkpoints import load_pretrained, save_pretrained
from ssmcore.checkpoints.tensors import from_bits, to_bits

LIBRARIES = [n for n in ("numpy", "torch", "jax") if n in backend.available()]
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}
"""Of the peak: what is promised; the originals' own modes differ by 8e-7 and 2e-15."""


def peak_error(found: Any, expected: np.ndarray) -> float:
    return float(np.abs(ssm.to_numpy(found) - expected).max() / np.abs(expected).max())


def assert_same(found: Any, expected: Any) -> None:
    one, two = dict(leaves(ssm.to_numpy(found))), dict(leaves(ssm.to_numpy(expected)))
    assert set(one) == set(two)
    for name in two:
        assert one[name].dtype == two[name].dtype, name
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


# -------------------------------------------------------------------------------- the originals


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("folder", [MAMBA, GRIFFIN], ids=lambda f: f.name)
def test_logits_of_transformers(folder: Path, library: str, dtype: str) -> None:
    if dtype == "float64":
        backend.load(library).enable_float64()
    given = io(folder)
    model, params = load_pretrained(folder, backend=library, dtype=dtype)
    assert {backend.of(x).name for _, x in leaves(params)} == {library}
    tokens = ssm.move(given["input_ids"].astype(np.int32), backend=library)
    expected = given["f32/logits" if dtype == "float32" else "f64/logits"]
    logits = backend.load(library).compile(lambda params, tokens: model(params, tokens))
    assert peak_error(logits(params, tokens), expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("folder", [MAMBA, GRIFFIN], ids=lambda f: f.name)
def test_token_by_token(folder: Path) -> None:
    given = io(folder)
    model, params = load_pretrained(folder, dtype="float64")
    state, found = None, []
    for t in range(given["input_ids"].shape[1]):
        y, state = model.step(params, given["input_ids"][:, t], state)
        found.append(y)
    assert peak_error(np.stack(found, axis=1), given["f64/logits_step"]) <= TOLERANCE["float64"]


VARIED: dict[str, tuple[str, dict[str, Any]]] = {
    "bias": ("mamba", {"use_bias": True, "use_conv_bias": False, "state_size": 5}),
    "untied": ("mamba", {"tie_word_embeddings": False, "expand": 3, "conv_kernel": 2}),
    "rank": ("mamba", {"time_step_rank": 3, "layer_norm_epsilon": 1e-2}),
    "attention first": ("gemma", {"block_types": ["attention", "recurrent"], "head_dim": 4}),
    "hawk": ("gemma", {"block_types": ["recurrent"], "lru_width": 24, "conv1d_width": 2}),
    "heads": ("gemma", {"num_key_value_heads": None, "attention_bias": True}),
    "rope": ("gemma", {"rope_theta": 50.0, "partial_rotary_factor": 1.0, "logits_soft_cap": 2.0}),
    "silu": ("gemma", {"hidden_activation": "silu", "tie_word_embeddings": False}),
    "gelu": ("gemma", {"hidden_activation": "gelu", "rms_norm_eps": 1e-2}),
}


@pytest.mark.parametrize("case", VARIED)
def test_other_models_of_transformers(case: str, tmp_path: Path) -> None:
    """Random models: their logits, and transformers reads back what we write, bit for bit."""
    transformers = pytest.importorskip("transformers")
    import torch

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind, options = VARIED[case]
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    torch.manual_seed(3)
    if kind == "mamba":
        base: dict[str, Any] = {"state_size": 4, "initializer_range": 0.5}
        make, config = transformers.MambaForCausalLM, transformers.MambaConfig
    else:
        base = {"num_attention_heads": 2, "num_key_value_heads": 1, "attention_window_size": 4}
        base |= {"intermediate_size": 32, "lru_width": 16}
        make, config = transformers.RecurrentGemmaForCausalLM, transformers.RecurrentGemmaConfig
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 3}
    theirs = make(config(**sizes | base | ends | options)).eval()
    with torch.no_grad():
        for x in theirs.parameters():  # biases and norms off their initial values
            x.add_(0.1 * torch.randn(x.shape))
        tokens = torch.tensor(np.random.default_rng(0).integers(0, 30, (2, 11)))
        expected = theirs(tokens, use_cache=False).logits.numpy()
        theirs.save_pretrained(tmp_path / "theirs")
        model, params = load_pretrained(tmp_path / "theirs")
        assert peak_error(model(params, tokens.numpy()), expected) <= TOLERANCE["float32"]
        save_pretrained(tmp_path / "ours", model, params, layout="transformers")
        again, said = make.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not any(said.values()), said
        found = again.eval()(tokens, use_cache=False).logits.numpy()
    np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------------------------- the layouts


@pytest.mark.parametrize("layout", ["ssmcore", "transformers", "mamba_ssm"])
@pytest.mark.parametrize("folder", [MAMBA, GRIFFIN], ids=lambda f: f.name)
def test_there_and_back(folder: Path, layout: str, tmp_path: Path) -> None:
    model, params = load_pretrained(folder)
    if layout == "mamba_ssm" and folder == GRIFFIN:
        with pytest.raises(ssm.SSMError, match="layout of mamba_ssm cannot say this model"):
            save_pretrained(tmp_path / "out", model, params, layout=layout)
        assert not (tmp_path / "out" / WEIGHTS).exists()
        return
    save_pretrained(tmp_path, model, params, layout=layout)
    again, found = load_pretrained(tmp_path)
    assert_same(found, params)
    tokens = np.asarray([[1, 2, 3, 4]])
    np.testing.assert_array_equal(again(found, tokens), model(params, tokens))
    if layout == "ssmcore":
        assert again == model
    if layout == "transformers":
        theirs, ours = load_file(folder / WEIGHTS), load_file(tmp_path / WEIGHTS)
        assert_same(ours, theirs)


def test_names_of_mamba_ssm(tmp_path: Path) -> None:
    _, params = tiny_mamba(tmp_path, "mamba_ssm", bias=True, d_conv=3)
    found = load_file(tmp_path / WEIGHTS)
    np.testing.assert_array_equal(
        found["backbone.layers.1.mixer.conv1d.weight"][:, 0, :].T,
        params["layers"]["1"]["mixer"]["conv"]["weight"],
    )
    assert {"backbone.embedding.weight", "backbone.norm_f.weight"} <= set(found)
    # its load_state_dict asks for every name, also for the second one of a tied matrix
    np.testing.assert_array_equal(found["lm_head.weight"], found["backbone.embedding.weight"])
    assert len(found) == 1 + len(list(leaves(params)))
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"vocab_size": 9, "pad_vocab_size_multiple": 11, "ssm_cfg": config["ssm_cfg"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    edit(tmp_path, lm_head__weight=None)  # as safetensors.torch.save_model leaves it out
    again, weights = load_pretrained(tmp_path)
    assert again.shapes()["embedding"]["weight"][0] == 11
    assert_same(weights, params)


def test_layer_norms_of_mamba_ssm(tmp_path: Path) -> None:
    norm = blocks.LayerNorm(8)
    block = blocks.Residual(blocks.Mamba(8, d_state=2), norm=norm)
    model = networks.LanguageModel(8, block, 2, norm=norm, tied=False)
    save_pretrained(tmp_path, model, model.init(0), layout="mamba_ssm")
    again, params = load_pretrained(tmp_path)
    assert_same(params, model.init(0))
    assert isinstance(again.parts()["norm"], blocks.LayerNorm)
    with pytest.raises(ssm.SSMError, match="layout of mamba cannot say this model"):
        save_pretrained(tmp_path / "other", model, params, layout="transformers")


def test_base_model_and_published_fields(tmp_path: Path) -> None:
    """A base model's names lack the prefix; published conversions kept mamba_ssm's fields."""
    kept = {"d_model": 32, "d_inner": 64, "n_layer": 3, "rms_norm": True, "ssm_cfg": {}}
    copy(MAMBA, tmp_path, **kept, fused_add_norm=True, pad_vocab_size_multiple=8)
    given = load_file(tmp_path / WEIGHTS)
    bare = {name.removeprefix("backbone."): None for name in given}
    edit(tmp_path, **{n.replace(".", "__"): None for n in given})
    edit(tmp_path, **{n.replace(".", "__"): given["backbone." + n] for n in bare})
    assert_same(load_pretrained(tmp_path)[1], load_pretrained(MAMBA)[1])


MODULES: list[Any] = [
    ssm.Bidirectional.of(ssm.S5(4, d_state=8), share="dynamics"),
    blocks.SSMBlock(ssm.S4D(4, d_state=4), norm="batch", glu="half_glu1"),
    blocks.Stack((blocks.H3(4, d_state=4, taps=3), blocks.Residual(ssm.RGLRU(4), norm="layer"))),
    networks.SequenceClassifier(2, 3, blocks.SSMBlock(ssm.LRU(4, d_state=4)), pooling="last"),
    networks.griffin(9, 8, 3, heads=2, window=3),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)
def test_any_module_in_our_own_format(module: Any, tmp_path: Path) -> None:
    params = module.init(2, dtype="float64")
    for path in (tmp_path / "folder", tmp_path / "file.safetensors"):
        save_pretrained(path, module, params)
        again, found = load_pretrained(path)
        assert again == module
        assert_same(found, params)
    config = checkpoints.module_config(module)
    assert checkpoints.module_from_config(json.loads(json.dumps(config))) == module


def test_shards(tmp_path: Path) -> None:
    shard(copy(GRIFFIN, tmp_path))
    model, params = load_pretrained(tmp_path)
    assert_same(params, load_pretrained(GRIFFIN)[1])
    save_pretrained(tmp_path, model, params, layout="transformers")
    assert not (tmp_path / INDEX).exists()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["config.json", WEIGHTS]


def test_special_tokens(tmp_path: Path) -> None:
    copy(MAMBA, tmp_path / "in", eos_token_id=7, bos_token_id=1)
    (tmp_path / "in" / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    tokens = checkpoints.special_tokens(tmp_path / "in")
    assert tokens == {"bos_token_id": 1, "eos_token_id": [7, 9]}
    model, params = load_pretrained(tmp_path / "in")
    out = tmp_path / "out"
    save_pretrained(out, model, params, layout="transformers", special_tokens=tokens)
    save_pretrained(out, model, params, layout="transformers")
    assert checkpoints.special_tokens(out) == tokens
    assert json.loads((out / "config.json").read_text())["pad_token_id"] is None


@pytest.mark.parametrize("layout", ["ssmcore", "transformers"])
def test_what_a_generation_config_says_besides_is_kept(layout: str, tmp_path: Path) -> None:
    model, params = load_pretrained(MAMBA)
    file = tmp_path / "generation_config.json"
    file.write_text('{"eos_token_id": 7, "bos_token_id": 1, "max_length": 9}')
    save_pretrained(tmp_path, model, params, layout=layout, special_tokens={"eos_token_id": 8})
    assert json.loads(file.read_text()) == {"eos_token_id": 8, "bos_token_id": 1, "max_length": 9}
    save_pretrained(tmp_path, model, params, layout=layout)
    assert json.loads(file.read_text())["max_length"] == 9


def test_a_generation_config_that_is_broken_is_found_before_the_work(tmp_path: Path) -> None:
    model, params = load_pretrained(MAMBA)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ssm.SSMError, match=r"generation_config.json' is not JSON"):
        save_pretrained(tmp_path, model, params, special_tokens={"eos_token_id": 8})
    assert not (tmp_path / WEIGHTS).exists()


def test_lru_of_its_original() -> None:
    layer = ssm.LRU(3, d_state=4)
    params = layer.init(1, dtype="float64")
    theirs = {k: v for k, v in params.items() if k not in "BC"}
    theirs |= {f"{k}_re": params[k][..., 0] for k in "BC"}
    theirs |= {f"{k}_im": params[k][..., 1] for k in "BC"}
    reading = checkpoints.read_lru({"seq": theirs}, prefix="seq")
    assert_same(reading.params, params)
    u = np.random.default_rng(0).standard_normal((5, 3))
    lam = np.exp(-np.exp(theirs["nu_log"]) + 1j * np.exp(theirs["theta_log"]))
    x, y = np.zeros(4, complex), []
    for step in u:  # the original's lines
        x = lam * x + np.exp(theirs["gamma_log"]) * ((theirs["B_re"] + 1j * theirs["B_im"]) @ step)
        y.append(((theirs["C_re"] + 1j * theirs["C_im"]) @ x).real + theirs["D"] * step)
    assert peak_error(reading.layer()(reading.params, u), np.stack(y)) <= 1e-14


# ----------------------------------------------------------------------------------- precisions


def test_bits_of_bfloat16() -> None:
    """Every bfloat16 number comes back; what lies between goes to the nearest, ties to even."""
    bits = np.arange(2**16, dtype=np.uint16)
    finite = bits[(bits & 0x7F80) != 0x7F80]
    np.testing.assert_array_equal(to_bits(from_bits(finite)), finite)
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    near = from_bits(to_bits(x))
    assert (np.abs(near - x) <= 2.0**-8 * np.abs(x) * 0.5 * (1 + 2.0**-8) * 2).all()
    if importlib.util.find_spec("torch"):
        import torch

        theirs = torch.tensor(x).to(torch.bfloat16).float().numpy()
        np.testing.assert_array_equal(near, theirs)


@pytest.mark.parametrize("library", LIBRARIES)
def test_half_precision(library: str, tmp_path: Path) -> None:
    model, params = tiny_mamba(tmp_path / "wide")
    save_pretrained(tmp_path, model, params, layout="transformers", dtype="bfloat16")
    stored = dtypes(tmp_path / WEIGHTS)
    assert stored["backbone.embeddings.weight"] == "BF16"
    assert stored["backbone.layers.0.mixer.A_log"] == "F32"
    assert checkpoints.stored_dtype(tmp_path) == "bfloat16"
    _, wide = load_pretrained(tmp_path, backend=library)
    for name, x in leaves(ssm.to_numpy(wide)):
        exact = dict(leaves(params))[name]
        half = stored["backbone.embeddings.weight"] and name in model._loose()
        np.testing.assert_array_equal(x, from_bits(to_bits(exact)) if half else exact)
    if library == "numpy":
        with pytest.raises(ssm.SSMError, match="no dtype 'bfloat16'"):
            load_pretrained(tmp_path, backend=library, dtype="bfloat16")
        return
    _, narrow = load_pretrained(tmp_path, backend=library, dtype="bfloat16")
    kinds = {name: backend.dtype_name(x) for name, x in leaves(narrow)}
    assert kinds["embedding.weight"] == "bfloat16"
    assert kinds["layers.0.mixer.ssm.A_log"] == "float32"
    save_pretrained(tmp_path / "again", model, narrow, layout="transformers")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / WEIGHTS).read_bytes()


def test_only_one_tensor_lies_on_the_host(tmp_path: Path, monkeypatch: Any) -> None:
    """Weights are read one by one: a tensor is asked for after the one before has moved."""
    pretrained: Any = importlib.import_module("ssmcore.checkpoints.pretrained")
    events: list[str] = []
    read, transfer = pretrained.read, pretrained.transfer
    monkeypatch.setattr(pretrained, "read", lambda s: (events.append("read"), read(s))[1])
    monkeypatch.setattr(
        pretrained, "transfer", lambda *a: (events.append("moved"), transfer(*a))[1]
    )
    load_pretrained(MAMBA)
    assert events == ["read", "moved"] * (len(events) // 2)
