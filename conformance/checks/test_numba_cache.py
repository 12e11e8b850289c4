"""numba's cache goes by the file of a kernel, which names the contents of what it takes in."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

pytest.importorskip("numba")

import ssmcore_numba

FOLDER = Path(str(ssmcore_numba.__file__)).parent
PARTS = ("fastmath", "vectors", "selective")
USED = [
    (file.name, part)
    for file in sorted(FOLDER.glob("*.py"))
    for part in PARTS
    if f"from ssmcore_numba.{part} import" in file.read_text()
]


@pytest.mark.parametrize(("file", "part"), USED)
def test_a_kernel_names_the_contents_of_its_parts(file: str, part: str) -> None:
    """Else an upgrade that changes the part alone would go on with the kernel of before."""
    digest = hashlib.sha256((FOLDER / f"{part}.py").read_bytes()).hexdigest()[:8]
    found = re.findall(rf"^# With {part}.py of (\w+)\.$", (FOLDER / file).read_text(), re.MULTILINE)
    assert found == [digest], f"{file}: expected a line '# With {part}.py of {digest}.'"


def test_there_are_such_kernels() -> None:
    assert {part for _, part in USED} == set(PARTS)
