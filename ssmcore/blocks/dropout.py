"""Dropout from an explicit key: the same mask on every library.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
"""

from __future__ import annotations

from ssmcore import arrays
from ssmcore._arguments import check_count, check_flag, check_number
from ssmcore._options import hyperparameters
from ssmcore.blocks.base import Block
from ssmcore.composition import Pass
from ssmcore.errors import SSMError
from ssmcore.random import bernoulli
from ssmcore.typing import Array, Params, State

__all__ = ["Dropout"]


@hyperparameters
class Dropout(Block):
    """y = u / (1 - rate) with probability 1 - rate, else 0; y = u without a key.

    Attributes
    ----------
    d_model : int
        Channels H.
    rate : float
        In [0, 1).
    tie : bool
        One mask for all steps of a sequence, as in S4 and S5.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import Dropout
    >>> Dropout(4, 0.5)({}, np.ones((1, 4)), key=1)
    array([[0., 2., 2., 0.]])
    """

    d_model: int
    rate: float = 0.0
    tie: bool = False

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model)
        check_number(self.name, rate=self.rate)
        check_flag(self.name, tie=self.tie)
        if not 0.0 <= self.rate < 1.0:
            msg = f"{self.name}: rate is {self.rate!r}; expected a number in [0, 1)"
            raise SSMError(msg)

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        if how.key is None or self.rate == 0.0:
            return u, None
        shape = (*u.shape[:-2], 1, u.shape[-1]) if self.tie else tuple(u.shape)
        keep = bernoulli(how.key, 1.0 - self.rate, shape, u)
        return arrays.namespace(u).where(keep, u / (1.0 - self.rate), 0.0 * u), None
