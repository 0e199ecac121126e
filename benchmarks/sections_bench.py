"""What docs/engine.md shows of benchmarks beside the first table: latents per second, memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.sections import RECORDS, table
from latentgym.cli.benches.tables import in_bytes

_NONE = "Not recorded yet."


def latents_bench() -> str:
    """Latents per second of every head, beside the bandwidth's floor."""
    report = _record("bench_rollout")
    if "latents_per_second" not in report:
        return _NONE
    by_rows = report["latents_per_second"]
    header = [""]
    for rows in by_rows:
        header += [f"{rows} {'row' if rows == '1' else 'rows'}", "most", "step / token's"]
    lines = [
        [
            head,
            *(
                text
                for rows in by_rows
                for text in (
                    f"{by_rows[rows][head]['latents_per_s']:.3g}",
                    f"{by_rows[rows][head]['floor_per_s']:.3g}",
                    f"{by_rows[rows][head]['of_token_step']:.2f}",
                )
            ),
        ]
        for head in next(iter(by_rows.values()))
    ]
    about = (
        f"Latents per second, and the most that {in_bytes(report['bandwidth_bytes_per_s'])} per "
        f"second, the bandwidth that was measured, would allow: {report['model']}, prompt "
        f"{report['settings']['prompt']}, {report['dtype'].removeprefix('torch.')}, "
        f"{report['device']}, threads: {report['threads']}; `latentgym bench rollout`."
    )
    return "\n\n".join([about, table(header, lines), *report["notes"]])


def memory_bench() -> str:
    """What fits: foreseen parts by size, and small models beside the formula."""
    report = _record("bench_memory")
    if not report:
        return _NONE
    s, sizes = report["settings"], report["foreseen"]
    lines = [
        [part, *(in_bytes(parts[part]) for parts in sizes.values())]
        for part in next(iter(sizes.values()))
    ]
    measured = [
        [
            found["model"],
            found["dtype"],
            found["what"],
            in_bytes(found["measured_bytes"]),
            in_bytes(found["foreseen_bytes"]),
            f"{found['ratio']:.2f}",
        ]
        for found in report["measured"]
    ]
    about = (
        f"Foreseen for a GPU, {s['dtype']}: {s['prompts']} prompts of {s['prompt']} tokens, "
        f"{s['group']} rows each, {s['new']} steps, updates of {s['micro_batch']} rows; "
        "`latentgym bench memory`."
    )
    beside = f"Most at once beside weights and AdamW's state, measured on {report['device']}:"
    header = ["model", "", "", "measured", "foreseen", "ratio"]
    return "\n\n".join([about, table(["", *sizes], lines), beside, table(header, measured)])


def _record(name: str) -> dict[str, Any]:
    """A benchmark's record, empty where there is none."""
    path = RECORDS / f"{name}.json"
    if not path.exists():
        return {}
    report: dict[str, Any]
    (report,) = json.loads(path.read_text())
    return report


SECTIONS: Mapping[str, Callable[[], str]] = {
    "bench-latents": latents_bench,
    "bench-memory": memory_bench,
}
