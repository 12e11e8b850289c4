"""The machinery of the benchmarks, on small inputs; nothing here says how fast anything is."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssmcore_numpy import NumpyBackend
from typer.testing import CliRunner

from ssmcore.bench import memory, timing
from ssmcore.bench.run import Size
from ssmcore.bench.run import run as bench
from ssmcore.bench.subjects import SUBJECTS
from ssmcore.cli import app
from ssmcore.errors import SSMError
from ssmcore.primitives import REFERENCES

ROOT = Path(__file__).resolve().parents[2]
RUNNER = CliRunner()

# -------------------------------------------------------------------------------- the timing core


class Clock:
    """A clock that stands still until something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def call(self, seconds: float) -> Any:
        def call() -> None:
            self.now += seconds

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    return made


def test_sides_take_turns_and_the_order_turns_around(clock: Clock) -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> Any:
        def call() -> None:
            order.append(name)
            clock.now += seconds

        return call

    sides = {"a": side("a", 0.01), "b": side("b", 0.02)}
    times = timing.interleave(sides, seconds=0.05, rounds=3)
    plan = ["a", "b"]  # one call of each that is not counted
    turns = ["aa", "bb", "bb", "aa", "aa", "bb"]  # untimed, then timed
    assert "".join(order) == "".join([*plan, *turns])
    assert [len(one.rounds) for one in times.values()] == [3, 3]
    assert times["b"].median == pytest.approx(0.02)
    assert timing.ratio(times["b"], times["a"]) == pytest.approx(2.0)


def test_a_slow_side_runs_three_single_calls(clock: Clock) -> None:
    times = timing.interleave({"slow": clock.call(5.0), "fast": clock.call(0.001)}, seconds=1.0)
    assert [len(one) for one in times["slow"].rounds] == [1, 1, 1]
    assert [len(one) for one in times["fast"].rounds] == [timing.MOST_CALLS] * timing.ROUNDS


def test_ratio_is_the_median_over_rounds_not_of_all_calls() -> None:
    ours = timing.Times([[1.0], [10.0], [1.0]])  # the machine was slow in round two, for both
    floor = timing.Times([[1.0], [10.0], [1.0]])
    assert timing.ratio(ours, floor) == 1.0


def test_quartiles_and_counts() -> None:
    found = timing.Times([[1.0, 2.0, 3.0], [4.0, 5.0]]).to_dict()
    assert found == {
        "median_s": 3.0,
        "first_quartile_s": 2.0,
        "third_quartile_s": 4.0,
        "rounds": 2,
        "calls": 5,
    }


def test_peak_memory_sees_what_is_gone_when_the_call_ends() -> None:
    size = 40 * 2**20

    def call() -> np.ndarray[Any, Any]:
        passing = np.ones(size, np.uint8)
        return passing[: 2**20].copy()

    grown = memory.peak(call)
    if grown is None:
        pytest.skip("no high-water mark that can be reset on this system")
    assert size <= grown < 1.2 * size


# ---------------------------------------------------------------------------------- ssmcore bench


def test_every_primitive_and_layer_runs_beside_its_floor() -> None:
    report = bench(backends=["numpy"], quick=True)
    assert report.passed, [row.problem for row in report.rows]
    assert [row.name for row in report.rows] == list(SUBJECTS)
    assert set(REFERENCES) < set(SUBJECTS)
    for row in report.rows:
        assert row.error is not None
        assert row.error < 1e-4, row.name  # float32 against float64: nothing was compared in vain
        assert row.forward is not None
        assert row.floor is not None
        assert row.backward is None  # NumPy has no gradients


def test_gradients_are_timed_where_there_are_some() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    [row] = bench(["linear_scan"], ["torch"], quick=True).rows
    assert row.problem == ""
    assert row.backward is not None


def test_a_kernel_that_raises_is_one_failed_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        msg = "no such instruction"
        raise RuntimeError(msg)

    monkeypatch.setattr(NumpyBackend, "primitives", lambda self: {"short_convolution": broken})
    path = tmp_path / "bench.json"
    names = ("short_convolution", "diagonal_kernel")
    line = ["bench", *names, "--backends", "numpy", "--quick", "--json", str(path)]
    found = RUNNER.invoke(app, line)
    assert found.exit_code == 1
    assert "FAILED short_convolution on numpy: RuntimeError: no such instruction" in found.stdout
    report = json.loads(path.read_text())
    assert [row["problem"] == "" for row in report["rows"]] == [False, True]
    assert report["passed"] is False


def test_a_wrong_kernel_shows_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any, **kwargs: Any) -> Any:
        return 1.01 * REFERENCES["linear_scan"](*args, **kwargs)

    monkeypatch.setattr(NumpyBackend, "primitives", lambda self: {"linear_scan": wrong})
    [row] = bench(["linear_scan"], ["numpy"], quick=True).rows
    assert row.error == pytest.approx(0.01, rel=0.01)


def test_report_names_the_machine_and_no_place(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    line = ["bench", "linear_scan", "--backends", "numpy", "--quick", "--json", str(path)]
    assert RUNNER.invoke(app, line).exit_code == 0
    text = path.read_text()
    report = json.loads(text)
    assert {"processor", "cores", "memory_gib", "system", "python"} == set(report["machine"])
    assert report["environment"]["backends"]["numpy"]["version"] == np.__version__
    assert str(Path.home()) not in text
    assert str(ROOT) not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["linear_scam"], "linear_scan"),
        (["--backends", "nunpy"], "numpy"),
        (["--channels", "6"], "channels is 6; expected a positive multiple of 4"),
        (["--states", "3"], "states is 3; expected a positive multiple of 2"),
        (["--json", "/no/such/folder/x.json"], "writable folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    found = RUNNER.invoke(app, ["bench", *arguments])
    assert found.exit_code == 2
    [line] = found.stderr.strip().splitlines()
    assert message in line


def test_sizes_are_checked_before_any_work() -> None:
    with pytest.raises(SSMError, match="channels is 2"):
        bench(size=Size(1, 8, 2, 4))


# ------------------------------------------------------------------------- benchmarks of a checkout


def row(name: str) -> dict[str, Any]:
    from benchmarks.measure import measure
    from benchmarks.rows import ROWS

    return measure(ROWS[name], quick=True)


@pytest.fixture
def checkout() -> None:
    pytest.importorskip("torch", reason="the floors are torch's")
    pytest.importorskip("benchmarks", reason="benchmarks are in a checkout only")


@pytest.mark.parametrize(
    "name",
    [
        "linear_scan_wide_complex_numpy",
        "linear_scan_long_backward_torch",
        "selective_scan_l1024_numpy",
        "diagonal_kernel_numpy",
        "dplr_kernel_numpy",
        "s4d_layer_numpy",
    ],
)
def test_row_runs_and_its_peers_are_equal(checkout: None, name: str) -> None:
    found = row(name)
    ours = found["ours"]
    assert all(e <= t for e, t in zip(ours["errors"], ours["tolerances"], strict=True))
    statuses = {peer: one["status"] for peer, one in found["peers"].items()}
    assert set(statuses.values()) <= {"equal", "missing"}, f"{found['peers']}\nagain: {row(name)}"
    for bar in found["bars"]:
        assert bar["holds"] is not None or "why" in bar
    json.dumps(found, allow_nan=False)


def test_a_wrong_result_of_ours_holds_no_bar(
    checkout: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: Any, **kwargs: Any) -> Any:
        return 1.01 * REFERENCES["linear_scan"](*args, **kwargs)

    monkeypatch.setattr(NumpyBackend, "primitives", lambda self: {"linear_scan": wrong})
    [bar] = row("linear_scan_wide_numpy")["bars"]
    assert bar["holds"] is False
    assert "ours is wrong" in bar["why"]


def test_a_peer_that_differs_is_not_timed(checkout: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.peers import scans

    monkeypatch.setattr(scans, "numpy_loop", lambda a, b: a + b)
    peer = row("linear_scan_wide_numpy")["peers"]["numpy_loop"]
    assert peer["status"] == "different"
    assert "median_s" not in peer


def test_a_peer_that_is_not_installed_is_named(
    checkout: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerated_scan", None)
    monkeypatch.setitem(sys.modules, "accelerated_scan.ref", None)
    peer = row("linear_scan_wide_torch")["peers"]["accelerated_scan"]
    assert peer["status"] == "missing"
    assert "pip install --no-deps accelerated-scan" in peer["why"]


def test_exponents_are_those_of_the_upper_half() -> None:
    curves = pytest.importorskip("benchmarks.curves", reason="benchmarks are in a checkout only")
    sizes = [2**k for k in range(8, 21, 2)]
    assert curves.exponent(sizes, [3e-9 * n**1.25 for n in sizes]) == pytest.approx(1.25)
    flat = [1.0] * 3 + [n / sizes[3] for n in sizes[3:]]  # what a call costs, then growth
    assert curves.exponent(sizes, flat) == pytest.approx(1.0)


def test_curve_of_memory_and_time(checkout: None) -> None:
    [found] = curve((2**14, 2**16, 2**18))["libraries"]
    assert len(found["seconds"]) == len(found["peak_bytes"]) == 3
    if None not in found["peak_bytes"]:
        assert 0.8 < found["exponents"]["memory"] < 1.2  # arrays of L steps


def curve(sizes: tuple[int, ...]) -> dict[str, Any]:
    from benchmarks import curves

    one = dataclasses.replace(curves.CURVES["cost_short_convolution_length"], sizes=sizes)
    return curves.measure(one, libraries=["numpy"])


def test_command_writes_a_report_that_can_be_drawn(checkout: None, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "bench.json"
    name = "linear_scan_wide_numpy"
    found = command("benchmarks", "--quick", "--row", name, "--json", str(path))
    assert found.returncode == 0, found.stderr
    assert name in found.stdout
    assert "quick: these figures mean nothing" in found.stdout
    report = json.loads(path.read_text())
    assert [one["row"] for one in report["rows"]] == [name]
    report["curves"] = [curve((64, 128, 256))]
    path.write_text(json.dumps(report))
    drawn = command("benchmarks.plot", str(path), "--out", str(tmp_path / "figures"))
    assert drawn.returncode == 0, drawn.stderr
    kinds = ("svg", "png")
    names = {x.name for x in (tmp_path / "figures").iterdir()}
    assert names == {f"bench_{what}.{kind}" for what in ("bars", "cost_L") for kind in kinds}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmarks", "--row", "nothing"], "no row is called or contains 'nothing'; see --list"),
        (["benchmarks", "--row", "linear", "--json", "/no/folder/x.json"], "writable folder"),
        (["benchmarks.plot", "pyproject.toml"], "cannot be read"),
    ],
)
def test_commands_refuse_bad_input(checkout: None, arguments: list[str], message: str) -> None:
    found = command(*arguments)
    assert found.returncode == 2
    assert message in found.stderr


def test_every_row_has_a_bar_that_can_be_told(checkout: None) -> None:
    from benchmarks.libraries import CPU, GPU
    from benchmarks.rows import ROWS
    from benchmarks.run import choose

    for name, one in ROWS.items():
        assert one.bars, name
        assert one.library in (*CPU, *GPU)
        assert all(bar.against for bar in one.bars if bar.what in ("slower", "faster"))
    assert not set(choose([])) & set(choose([], gpu=True))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
