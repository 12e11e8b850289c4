"""The commands of the project: ``nox -s verify``, ``nox -s tests``, and what they are made of."""

from __future__ import annotations

import itertools
import pathlib

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["tests"]

CONSTRAINTS = ("-c", "constraints.txt")
DEV = ("mypy", "ruff", "pytest-xdist", "hatchling", "editables")
OTHERS = ("transformers", "s5-pytorch")  # that docs/comparing-models.md and benchmarks compare
SHOWN = ("scikit-learn", "optax", "equinox", "flax")  # in examples and in docs/jax-ecosystem.md

BENCH = ("pytest", "pytest-benchmark", "matplotlib")
PEERS = ("mambapy", "accelerated-scan")  # of the benchmarks; run without what they pull in
OUT = pathlib.Path("benchmarks/out").absolute()


def install(session: nox.Session, extras: str, *more: str, editable: bool = False) -> None:
    """Install the project with ``extras`` and ``more``, at the pinned versions.

    Without compiling every module of every library: Python compiles what it imports.
    """
    given = (*(("-e",) if editable else ()), f".[{extras}]", *more)
    session.install("--no-compile", *CONSTRAINTS, *given)


# One thread for each of two processes. JAX compiles hundreds of programs that run once: without
# optimising and by XLA's older emitters, in less than half the time;
# conformance/checks/test_optimised.py compiles what is sensitive to that as users do. And a hundred
# tests start a Python of their own, which reads the modules that the first has compiled, whatever
# the environment says of writing them.
ONCE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_multi_thread_eigen=false",
    "PYTHONDONTWRITEBYTECODE": "",
}


@nox.session
def verify(session: nox.Session) -> None:
    """The main job: all layers on NumPy, PyTorch and JAX against the float64 oracle."""
    install(session, "torch,jax")
    session.run("ssmcore", "verify", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything CI checks: style, types, the suite on every backend, the doctests."""
    install(
        session, "torch,jax,conformance,numba,plot", *DEV, *OTHERS, *SHOWN, *BENCH, editable=True
    )
    _lint(session)
    _types(session)
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs, env=ONCE)
    session.run(
        "pytest", "--doctest-modules", "ssmcore", "backends", "-q", "-p", "no:xdist", env=ONCE
    )


@nox.session
def conformance(session: nox.Session) -> None:
    """The suite, away from the checkout, with reports: ``nox -s conformance -- torch --help``."""
    install(session, "torch,jax,conformance", "pytest-xdist")
    session.chdir(session.create_tmp())
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), session.posargs))
    options = [f"--backend={name}" for name in names] + session.posargs[len(names) :]
    reports = ("--report=conformance.html", "--json=conformance.json")
    session.run("python", "-m", "ssmcore_conformance", *reports, *options)
    session.log(f"reports: {pathlib.Path.cwd()}")


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant every fault of the catalogue and see that the suite notices: a table."""
    install(session, "torch,conformance", "hatchling", "editables", editable=True)
    session.run("python", "-m", "checks.mutants.run", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style only."""
    session.install(*CONSTRAINTS, "ruff")
    _lint(session)


@nox.session
def types(session: nox.Session) -> None:
    """Types only."""
    install(session, "torch,jax,conformance,numba,plot", *DEV, *BENCH, editable=True)
    _types(session)


@nox.session
def numpy_only(session: nox.Session) -> None:
    """The NumPy-only install, away from the checkout: the wheel runs without torch and JAX."""
    session.install(*CONSTRAINTS, ".")
    session.chdir(session.create_tmp())
    session.run("ssmcore", "doctor")
    session.run("ssmcore", "verify", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Speed on the CPU beside floors and peers: one table; figures and JSON in benchmarks/out.

    ``nox -s bench -- --row linear_scan`` runs some rows; ``nox -s bench -- files [options]`` the
    files of pytest-benchmark instead. Fails where a bar does not hold.
    """
    install(session, "torch,jax,numba,plot", "hatchling", *BENCH, *OTHERS, editable=True)
    session.install(*CONSTRAINTS, "--no-deps", *PEERS)
    _bench(session, *session.posargs)


@nox.session(venv_params=["--system-site-packages"])
def bench_gpu(session: nox.Session) -> None:
    """The same on a GPU, with the CUDA libraries that the machine has; nothing replaces them."""
    session.install("--no-deps", "-e", ".")
    session.install("array-api-compat", "safetensors", "typer", "rich", "numba", *BENCH)
    _bench(session, "--gpu", *session.posargs)


def _bench(session: nox.Session, *given: str) -> None:
    """Run rows and draw them; or, where "files" is given, the files of pytest-benchmark."""
    OUT.mkdir(exist_ok=True)
    if "files" in given:
        options = [word for word in given if word != "files"]
        report = f"--benchmark-json={OUT / 'files.json'}"
        session.run("pytest", "benchmarks", "-o", "python_files=bench_*.py", report, *options)
        return
    path = OUT / "bench.json"
    path.unlink(missing_ok=True)
    try:
        session.run("python", "-m", "benchmarks", "--json", str(path), *given)
    finally:
        if path.exists():
            session.run("python", "-m", "benchmarks.plot", str(path), silent=True)
            session.log(f"figures: {OUT}")


def _lint(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


def _types(session: nox.Session) -> None:
    session.run("mypy")
