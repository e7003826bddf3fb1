"""Everything you can run in this project: ``nox -s tests``, for example; ``nox -l`` lists all sessions."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import shutil
import sqlite3
import subprocess
import tarfile

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "coverage", "lowest", "trio-asyncio", "leftovers", "types", "lint", "examples", "docs"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.14t", "pypy3.11"]
PROJECT = nox.project.load_toml("pyproject.toml")
WITHOUT_EXAMPLES = ["--ignore-glob=*/test_examples*"]  # they have a session of their own


def install(session: nox.Session, *names: str) -> None:
    """Install the package and these dependency groups."""
    session.install("-q", "-e", ".", *nox.project.dependency_groups(PROJECT, *names))


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo: many requests on one connection, and what happens when it is cut."""
    install(session, "demo")
    session.run("python", "docs/examples/multiplexed_rpc.py", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, except those of the examples."""
    install(session, "test")
    session.run("pytest", "-q", *(session.posargs or ["-n", "2", *WITHOUT_EXAMPLES]))


@nox.session(python="3.13")
def coverage(session: nox.Session) -> None:
    """Run the same tests on one version of Python, and check that they cover every branch of the package."""
    install(session, "test")
    session.run("coverage", "run", "-m", "pytest", "-q", *WITHOUT_EXAMPLES)
    session.run("coverage", "report")


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest supported versions of the package's dependencies."""
    install(session, "test")
    session.install("-q", *(dependency.replace(">=", "==") for dependency in PROJECT["project"]["dependencies"]))
    session.run("pytest", "-q", *(session.posargs or ["-n", "2", *WITHOUT_EXAMPLES]))


@nox.session(python="3.13", name="trio-asyncio")
def trio_asyncio(session: nox.Session) -> None:
    """Run the tests with trio-asyncio, which permanently changes the process they run in."""
    install(session, "trio-asyncio")
    session.run("pytest", "-q", "tests/with_trio_asyncio.py", *session.posargs)


@nox.session(python="3.13")
def leftovers(session: nox.Session) -> None:
    """Run the tests with the package's own pytest plugin, and check that none of them leaves a result behind."""
    install(session, "test")
    session.run("pytest", "-q", "-p", "triores.pytest_plugin", *(session.posargs or ["-n", "2", *WITHOUT_EXAMPLES]))


@nox.session(python="3.13")
def soak(session: nox.Session) -> None:
    """Run the tests with many more faults, schedules and repetitions than usual. This takes 10 to 30 minutes."""
    install(session, "test")
    session.run("pytest", "-q", *session.posargs, env={"TRIORES_SOAK": "1"})


@nox.session
def mutation(session: nox.Session) -> None:
    """Check that the tests notice changes to the package. This takes hours; ``-- 100`` only tries 100 of them."""
    copy = pathlib.Path(session.create_tmp()) / "copy"  # cosmic-ray changes the files in here, one after another
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(".", copy, ignore=shutil.ignore_patterns(".*", "_build", "__pycache__"))
    session.chdir(copy)
    install(session, "mutation")  # installs the copy, so that programs that the tests start import it too
    session.run("cosmic-ray", "init", "cosmic-ray.toml", "mutants.sqlite")
    session.run("cr-filter-operators", "mutants.sqlite", "cosmic-ray.toml")
    keep_some(pathlib.Path("mutants.sqlite"), int(session.posargs[0]) if session.posargs else -1)
    session.run("cosmic-ray", "baseline", "cosmic-ray.toml")
    session.run("cosmic-ray", "exec", "cosmic-ray.toml", "mutants.sqlite")
    session.run("cr-report", "--surviving-only", "--show-diff", "mutants.sqlite")
    session.run("cr-rate", "--fail-over", "12", "mutants.sqlite")  # tests/mutants.md explains most survivors


def keep_some(mutants: pathlib.Path, count: int) -> None:
    """Delete the filtered mutants, which would count as noticed, and all but ``count`` others, chosen at random."""
    with contextlib.closing(sqlite3.connect(mutants)) as database, database:
        database.execute(
            "CREATE TEMPORARY TABLE kept AS SELECT job_id FROM work_items "
            "WHERE job_id NOT IN (SELECT job_id FROM work_results) ORDER BY RANDOM() LIMIT ?",
            [count],
        )
        for table in ("mutation_specs", "work_items", "work_results"):
            database.execute(f"DELETE FROM {table} WHERE job_id NOT IN (SELECT job_id FROM kept)")  # noqa: S608 # ours


@nox.session(python=["3.11", "3.13"])
def bench(session: nox.Session) -> None:
    """Compare triores with its peers; ``-- --quick`` only checks that everything works."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, both in strict mode."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    pages = session.create_tmp()
    session.run("python", "tests/typing/pages.py", pages)
    session.run("mypy", "--disable-error-code=no-redef", pages)
    # This runs outside the work tree, so that pyright checks the installed package, with its py.typed.
    session.chdir(pages)
    session.run("pyright", "--ignoreexternal", "--verifytypes", "triores")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style, and look for common mistakes in async code."""
    session.install("-q", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    pages = ["README.md", *map(str, pathlib.Path("docs").rglob("*.md"))]
    session.run("ruff", "format", "--check", "--line-length=90", *pages)
    # The opt-in rules ASYNC9 can't see that this package's own functions are checkpoints; the tests check that.
    # compare_peers.py shows what goes wrong elsewhere, so it does what these rules warn about.
    allowed = "docs/examples/compare_peers.py:ASYNC103,ASYNC104,ASYNC112,ASYNC124"
    session.run(
        *("flake8", "--select=ASYNC", "--extend-ignore=ASYNC9", f"--per-file-ignores={allowed}"),
        *("triores", "docs/examples"),
    )


@nox.session(python=["3.10", "3.13"])
def examples(session: nox.Session) -> None:
    """Run every example program."""
    install(session, "test")
    session.run("pytest", "-q", "-n", "2", *map(str, pathlib.Path("tests").glob("test_examples*.py")), *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Run the example of a fan-out on a cluster of two worker processes."""
    install(session, "cluster")
    session.run("pytest", "-q", "tests/test_cluster.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors; ``-- serve`` serves it, and rebuilds it after each change."""
    install(session, "docs")
    build = ["-n", "-W", "-b", "html", "docs", "docs/_build/html"]
    if "serve" in session.posargs:
        watched = ["--watch", "triores", "--watch", "tests/misuse.py"]  # some pages are made from these
        session.run("sphinx-autobuild", *watched, "--ignore", "*/_build/*", *build)
    else:
        session.run("python", "-m", "sphinx", "--keep-going", "-E", *build)


@nox.session
def package(session: nox.Session) -> None:
    """Build the distributions, check their contents, and run a few tests on the installed wheel."""
    options = argparse.ArgumentParser(prog="nox -s package --")
    options.add_argument("--outdir", default=None, help="the folder for the distributions")
    options.add_argument("--release", default=None, help="the tag of a release, which has to match the version")
    asked = options.parse_args(session.posargs)
    outdir = pathlib.Path(asked.outdir or session.create_tmp()).resolve()
    shutil.rmtree(outdir, ignore_errors=True)
    session.install("-q", *nox.project.dependency_groups(PROJECT, "package"))
    session.run("python", "-m", "build", "--outdir", str(outdir), silent=True)
    (wheel,), (sdist,) = outdir.glob("*.whl"), outdir.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))

    name = sdist.name.removesuffix(".tar.gz")
    if asked.release is not None and name != f"triores-{asked.release.removeprefix('v')}":
        session.error(f"the tag {asked.release} doesn't match {name}")
    session.run("check-wheel-contents", "--package", "triores", str(wheel))

    unpacked = pathlib.Path(session.create_tmp()) / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    shutil.rmtree(unpacked / name / "triores")  # so that the tests run on the wheel
    session.install("-q", str(wheel), *nox.project.dependency_groups(PROJECT, "test"))
    session.chdir(unpacked / name)
    session.run("pytest", "-q", "tests/test_package.py", "tests/test_api.py")


@nox.session(venv_backend="none")
def changelog(session: nox.Session) -> None:
    """Check that CHANGELOG.md changed if the package changed since a commit, by default the previous one."""
    (base,) = session.posargs or ["HEAD~1"]
    changed = subprocess.run(
        ["git", "diff", "--name-only", f"{base}...HEAD"], check=True, capture_output=True, text=True
    ).stdout.split()
    messages = subprocess.run(
        ["git", "log", "--format=%B", f"{base}..HEAD"], check=True, capture_output=True, text=True
    ).stdout
    if any(path.startswith("triores/") for path in changed) and "CHANGELOG.md" not in changed:
        if "Changelog: none" in messages:
            session.log("the package changed, and a commit message says that users won't notice")
        else:
            session.error("the package changed: add a line to CHANGELOG.md, or 'Changelog: none' to the commit message")
