"""Files of measured series, in pyperf's format, which ``python -m pyperf stats FILE`` reads.

A benchmark's name consists of the scenario, the contender and the number of results. Its values are the seconds per
result, or the bytes, one for each round.
"""

# pyperf has no type hints:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pyperf  # type: ignore[import-untyped]  # pyperf has no type hints

import triores

from .measuring import Series

PACKAGES = ("trio", "outcome", "aioresult", "anyio", "trio_util", "pyperf")
SYSTEM = ("python_implementation", "python_version", "platform", "cpu_model_name", "cpu_count", "date")


def versions() -> dict[str, str]:
    """Return what is measured, and on which machine."""
    system: dict[str, Any] = pyperf.Run([1.0]).get_metadata()
    machine = {name: str(system[name]) for name in SYSTEM if name in system}
    return {"triores": triores.__version__, **{name: version(name) for name in PACKAGES}, **machine}


def save(series: list[Series], measured_on: dict[str, str], path: str) -> None:
    benchmarks = [
        pyperf.Benchmark(
            [
                pyperf.Run(
                    one.values,
                    metadata={
                        "name": f"{one.scenario} | {one.contender} | {one.results}",
                        "unit": one.unit,
                        **{name if name in SYSTEM else f"{name}_version": text for name, text in measured_on.items()},
                    },
                    collect_metadata=False,
                )
            ]
        )
        for one in series
    ]
    pyperf.BenchmarkSuite(benchmarks).dump(path, replace=True)


def load(path: str) -> tuple[list[Series], dict[str, str]]:
    suite: Any = pyperf.BenchmarkSuite.load(path)
    series: list[Series] = []
    for benchmark in suite.get_benchmarks():
        scenario, contender, results = benchmark.get_name().split(" | ")
        series.append(Series(scenario, contender, int(results), benchmark.get_values(), benchmark.get_unit()))
    metadata: dict[str, Any] = suite.get_metadata()
    keys = [*[(name, f"{name}_version") for name in ("triores", *PACKAGES)], *[(name, name) for name in SYSTEM]]
    return series, {name: str(metadata[key]) for name, key in keys if key in metadata}
