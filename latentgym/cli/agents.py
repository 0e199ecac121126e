"""`latentgym agents`: what can be trained and evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from latentgym.agents.base import agent_classes
from latentgym.cli.agent_options import summary
from latentgym.cli.options import emit, output, parse


@dataclass(frozen=True)
class AgentsOptions:
    """Options of agents."""

    json: bool = False
    """Print one JSON line instead of the table."""


def main(argv: Sequence[str]) -> int:
    """List the agents."""
    options = parse(AgentsOptions, argv, "agents", "List the agents and their presets.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("agent", no_wrap=True)
    table.add_column("what it does; the families it acts in; its presets")
    rows = []
    for cls in agent_classes():
        row = {"agent": cls.name, "families": list(cls.families), "about": summary(cls)}
        rows.append({**row, "trains": cls.trains(), "presets": list(cls.presets)})
        about = summary(cls) if cls.trains() else f"{summary(cls)} No training."
        table.add_row(cls.name, about)
        table.add_row("", f"families: {', '.join(cls.families)}", style="dim")
        table.add_row("", f"presets:  {', '.join(cls.presets)}", style="dim")
    output(options.json).print(table)
    emit({"agents": rows}, options.json)
    return 0
