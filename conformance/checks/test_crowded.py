"""A long run lets go of compiled programs before the process has too many memory mappings."""

from pathlib import Path

import pytest
from ssmcore_conformance.crowded import LIMIT, crowded


@pytest.mark.skipif(not LIMIT.exists(), reason="only Linux limits the mappings of a process")
def test_crowded_counts_mappings(tmp_path: Path) -> None:
    most = int(LIMIT.read_text())
    maps = tmp_path / "maps"
    maps.write_text("x\n" * (most // 2 + 1))
    assert crowded(mappings=maps)
    maps.write_text("x\n" * (most // 2 - 1))
    assert not crowded(mappings=maps)


@pytest.mark.skipif(not LIMIT.exists(), reason="only Linux limits the mappings of a process")
def test_jax_lets_go_of_its_programs() -> None:
    jax = pytest.importorskip("jax")
    from ssmcore import backend

    def count() -> int:
        return Path("/proc/self/maps").read_text().count("\n")

    library = backend.load("jax")
    library.forget_compiled()
    before = count()
    for n in range(1, 60):
        jax.jit(lambda x: (x * 2).sum() + x[0])(jax.numpy.ones(n, dtype="float32"))
    compiled = count() - before
    library.forget_compiled()
    assert compiled > 100
    assert count() - before < 0.5 * compiled
