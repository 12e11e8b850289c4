"""Rows of a whole language model: Mamba of 130M parameters, prompt and single tokens.

Random weights, written by ``save_pretrained`` and read by transformers; logits are compared first.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks.libraries import Library, library
from benchmarks.peers import need
from benchmarks.work import Bar, Numbers, Peer, Row, Work
from ssmcore import networks
from ssmcore.arrays import leaves
from ssmcore.checkpoints import save_pretrained

__all__ = ["ROWS", "work"]

SIZES = (50280, 768, 24)  # vocabulary, width, layers
QUICK = (64, 16, 2)
PROMPT, BEFORE = 512, 8  # tokens of the prompt; tokens before the one that is decoded
HALF = 0.05  # of the logits, with weights and products of 8 bits
TOLERANCE = {"float32": 2e-5, "bfloat16": HALF}


@functools.lru_cache(maxsize=1)
def model_of(sizes: tuple[int, int, int]) -> tuple[Any, Any, Numbers]:
    """Return the model, its parameters and a prompt, in NumPy."""
    model = networks.mamba(*sizes)
    tokens = np.random.default_rng(1).integers(0, sizes[0], (1, PROMPT))
    return model, model.init(0), tokens.astype(np.int32)


def ours(lib: Library, model: Any, params: Any, tokens: Numbers, decode: bool) -> Callable[[], Any]:
    """Return the call: logits after the prompt, or after one more token."""
    (given,) = lib.arrays([tokens])
    if not decode:
        return lib.forward(lambda p, t: model(p, t, logits="last"), [params, given])
    head, last = given[:, :BEFORE], given[:, BEFORE]
    state = model(params, head, logits="last", return_state=True)[1]
    return lib.forward(lambda p, t, s: model.step(p, t, s)[0], [params, last, state])


def transformers_call(model: Any, params: Any, tokens: Numbers, decode: bool) -> Callable[[], Any]:
    """Return the same call of transformers, its cache advancing in place."""
    transformers, torch = need("transformers"), need("torch")
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(folder, model, params, layout="transformers")
        theirs = transformers.MambaForCausalLM.from_pretrained(folder, dtype="float32").eval()
    given = torch.tensor(tokens, dtype=torch.int64)

    def prompt() -> Any:
        with torch.no_grad():
            return theirs(given, logits_to_keep=1).logits[:, -1]

    if not decode:
        return prompt
    with torch.no_grad():
        cache = theirs(given[:, :BEFORE], use_cache=True).cache_params

    def step() -> Any:
        with torch.no_grad():
            one = given[:, BEFORE : BEFORE + 1]
            return theirs(one, cache_params=cache, use_cache=True).logits[:, -1]

    return step


def products(params: Any, steps: int) -> dict[str, Callable[[], Any]]:
    """Every matrix product of the model and nothing else, the head for one step."""
    torch = need("torch")
    pairs = []
    for name, x in leaves(params):
        if name.endswith(("proj.weight", "x_proj", "embedding.weight")):
            rows = 1 if name == "embedding.weight" else steps
            pairs.append((torch.ones(rows, x.shape[1]), torch.tensor(x)))

    def call() -> None:
        for x, w in pairs:
            torch.nn.functional.linear(x, w)

    return {"products": call}


def work(name: str, decode: bool, dtype: str, quick: bool) -> Work:
    """Return the prompt, or one token after a few, beside transformers on torch."""
    lib, torch = library(name), library("torch")
    model, params, tokens = model_of(QUICK if quick else SIZES)
    here = ssm.move(params, backend=lib.owner.name, device=lib.device)
    if dtype == "bfloat16":
        loose, xp = model._loose(), lib.owner.xp
        pairs = [(n, xp.astype(x, xp.bfloat16) if n in loose else x) for n, x in leaves(here)]
        here = dict(pairs)

    def exact() -> list[Numbers]:
        wide = ssm.move(params, backend="torch", dtype="float64")
        return torch.numpy(ours(torch, model, wide, tokens, decode)())

    peer = Peer(lambda: transformers_call(model, params, tokens, decode), torch.numpy)
    return Work(
        ours=ours(lib, model, here, tokens, decode),
        numpy=lib.numpy,
        exact=exact,
        tolerances=[TOLERANCE[dtype]],
        floors=products(params, 1 if decode else PROMPT),
        peers={"transformers": peer},
    )


def _row(name: str, lib: str, decode: bool, dtype: str, faster: float | None) -> Row:
    bar = Bar("error", HALF) if faster is None else Bar("faster", faster, ("transformers",))
    what = "one token" if decode else f"a prompt of {PROMPT} tokens"
    return Row(
        name,
        f"Mamba 130M, {what}, {dtype} weights",
        lib,
        lambda quick: work(lib, decode, dtype, quick),
        (bar,),
    )


ROWS = [
    _row("mamba_130m_prompt_torch", "torch", False, "float32", 4.5),
    _row("mamba_130m_token_torch", "torch", True, "float32", 1.5),
    _row("mamba_130m_token_jax", "jax", True, "float32", 1.5),
    _row("mamba_130m_token_torch_bfloat16", "torch", True, "bfloat16", None),
]
