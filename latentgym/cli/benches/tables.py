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
}
"""By the key of a report that they show."""
