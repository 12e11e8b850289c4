"""Sequence classification: an encoder, a stack of any blocks, masked pooling, a head.

Gu, Goel, Re, "Efficiently modeling long sequences with structured state spaces", 2022; the head for
two documents is that of Tay et al., "Long range arena", 2021, as in S5's code.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ssmcore import arrays, engine
from ssmcore._arguments import check_count
from ssmcore._options import checked_arguments, hyperparameters
from ssmcore.blocks.activations import activate
from ssmcore.blocks.linear import Embedding, Linear
from ssmcore.blocks.norms import norm_named
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import SSMError, check_choice
from ssmcore.module import Module
from ssmcore.networks.base import Network, check_blocks, stacked
from ssmcore.networks.padding import turned
from ssmcore.networks.pooling import Pool
from ssmcore.primitives._checks import check_array, check_shape
from ssmcore.typing import Array, Params, State

__all__ = ["SequenceClassifier"]


@hyperparameters
class SequenceClassifier(Network):
    """logits = head(pool(norm(layers(encoder(u))))).

    Parts: encoder, layers ("0", "1", ...), norm, pool (no parameters), with two documents pair,
    head. State: {"layers": ..., "pool": {"total": (H,), "count": ()}}.

    Attributes
    ----------
    d_input : int
        Channels of the input, or the vocabulary.
    classes : int
    block : Module, or tuple of Module
        Layer i is block i mod their number.
    n_layers : int
    encoder : "linear" or "embedding"
        For u (..., L, d_input), or for tokens (..., L).
    norm : Module, or "layer", "batch", "rms" or "none"
        After the last layer.
    pooling : "mean", "max", "last" or "none"
        Over the steps that are not padding; "none": an answer at every step.
    documents : 1 or 2
        2: two sequences on an axis before that of time, pooled to a and b; then
        head(gelu(pair([a, b, a - b, a b]))).

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> from ssmcore.blocks import SSMBlock
    >>> model = ssm.networks.SequenceClassifier(1, 10, SSMBlock(ssm.S4D(4)), n_layers=2)
    >>> model(model.init(0), np.ones((5, 16, 1), "float32")).shape
    (5, 10)
    """

    d_input: int
    classes: int
    block: Module | tuple[Module, ...]
    n_layers: int = 1
    encoder: str = "linear"
    norm: Module | str = "layer"
    pooling: str = "mean"
    documents: int = 1

    POOLINGS: ClassVar = (*Pool.KINDS, "none")

    def _check_options(self) -> None:
        check_count(self.name, d_input=self.d_input, classes=self.classes)
        check_blocks(self.name, self.block, self.n_layers)
        check_choice(self.name, "encoder", self.encoder, ("linear", "embedding"))
        check_choice(self.name, "pooling", self.pooling, self.POOLINGS)
        if self.documents not in (1, 2):
            msg = f"{self.name}: documents is {self.documents!r}; expected 1 or 2"
            raise SSMError(msg)
        if self.documents == 2 and self.pooling == "none":
            msg = f"{self.name}: pooling is 'none' with two documents; expected 'mean'"
            raise SSMError(msg)

    @property
    def d_model(self) -> int:
        """Channels H between the layers."""
        first = self.block[0] if isinstance(self.block, tuple) else self.block
        return first._d_input

    @property
    def _d_input(self) -> int:
        return self.d_input

    @property
    def _vocabulary(self) -> int:
        return self.d_input

    @property
    def d_output(self) -> int:
        """Number of classes."""
        return self.classes

    @property
    def tokens(self) -> bool:
        """Whether the input is integer tokens (..., L)."""
        return self.encoder == "embedding"

    def _compose(self) -> dict[str, Composed]:
        H = self.d_model
        norm = norm_named(self.name, self.norm, H)
        table = Embedding(self.d_input, H, std=1.0)
        parts: dict[str, Composed] = {"encoder": table if self.tokens else Linear(self.d_input, H)}
        parts["layers"] = stacked(self.block, self.n_layers)
        if norm is not None:
            parts["norm"] = norm
        if self.pooling != "none":
            parts["pool"] = Pool(H, self.pooling)
        if self.documents == 2:
            parts["pair"] = Linear(4 * H, H)
        parts["head"] = Linear(H, self.classes)
        return parts

    @checked_arguments
    def __call__(
        self,
        params: Params,
        u: Array,
        state: State | None = None,
        *,
        mode: str = "auto",
        reset: Array | None = None,
        lengths: Array | None = None,
        padding: str = "right",
        return_state: bool = False,
        training: bool = False,
        key: Any = None,
    ) -> Any:
        """Run the classifier over sequences.

        Parameters
        ----------
        params : nested dict of real arrays, or flat with dotted names
        u : (..., L, d_input), dtype of the parameters, or float16 / bfloat16; or tokens (..., L);
            with two documents (..., 2, L, d_input) or (..., 2, L)
        state : as from ``initial_state`` or an earlier call; None means fresh sequences
        mode : "auto", "recurrence", "scan" or "convolution", for the layers inside
        reset : (..., L) bool, with pooling "none" only; a new document begins at that step
        lengths : (...,) integer, 0..L; the steps of each row that are not padding
        padding : "right" or "left", the side padding is on
        return_state : also return the state after the last step that is not padding
        training : BatchNorm takes the batch's statistics; also return the new running ones
        key : integer or integer array () or (2,), the randomness of dropout; None drops nothing

        Returns
        -------
        logits (..., classes) for all steps so far, or (..., L, classes), 0 in padding; or a tuple
        logits[, state][, statistics].

        Raises
        ------
        SSMError
            Anything that does not fit, before any work.
        """
        if reset is not None and self.pooling != "none":
            msg = (
                f"{self.name}: reset with pooling {self.pooling!r}, which would mix documents; "
                "expected one document a row, or pooling='none'"
            )
            raise SSMError(msg)
        options = {"mode": mode, "reset": reset, "lengths": lengths, "return_state": return_state}
        options |= {"training": training, "key": key}
        params, u, how = self._prepared(params, u, state, padding, options)
        y, after = self._apply(params, u, state, how)
        if self.pooling == "none":
            y = engine.hide_padding(y, how.valid)
            y = turned(y, self._row_lengths(how), -2, back=True) if padding == "left" else y
        return self._answer(y, after, how)

    @checked_arguments
    def step(self, params: Params, u: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step: u (..., d_input), or tokens (...), to (logits for all so far, state)."""
        check_array(self.name, "u", u)
        check_shape(self.name, "u", u, "(..., d_input)", self.tokens or u.ndim >= 1)
        u = u[..., None] if self.tokens else u[..., None, :]
        params = self._check_params(params, values=False)
        how = self._checked_pass(params, u, state, "recurrence", None, None, True)
        y, after = self._apply(params, self._hidden(u, how), state, how)
        return (y[..., 0, :] if self.pooling == "none" else y), after or {}

    def _check_input(self, params: Params, u: Array) -> None:
        super()._check_input(params, u)
        axis = -2 if self.tokens else -3
        if self.documents == 2:
            fits = u.ndim >= -axis and u.shape[axis] == 2
            expected = "(..., 2, L)" if self.tokens else "(..., 2, L, d_input)"
            check_shape(self.name, "u", u, expected, fits)

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp = arrays.namespace(u)
        run = Running(self, params, state, how)
        x = run("encoder", u)
        x = xp.astype(x, how.dtype, copy=False) if self.tokens else x
        x = run.optional("pool", run.optional("norm", run("layers", x)))
        if self.documents == 2:
            a, b = x[..., 0, :], x[..., 1, :]
            pair = xp.concat((a, b, a - b, a * b), axis=-1)
            x = activate("gelu", run("pair", pair))
        return run("head", x), run.after
