"""Faults that small inputs in fresh memory do not show: who writes where, what is long or wide."""

from __future__ import annotations

from checks.mutants.mutant import CONVOLUTION, SCAN, Mutant

__all__ = ["MEMORY_AND_SIZE"]

RESULT = "    return arrays.moveaxis(h, 0, -2)\n"
NUMPY_CAN_WRITE = "getattr({0}, 'flags', None) is not None and {0}.flags.writeable"
CARRIED = "carried = _carried(first_keep, first * initial[..., None, :])"
KEEP = "keep = None if reset is None else ~_led(reset, b.ndim - 1)[..., None]"
READ = "y = xp.sum(C * h, axis=-1) if channels else h @ xp.matrix_transpose(C)"

MEMORY_AND_SIZE = (
    Mutant(
        "the states are written over the input",
        SCAN,
        RESULT,
        "    h = arrays.moveaxis(h, 0, -2)\n"
        f"    if {NUMPY_CAN_WRITE.format('b')} and h.dtype == b.dtype:\n"
        "        b[...] = h\n"
        "    return h\n",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the initial state is cleared after use",
        SCAN,
        CARRIED,
        f"{CARRIED}\n        if {NUMPY_CAN_WRITE.format('initial')}:\n            initial[...] = 0",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the drive is read as if it lay in memory without gaps",
        SCAN,
        "    if not reverse:\n",
        "    base = getattr(b, 'base', None)\n"
        "    if base is not None and not b.flags.c_contiguous and base.size >= b.size:\n"
        "        b = base.reshape(-1)[: b.size].reshape(b.shape)\n"
        "    if not reverse:\n",
        "test_linear_scan.py::test_layouts_in_memory",
    ),
    Mutant(
        "one step alone returns its input",
        SCAN,
        "return xp.concat((b,), axis=-2)  # never",
        "return b  # never",
        "test_linear_scan.py::test_value",
    ),
    Mutant(
        "the short convolution hands on a view of its input",
        CONVOLUTION,
        "return (y if bias is None else y + bias), past[..., length:, :]",
        "kept = taps - 1\n"
        "    handed = u[..., length - kept :, :] if length >= kept else past[..., length:, :]\n"
        "    return (y if bias is None else y + bias), handed",
        "test_short_convolution.py::test_value",
    ),
    Mutant(
        "NaN crosses a restart",
        SCAN,
        "return xp.where(keep, moved, xp.zeros_like(moved))",
        "return moved * xp.astype(keep, moved.dtype)",
        "test_linear_scan.py::test_nothing_crosses_a_restart_not_even_nan",
    ),
    Mutant(
        "a reset on the edge of a block is lost",
        SCAN,
        KEEP,
        f"{KEEP}\n"
        "    if keep is not None and b.shape[-2] > 128:\n"
        "        time = xp.arange(b.shape[-2])\n"
        "        keep = keep | ((time % 128 == 0) & (time > 0))[:, None]",
        "test_linear_scan.py::test_large_shapes",
    ),
    Mutant(
        "channels beyond a tile are zero",
        SCAN,
        RESULT,
        "    h = arrays.moveaxis(h, 0, -2)\n"
        "    return h * xp.astype(xp.arange(h.shape[-1]) < 32, h.dtype)\n",
        "test_linear_scan.py::test_large_shapes",
    ),
    Mutant(
        "states beyond a tile are not read",
        SCAN,
        READ,
        f"C, h = C[..., :16], h[..., :16]\n    {READ}",
        "test_diagonal_scan.py::test_large_shapes",
    ),
    Mutant(
        "the last state of a long sequence is the one before",
        SCAN,
        "last = 0 if reverse else u.shape[-2] - 1",
        "last = 0 if reverse else u.shape[-2] - (2 if u.shape[-2] >= 1000 else 1)",
        "test_diagonal_scan.py::test_large_shapes",
    ),
    Mutant(
        "a long transform wraps around",
        CONVOLUTION,
        "n = _fft_length(length + min(length, taps) - 1)",
        "n = _fft_length(length + (min(length, taps) - 1 if length < 1000 else 0))",
        "test_causal_convolution.py::test_large_shapes",
    ),
)
