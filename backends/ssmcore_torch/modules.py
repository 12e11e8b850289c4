"""Layers as ``torch.nn.Module``: the module holds the parameters, the layer does the maths."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

import ssmcore
from ssmcore import ParamGroup, SSMError, backend
from ssmcore._options import checked_arguments
from ssmcore.layers._modules import check_layer, constructor_doc, constructor_signature
from ssmcore.systems import System
from ssmcore.typing import Params, State

__all__ = ["LRU", "LSSL", "RGLRU", "S4", "S4D", "S5", "S6", "Bidirectional", "Layer"]

EXAMPLE = """\
>>> import torch
>>> import ssmcore_torch as ssm
>>> layer = ssm.{name}({options}, seed=0)
>>> layer(torch.ones(3, 4)).shape
torch.Size([3, 4])"""


# Whose arrays these are must be known before torch.compile traces: it cannot follow a look-up
# among the entry points.
backend.of(torch.empty(0), torch.nn.Parameter(torch.empty(0)))


class Layer(torch.nn.Module):
    """Any ssmcore layer as a module; its state_dict has the dotted names of the parameter dict.

    Parameters
    ----------
    layer : ssmcore.Layer
        The hyper-parameters; kept as ``.layer``.
    params : dict of real arrays of any library, nested or with dotted names as in a state_dict,
        copied; None draws them
    seed : int or numpy.random.Generator
        Of the draw; the same numbers as on every other backend.
    device : torch device or its name; None means torch's CPU, or where torch ``params`` are
    dtype : "float32", "float64", torch.float32 or torch.float64
        None means that of ``params``, and float32 for a draw.

    Raises
    ------
    SSMError
        No layer, parameters of another layer, other dtype.

    Notes
    -----
    Runs in the parameters' dtype even under ``torch.autocast``: only the output is rounded to the
    dtype of the input.

    Examples
    --------
    A layer with parameters that are there already:

    >>> import ssmcore
    >>> import ssmcore_torch as ssm
    >>> core = ssmcore.LRU(d_model=2, d_state=4)
    >>> ssm.Layer(core, core.init(0, backend="numpy"))
    Layer(LRU(d_model=2, d_state=4, r_min=0.0, r_max=1.0, max_phase=6.28))
    """

    KIND: ClassVar[type[ssmcore.Layer]]

    def __init__(
        self,
        layer: ssmcore.Layer,
        params: Params | None = None,
        *,
        seed: Any = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """Copy ``params``, or draw them."""
        super().__init__()
        check_layer("ssmcore_torch.Layer", layer)
        name = None if dtype is None else str(dtype).removeprefix("torch.")
        if params is None:
            given = layer.init(seed, backend="torch", device=device, dtype=name or "float32")
        else:
            given = ssmcore.move(params, backend="torch", device=device, dtype=name)
            given = layer._check_params(given)
        self.layer = layer
        _register(self, given)

    def __init_subclass__(cls, of: type[ssmcore.Layer] | None = None) -> None:
        """Take signature and docstring from the layer class ``of``."""
        super().__init_subclass__()
        if of is not None:
            name = of.__name__
            core = "ssm.LRU(d_model=4, d_state=8)"
            options = f"4, {core}" if name == "Bidirectional" else "d_model=4"
            cls.KIND = of
            cls.__doc__ = constructor_doc(
                of, "ssmcore_torch", EXAMPLE.format(name=name, options=options)
            )
            cls.__signature__ = constructor_signature(of)  # type: ignore[attr-defined]

    @property
    def params(self) -> Params:
        """The parameters as the nested dict of the functional interface, not copied."""
        return _tree(self, self.layer.shapes())

    @checked_arguments
    def forward(
        self,
        u: torch.Tensor,
        state: State | None = None,
        *,
        mode: str = "auto",
        reset: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        return_state: bool = False,
    ) -> Any:
        """Run the layer over a sequence.

        Parameters
        ----------
        u : (..., L, H), dtype of the parameters, or float16 / bfloat16
        state : as from ``initial_state`` or an earlier call; None means a fresh sequence
        mode : "auto", "recurrence", "scan" or "convolution"
        reset : (..., L) bool; True restarts the state before that step
        lengths : (...,) integer, 0..L; steps beyond are padding
        return_state : also return the state after the last step that is not padding

        Returns
        -------
        y : (..., L, H), dtype of ``u``; with ``return_state`` a pair (y, state).

        Raises
        ------
        SSMError
            Anything that does not fit, before any work.
        """
        with torch.autocast(self._device().type, enabled=False):
            return self.layer(
                self.params,
                u,
                state,
                mode=mode,
                reset=reset,
                lengths=lengths,
                return_state=return_state,
            )

    def step(self, u: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Run one step: u (..., H) to (y (..., H), state)."""
        with torch.autocast(self._device().type, enabled=False):
            return self.layer.step(self.params, u, state)

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Return the state of sequences that have not begun, beside the parameters."""
        return self.layer.initial_state(self.params, batch_shape)

    def system(
        self,
        u: torch.Tensor | None = None,
        reset: torch.Tensor | None = None,
        state: State | None = None,
    ) -> System:
        """Return the discrete system; S6 and RGLRU need the input u (..., L, H)."""
        return self.layer.system(self.params, u, reset, state)

    def eigenvalues(self, u: torch.Tensor | None = None) -> torch.Tensor:
        """Return the eigenvalues of A_bar; S6 and RGLRU need the input u (..., L, H)."""
        out: torch.Tensor = self.layer.eigenvalues(self.params, u)
        return out

    def param_groups(self, lr: float | None = None) -> list[dict[str, Any]]:
        """Return parameter groups for any optimiser of ``torch.optim``.

        Parameters
        ----------
        lr : float
            The global learning rate; needed only where a layer (LRU) scales it.

        Returns
        -------
        list of dict with "params", "weight_decay" 0.0 where there is to be none, and "lr" where
        the layer wants its own; what is left out is the optimiser's.

        Raises
        ------
        SSMError
            ``lr`` is missing where it is needed.

        Examples
        --------
        >>> import ssmcore_torch as ssm
        >>> groups = ssm.LRU(d_model=2, d_state=4).param_groups(lr=0.01)
        >>> [(len(g["params"]), g.get("weight_decay"), g.get("lr")) for g in groups]
        [(4, 0.0, 0.005), (2, None, None)]
        """
        named = dict(self.named_parameters())
        return [
            {"params": [named[name] for name in group.names], **_settings(self.layer, group, lr)}
            for group in self.layer.param_groups()
        ]

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        text = repr(self.layer)
        if type(self) is Layer:
            return text
        return text.removeprefix(f"{self.layer.name}(").removesuffix(")")

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def _register(module: torch.nn.Module, tree: Params) -> None:
    """Register every array of ``tree`` as a parameter, nested dicts as nested modules."""
    for name, x in tree.items():
        if isinstance(x, Mapping):
            child = torch.nn.Module()
            module.add_module(name, child)
            _register(child, dict(x))
        else:
            module.register_parameter(name, torch.nn.Parameter(x))


def _tree(module: torch.nn.Module, shapes: Mapping[str, Any]) -> Params:
    """Undo ``_register``: read the parameters named in ``shapes``."""
    out: Params = {}
    for name, shape in shapes.items():
        child = module._modules.get(name) if isinstance(shape, Mapping) else None
        out[name] = getattr(module, name) if child is None else _tree(child, shape)
    return out


def _settings(layer: ssmcore.Layer, group: ParamGroup, lr: float | None) -> dict[str, float]:
    settings = {} if group.weight_decay else {"weight_decay": 0.0}
    if group.lr_scale is not None:
        if lr is None:
            msg = (
                f"{layer.name}: scales the learning rate of {', '.join(group.names)} by "
                f"{group.lr_scale}; expected the global one: param_groups(lr=...)"
            )
            raise SSMError(msg)
        return settings | {"lr": group.lr_scale * lr}
    return settings if group.lr is None else settings | {"lr": group.lr}


class _Named(Layer):
    """A layer made from its hyper-parameters."""

    def __init__(
        self, *args: Any, seed: Any = 0, device: Any = None, dtype: Any = "float32", **options: Any
    ) -> None:
        args = tuple(map(_hyperparameters, args))
        options = {name: _hyperparameters(x) for name, x in options.items()}
        super().__init__(self.KIND(*args, **options), seed=seed, device=device, dtype=dtype)


def _hyperparameters(x: Any) -> Any:
    return x.layer if isinstance(x, Layer) else x


class LRU(_Named, of=ssmcore.LRU):
    """LRU as a module."""


class LSSL(_Named, of=ssmcore.LSSL):
    """LSSL as a module."""


class RGLRU(_Named, of=ssmcore.RGLRU):
    """RG-LRU as a module."""


class S4(_Named, of=ssmcore.S4):
    """S4 as a module."""


class S4D(_Named, of=ssmcore.S4D):
    """S4D as a module."""


class S5(_Named, of=ssmcore.S5):
    """S5 as a module."""


class S6(_Named, of=ssmcore.S6):
    """S6 as a module."""


class Bidirectional(_Named, of=ssmcore.Bidirectional):
    """Bidirectional as a module."""

    @classmethod
    def of(
        cls,
        layer: Any,
        *,
        share: str = "nothing",
        combine: str = "sum",
        skip_current: bool = False,
        seed: Any = 0,
        device: Any = None,
        dtype: Any = "float32",
    ) -> Bidirectional:
        """Wrap ``layer``, a module or an ssmcore layer: its hyper-parameters, drawn anew."""
        core = ssmcore.Bidirectional.of(
            _hyperparameters(layer), share=share, combine=combine, skip_current=skip_current
        )
        options = {name: getattr(core, name) for name in inspect.signature(type(core)).parameters}
        return cls(**options, seed=seed, device=device, dtype=dtype)
