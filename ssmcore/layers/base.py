"""What all layers share: parameters, validation, the three modes, streaming."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ssmcore import arrays, backend, engine
from ssmcore._arguments import check_flag, plain
from ssmcore.errors import SSMError, check_choice
from ssmcore.layers._checks import (
    FLOATS,
    check_lengths,
    check_state,
    check_step_sizes,
    checked_batch_shape,
)
from ssmcore.layers._continuous import tiled
from ssmcore.layers._options import (
    ParamGroup,
    check_count,
    checked_arguments,
    hyperparameters,
)
from ssmcore.primitives._checks import (
    check_array,
    check_kind,
    check_precision,
    check_reset,
    check_shape,
)
from ssmcore.systems import System
from ssmcore.typing import Array, Params, State

__all__ = ["Layer"]

MODES = ("auto", "recurrence", "scan", "convolution")
HALF = ("float16", "bfloat16")


@hyperparameters
class Layer(ABC):
    """A state space layer: hyper-parameters only; parameters are a separate dict of real arrays.

    Parameters may be nested or flat with dotted names, as in a torch ``state_dict``.

    Attributes
    ----------
    d_model : int
        Number of channels H of input and output.
    """

    d_model: int

    time_varying = False
    channels = 1

    def __post_init__(self) -> None:
        """Store numbers as Python's own and check the hyper-parameters, once."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        check_count(self.name, d_model=self.d_model)
        self._check_options()

    @property
    def name(self) -> str:
        """The model's name, as the field calls it."""
        return type(self).__name__

    @property
    def d_output(self) -> int:
        """Channels of the output."""
        return self.d_model

    @property
    def _state_name(self) -> str:
        """The model is part of the name, so that no layer takes the state of another."""
        return f"x_{self.name.lower()}"

    @abstractmethod
    def _check_options(self) -> None:
        """Raise SSMError for hyper-parameters that cannot be."""

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> Params:
        """Return initial parameters in float64 NumPy."""

    @abstractmethod
    def shapes(self) -> dict[str, Any]:
        """Return the shape of every parameter, nested as the parameters are."""

    @abstractmethod
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every state array of one sequence."""

    @abstractmethod
    def param_groups(self) -> list[ParamGroup]:
        """Return how an optimiser should treat the parameters, as plain data."""

    @abstractmethod
    def _system(self, params: Params, u: Array | None, fresh: Array | None) -> System:
        """Return the discrete system; ``fresh`` (..., L) marks steps that restart the state."""

    @abstractmethod
    def eigenvalues(self, params: Params, u: Array | None = None) -> Array:
        """Return the eigenvalues of A_bar."""

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
        dict of real arrays; a complex parameter has a trailing axis (re, im).

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
        """Return the state of sequences that have not begun: a dict of real arrays.

        Lives where ``params`` live, in their dtype; each array is batch_shape + the shape that
        ``state_shapes`` names, a complex one with a trailing axis (re, im). Raises SSMError for
        parameters of another layer and for a batch_shape that is no tuple of sizes.
        """
        params = self._check_params(params)
        batch_shape = checked_batch_shape(self.name, batch_shape)
        first = next(x for _, x in arrays.leaves(params))
        xp, where = arrays.namespace(first), arrays.device(first)
        return {
            name: xp.zeros((*batch_shape, *shape), dtype=first.dtype, device=where)
            for name, shape in self.state_shapes().items()
        }

    @checked_arguments
    def system(
        self,
        params: Params,
        u: Array | None = None,
        reset: Array | None = None,
        state: State | None = None,
    ) -> System:
        """Return the discrete system (A_bar, B_bar, C, D) that a call with ``params`` runs.

        Parameters
        ----------
        params : dict of real arrays, as from ``init``
        u : (..., L, H), as in a call; needed by the time-varying layers (S6, RGLRU), ignored by
            the others
        reset : (..., L) bool; enters the coefficients of RGLRU only
        state : as in a call; the coefficients of RGLRU at the first step depend on whether the
            sequence has begun. None means a fresh sequence

        Raises
        ------
        SSMError
            What a call would refuse; ``u`` missing.
        """
        params = self._check_params(params)
        if not self.time_varying:
            return self._system(params, None, None)
        if u is None:
            msg = f"{self.name}: the system varies with the input; call system(params, u)"
            raise SSMError(msg)
        self._check_call(params, u, state, "auto", reset, None)
        u, reset = self._prepared(params, u, reset)
        before = self.initial_state(params, tuple(u.shape[:-2])) if state is None else state
        return self._system(params, u, self._restarts(u, before, reset))

    def _restarts(self, u: Array, state: State, reset: Array | None) -> Array | None:
        """Return which steps restart the state, (..., L) bool, or None when none does."""
        return reset

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
    ) -> Any:
        """Run the layer over a sequence.

        Parameters
        ----------
        params : dict of real arrays, float32 or float64, nested or flat with dotted names
        u : (..., L, H), dtype of the parameters, or float16 / bfloat16: then everything runs in
            the parameters' dtype and y is rounded to the dtype of ``u``
        state : as from ``initial_state`` or an earlier call; None means a fresh sequence
        mode : "recurrence" (the definition), "scan", "convolution" (time-invariant layers, no
            reset), or "auto"
        reset : (..., L) bool; True restarts the state before that step
        lengths : (...,) integer, 0..L; steps beyond are padding: output 0, no effect on the state
        return_state : also return the state after the last step that is not padding

        Returns
        -------
        y : (..., L, H), or (..., L, channels H), dtype of ``u``; with ``return_state`` a pair
            (y, state).

        Raises
        ------
        SSMError
            Anything that does not fit, before any work. Values are looked at where they can be,
            not while a compiler traces: ``lengths`` always; step sizes (``log_dt``, the bias of
            S6), which must be finite and exp(log_dt) too, on CPUs only, as other devices would
            have to be waited for.

        Examples
        --------
        >>> import numpy as np
        >>> import ssmcore as ssm
        >>> layer = ssm.S5(d_model=2, d_state=8)
        >>> params = layer.init(0, dtype="float64")
        >>> u = np.random.default_rng(0).standard_normal((10, 2))
        >>> head, state = layer(params, u[:4], return_state=True)
        >>> tail = layer(params, u[4:], state)
        >>> bool(abs(np.concatenate([head, tail]) - layer(params, u)).max() < 1e-12)
        True
        """
        params = self._check_params(params)
        self._check_call(params, u, state, mode, reset, lengths)
        check_flag(self.name, return_state=return_state)
        xp = arrays.namespace(u)
        given = u.dtype
        u, reset = self._prepared(params, u, reset)
        lengths = None if lengths is None else xp.astype(lengths, arrays.index_dtype(u), copy=False)
        before = self.initial_state(params, tuple(u.shape[:-2])) if state is None else state
        y, after = self._run(
            params, u, before, self._mode(mode, params, u, reset), reset, lengths, return_state
        )
        y = xp.astype(y, given, copy=False)
        return (y, after) if return_state else y

    def _prepared(
        self, params: Params, u: Array, reset: Array | None
    ) -> tuple[Array, Array | None]:
        """Return u in the dtype of the parameters, and ``reset`` for every step."""
        xp = arrays.namespace(u)
        work = next(x for _, x in arrays.leaves(params)).dtype
        u = xp.astype(u, work, copy=False)
        return u, None if reset is None else xp.broadcast_to(reset, u.shape[:-1])

    @checked_arguments
    def step(self, params: Params, u: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step: u (..., H) to (y (..., H), state). O(1) in the sequence length."""
        check_array(self.name, "u", u)
        check_shape(self.name, "u", u, f"(..., {self.d_model})", u.ndim >= 1)
        y, after = self(params, u[..., None, :], state, mode="auto", return_state=True)
        return y[..., 0, :], after

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
        if self.time_varying:  # its coefficients come from the input, so padding must go first
            u = engine.hide_padding(u, engine.valid_steps(lengths, u))
        system = self._system(params, u, None)
        u = tiled(u, self.channels, axis=-1)
        before = state[self._state_name]
        y, x = engine.run(system, u, before, mode, reset, lengths, return_state)
        return y, (None if x is None else {self._state_name: x})

    def _mode(self, mode: str, params: Params, u: Array, reset: Array | None) -> str:
        if mode != "auto":
            return mode
        if u.shape[-2] == 1:
            return "recurrence"
        scan = self.time_varying or reset is not None
        return "scan" if scan else self._parallel_mode(params, u)

    def _parallel_mode(self, params: Params, u: Array) -> str:
        """Return the faster of "scan" and "convolution"."""
        return "convolution"

    def _check_params(self, params: Params) -> Params:
        """Return ``params`` nested; SSMError unless they have this layer's names and shapes."""
        nested = arrays.nest(arrays.leaves(params)) if arrays.is_tree(params) else {}
        given = dict(arrays.leaves(nested))
        expected = {k: tuple(v) for k, v in arrays.leaves(self.shapes())}
        if set(given) != set(expected):
            missing, extra = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
            msg = (
                f"{self.name}: parameters of another layer? missing {missing}, unexpected {extra}; "
                "expected a dict as from init()"
            )
            raise SSMError(msg)
        for key, shape in expected.items():
            check_array(self.name, key, given[key])
            check_shape(self.name, key, given[key], str(shape), tuple(given[key].shape) == shape)
        check_kind(self.name, "real", **given)
        check_precision(self.name, FLOATS, **given)
        exponential = getattr(self, "dt_transform", "exp") == "exp"
        check_step_sizes(self.name, given, exponential)
        return nested

    def _check_call(
        self,
        params: Params,
        u: Array,
        state: State | None,
        mode: str,
        reset: Array | None,
        lengths: Array | None,
    ) -> None:
        check_choice(self.name, "mode", mode, MODES)
        self._check_mode(mode, reset)
        self._check_input(params, u, reset)
        check_lengths(self.name, lengths, u)
        first = next(x for _, x in arrays.leaves(params))
        self._check_state(state, first, tuple(u.shape[:-2]))

    def _check_input(self, params: Params, u: Array, reset: Array | None) -> None:
        """Raise SSMError unless ``u`` and ``reset`` fit the (checked) parameters."""
        first = next(x for _, x in arrays.leaves(params))
        check_array(self.name, "u", u)
        arrays.namespace(first, u)
        check_shape(
            self.name,
            "u",
            u,
            f"(..., L, {self.d_model})",
            u.ndim >= 2 and u.shape[-1] == self.d_model,
        )
        if backend.dtype_name(u) not in (backend.dtype_name(first), *HALF):
            msg = (
                f"{self.name}: u has dtype {backend.dtype_name(u)}, the parameters "
                f"{backend.dtype_name(first)}; expected the same, or float16 / bfloat16; "
                "convert u, or the parameters with ssmcore.move(params, dtype=...)"
            )
            raise SSMError(msg)
        check_reset(self.name, reset, u)

    def _check_mode(self, mode: str, reset: Array | None) -> None:
        if mode == "convolution" and self.time_varying:
            msg = (
                f"{self.name}: mode 'convolution' needs a time-invariant layer, and this one "
                "varies with its input; use 'scan' or 'recurrence'"
            )
            raise SSMError(msg)
        if mode == "convolution" and reset is not None:
            msg = (
                f"{self.name}: mode 'convolution' cannot restart inside a sequence; "
                "use 'scan' or 'recurrence' with reset"
            )
            raise SSMError(msg)

    def _check_state(self, state: State | None, first: Array, batch: tuple[int, ...]) -> None:
        expected = {k: (*batch, *s) for k, s in self.state_shapes().items()}
        check_state(self.name, state, expected, first)


def _move(tree: Params, target: str | None, device: Any) -> Params:
    out: Params = backend.move(tree, backend=target or backend.default(), device=device)
    return out
