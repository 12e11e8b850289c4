"""Faults of the primitives and of the rules of discretisation."""

from __future__ import annotations

from checks.mutants.mutant import CONVOLUTION, KERNEL, RULES, SCAN, Mutant

__all__ = ["PRIMITIVES"]

PRIMITIVES = (
    # --------------------------------------------------------------------------------- linear_scan
    Mutant(
        "the scan ignores resets between pairs",
        SCAN,
        "return right, right & keep[0:end:2, ...], keep[2::2, ...]",
        "return right, right, keep[2::2, ...]",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the reset comes one step late",
        SCAN,
        "keep = None if reset is None else ~_led(reset, b.ndim - 1)[..., None]",
        "late = None if reset is None else xp.roll(_led(reset, b.ndim - 1), 1, axis=-1)\n"
        "    keep = None if late is None else ~late[..., None]",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the initial state survives a reset of the first step",
        SCAN,
        "first_keep = None if keep is None else keep[..., :1, :]",
        "first_keep = None",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the initial state is added without its transition",
        SCAN,
        "carried = _carried(first_keep, first * initial[..., None, :])",
        "carried = _carried(first_keep, initial[..., None, :] + 0 * first)",
        "test_linear_scan.py::test_chunks_carry_the_state",
    ),
    Mutant(
        "the reverse scan is shifted by one step",
        SCAN,
        "turned = a if a.ndim < 2 else _flip(a, -2)",
        "turned = a if a.ndim < 2 else arrays.namespace(a).roll(_flip(a, -2), 1, axis=-2)",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the reverse scan does not turn the resets",
        SCAN,
        "return _flip(_forward_scan(turned, _flip(b, -2), initial, _flip(reset, -1)), -2)",
        "return _flip(_forward_scan(turned, _flip(b, -2), initial, reset), -2)",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "an even step takes the state of the one before last",
        SCAN,
        "even = _carried(even_keep, a[2::2, ...] * before) + b[2::2, ...]",
        "even = _carried(even_keep, a[2::2, ...] * b[1:end:2, ...][: before.shape[0], ...])"
        " + b[2::2, ...]",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "a float64 input is accumulated in float32",
        SCAN,
        "    in_time = arrays.moveaxis(b, -2, 0)\n",
        "    low = {xp.float64: xp.float32, xp.complex128: xp.complex64}\n"
        "    low = next((v for k, v in low.items() if b.dtype == k), b.dtype)\n"
        "    in_time = arrays.moveaxis(xp.astype(xp.astype(b, low), b.dtype), -2, 0)\n",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the input is overwritten",
        SCAN,
        '    """See ssmcore.linear_scan."""\n    if backend.is_open(b',
        '    """See ssmcore.linear_scan."""\n'
        "    if getattr(b, 'flags', None) is not None and b.flags.writeable:\n"
        "        b[..., -1, :] *= 2\n"
        "    if backend.is_open(b",
        "test_linear_scan.py::test_value",
    ),
    # ----------------------------------------------------------------- diagonal and selective scan
    Mutant(
        "the output is read with the conjugate of C",
        SCAN,
        "y = xp.sum(C * h, axis=-1) if channels else h @ xp.matrix_transpose(C)",
        "C = xp.conj(C) if arrays.is_complex(C) else C\n"
        "    y = xp.sum(C * h, axis=-1) if channels else h @ xp.matrix_transpose(C)",
        "test_diagonal_scan.py::test_value",
    ),
    Mutant(
        "the last state is the one before",
        SCAN,
        "last = 0 if reverse else u.shape[-2] - 1",
        "last = 0 if reverse else max(u.shape[-2] - 2, 0)",
        "test_diagonal_scan.py::test_value",
    ),
    Mutant(
        "the last state of a reverse scan is that of the last time step",
        SCAN,
        "last = 0 if reverse else u.shape[-2] - 1",
        "last = u.shape[-2] - 1",
        "test_diagonal_scan.py::test_value",
    ),
    Mutant(
        "the factor 2 of complex pairs is dropped",
        SCAN,
        "y = _read(C_t, h, channels=True) * (2.0 if arrays.is_complex(A) else 1.0)",
        "y = _read(C_t, h, channels=True)",
        "test_selective_scan.py::test_value",
    ),
    Mutant(
        "the skip D u is forgotten",
        SCAN,
        "return y if D is None else y + D * u",
        "y = y if D is None else y + 0.0 * u",
        "test_selective_scan.py::test_value",
    ),
    Mutant(
        "the state is not carried into the next chunk",
        SCAN,
        "h = _scan(xp.reshape(a, flat), xp.reshape(b, flat), start, reset=reset, reverse=False)",
        "h = _scan(xp.reshape(a, flat), xp.reshape(b, flat), None, reset=reset, reverse=False)",
        "test_selective_scan.py::test_chunks_carry_the_state",
    ),
    Mutant(
        "sums run in an order that changes from run to run",
        SCAN,
        "y = xp.sum(C * h, axis=-1) if channels else h @ xp.matrix_transpose(C)",
        "import numpy\n"
        "    order = numpy.random.default_rng().permutation(h.shape[-1])\n"
        "    turned = [(C * h)[..., int(k)] if channels else h[..., int(k), None] * C[:, int(k)]"
        " for k in order]\n"
        "    y = sum(turned[1:], turned[0])",
        "test_determinism.py::test_primitives_give_the_same_bits_again",
    ),
    # ----------------------------------------------------------------------- convolutions, kernels
    Mutant(
        "the convolution wraps around",
        CONVOLUTION,
        "n = _fft_length(length + min(length, taps) - 1)",
        "n = _fft_length(length)",
        "test_causal_convolution.py::test_value",
    ),
    Mutant(
        "a long kernel is cut one tap short",
        CONVOLUTION,
        "kernel = kernel[..., : min(length, taps), :]",
        "kernel = kernel[..., : min(max(length - 1, 1), taps), :]",
        "test_causal_convolution.py::test_value",
    ),
    Mutant(
        "the short convolution runs its taps backwards",
        CONVOLUTION,
        "y = y + weight[k, :] * past[..., k : k + length, :]",
        "y = y + weight[taps - 1 - k, :] * past[..., k : k + length, :]",
        "test_short_convolution.py::test_value",
    ),
    Mutant(
        "the short convolution hands on one input too few",
        CONVOLUTION,
        "return (y if bias is None else y + bias), past[..., length:, :]",
        "handed = past[..., length:, :]\n"
        "    handed = xp.where(xp.arange(taps - 1)[:, None] > 0, handed, xp.zeros_like(handed))\n"
        "    return (y if bias is None else y + bias), handed",
        "test_short_convolution.py::test_chunks_carry_the_state",
    ),
    Mutant(
        "the kernel starts at a instead of 1",
        KERNEL,
        "coarse, fine = powers.factored_powers(a, length)",
        "coarse, fine = powers.factored_powers(a, length)\n    fine = fine * a",
        "test_diagonal_kernel.py::test_value",
    ),
    Mutant(
        "powers are squared without the low parts",
        "ssmcore/powers.py",
        "    p, e = arrays.two_product(x[0], y[0])\n"
        "    return _renormalise(p, e + (x[0] * y[1] + x[1] * y[0]))",
        "    p, e = arrays.two_product(x[0], y[0])\n"
        "    return _renormalise(p, 0.0 * (e + (x[0] * y[1] + x[1] * y[0])))",
        "test_diagonal_kernel.py::test_powers_do_not_drift",
    ),
    Mutant(
        "the conjugate half of the states is dropped",
        KERNEL,
        "rows = 2.0 * xp.concat((xp.real(C), -xp.imag(C)), axis=-1)",
        "rows = xp.concat((xp.real(C), -xp.imag(C)), axis=-1)",
        "test_dplr_kernel.py::test_value",
    ),
    Mutant(
        "the low-rank correction has the wrong sign",
        KERNEL,
        "return _real_diagonal(Lambda) - 2.0 * lowered",
        "return _real_diagonal(Lambda) + 2.0 * lowered",
        "test_dplr_kernel.py::test_value",
    ),
    Mutant(
        "a later half of the kernel of S4 is a power too early",
        KERNEL,
        "rows = xp.concat((rows, rows @ power), axis=-2)",
        "rows = xp.concat((rows, rows), axis=-2)",
        "test_dplr_kernel.py::test_value",
    ),
    # ------------------------------------------------------------------------------ discretisation
    Mutant(
        "Euler for zero-order hold",
        RULES,
        '    "zoh": _zoh,\n',
        '    "zoh": _mamba,\n',
        "test_discretization.py::test_value",
    ),
    Mutant(
        "(e^z - 1) / lambda cancels near 0",
        RULES,
        "close = arrays.expm1(z) * (1.0 + step) + step",
        "close = xp.exp(z) * (1.0 + step) - 1.0",
        "test_discretization.py::test_value",
    ),
    Mutant(
        "the bilinear input gain lacks its denominator",
        RULES,
        "return _one_plus(z, low) / denominator, dt / denominator",
        "return _one_plus(z, low) / denominator, dt + 0.0 * denominator",
        "test_discretization.py::test_value",
    ),
)
