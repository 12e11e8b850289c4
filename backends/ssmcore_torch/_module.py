"""A module of ssmcore as ``torch.nn.Module``: it holds parameters, the definition is the maths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch

import ssmcore
from ssmcore import ParamGroup, SSMError, arrays, backend
from ssmcore._options import checked_arguments
from ssmcore._wrapping import (
    check_definition,
    constructor_doc,
    constructor_signature,
    drops,
    shown,
    unwrapped,
)
from ssmcore.composition import Composed
from ssmcore.module import Module as Core
from ssmcore.typing import Params, State

__all__ = ["Module", "Named"]

EXAMPLE = """\
>>> import torch
>>> import ssmcore_torch as ssm
>>> module = {call}
>>> module({input}).shape
torch.Size({shape})"""

HALF = (torch.float16, torch.bfloat16)

# Whose arrays these are must be known before torch.compile traces: it cannot follow a look-up
# among the entry points, nor a cache that is filled inside a checkpoint.
for _kind in (torch.empty(0), torch.nn.Parameter(torch.empty(0))):
    backend.of(_kind)
    arrays.namespace(_kind)


class Module(torch.nn.Module):
    """Any layer, block or network of ssmcore as a module, of modules where it is made of parts.

    Parameters
    ----------
    definition : a module of ssmcore
        The hyper-parameters; kept as ``.definition``.
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
        No definition, parameters of another one, other dtype.

    Notes
    -----
    The state_dict has the dotted names of the parameter dict. Running statistics are buffers, used
    after ``eval()`` and renewed by calls after ``train()``; train and eval of the outermost module
    decide. In training, dropout draws its key from the default generator of the input's device, so
    ``torch.manual_seed`` governs it, unless ``key`` is given; after ``eval()`` it drops with a
    ``key`` only.

    Under ``torch.autocast`` products with the weights of ``Linear`` and ``Embedding`` run in the
    lower precision, everything else, the recurrence above all, in the parameters' dtype; the output
    has the dtype it has without. ``half()``, ``bfloat16()`` and ``to`` lower the parameters of
    ``Linear`` and ``Embedding`` and leave the others.

    The maths runs in one piece: forward hooks of parts are not called.

    Examples
    --------
    >>> import torch
    >>> import ssmcore_torch as ssm
    >>> from ssmcore import networks
    >>> model = ssm.Module(networks.mamba(vocab=7, d_model=4, n_layers=2), seed=0)
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 7])
    >>> isinstance(model.get_submodule("layers.0.mixer.ssm"), ssm.S6)
    True
    """

    TAKES: ClassVar[type] = Core
    CLASSES: ClassVar[dict[type[Composed], type[Module]]] = {}

    definition: Core

    def __init__(
        self,
        definition: Core,
        params: Params | None = None,
        *,
        seed: Any = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """Copy ``params``, or draw them."""
        super().__init__()
        check_definition(f"ssmcore_torch.{type(self).__name__}", definition, self.TAKES)
        name = None if dtype is None else str(dtype).removeprefix("torch.")
        if params is None:
            given = definition.init(seed, backend="torch", device=device, dtype=name or "float32")
        else:
            given = ssmcore.move(params, backend="torch", device=device, dtype=name)
            given = definition._check_params(given)
        self._hold(definition, given)

    def _hold(self, definition: Any, params: Params) -> None:
        """Register the parameters, those of parts in modules of their own."""
        self.definition = definition
        self._shapes = definition.shapes()
        self._statistics = definition._statistics()
        self._drops = drops(definition)
        parts = definition.parts()
        for name, part in parts.items():
            self.add_module(name, _part(part, params.get(name, {})))
        own = {name: x for name, x in params.items() if name not in parts}
        _register(self, own, definition.STATISTICS)

    @property
    def params(self) -> Params:
        """Parameters and running statistics as the nested dict of the functional interface.

        Not copied.
        """
        return _tree(self, self._shapes)

    @checked_arguments
    def forward(self, u: torch.Tensor, state: State | None = None, **options: Any) -> Any:
        """Run the module over sequences.

        Parameters
        ----------
        u : (..., L, H), dtype of the parameters, or float16 / bfloat16; or tokens (..., L)
        state : as from ``initial_state`` or an earlier call; None means fresh sequences
        mode : "auto", "recurrence", "scan" or "convolution"
        reset : (..., L) bool; True: a new document begins at that step
        lengths : (...,) integer, 0..L; steps beyond are padding
        return_state : also return the state after the last step that is not padding
        key : randomness of dropout, an integer or integer tensor () or (2,); for blocks, networks
        checkpoint : forget what is inside each block of a stack, and compute it again for the
            gradient; for blocks and networks
        and what else the definition takes, such as ``padding`` and ``logits`` of a LanguageModel

        Returns
        -------
        y : in the dtype of ``u``; with ``return_state`` a pair (y, state).

        Raises
        ------
        SSMError
            Anything that does not fit, before any work.
        """
        if "training" in options:
            msg = f"{self.definition.name}: training is what train() and eval() say; leave it out"
            raise SSMError(msg)
        if self.training and self._drops and options.get("key") is None:
            options["key"] = torch.randint(2**32, (2,), device=u.device)
        if not (self.training and self._statistics):
            return self._run(self.definition, u, state, **options)
        y, *state_after, statistics = self._run(self.definition, u, state, training=True, **options)
        with torch.no_grad():
            for name, x in arrays.leaves(statistics):
                self.get_buffer(name).copy_(x)
        return (y, *state_after) if state_after else y

    @checked_arguments
    def step(self, u: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Run one step: u (..., H), or tokens (...), to (y, state); as after ``eval()``."""
        y, after = self._run(self.definition.step, u, state)
        return y, after

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Return the state of sequences that have not begun, beside the parameters."""
        return self.definition.initial_state(self.params, batch_shape)

    def param_groups(self, lr: float | None = None) -> list[dict[str, Any]]:
        """Return parameter groups for any optimiser of ``torch.optim``.

        Parameters
        ----------
        lr : float
            The global learning rate; needed only where a layer (LRU) scales it.

        Returns
        -------
        list of dict with "params", "weight_decay" 0.0 where there is to be none, and "lr" where
        the definition wants its own; what is left out is the optimiser's.

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
        groups = [
            {
                "params": [named[name] for name in group.names if name in named],
                **_settings(self.definition, group, lr),
            }
            for group in self.definition.param_groups()
        ]
        return [group for group in groups if group["params"]]

    def extra_repr(self) -> str:
        """Show the hyper-parameters."""
        text = shown(self.definition)
        return text if type(self) in self.CLASSES.values() else f"{self.definition.name}({text})"

    def _run(self, call: Callable[..., Any], u: Any, *args: Any, **options: Any) -> Any:
        """Call the definition with the parameters, where autocast lowers nothing else."""
        kind = u.device.type if isinstance(u, torch.Tensor) else "cpu"
        if kind == "meta":  # which autocast does not know
            return call(self.params, u, *args, **options)
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        params = _tree(self, self._shapes, lower)
        with torch.autocast(kind, enabled=False):
            return call(params, u, *args, **options)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Module:
        """Apply ``fn`` to all tensors; what must not be in half precision keeps its dtype."""

        def kept(x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = fn(x)
            lowered = y.dtype in HALF and x.dtype not in HALF
            return x.to(y.device) if lowered else y

        own = fn if self.definition.HALF_PRECISION else kept
        if not self.definition.parts():
            super()._apply(own, recurse)  # type: ignore[no-untyped-call]
            return self
        if recurse:
            for child in self.children():
                child._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(own, recurse=False)  # type: ignore[no-untyped-call]
        return self


class Named(Module):
    """A module made from its hyper-parameters; parts may be modules, and are drawn anew."""

    KIND: ClassVar[type[Core]]

    def __init__(
        self, *args: Any, seed: Any = 0, device: Any = None, dtype: Any = "float32", **options: Any
    ) -> None:
        args = tuple(map(unwrapped, args))
        options = {name: unwrapped(x) for name, x in options.items()}
        super().__init__(self.KIND(*args, **options), seed=seed, device=device, dtype=dtype)

    def __init_subclass__(
        cls,
        of: type[Core] | None = None,
        input: str = "torch.ones(3, 4)",
        shape: tuple[int, ...] = (3, 4),
    ) -> None:
        """Take signature and docstring from the class ``of``; the others are for its example."""
        super().__init_subclass__()
        if of is None:
            return
        cls.KIND = of
        cls.CLASSES[of] = cls
        example = EXAMPLE.replace("{input}", input).replace("{shape}", str(list(shape)))
        cls.__doc__ = constructor_doc(of, "ssmcore_torch", example)
        cls.__signature__ = constructor_signature(of)  # type: ignore[attr-defined]


def _part(definition: Composed, params: Params) -> Module:
    """Return a part with its parameters, not copied."""
    kind = Module.CLASSES.get(type(definition), Module)
    out = kind.__new__(kind)
    torch.nn.Module.__init__(out)
    out._hold(definition, params)
    return out


def _register(module: torch.nn.Module, tree: Params, buffers: Iterable[str]) -> None:
    """Register every array of ``tree``, nested dicts as nested modules."""
    for name, x in tree.items():
        if isinstance(x, Mapping):
            child = torch.nn.Module()
            module.add_module(name, child)
            _register(child, dict(x), ())
        elif name in buffers:
            module.register_buffer(name, x)
        else:
            module.register_parameter(name, torch.nn.Parameter(x))


def _tree(
    module: torch.nn.Module, shapes: Mapping[str, Any], lower: torch.dtype | None = None
) -> Params:
    """Undo ``_register``: read what is named in ``shapes``, weights of products in ``lower``."""
    out: Params = {}
    for name, shape in shapes.items():
        child = module._modules.get(name) if isinstance(shape, Mapping) else None
        if child is not None:
            out[name] = _tree(child, shape, lower)
        else:
            x = getattr(module, name)
            out[name] = x.to(lower) if lower is not None and _lowers(module, x) else x
    return out


def _lowers(module: torch.nn.Module, x: Any) -> bool:
    """Whether autocast lowers the tensor ``x`` of a module: a float32 weight of a product."""
    may = isinstance(module, Module) and module.definition.HALF_PRECISION
    return may and x.ndim == 2 and x.dtype == torch.float32


def _settings(definition: Core, group: ParamGroup, lr: float | None) -> dict[str, float]:
    settings = {} if group.weight_decay else {"weight_decay": 0.0}
    if group.lr_scale is not None:
        if lr is None:
            msg = (
                f"{definition.name}: scales the learning rate of {', '.join(group.names)} by "
                f"{group.lr_scale}; expected the global one: param_groups(lr=...)"
            )
            raise SSMError(msg)
        return settings | {"lr": group.lr_scale * lr}
    return settings if group.lr is None else settings | {"lr": group.lr}
