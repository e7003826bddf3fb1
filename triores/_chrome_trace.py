"""A recording in the trace event format, which you can open in Perfetto and in Chrome's about:tracing.

The format is described in Google's "Trace Event Format" (2016). We write a complete event (X) for each span; within a
track, importers nest them by their times. Metadata events (M) give the tracks their names, and each arrow is a pair of
flow events (s, f). Times are in microseconds, with three decimals, since importers count in nanoseconds.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trace import Recording, Span

PROCESS = 1


def written(recording: Recording) -> str:
    """Return the text of the JSON file, with one event per line."""
    names = {span.track: span.name for span in recording.spans if span.kind == "task"}
    spans = sorted(recording.spans, key=lambda span: (span.begin, span.depth))
    events = [
        _metadata("process_name", 0, name="Trio"),
        *(_metadata("thread_name", track, name=name) for track, name in sorted(names.items())),
        *(_metadata("thread_sort_index", track, sort_index=track) for track in sorted(names)),
        *map(_slice, spans),
        *_arrows(spans),
    ]
    lines = ",\n".join(map(json.dumps, events))
    other = json.dumps({"dropped spans": recording.dropped})
    return f'{{"displayTimeUnit": "ms", "otherData": {other}, "traceEvents": [\n{lines}\n]}}\n'


def _metadata(what: str, track: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": PROCESS, "tid": track, "name": what, "args": args}


def _slice(span: Span) -> dict[str, Any]:
    begin, end = _nanoseconds(span.begin), _nanoseconds(span.end)
    args = {"ended": span.ended, "detail": span.detail}
    if span.kind in ("task", "call"):
        args["ran"] = f"{span.ran:.6f} s"
    where = {"ph": "X", "pid": PROCESS, "tid": span.track, "ts": begin / 1000, "dur": (end - begin) / 1000}
    shown = {name: text for name, text in args.items() if text}
    return {**where, "cat": span.kind, "name": span.name, "args": shown}


def _arrows(spans: list[Span]) -> list[dict[str, Any]]:
    """Return arrows from tasks that settled results to those that waited for them, if both spans are still there."""
    runs: dict[int, list[Span]] = {}
    for span in spans:
        if span.kind == "run":
            runs.setdefault(span.track, []).append(span)
    events: list[dict[str, Any]] = []
    for span in spans:
        if span.woken_by is not None:
            track, time = span.woken_by
            before = bisect_right(runs.get(track, ()), time, key=lambda run: run.begin)
            if before:
                arrow = {"pid": PROCESS, "cat": "result", "name": "settled", "id": len(events) // 2 + 1}
                events.append({"ph": "s", "tid": track, "ts": _nanoseconds(time) / 1000, **arrow})
                events.append({"ph": "f", "bp": "e", "tid": span.track, "ts": _nanoseconds(span.begin) / 1000, **arrow})
    return events


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
