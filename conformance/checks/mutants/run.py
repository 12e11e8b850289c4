"""Run the suite on every planted fault: ``python -m checks.mutants.run [-j N] [WORD]``.

First the named tests run on an unchanged copy and have to pass. Then each fault is planted in a
copy of its own, and the named test has to fail by an assertion. A table is printed; the exit status
is 1 if a fault survives. Faults whose name contains WORD only, if one is given.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from checks.mutants.catalogue import CATALOGUE
from checks.mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[3]
ROOTS = ("ssmcore", "backends", "conformance/ssmcore_conformance")
LIMIT = 600


class Outcome(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    killed: bool
    how: str
    seconds: float


def copy(target: Path) -> None:
    """Copy the three source roots to ``target``, without what was compiled."""
    for root in ROOTS:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / root, target / root, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", target)


def plant(mutant: Mutant, target: Path) -> None:
    """Make the one change of ``mutant`` in the copy at ``target``."""
    file = target / mutant.file
    source = file.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        msg = f"{mutant.name}: {mutant.file} has {mutant.old!r} {source.count(mutant.old)} times"
        raise ValueError(msg)
    changed = source.replace(mutant.old, mutant.new)
    compile(changed, mutant.file, "exec")
    file.write_text(changed, encoding="utf-8")


SETTINGS = {"PYTHONDONTWRITEBYTECODE": "1", "SSMCORE_NATIVE": "0"}
"""The faults are planted in the references, which native kernels would stand in for."""


def suite(target: Path, tests: Iterable[str], backend: str) -> subprocess.CompletedProcess[str]:
    """Run ``tests`` of the copy at ``target``."""
    paths = [str(target / root) for root in (".", "backends", "conformance")]
    nodes = [f"conformance/ssmcore_conformance/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:xdist"]
    return subprocess.run(
        [*command, "--ssm-backend", backend, *nodes],
        cwd=target,
        env=os.environ | SETTINGS | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def baseline(mutants: list[Mutant]) -> bool:
    """Whether the named tests pass where nothing is planted."""
    with tempfile.TemporaryDirectory() as place:
        copy(Path(place))
        for backend in sorted({m.backend for m in mutants}):
            tests = sorted({m.killed_by for m in mutants if m.backend == backend})
            done = suite(Path(place), tests, backend)
            if done.returncode:
                print(done.stdout[-4000:], done.stderr[-2000:], sep="\n")
                return False
    return True


def by_assertion(output: str) -> bool:
    """Whether a test failed by an assertion, or by several, which hypothesis reports as a group."""
    one = re.search(r":\d+: (assert |AssertionError|\S*Mismatch)", output)
    several = re.search(r"Hypothesis found \d+ distinct failures", output)
    return bool(one or (several and re.search(r"^ *\| AssertionError", output, re.MULTILINE)))


def judge(mutant: Mutant) -> Outcome:
    """Plant a mutant and run the test that has to kill it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        target = Path(place)
        copy(target)
        plant(mutant, target)
        done = suite(target, [mutant.killed_by], mutant.backend)
    killed = done.returncode == 1 and by_assertion(done.stdout)
    found = re.search(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)
    how = found.group(1) if killed and found else f"exit {done.returncode}: {done.stdout[-300:]!r}"
    return Outcome(mutant, killed, how, time.perf_counter() - start)


def main() -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("word", nargs="?", default="", help="only faults with this in their name")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    mutants = [m for m in CATALOGUE if options.word in m.name]
    if not mutants:
        parser.error(f"no fault has {options.word!r} in its name")
    print(f"{len(mutants)} faults; first the named tests on the unchanged source ...", flush=True)
    if not baseline(mutants):
        print("the tests fail without any fault")
        return 2
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in pool.map(judge, mutants):
            survivors += not done.killed
            verdict = "killed  " if done.killed else "SURVIVED"
            print(f"{verdict} {done.seconds:5.1f} s  {done.mutant.name}: {done.how}", flush=True)
    print(f"{len(mutants) - survivors} of {len(mutants)} faults killed, {survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
