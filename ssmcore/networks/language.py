"""Language models: tokens to logits, through a stack of any blocks.

Gu, Dao, "Mamba", 2023; De et al., "Griffin", 2024.
"""

from __future__ import annotations

from typing import Any

from ssmcore import arrays, engine
from ssmcore._arguments import check_count, check_flag, check_number, check_positive
from ssmcore._options import checked_arguments, hyperparameters
from ssmcore.blocks.linear import Embedding, Linear, product
from ssmcore.blocks.norms import norm_named
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import check_choice
from ssmcore.module import Module
from ssmcore.networks.base import Network, check_blocks, stacked
from ssmcore.networks.padding import last_valid, turned
from ssmcore.primitives._checks import check_array
from ssmcore.typing import Array, Params, State

__all__ = ["LanguageModel"]


@hyperparameters
class LanguageModel(Network):
    """logits = head(norm(layers(scale embedding(tokens)))), with c tanh(logits / c) where capped.

    Parts: embedding, layers ("0", "1", ...), norm, and without ``tied`` head. State:
    {"layers": ...}.

    Attributes
    ----------
    vocab : int
        Number of tokens.
    block : Module, or tuple of Module
        Layer i is block i mod their number.
    n_layers : int
    norm : Module, or "rms", "layer" or "none"
        After the last layer.
    tied : bool
        The head is the embedding.
    embedding_scale : float
        sqrt(H) in Griffin.
    embedding_std : float
        Standard deviation of the initial embedding.
    soft_cap : float or None
        c.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> from ssmcore.blocks import Mamba, Residual
    >>> model = ssm.networks.LanguageModel(10, Residual(Mamba(4)), n_layers=2)
    >>> params = model.init(0)
    >>> tokens = np.asarray([[1, 2, 3]])
    >>> model(params, tokens).shape, model(params, tokens, logits="last").shape
    ((1, 3, 10), (1, 10))
    """

    vocab: int
    block: Module | tuple[Module, ...]
    n_layers: int = 1
    norm: Module | str = "rms"
    tied: bool = True
    embedding_scale: float = 1.0
    embedding_std: float = 0.02
    soft_cap: float | None = None

    TOKENS = True

    def _check_options(self) -> None:
        check_count(self.name, vocab=self.vocab)
        check_blocks(self.name, self.block, self.n_layers)
        check_flag(self.name, tied=self.tied)
        check_number(self.name, embedding_scale=self.embedding_scale)
        if self.soft_cap is not None:
            check_positive(self.name, soft_cap=self.soft_cap)

    @property
    def d_model(self) -> int:
        """Channels H between the layers."""
        first = self.block[0] if isinstance(self.block, tuple) else self.block
        return first._d_input

    @property
    def _vocabulary(self) -> int:
        return self.vocab

    @property
    def d_output(self) -> int:
        """Number of logits."""
        return self.vocab

    def _compose(self) -> dict[str, Composed]:
        H = self.d_model
        table = Embedding(self.vocab, H, self.embedding_scale, self.embedding_std)
        norm = norm_named(self.name, self.norm, H)
        parts: dict[str, Composed] = {"embedding": table}
        parts["layers"] = stacked(self.block, self.n_layers)
        if norm is not None:
            parts["norm"] = norm
        if not self.tied:
            parts["head"] = Linear(H, self.vocab, bias=False)
        return parts

    @checked_arguments
    def __call__(
        self,
        params: Params,
        tokens: Array,
        state: State | None = None,
        *,
        mode: str = "auto",
        reset: Array | None = None,
        lengths: Array | None = None,
        padding: str = "right",
        logits: str = "all",
        return_state: bool = False,
        training: bool = False,
        key: Any = None,
    ) -> Any:
        """Run the model over token sequences.

        Parameters
        ----------
        params : nested dict of real arrays, or flat with dotted names
        tokens : (..., L) integers below ``vocab``
        state : as from ``initial_state`` or an earlier call; None means fresh sequences
        mode : "auto", "recurrence", "scan" or "convolution", for the layers inside
        reset : (..., L) bool; a new document begins at that step, and nothing crosses
        lengths : (...,) integer, 0..L; the steps of each row that are not padding
        padding : "right" or "left", the side padding is on
        logits : "all", or "last" for those of the last step that is not padding alone
        return_state : also return the state after the last step that is not padding
        training : BatchNorm takes the batch's statistics; also return the new running ones
        key : integer or integer array () or (2,), the randomness of dropout; None drops nothing

        Returns
        -------
        logits (..., L, vocab), 0 in padding, or (..., vocab), in the dtype of the states; or a
        tuple logits[, state][, statistics].

        Raises
        ------
        SSMError
            Anything that does not fit, before any work.
        """
        check_choice(self.name, "logits", logits, ("all", "last"))
        options = {"mode": mode, "reset": reset, "lengths": lengths, "return_state": return_state}
        options |= {"training": training, "key": key}
        params, u, how = self._prepared(params, tokens, state, padding, options)
        x, after = self._features(params, u, state, how)
        if logits == "last":
            y = self._logits(params, last_valid(x, how.lengths))
            if how.lengths is not None:
                y = engine.hide_padding(y, how.lengths > 0)
        else:
            y = engine.hide_padding(self._logits(params, x), how.valid)
            y = turned(y, self._row_lengths(how), -2, back=True) if padding == "left" else y
        return self._answer(y, after, how)

    @checked_arguments
    def step(self, params: Params, u: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step: tokens (...) to (logits (..., vocab), state). O(1) in the length."""
        check_array(self.name, "tokens", u)
        u = u[..., None]
        params = self._check_params(params, values=False)
        how = self._checked_pass(params, u, state, "recurrence", None, None, True)
        y, after = self._apply(params, self._hidden(u, how), state, how)
        return y[..., 0, :], after or {}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        x, after = self._features(params, u, state, how)
        return self._logits(params, x), after

    def _features(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        """Return what the head reads, (..., L, H) in the dtype of the states."""
        run = Running(self, params, state, how)
        x = arrays.namespace(u).astype(run("embedding", u), how.dtype, copy=False)
        return run.optional("norm", run("layers", x)), run.after

    def _logits(self, params: Params, x: Array) -> Array:
        """Return the logits of features (..., H)."""
        y = product(x, params["embedding" if self.tied else "head"]["weight"])
        if self.soft_cap is None:
            return y
        return self.soft_cap * arrays.namespace(y).tanh(y / self.soft_cap)
