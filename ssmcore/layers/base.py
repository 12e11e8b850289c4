"""What all layers share: the system, the three modes, streaming."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ssmcore import arrays, backend, engine
from ssmcore._arguments import plain
from ssmcore._checks import check_step_sizes
from ssmcore._options import (
    ParamGroup,
    check_count,
    checked_arguments,
    hyperparameters,
)
from ssmcore.composition import Pass
from ssmcore.errors import SSMError
from ssmcore.layers._continuous import tiled
from ssmcore.module import Module
from ssmcore.systems import System
from ssmcore.typing import Array, Params, State

__all__ = ["Layer"]


@hyperparameters
class Layer(Module):
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
    open_lengths = True

    def __post_init__(self) -> None:
        """Check the hyper-parameters, once."""
        check_count(type(self).__name__, d_model=plain(self.d_model))
        super().__post_init__()

    @property
    def _state_name(self) -> str:
        """The model is part of the name, so that no layer takes the state of another."""
        return f"x_{self.name.lower()}"

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
        reset = self._checked_pass(params, u, state, "auto", reset, None, False).reset
        u = self._widened(params, u)
        before = self._state(params, u, state)
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
        how = self._checked_pass(params, u, state, mode, reset, lengths, return_state)
        y, after = self._apply(params, u, state, how)
        return (y, after) if return_state else y

    def _apply(
        self, params: Params, u: Array, state: State | None, how: Pass
    ) -> tuple[Array, State | None]:
        xp = arrays.namespace(u)
        given, u = u.dtype, self._widened(params, u)
        y, after = self._run(
            params,
            u,
            self._state(params, u, state),
            self._mode(how.mode, params, u, how.reset),
            how.reset,
            how.lengths,
            how.return_state,
        )
        return xp.astype(y, given, copy=False), after

    def _widened(self, params: Params, u: Array) -> Array:
        """Return u in the dtype of the parameters."""
        work = next(x for _, x in arrays.leaves(params)).dtype
        return arrays.namespace(u).astype(u, work, copy=False)

    def _state(self, params: Params, u: Array, state: State | None) -> State:
        """Return ``state``, or that of sequences that have not begun."""
        if state is not None:
            return state
        return self._initial(self._place(params), tuple(u.shape[:-2]))

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
        many = backend.is_open(u, u.shape[-2])
        if many and not self.open_lengths and mode != "recurrence":
            msg = (
                f"{self.name}: the length of u is left open by the export, and the powers of a "
                "transition that is no diagonal need a number; export one program for each length"
            )
            raise SSMError(msg)
        if mode != "auto":
            return mode
        if not many and u.shape[-2] == 1:
            return "recurrence"
        scan = self.time_varying or reset is not None
        return "scan" if scan else self._parallel_mode(params, u)

    def _parallel_mode(self, params: Params, u: Array) -> str:
        """Return the mode that is expected to be fastest without restarts."""
        return "convolution"

    def _check_values(self, params: Params) -> None:
        exponential = getattr(self, "dt_transform", "exp") == "exp"
        check_step_sizes(self.name, dict(arrays.leaves(params)), exponential)

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
