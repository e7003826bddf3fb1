"""The command line: measure and print tables, or read earlier measurements."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import bytes_and_import, maps, recorder, records
from .goals import SCENARIOS, SLOPE_SIZES, Measured
from .measuring import time_growth, time_in_turn, time_large
from .report import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .measuring import Series

ROUNDS = 25
GROWTH_ROUNDS = 3
SIZES = (1_000, *SLOPE_SIZES)
SIZES_OF_OTHERS = (1_000, 4_000, 16_000)  # fewer, since some of the others start a task for each result
LARGE_SIZES = (250_000, 1_000_000)
PEAK_SIZES = (10_000, 100_000, 1_000_000)
QUICKER = 50  # --quick divides each number of results by this


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare triores with its peers.")
    parser.add_argument("--quick", action="store_true", help="run one small round, just to check that everything works")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"how many times to time each scenario (default: {ROUNDS})"
    )
    parser.add_argument("--only", metavar="WORD", help="only measure scenarios whose name contains this")
    parser.add_argument("--json", metavar="FILE", help="write the measurements to a file, in pyperf's format")
    parser.add_argument("--from", dest="source", metavar="FILE", help="don't measure anything, but read such a file")
    parser.add_argument("--plots", metavar="FOLDER", type=Path, help="draw the plots into this folder")
    arguments = parser.parse_args()

    if arguments.source:
        series, measured_on = records.load(arguments.source)
    else:
        measured_on = records.versions()
        series = list(measure(arguments.only or "", 1 if arguments.quick else arguments.rounds, quick=arguments.quick))
    measured = Measured(series, QUICKER if arguments.quick else 1)
    if arguments.json:
        records.save(series, measured_on, arguments.json)
    if arguments.plots:
        from .plots import draw

        draw(measured, measured_on, arguments.plots)
    print(tables(measured, measured_on))
    if arguments.quick:
        print("Everything works. The figures mean nothing, since --quick measures too little.")


def measure(only: str, rounds: int, *, quick: bool) -> Iterator[Series]:
    """Measure everything whose name contains this text."""
    quicker = QUICKER if quick else 1
    for scenario in (*SCENARIOS, *recorder.SCENARIOS):
        if only in scenario.name:
            _report_progress(scenario.name)
            yield from time_in_turn(scenario, scenario.results // quicker, rounds)
    for scenario in SCENARIOS:
        if only in scenario.name and scenario.growth:
            _report_progress(f"{scenario.name}: growth")
            sizes, others = (
                [size // quicker for size in some[:: 3 if quick else 1]] for some in (SIZES, SIZES_OF_OTHERS)
            )
            yield from time_growth(scenario, sizes, others, min(rounds, GROWTH_ROUNDS))
            if not quick:
                yield from time_large(scenario, LARGE_SIZES)
    if only in "turns":
        _report_progress("turns")
        yield from maps.measure_turns(100_000 // quicker, rounds)
    if only in "bytes and import":
        _report_progress("bytes and import")
        yield from bytes_and_import.measure_futures(20_000 // quicker)
        yield from (bytes_and_import.measure_peak(items // quicker) for items in PEAK_SIZES[: 2 if quick else None])
        yield from bytes_and_import.measure_import(rounds)


def _report_progress(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
