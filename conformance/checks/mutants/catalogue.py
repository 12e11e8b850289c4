"""Planted faults: one small change of the source each, and the property that must notice it.

A fault is a replacement in one file of a copy of the project; ``killed_by`` names the test that
has to fail because of it. A text that is no longer there, or that is there more than once, is an
error: the catalogue is kept up with the source.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CATALOGUE", "Mutant"]


class Mutant(NamedTuple):
    """A fault, where it is planted, and who must find it."""

    name: str
    file: str
    old: str
    new: str
    killed_by: str
    backend: str = "numpy"


SCAN = "ssmcore/primitives/_reference_scan.py"
CONVOLUTION = "ssmcore/primitives/_reference_convolution.py"
KERNEL = "ssmcore/primitives/_reference_kernel.py"
RULES = "ssmcore/discretization.py"
ENGINE = "ssmcore/engine.py"
SYSTEMS = "ssmcore/systems.py"
LAYERS = "ssmcore/layers"

CATALOGUE = (
    # --------------------------------------------------------------------------- linear_scan
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
        '    """See ssmcore.linear_scan."""\n    if b.shape[-2] == 0:\n        return b\n',
        '    """See ssmcore.linear_scan."""\n    if b.shape[-2] == 0:\n        return b\n'
        "    if getattr(b, 'flags', None) is not None and b.flags.writeable:\n"
        "        b[..., -1, :] *= 2\n",
        "test_linear_scan.py::test_value",
    ),
    # ------------------------------------------------------------ diagonal and selective scan
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
        "y = y if D is None else y + D * u",
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
    # ------------------------------------------------------------------ convolutions, kernels
    Mutant(
        "the convolution wraps around",
        CONVOLUTION,
        "n = _fft_length(length + taps - 1)",
        "n = _fft_length(length)",
        "test_causal_convolution.py::test_value",
    ),
    Mutant(
        "a long kernel is cut one tap short",
        CONVOLUTION,
        "length, taps = u.shape[-2], min(u.shape[-2], kernel.shape[-2])",
        "length, taps = u.shape[-2], min(max(u.shape[-2] - 1, 1), kernel.shape[-2])",
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
        "the conjugate half of the Cauchy sum is dropped",
        KERNEL,
        "sums = resolvent @ flat + twin @ arrays.conj(flat)",
        "sums = resolvent @ flat + 0.0 * (twin @ arrays.conj(flat))",
        "test_dplr_kernel.py::test_value",
    ),
    Mutant(
        "the low-rank correction has the wrong sign",
        KERNEL,
        "column * row / (1.0 + half * r[..., -1:, -1:])",
        "column * row / (1.0 - half * r[..., -1:, -1:])",
        "test_dplr_kernel.py::test_value",
    ),
    Mutant(
        "the kernel of S4 is read with C~ of another length",
        KERNEL,
        "        if length >> level & 1:\n            power = power @ square",
        "        if (length + 1) >> level & 1:\n            power = power @ square",
        "test_dplr_kernel.py::test_value",
    ),
    # ------------------------------------------------------------------------- discretisation
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
    # --------------------------------------------------------------------------- engine, modes
    Mutant(
        "padding leaks into the outputs",
        ENGINE,
        "    valid = valid_steps(lengths, u)\n    u = hide_padding(u, valid)\n"
        "    if valid is not None:\n",
        "    valid = valid_steps(lengths, u)\n    if valid is not None:\n",
        "test_layers.py::test_lengths_in_a_convolution",
    ),
    Mutant(
        "outputs in the padding are not zero",
        ENGINE,
        "    y = hide_padding(y, valid)\n",
        "",
        "test_layers.py::test_state_reset_and_lengths_together",
    ),
    Mutant(
        "the final state forgets the initial one",
        ENGINE,
        "return system.accumulate(last) + _advance(system, x, L, steps)",
        "return system.accumulate(last)",
        "test_layers.py::test_lengths_in_a_convolution",
    ),
    Mutant(
        "the recurrence reads the state before the input",
        SYSTEMS,
        "            x = self.a * x + self.B * u[..., None]\n"
        "            return x, _real(xp.sum(self._C * x, axis=-1))",
        "            y = _real(xp.sum(self._C * x, axis=-1))\n"
        "            return self.a * x + self.B * u[..., None], y",
        "test_equivalence.py::test_modes_agree",
    ),
    # -------------------------------------------------------------------------------- layers
    Mutant(
        "S4D drops the factor 2",
        f"{LAYERS}/s4d.py",
        "pairs=not self.is_real)",
        "pairs=False)",
        "test_layers.py::test_value",
    ),
    Mutant(
        "S5 turns the other way",
        f"{LAYERS}/s5.py",
        'real + params["Lambda_im"] * 1j',
        'real - params["Lambda_im"] * 1j',
        "test_layers.py::test_value",
    ),
    Mutant(
        "LRU is not normalised",
        f"{LAYERS}/lru.py",
        'B = xp.exp(params["gamma_log"])[:, None] * arrays.join(params["B"])',
        'B = arrays.join(params["B"])',
        "test_layers.py::test_value",
    ),
    Mutant(
        "S6 takes step sizes without the bias",
        f"{LAYERS}/s6.py",
        'delta = arrays.softplus(low + params["dt_proj"]["bias"]) * self.dt_scale',
        "delta = arrays.softplus(low) * self.dt_scale",
        "test_layers.py::test_value",
    ),
    Mutant(
        "RG-LRU does not take the whole input at the first step",
        f"{LAYERS}/rglru.py",
        "multiplier = xp.where(first, xp.ones_like(a), multiplier)",
        "multiplier = multiplier",
        "test_layers.py::test_value",
    ),
    Mutant(
        "the root of RG-LRU cancels",
        f"{LAYERS}/rglru.py",
        "self.root_offset - xp.expm1(2.0 * log_a)",
        "self.root_offset + 1.0 - xp.exp(log_a) ** 2",
        "test_layers.py::test_slow_channels_are_exact_in_their_own_size",
    ),
    Mutant(
        "the low-rank term of S4 is lost",
        f"{LAYERS}/s4.py",
        'self._rows(arrays.join(p["P"]), axis=1)',
        '0.0 * self._rows(arrays.join(p["P"]), axis=1)',
        "test_layers.py::test_value",
    ),
    Mutant(
        "the backward pass turns the padding too",
        f"{LAYERS}/bidirectional.py",
        "index = xp.where(time < end, end - 1 - time, time)",
        "index = u.shape[-2] - 1 - time + 0 * end",
        "test_bidirectional.py::test_value",
    ),
    Mutant(
        "the backward pass counts the current input twice",
        f"{LAYERS}/bidirectional.py",
        "z = _drop_current(z, reset)",
        "z = z",
        "test_bidirectional.py::test_value",
    ),
    Mutant(
        "eigenvalues are those of the continuous system",
        f"{LAYERS}/s5.py",
        "return self._system(params, None, None).a",
        'return params["Lambda_re"] + params["Lambda_im"] * 1j',
        "test_layers.py::test_eigenvalues",
    ),
    Mutant(
        "LegS has its diagonal off by one",
        "ssmcore/initialization/hippo.py",
        "np.diag(n + 1.0)",
        "np.diag(n + 0.0)",
        "test_initialization.py::test_hippo_entries",
    ),
    Mutant(
        "the ring is uniform in the radius, not in the area",
        "ssmcore/initialization/ring.py",
        "0.5 * _log_between(_open_uniform(rng, N), r_min**2, r_max**2)",
        "_log_between(_open_uniform(rng, N), r_min, r_max)",
        "test_initialization_draws.py::test_ring",
    ),
    # ----------------------------------------------------------------------------- gradients
    Mutant(
        "the gradient of the last state is missing",
        SCAN,
        "return y, h[..., -1, :, :] if u.shape[-2] else initial",
        "from ssmcore import backend\n"
        "    return y, backend.of(h).stop_gradient(h[..., -1, :, :]) if u.shape[-2] else initial",
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
        "a = xp.exp(delta[..., None] * A)",
        "from ssmcore import backend\n"
        "    a = xp.exp(backend.of(delta).stop_gradient(delta)[..., None] * A)",
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
)
