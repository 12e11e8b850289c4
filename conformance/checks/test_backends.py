"""Backends: how they are found, named, loaded; absent, broken and third-party libraries."""

from __future__ import annotations

import shutil
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from checks import boxed, fresh

import ssmcore as ssm
from ssmcore import backend
from ssmcore.backend import Backend

BUILT_IN = ["numpy", "torch", "jax", "cupy", "array_api_strict"]
LIBRARIES = ("torch", "jax", "cupy")


class Absent(Backend):
    """A backend whose library nobody has."""

    name = "absent"
    library = "no_such_array_library"
    install = "pip install no-such-array-library"

    def owns(self, x: object) -> bool:
        return False


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setattr(backend, "_registered", dict(backend._registered))
    monkeypatch.setattr(backend, "_owner_of_type", {})
    backend.register(Absent())
    return Absent()


def test_the_built_in_backends_are_named() -> None:
    assert set(BUILT_IN) <= set(backend.names())


def test_available_leaves_out_what_is_for_tests_and_what_is_absent(absent: Backend) -> None:
    assert absent.name in backend.names()
    assert absent.name not in backend.available(test_only=True)
    assert "numpy" in backend.available()
    assert "array_api_strict" not in backend.available()
    assert "array_api_strict" in backend.available(test_only=True)


@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
def test_load_gives_the_same_object_every_time(name: str) -> None:
    assert backend.load(name) is backend.load(name)
    assert backend.load(name).name == name
    assert backend.load(name).version()


def test_an_unknown_name_gets_the_nearest_one() -> None:
    for call in (
        lambda: backend.load("troch"),
        lambda: ssm.move(np.ones(1), backend="troch"),
        lambda: ssm.LRU(d_model=2).init(0, backend="troch"),
    ):
        with pytest.raises(ssm.SSMError, match=r"'troch'.*'numpy'.*did you mean 'torch'\?"):
            call()


def test_an_absent_library_is_named_with_its_installation(absent: Backend) -> None:
    with pytest.raises(ssm.SSMError, match=f"{absent.library}.*not installed.*{absent.install}"):
        ssm.LRU(d_model=2).init(0, backend=absent.name)


def test_a_library_with_a_dotted_name_may_be_absent(
    absent: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Absent, "library", "no_such_array_library.core")
    with pytest.raises(ssm.SSMError, match="pip install no-such-array-library"):
        backend.load("absent")
    assert "absent" not in backend.available(test_only=True)
    assert "numpy" in backend.available()


def test_register_wins_over_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_registered", dict(backend._registered))
    monkeypatch.setattr(backend, "_owner_of_type", dict(backend._owner_of_type))
    mine = type("Mine", (type(backend.load("numpy")),), {})()
    backend.register(mine)
    assert backend.load("numpy") is mine
    assert backend.of(np.ones(1)) is mine


def test_arrays_decide_their_backend_and_do_not_mix() -> None:
    x = array_api_strict.ones(3)
    assert backend.of(x).name == "array_api_strict"
    assert backend.of(np.ones(3), None, np.ones(1)).name == "numpy"
    with pytest.raises(ssm.SSMError, match=r"(?=.*numpy)(?=.*array_api_strict)"):
        backend.of(x, np.ones(3))
    with pytest.raises(ssm.SSMError, match=r"builtins\.list"):
        backend.of([1.0, 2.0])
    with pytest.raises(ssm.SSMError, match="expected an array, got None"):
        ssm.move(None)
    with pytest.raises(ssm.SSMError, match=r"backend is \['numpy'\]; expected one of"):
        ssm.move(np.ones(1), backend=["numpy"])  # type: ignore[arg-type]


def test_numpy_has_no_gradients_and_says_who_has() -> None:
    with pytest.raises(ssm.SSMError, match="'torch' or 'jax'"):
        backend.load("numpy").value_and_grad(np.sum, np.ones(2))


def _installed(folder: Path, code: str = "") -> Path:
    """Lay out ``boxed`` as pip installs a distribution: a package and its metadata.

    ``code`` stands in for the package's own.
    """
    (folder / "boxed").mkdir()
    if code:
        (folder / "boxed" / "__init__.py").write_text(code)
    else:
        shutil.copy(boxed.__file__, folder / "boxed" / "__init__.py")
    info = folder / "boxed-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: boxed\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[ssmcore.backends]\nboxed = boxed:BACKEND\n")
    return folder


THIRD_PARTY = """
import sys
import numpy as np, ssmcore as ssm
from ssmcore import backend
from checks.small_layers import EVERY, numbers
assert "boxed" in backend.names() and "boxed" not in sys.modules
print(backend.load("boxed").version())
import boxed
for name, layer in EVERY.items():
    for mode in ("auto", "recurrence"):
        params = layer.init(0, backend="boxed", dtype="float64")
        u = ssm.move(numbers("float64"), backend="boxed")
        y = layer(params, u, mode=mode)
        assert type(y) is boxed.Box, type(y)
        params = layer.init(0, backend="numpy", dtype="float64")
        expected = layer(params, numbers("float64"), mode=mode)
        assert np.array_equal(ssm.to_numpy(y), expected), (name, mode)
        assert np.max(np.abs(expected)) > 0
"""


def test_a_third_party_backend_comes_through_its_entry_point(tmp_path: Path) -> None:
    # The same NumPy operations in the same order: equal to the last bit.
    done = fresh.output(THIRD_PARTY, path=_installed(tmp_path), SSMCORE_NATIVE="0")
    assert done == "0.1"


def test_without_the_entry_point_there_is_no_such_backend(tmp_path: Path) -> None:
    folder = _installed(tmp_path)
    (folder / "boxed-0.1.dist-info" / "entry_points.txt").write_text("")
    line = fresh.failure('from ssmcore import backend; backend.load("boxed")', path=folder)
    assert line.startswith("ssmcore.errors.SSMError")
    assert "'boxed'" in line


BROKEN_PACKAGE = """
import numpy as np, ssmcore as ssm
from ssmcore import backend, doctor, verify
assert "boxed" in backend.names()
assert "boxed" not in backend.available(test_only=True)
assert list(backend.failures()) == ["boxed"]
try:
    backend.of([1.0])
except ssm.SSMError as error:
    assert "builtins.list" in str(error), error
try:
    backend.load("boxed")
except ssm.SSMError as error:
    print(repr(error.__cause__), "|", error)
report = verify.run(["LRU"], dtypes=["float32"], modes=["scan"], length=8)
print([note for note in report.notes if "boxed" in note])
[row] = doctor.run(["boxed"]).backends
print(row.status, "|", row.detail)
"""


@pytest.mark.parametrize(
    ("code", "cause", "reason"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError('out of order')", "out of order"),
        ("import no_such_library", "ModuleNotFoundError", "no_such_library"),
        ("raise SystemExit(3)", "SystemExit(3)", "SystemExit: 3"),
        ("", "AttributeError", "BACKEND"),
        ("BACKEND = 3", "None", "boxed:BACKEND' is 3; expected an instance of"),
        (
            "class Its:\n    name, library, install, owns = 'box', 'b', 'i', None\nBACKEND = Its()",
            "None",
            "has the name 'box'; expected that of the entry point",
        ),
        ("class Its:\n    owns = None\nBACKEND = Its()", "None", "name, library, install, owns"),
        ("class BACKEND:\n    owns = None", "None", "boxed.BACKEND'>; expected an instance of"),
    ],
)
def test_a_broken_third_party_package_stops_nobody_else(
    code: str, cause: str, reason: str, tmp_path: Path
) -> None:
    folder = _installed(tmp_path, code or "pass")
    quick = fresh.WITHOUT.format(libraries=("torch", "jax"))  # NumPy is somebody else already
    lines = fresh.output(quick + BROKEN_PACKAGE, path=folder).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(cause)
    assert lines[2].startswith("broken | ")
    for line in lines:
        assert "'boxed'" in line
        assert reason in line
    line = fresh.failure('import ssmcore as ssm; ssm.LRU(2).init(0, backend="boxed")', path=folder)
    assert line.startswith("ssmcore.errors.SSMError")


KIND = 'import ssmcore as ssm; print(type(ssm.LRU(d_model=2).init(0)["D"]).__module__)'


def test_the_environment_chooses_the_default(tmp_path: Path) -> None:
    folder = _installed(tmp_path)
    for name in ("numpy", "array_api_strict", "boxed"):
        kind = fresh.output(KIND, path=folder, SSMCORE_BACKEND=name)
        assert kind.split(".")[0] == name
    assert fresh.output(KIND, SSMCORE_BACKEND="") == "numpy"
    assert fresh.output(KIND) == "numpy"


def test_an_unknown_default_fails_at_import_with_the_nearest_name() -> None:
    line = fresh.failure("import ssmcore", SSMCORE_BACKEND="numpi")
    assert line.startswith("ssmcore.errors.SSMError")
    assert "SSMCORE_BACKEND" in line
    assert "did you mean 'numpy'?" in line


ABSENT = """
import importlib.util
assert not any(importlib.util.find_spec(name) for name in ("torch", "jax", "cupy"))
import ssmcore, ssmcore_numpy, ssmcore_torch, ssmcore_jax, ssmcore_cupy
from ssmcore import backend
from checks.small_layers import SEVEN, numbers
for layer in SEVEN.values():
    layer(layer.init(0, dtype="float64"), numbers("float64"))
print(backend.available())
for name, package in (("torch", ssmcore_torch), ("jax", ssmcore_jax), ("cupy", None)):
    calls = [lambda: layer.init(0, backend=name)]
    calls += [lambda: ssmcore.move(numbers("float32"), backend=name)]
    calls += [lambda: package.S5(d_model=2)] if package else []
    for call in calls:
        try:
            call()
        except ssmcore.SSMError as error:
            assert f'pip install "ssmcore[{name}]"' in str(error), error
        else:
            raise AssertionError(name)
"""


def test_absent_libraries_break_no_import() -> None:
    code = fresh.WITHOUT.format(libraries=LIBRARIES) + ABSENT
    assert fresh.output(code) == "['numpy']"


def test_the_check_on_absent_libraries_can_fail() -> None:
    pytest.importorskip("torch", reason="needs a library to be found")
    assert "AssertionError" in fresh.failure(fresh.WITHOUT.format(libraries=("jax",)) + ABSENT)


BROKEN = """
import ssmcore, ssmcore_torch
layer = ssmcore.LRU(d_model=2, d_state=4)
layer(layer.init(0, dtype="float32"), __import__("numpy").ones((3, 2), "float32"))
for call in (lambda: layer.init(0, backend="torch"), lambda: ssmcore_torch.LRU(d_model=2)):
    try:
        call()
    except RuntimeError as error:
        print(error)
"""


def test_a_library_present_but_broken_raises_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text('raise RuntimeError("this torch is broken")\n')
    assert fresh.output(BROKEN, path=tmp_path).splitlines() == ["this torch is broken"] * 2
