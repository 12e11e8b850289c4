"""What all blocks share: one call, checked once."""

from __future__ import annotations

from typing import Any

from ssmcore import engine
from ssmcore._options import checked_arguments, hyperparameters
from ssmcore.module import Module
from ssmcore.typing import Array, Params, State

__all__ = ["Block"]


@hyperparameters
class Block(Module):
    """A map from sequences to sequences around, or without, a layer."""

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
        return_state: bool = False,
        training: bool = False,
        key: Any = None,
    ) -> Any:
        """Run the module over a sequence.

        Parameters
        ----------
        params : nested dict of real arrays, or flat with dotted names; float32 or float64
        u : (..., L, H), dtype of the parameters, or float16 / bfloat16; or tokens (..., L)
        state : as from ``initial_state`` or an earlier call; None means fresh sequences
        mode : "auto", "recurrence", "scan" or "convolution", for the layers inside
        reset : (..., L) bool; a new document begins at that step, and nothing crosses
        lengths : (...,) integer, 0..L; steps beyond are padding: output 0, no effect at all
        return_state : also return the state after the last step that is not padding
        training : BatchNorm takes the batch's statistics; also return the new running ones
        key : integer or integer array () or (2,), the randomness of dropout; None drops nothing

        Returns
        -------
        y, or a tuple y[, state][, statistics]; the last for ``with_statistics``.

        Raises
        ------
        SSMError
            Anything that does not fit, before any work.
        """
        params = self._check_params(params)
        how = self._checked_pass(params, u, state, mode, reset, lengths, return_state)
        how = self._checked_training(how, training, key)
        y, after = self._apply(params, self._hidden(u, how), state, how)
        return self._answer(engine.hide_padding(y, how.valid), after, how)
