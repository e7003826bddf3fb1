"""Everything that is run on this project: ``nox -s tests``, or ``nox -l`` for the list."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lowest", "types", "lint", "examples"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
PROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *names: str) -> None:
    """Install the package, and what these dependency groups name."""
    session.install("-q", "-e", ".", *nox.project.dependency_groups(PROJECT, *names))


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo: many requests on one connection, and what happens when it is cut."""
    install(session, "demo")
    session.run("python", "docs/examples/multiplexed_rpc.py", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, with branch coverage of the package at 100 %."""
    install(session, "test")
    session.run("coverage", "run", f"--data-file=.coverage.{session.python}", "-m", "pytest", *session.posargs)
    if not session.posargs:
        session.run("coverage", "report", f"--data-file=.coverage.{session.python}")


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions of the package's own dependencies."""
    install(session, "test")
    session.install("-q", *(dependency.replace(">=", "==") for dependency in PROJECT["project"]["dependencies"]))
    session.run("pytest", "-q", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, both strict."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    # Away from the work tree, so that the installed package is looked at, with its py.typed.
    session.chdir(session.create_tmp())
    session.run("pyright", "--ignoreexternal", "--verifytypes", "triores")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and async mistakes."""
    session.install("-q", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("flake8", "--select=ASYNC", "triores", "docs/examples")


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example program, as the tests do."""
    install(session, "test")
    session.run("pytest", "-q", "tests/test_examples.py", *session.posargs)
