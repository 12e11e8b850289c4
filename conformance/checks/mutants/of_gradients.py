"""Faults of the gradients."""

from __future__ import annotations

from checks.mutants.mutant import CONVOLUTION, KERNEL, SCAN, Mutant

__all__ = ["GRADIENTS"]

GRADIENTS = (
    Mutant(
        "the gradient of the last state is missing",
        SCAN,
        "return _fed(y, D, u), h[..., -1, :, :] if u.shape[-2] else initial",
        "from ssmcore import backend\n"
        "    last = backend.of(h).stop_gradient(h[..., -1, :, :])\n"
        "    return _fed(y, D, u), last if u.shape[-2] else initial",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
    Mutant(
        "the gradient of the initial state is missing",
        SCAN,
        "carried = _carried(first_keep, first * initial[..., None, :])",
        "from ssmcore import backend\n"
        "        initial = backend.of(initial).stop_gradient(initial)\n"
        "        carried = _carried(first_keep, first * initial[..., None, :])",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
    Mutant(
        "one sign in the adjoint is wrong",
        SCAN,
        "pair = _carried(right, a_right * b[0:end:2, ...]) + b[1:end:2, ...]",
        "from ssmcore import backend\n"
        "    fixed = backend.of(a_right).stop_gradient(a_right)\n"
        "    a_wrong = 2.0 * fixed - a_right\n"
        "    pair = _carried(right, a_wrong * b[0:end:2, ...]) + b[1:end:2, ...]",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
    Mutant(
        "the gradient of the step size ignores the decay",
        SCAN,
        "a = xp.exp(wide * wide_A)",
        "from ssmcore import backend\n"
        "    a = xp.exp(backend.of(delta).stop_gradient(wide) * wide_A)",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
    Mutant(
        "the gradient by complex eigenvalues is the conjugate one",
        KERNEL,
        "    coarse, fine = powers.factored_powers(a, length)\n",
        "    if arrays.is_complex(a):\n"
        "        from ssmcore import backend\n"
        "        stop = backend.of(a).stop_gradient\n"
        "        a = stop(a) + xp.conj(a - stop(a))\n"
        "    coarse, fine = powers.factored_powers(a, length)\n",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
    Mutant(
        "the gradient of a constant transition is halved",
        SCAN,
        "levels = powers.squares(first if",
        "from ssmcore import backend\n"
        "        fixed = backend.of(first).stop_gradient(first)\n"
        "        first = fixed + 0.5 * (first - fixed)\n"
        "        levels = powers.squares(first if",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
    Mutant(
        "the gradient of a long sequence ignores the transition",
        SCAN,
        "a_in_time = arrays.widen(arrays.moveaxis(a, -2, 0))",
        "from ssmcore import backend\n"
        "        a = backend.of(a).stop_gradient(a) if b.shape[-2] > 64 else a\n"
        "        a_in_time = arrays.widen(arrays.moveaxis(a, -2, 0))",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
    Mutant(
        "the gradient by a short convolution's weight is missing where there is no bias",
        CONVOLUTION,
        "    taps, length = weight.shape[0], u.shape[-2]\n    if state is None:\n",
        "    from ssmcore import backend\n"
        "    weight = backend.of(weight).stop_gradient(weight) if bias is None else weight\n"
        "    taps, length = weight.shape[0], u.shape[-2]\n    if state is None:\n",
        "test_adjoints.py::test_gradient",
        "torch",
    ),
)
