"""Tables of benchmarks that have more than one column of figures, each within 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.table import Table

from latentgym.system.terminal import shown

_BESIDE = 3  # groups in one table


def latents_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """Latents per second of every head, their floor, and its step over a token's."""
    by_rows = report["latents_per_second"]
    groups = list(by_rows)
    for some in (groups[i : i + _BESIDE] for i in range(0, len(groups), _BESIDE)):
        table = _table("latents per second")
        for rows in some:
            for title in (f"{rows} row{'s' if rows != '1' else ''}", "most", "/token"):
                table.add_column(title, justify="right")
        for head in by_rows[some[0]]:
            cells = [
                text
                for found in (by_rows[rows][head] for rows in some)
                for text in (
                    _rate(found["latents_per_s"]),
                    _rate(found["floor_per_s"]),
                    f"{found['of_token_step']:.2f}",
                )
            ]
            table.add_row(shown(head), *cells)
        yield table


def foreseen_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """Bytes of every part of what some sizes of models take."""
    s, by_size = report["settings"], report["foreseen"]
    if not by_size:
        return
    table = _table(
        f"foreseen: {s['prompts']} prompts of {s['prompt']}, {s['group']} rows each, {s['new']} "
        f"steps;\nupdates of {s['micro_batch']} rows"
    )
    for size in by_size:
        table.add_column(size, justify="right")
    for part in next(iter(by_size.values())):
        table.add_row(part, *(in_bytes(parts[part]) for parts in by_size.values()))
    free = report["free_bytes"]
    if free is not None:
        table.caption = f"free on {report['device']} now: {in_bytes(free)}"
        table.caption_justify = "left"
    yield table


def measured_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """Peaks that were measured beside those that were foreseen."""
    if not report["measured"]:
        return
    table = _table("most at once, beside weights and AdamW")
    for title in ("measured", "foreseen", "ratio"):
        table.add_column(title, justify="right")
    for found in report["measured"]:
        table.add_row(
            shown(f"{found['model']}, {found['dtype']}: {found['what']}"),
            in_bytes(found["measured_bytes"]),
            in_bytes(found["foreseen_bytes"]),
            f"{found['ratio']:.2f}",
        )
    yield table


def in_bytes(number: float) -> str:
    """As `1.23 GB`; units are powers of ten, as those of memory that is told elsewhere."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= factor:
            return f"{number / factor:#.3g}".removesuffix(".") + f" {unit}"
    return f"{number:.0f} B"


def _table(title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("", no_wrap=True)
    return table


def _rate(value: float) -> str:
    """At most five characters, below a billion."""
    if value >= 1e5:
        return f"{value / 1e6:.3g}M"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


WIDE: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Table]]] = {
    "latents_per_second": latents_tables,
    "foreseen": foreseen_tables,
    "measured": measured_tables,
}
"""By the key of a report that they show."""
