"""H3: two state space layers between three projections.

Fu, Dao, et al., "Hungry Hungry Hippos: towards language modeling with state space models", 2023,
section 3. The shift SSM is a filter of N taps, its D in the last one.
"""

from __future__ import annotations

from typing import Any

from ssmcore import arrays
from ssmcore._arguments import check_count
from ssmcore._checks import Place
from ssmcore._options import hyperparameters
from ssmcore.blocks.base import Block
from ssmcore.blocks.convolution import ShortConvolution
from ssmcore.blocks.linear import Linear
from ssmcore.composition import Composed, Pass, Running
from ssmcore.errors import SSMError
from ssmcore.layers.s4d import S4D
from ssmcore.typing import Array, Params, State

__all__ = ["H3"]


@hyperparameters
class H3(Block):
    """y = out_proj(q ssm(shift(k) v)), with q, k, v from projections of u.

    With heads of E channels shift(k) v is, for every head, the matrix (E, E) of all products of a
    channel of shift(k) and one of v; a state of the system each, and q times that matrix.

    Parts: q_proj, k_proj, v_proj, out_proj (H to H), shift (K taps, no bias), ssm (S4D of width
    H / E, bilinear). State: that of shift, and that of ssm (E, E) times.

    Attributes
    ----------
    d_model : int
        Channels H.
    d_state : int
        States N of S4D per channel.
    taps : int
        States of the shift SSM.
    head_dim : int
        E, neighbouring channels; must divide H.

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
    head_dim: int = 1

    def _check_options(self) -> None:
        check_count(self.name, d_model=self.d_model, head_dim=self.head_dim)
        if self.d_model % self.head_dim:
            msg = f"{self.name}: head_dim is {self.head_dim}; expected a divisor of {self.d_model}"
            raise SSMError(msg)

    def _compose(self) -> dict[str, Composed]:
        square = Linear(self.d_model)
        heads = self.d_model // self.head_dim
        return {
            "q_proj": square,
            "k_proj": square,
            "v_proj": square,
            "shift": ShortConvolution(self.d_model, self.taps, bias=False),
            "ssm": S4D(heads, d_state=self.d_state, discretization="bilinear"),
            "out_proj": square,
        }

    @property
    def _pairs(self) -> tuple[int, ...]:
        """The axes that the states of ssm have before their own."""
        return () if self.head_dim == 1 else (self.head_dim, self.head_dim)

    def state_shapes(self) -> dict[str, Any]:
        """Return the shape of every state array of one sequence, nested as the state is."""
        found = super().state_shapes()
        ssm = {name: (*self._pairs, *shape) for name, shape in found["ssm"].items()}
        return found | {"ssm": ssm}

    def _initial(self, place: Place, batch: tuple[int, ...]) -> State:
        found = super()._initial(place, batch)
        return found | {"ssm": self.parts()["ssm"]._initial(place, (*batch, *self._pairs))}

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        run = Running(self, params, state, how)
        q, k, v = run("q_proj", u), run("k_proj", u), run("v_proj", u)
        k = run("shift", k)
        if not self._pairs:
            return run("out_proj", q * run("ssm", k * v)), run.after
        wide = Running(self, params, state, self._for_pairs(how, tuple(u.shape[:-1])))
        q, k, v = (self._headed(x) for x in (q, k, v))  # (..., E, L, heads)
        y = wide("ssm", k[..., :, None, :, :] * v[..., None, :, :, :])
        xp = arrays.namespace(y)
        y = arrays.moveaxis(xp.sum(q[..., :, None, :, :] * y, axis=-4), -3, -1)
        y = run("out_proj", xp.reshape(y, tuple(u.shape)))
        return y, ({**(run.after or {}), **(wide.after or {})} or None)

    def _headed(self, x: Array) -> Array:
        """Return x (..., L, H) as (..., E, L, heads)."""
        xp = arrays.namespace(x)
        x = xp.reshape(x, (*x.shape[:-1], self.d_model // self.head_dim, self.head_dim))
        return arrays.moveaxis(x, -1, -3)

    def _for_pairs(self, how: Pass, shape: tuple[int, ...]) -> Pass:
        """Return how all pairs of channels run, the axes of the pairs before that of time."""

        def spread(x: Array | None, *after: int) -> Array | None:
            if x is None:
                return None
            xp = arrays.namespace(x)
            x = xp.reshape(x, (*shape[:-1], 1, 1, *after))
            return xp.broadcast_to(x, (*shape[:-1], *self._pairs, *after))

        L = shape[-1]
        return how._replace(
            reset=spread(how.reset, L), valid=spread(how.valid, L), lengths=spread(how.lengths)
        )
