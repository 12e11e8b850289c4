"""What layers, blocks and networks share: parameters, validation, streaming.

A module is a frozen dataclass of hyper-parameters, a leaf or composed of named parts. The outermost
call checks everything once; inside runs ``_apply``, which checks nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ssmcore import arrays, backend, engine
from ssmcore._arguments import check_flag
from ssmcore._checks import (
    FLOATS,
    HALF,
    Place,
    check_lengths,
    check_names,
    check_precisions,
    check_state,
    check_tokens,
    checked_batch_shape,
)
from ssmcore._options import checked_arguments, hyperparameters
from ssmcore.composition import NOTHING, Composed, Pass, fits, flattened
from ssmcore.errors import SSMError, check_choice
from ssmcore.primitives._checks import check_array, check_devices, check_reset, check_shape
from ssmcore.random import check_key
from ssmcore.typing import Array, Params, State

__all__ = ["Module"]

MODES = ("auto", "recurrence", "scan", "convolution")


@hyperparameters
class Module(Composed):
    """Hyper-parameters of a map from sequences to sequences; parameters are a separate nested dict.

    Parameters may be given nested or flat with dotted names, as in a torch ``state_dict``.
    """

    @checked_arguments
    def init(
        self,
        seed: int | np.random.Generator = 0,
        *,
        backend: str | None = None,
        device: Any = None,
        dtype: str = "float32",
    ) -> Params:
        """Return initial parameters, the same numbers on every backend.

        Drawn in float64 with NumPy's PCG64, then rounded to ``dtype``.

        Parameters
        ----------
        seed : int or numpy.random.Generator
        backend : name of a backend; None means the default (SSMCORE_BACKEND, else "numpy")
        device : in the library's own terms; None means its default
        dtype : "float32" or "float64"

        Returns
        -------
        (nested) dict of real arrays; a complex parameter has a trailing axis (re, im).

        Raises
        ------
        SSMError
            Unknown or absent backend, other dtype, negative seed.

        Examples
        --------
        >>> import ssmcore as ssm
        >>> sorted(ssm.LRU(d_model=2, d_state=4).init(0))
        ['B', 'C', 'D', 'gamma_log', 'nu_log', 'theta_log']
        """
        check_choice(self.name, "dtype", dtype, FLOATS)
        if not isinstance(seed, np.random.Generator):
            if not (isinstance(seed, int | np.integer) and seed >= 0):
                msg = f"{self.name}: seed is {seed!r}; expected a whole number of at least 0"
                raise SSMError(msg)
            seed = np.random.default_rng(seed)
        drawn = arrays.tree_map(lambda x: np.asarray(x, dtype=dtype), self._draw(seed))
        return _move(drawn, backend, device)

    @checked_arguments
    def initial_state(self, params: Params, batch_shape: tuple[int, ...] = ()) -> State:
        """Return the state of sequences that have not begun: a (nested) dict of real arrays.

        Lives where ``params`` live, in their dtype (float32 where all are in half precision); each
        array is batch_shape + the shape that ``state_shapes`` names, a complex one with a trailing
        axis (re, im). Raises SSMError for parameters of another module and for a batch_shape that
        is no tuple of sizes.
        """
        params = self._check_params(params)
        batch_shape = checked_batch_shape(self.name, batch_shape)
        return self._initial(self._place(params), batch_shape)

    @abstractmethod
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the module over a sequence."""

    @checked_arguments
    def step(self, params: Params, u: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step: u (..., H), or tokens (...), to (y, state). O(1) in the sequence length."""
        check_array(self.name, "u", u)
        fits = self.tokens or u.ndim >= 1
        check_shape(self.name, "u", u, f"(..., {self._d_input})", fits)
        u = u[..., None] if self.tokens else u[..., None, :]
        params = self._check_params(params, values=not self._parts)
        how = self._checked_pass(params, u, state, "auto", None, None, True)
        y, after = self._apply(params, self._hidden(u, how), state, how)
        return y[..., 0, :], after or {}

    def with_statistics(self, params: Params, statistics: Params) -> Params:
        """Return ``params`` with the running ``statistics`` that a call with training returned."""
        params = self._check_params(params)
        new = dict(arrays.leaves(statistics)) if arrays.is_tree(statistics) else {}
        names = self._statistics()
        if set(new) != set(names):
            msg = (
                f"{self.name}: statistics of another module? got {sorted(new)}, "
                f"expected {sorted(names)}"
            )
            raise SSMError(msg)
        return arrays.nest((name, new.get(name, x)) for name, x in arrays.leaves(params))

    def _hidden(self, u: Array, how: Pass) -> Array:
        """Return the input with zero, whatever is there, in padding."""
        if not self.tokens:
            return engine.hide_padding(u, how.valid)
        if how.valid is not None:
            xp = arrays.namespace(u)
            u = xp.where(how.valid, u, xp.zeros_like(u))
        check_tokens(self.name, u, self._vocabulary)
        return u

    def _answer(self, y: Array, after: State | None, how: Pass) -> Any:
        """Return what a call returns."""
        if not how.training:
            return (y, after or {}) if how.return_state else y
        names = set(self._statistics())
        pairs = list(arrays.leaves(after or {}))
        statistics = arrays.nest((name, x) for name, x in pairs if name in names)
        if not how.return_state:
            return y, statistics
        return y, arrays.nest((name, x) for name, x in pairs if name not in names), statistics

    def _place(self, params: Params) -> Place:
        """Return where states go, in the dtype of the parameters that are not in half precision."""
        first = self._example(params)
        if first is not None:
            return Place(first, first.dtype)
        first = next(x for _, x in arrays.leaves(params))
        if backend.dtype_name(first) not in HALF:
            return Place(first, first.dtype)
        xp = arrays.namespace(first)
        return Place(first, xp.zeros(0, dtype=xp.float32).dtype)

    def _check_params(self, params: Params, values: bool = True) -> Params:
        """Return ``params`` nested; SSMError unless they have this module's names and shapes.

        ``values``: those that cannot be are looked for, too.
        """
        if not self._fits(params):
            params = self._nested(params)
        if values:
            self._check_values(params)
        return params

    def _fits(self, params: Params) -> bool:
        """Whether ``params``, nested, are of one class and one dtype and right, in one walk."""
        kinds: set[tuple[Any, Any]] = set()
        if not (self._parts and fits(params, self._shapes, kinds) and len(kinds) == 1):
            return False
        ((kind, dtype),) = kinds
        return backend.known(kind) and str(dtype).rsplit(".", 1)[-1] in FLOATS

    def _nested(self, params: Params) -> Params:
        """Return ``params`` nested; SSMError saying what is wrong with them."""
        nested = arrays.nest(arrays.leaves(params)) if arrays.is_tree(params) else {}
        given = dict(arrays.leaves(nested))
        expected = flattened(self._shapes or self.shapes())
        check_names(self.name, given, expected)
        for key, shape in expected.items():
            check_array(self.name, key, given[key])
            check_shape(self.name, key, given[key], str(shape), tuple(given[key].shape) == shape)
        check_precisions(self.name, given, self._loose())
        return nested

    def _checked_pass(
        self,
        params: Params,
        u: Array,
        state: State | None,
        mode: str,
        reset: Array | None,
        lengths: Array | None,
        return_state: bool,
    ) -> Pass:
        """Return how the call runs; SSMError for arguments that do not fit (checked) ``params``."""
        check_choice(self.name, "mode", mode, MODES)
        self._check_mode(mode, reset)
        self._check_input(params, u)
        shape = tuple(u.shape if self.tokens else u.shape[:-1])
        check_reset(self.name, reset, u, shape)
        check_lengths(self.name, lengths, u, shape)
        place = self._place(params) if params else Place(u, u.dtype)
        self._check_state(state, place, shape[:-1])
        check_flag(self.name, return_state=return_state)
        xp = arrays.namespace(u)
        reset = None if reset is None else xp.broadcast_to(reset, shape)
        if lengths is None:
            one = return_state and reset is None and shape[-1] == 1
            alone = one and (self.tokens or u.dtype == place.dtype)
            steps = backend.of(place.example).steps(place.example) if alone else NOTHING
            return Pass(mode, reset, None, None, return_state, dtype=place.dtype, steps=steps)
        lengths = xp.broadcast_to(xp.astype(lengths, arrays.index_dtype(u), copy=False), shape[:-1])
        valid = arrays.arange(u, shape[-1], lengths.dtype) < lengths[..., None]
        reset = None if reset is None else reset & valid
        return Pass(mode, reset, lengths, valid, return_state, dtype=place.dtype)

    def _checked_training(self, how: Pass, training: bool, key: Any, checkpoint: bool) -> Pass:
        """Return ``how`` with the options of training."""
        check_flag(self.name, training=training, checkpoint=checkpoint)
        check_key(self.name, key)
        return how._replace(training=bool(training), key=key, checkpoint=bool(checkpoint))

    def _check_input(self, params: Params, u: Array) -> None:
        """Raise SSMError unless ``u`` fits the (checked) parameters."""
        check_array(self.name, "u", u)
        place = self._place(params) if params else Place(u, u.dtype)
        arrays.namespace(place.example, u)
        check_devices(self.name, params=place.example, **{"tokens" if self.tokens else "u": u})
        if self.tokens:
            self._check_tokens(u)
            return
        H = self._d_input
        fits = u.ndim >= 2 and u.shape[-1] == H
        check_shape(self.name, "u", u, f"(..., L, {H})", fits)
        dtype = str(place.dtype).rsplit(".", 1)[-1]
        if backend.dtype_name(u) not in (dtype, *HALF):
            msg = (
                f"{self.name}: u has dtype {backend.dtype_name(u)}, the parameters {dtype}; "
                "expected the same, or float16 / bfloat16; "
                "convert u, or the parameters with ssmcore.move(params, dtype=...)"
            )
            raise SSMError(msg)

    def _check_tokens(self, u: Array) -> None:
        """Raise SSMError unless ``u`` are integers (..., L)."""
        if not arrays.namespace(u).isdtype(u.dtype, "integral"):
            msg = f"{self.name}: tokens have dtype {backend.dtype_name(u)}; expected integers"
            raise SSMError(msg)
        check_shape(self.name, "tokens", u, "(..., L)", u.ndim >= 1)

    def _check_state(self, state: State | None, place: Place, batch: tuple[int, ...]) -> None:
        if state is None or (self._parts and self._has_state(state, place, batch)):
            return
        shapes = flattened(self.state_shapes())
        check_state(self.name, state, {k: (*batch, *s) for k, s in shapes.items()}, place)

    def _has_state(self, state: State, place: Place, batch: tuple[int, ...]) -> bool:
        """Whether ``state`` is right and of the class and dtype of ``place``, in one walk."""
        kinds: set[tuple[Any, Any]] = set()
        return fits(state, self._state_shapes, kinds, batch) and kinds == {
            (type(place.example), place.dtype)
        }


def _move(tree: Params, target: str | None, device: Any) -> Params:
    out: Params = backend.move(tree, backend=target or backend.default(), device=device)
    return out
