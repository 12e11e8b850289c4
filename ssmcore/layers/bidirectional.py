"""Bidirectional use of any layer: one pass forward, one backward, summed or side by side."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ssmcore import arrays, engine
from ssmcore._checks import Place
from ssmcore._options import ParamGroup, hyperparameters
from ssmcore.composition import Pass
from ssmcore.errors import SSMError, check_choice
from ssmcore.layers._continuous import check_flag
from ssmcore.layers.base import Layer
from ssmcore.systems import System
from ssmcore.typing import Array, Params, State

__all__ = ["Bidirectional"]


@hyperparameters
class Bidirectional(Layer):
    """y = forward(u) + flip(backward(flip(u))), each sequence turned within its own length.

    Parameters: {"causal": ..., "anticausal": ...}; with share="dynamics" the anticausal ones are C
    alone; with share="all" they are those of the layer itself.

    Attributes
    ----------
    d_model : int
        Channels H of ``layer``; given by it (leave it out: ``Bidirectional.of(layer)``).
    layer : Layer
        What runs in both directions.
    share : "nothing", "dynamics" or "all"
        What both directions have in common. "dynamics": all but the output matrix C, and D u is
        added once, as S4 and S5 were published. "all": one parameter set for both directions.
    combine : "sum" or "concat"
        Add the two outputs, or put them side by side: (..., L, 2H).
    skip_current : bool
        The backward output at t sees only later inputs, so that u_t is not counted twice (the
        convention of S4; S5 counts it twice).

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> both = ssm.Bidirectional.of(ssm.LRU(d_model=2, d_state=4), share="all")
    >>> params = both.init(0, dtype="float64")
    >>> u = np.random.default_rng(0).standard_normal((6, 2))
    >>> bool(abs(both(params, u[::-1]) - both(params, u)[::-1]).max() < 1e-12)
    True
    """

    layer: Layer = None  # type: ignore[assignment]
    share: str = "nothing"
    combine: str = "sum"
    skip_current: bool = False

    SHARES: ClassVar = ("nothing", "dynamics", "all")

    @classmethod
    def of(
        cls,
        layer: Layer | None = None,
        *,
        share: str = "nothing",
        combine: str = "sum",
        skip_current: bool = False,
    ) -> Bidirectional:
        """Wrap ``layer``."""
        width = layer.d_model if isinstance(layer, Layer) else 1
        return cls(width, layer, share, combine, skip_current)  # type: ignore[arg-type]

    def _check_options(self) -> None:
        check_choice(self.name, "share", self.share, self.SHARES)
        check_choice(self.name, "combine", self.combine, ("sum", "concat"))
        check_flag(self.name, skip_current=self.skip_current)
        if not isinstance(self.layer, Layer) or self.layer.d_model != self.d_model:
            msg = (
                f"{self.name}: layer is {self.layer!r}; expected a layer with d_model "
                f"= {self.d_model}; Bidirectional.of(layer) fits them"
            )
            raise SSMError(msg)
        if self.share == "dynamics" and not {"C", "D"} <= set(self.layer.shapes()):
            msg = (
                f"{self.name}: share is 'dynamics' with {self.layer.name}, which has no output "
                "matrix C of its own; expected 'nothing' or 'all'"
            )
            raise SSMError(msg)

    @property
    def d_output(self) -> int:
        """Channels of the output."""
        return self.layer.d_output * (2 if self.combine == "concat" else 1)

    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter."""
        one = self.layer.shapes()
        return one if self.share == "all" else {"causal": one, "anticausal": self._own(one)}

    def _own(self, one: dict[str, Any]) -> dict[str, Any]:
        """Return what the anticausal direction has for itself of the layer's ``one``."""
        return {"C": one["C"]} if self.share == "dynamics" else one

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {}: a bidirectional layer cannot stream."""
        return {}

    def _draw(self, rng: np.random.Generator) -> Params:
        draw = self.layer._draw
        if self.share == "all":
            return draw(rng)
        return {"causal": draw(rng), "anticausal": self._own(draw(rng))}

    def param_groups(self) -> list[ParamGroup]:
        """Those of the layer, for each direction."""
        if self.share == "all":
            return self.layer.param_groups()
        present = {name for name, _ in arrays.leaves(self.shapes())}
        groups = [
            group._replace(
                names=tuple(n for name in group.names if (n := f"{way}.{name}") in present)
            )
            for way in ("causal", "anticausal")
            for group in self.layer.param_groups()
        ]
        return [group for group in groups if group.names]

    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> System:
        msg = f"{self.name}: two systems run, one each way; ask layer.system(params['causal'])"
        raise SSMError(msg)

    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the eigenvalues of the forward and backward A_bar on a new first axis."""
        params = self._check_params(params)
        ways = self._ways(params)
        return arrays.namespace(u, *(x for _, x in arrays.leaves(params))).stack(
            [self.layer.eigenvalues(p, u) for p in ways], axis=0
        )

    def _ways(self, params: Params) -> tuple[Params, Params]:
        if self.share == "all":
            return params, params
        ahead, back = params["causal"], params["anticausal"]
        if self.share == "nothing":
            return ahead, back
        D = arrays.namespace(ahead["D"]).zeros_like(ahead["D"])
        return ahead, {**dict(ahead.items()), "C": back["C"], "D": D}

    def _check_mode(self, mode: str, reset: Array | None) -> None:
        self.layer._check_mode(mode, reset)

    def _check_state(self, state: State | None, place: Place, batch: tuple[int, ...]) -> None:
        if state is not None:
            msg = (
                f"{self.name}: the backward pass needs the whole sequence, so no state can be given"
            )
            raise SSMError(msg)

    def _mode(self, mode: str, params: Params, u: Array, reset: Array | None) -> str:
        return self.layer._mode(mode, params, u, reset)

    def _run(
        self,
        params: Params,
        u: Array,
        state: State,
        mode: str,
        reset: Array | None,
        lengths: Array | None,
        return_state: bool,
    ) -> tuple[Array, State | None]:
        if return_state:
            msg = f"{self.name}: the backward pass ends at the first step; there is no state"
            raise SSMError(msg)
        xp = arrays.namespace(u)
        ahead, back = self._ways(params)
        if reset is not None and lengths is not None:
            reset = reset & engine.valid_steps(lengths, u)
        how = Pass(mode, reset, lengths)
        y, _ = self.layer._apply(ahead, u, None, how)
        how = Pass(mode, _turned_reset(reset, u, lengths), lengths)
        z, _ = self.layer._apply(back, _turn(u, lengths), None, how)
        z = _turn(z, lengths)
        if self.skip_current:
            z = _drop_current(z, reset)
        return (y + z if self.combine == "sum" else xp.concat((y, z), axis=-1)), None


def _turn(u: Array, lengths: Array | None) -> Array:
    """Reverse (..., L, H) in time, each sequence within its own length; padding stays."""
    xp = arrays.namespace(u)
    if lengths is None:
        return xp.flip(u, axis=-2)
    time = arrays.arange(u, u.shape[-2], lengths.dtype)
    end = xp.broadcast_to(lengths, u.shape[:-2])[..., None]
    index = xp.where(time < end, end - 1 - time, time)
    return xp.take_along_axis(u, xp.broadcast_to(index[..., None], u.shape), axis=-2)


def _turned_reset(reset: Array | None, u: Array, lengths: Array | None) -> Array | None:
    """Return where the backward pass restarts: at the last step of every segment."""
    if reset is None:
        return None
    xp = arrays.namespace(u, reset)
    number = xp.astype(_ends(reset, u), u.dtype)[..., None]
    return _turn(number, lengths)[..., 0] > 0.5


def _ends(reset: Array, u: Array) -> Array:
    """Return the last step of every segment but the last one, (..., L) bool."""
    xp = arrays.namespace(u, reset)
    wide = xp.broadcast_to(reset, u.shape[:-1])
    return xp.concat((wide[..., 1:], xp.zeros_like(wide[..., :1])), axis=-1)


def _drop_current(z: Array, reset: Array | None) -> Array:
    """Shift z one step towards the past, nothing crossing a segment's end."""
    xp = arrays.namespace(z)
    later = xp.concat((z[..., 1:, :], xp.zeros_like(z[..., :1, :])), axis=-2)
    if reset is None:
        return later
    return xp.where(_ends(reset, z)[..., None], xp.zeros_like(later), later)
