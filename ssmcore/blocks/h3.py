"""H3: two state space layers between three projections.

Fu, Dao, et al., "Hungry Hungry Hippos: towards language modeling with state space models", 2023,
section 3, with heads of one channel. The shift SSM is a filter of N taps, its D in the last one.
"""

from __future__ import annotations

from ssmcore._arguments import check_count
from ssmcore._options import hyperparameters
from ssmcore.blocks.base import Block
from ssmcore.blocks.convolution import ShortConvolution
from ssmcore.blocks.linear import Linear
from ssmcore.composition import Composed, Pass, Running
from ssmcore.layers.s4d import S4D
from ssmcore.typing import Array, Params, State

__all__ = ["H3"]


@hyperparameters
class H3(Block):
    """y = out_proj(q ssm(shift(k) v)), with q, k, v from projections of u.

    Parts: q_proj, k_proj, v_proj, out_proj (H to H), shift (K taps, no bias), ssm (S4D, bilinear).

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        States N of S4D per channel.
    taps : int
        States of the shift SSM.

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.blocks import H3
    >>> h3 = H3(4, d_state=8, taps=8)
    >>> h3(h3.init(0), np.ones((6, 4), "float32")).shape
    (6, 4)
    """

    d_model: int
    d_state: int = 64
    taps: int = 64

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model)

    def _compose(self) -> dict[str, Composed]:
        square = Linear(self.d_model)
        return {
            "q_proj": square,
            "k_proj": square,
            "v_proj": square,
            "shift": ShortConvolution(self.d_model, self.taps, bias=False),
            "ssm": S4D(self.d_model, d_state=self.d_state, discretization="bilinear"),
            "out_proj": square,
        }

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        q, k, v = run("q_proj", u), run("k_proj", u), run("v_proj", u)
        return run("out_proj", q * run("ssm", run("shift", k) * v)), run.after
