"""Faults of the engine, the modes and the layers."""

from __future__ import annotations

from checks.mutants.mutant import ENGINE, FOLDER, SYSTEMS, Mutant

__all__ = ["LAYERS"]

LAYERS = (
    # ------------------------------------------------------------------------------- engine, modes
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
    # -------------------------------------------------------------------------------------- layers
    Mutant(
        "S4D drops the factor 2",
        f"{FOLDER}/s4d.py",
        "pairs=not self.is_real)",
        "pairs=False)",
        "test_layers.py::test_value",
    ),
    Mutant(
        "S5 turns the other way",
        f"{FOLDER}/s5.py",
        'real + params["Lambda_im"] * 1j',
        'real - params["Lambda_im"] * 1j',
        "test_layers.py::test_value",
    ),
    Mutant(
        "LRU is not normalised",
        f"{FOLDER}/lru.py",
        'B = xp.exp(params["gamma_log"])[:, None] * arrays.join(params["B"])',
        'B = arrays.join(params["B"])',
        "test_layers.py::test_value",
    ),
    Mutant(
        "S6 takes step sizes without the bias",
        f"{FOLDER}/s6.py",
        'delta = _softplus(low + params["dt_proj"]["bias"])',
        "delta = _softplus(low)",
        "test_layers.py::test_value",
    ),
    Mutant(
        "RG-LRU does not take the whole input at the first step",
        f"{FOLDER}/rglru.py",
        "multiplier = xp.where(first, xp.ones_like(a), multiplier)",
        "multiplier = multiplier",
        "test_layers.py::test_value",
    ),
    Mutant(
        "the root of RG-LRU cancels",
        f"{FOLDER}/rglru.py",
        "self.root_offset - xp.expm1(2.0 * log_a)",
        "self.root_offset + 1.0 - xp.exp(log_a) ** 2",
        "test_layers.py::test_slow_channels_are_exact_in_their_own_size",
    ),
    Mutant(
        "the low-rank term of S4 is lost",
        f"{FOLDER}/s4.py",
        'self._rows(arrays.join(p["P"]), axis=1)',
        '0.0 * self._rows(arrays.join(p["P"]), axis=1)',
        "test_layers.py::test_value",
    ),
    Mutant(
        "the backward pass turns the padding too",
        f"{FOLDER}/bidirectional.py",
        "index = xp.where(time < end, end - 1 - time, time)",
        "index = u.shape[-2] - 1 - time + 0 * end",
        "test_bidirectional.py::test_value",
    ),
    Mutant(
        "the backward pass counts the current input twice",
        f"{FOLDER}/bidirectional.py",
        "z = _drop_current(z, reset)",
        "z = z",
        "test_bidirectional.py::test_value",
    ),
    Mutant(
        "eigenvalues are those of the continuous system",
        f"{FOLDER}/s5.py",
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
)
