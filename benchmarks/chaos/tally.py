"""What became of the tries of a kind."""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST = 5  # faults that are kept


@dataclass
class Tally:
    """Counts of one kind of fault.

    Attributes:
        kind: of fault, and what it is done to.
        tries, survived: how many.
        faults: what was lost, the first of them.
    """

    kind: str
    tries: int = 0
    survived: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, fault: str | None, tries: int = 1) -> None:
        """Count some tries that had the same end; `fault` is what was lost, or None."""
        self.tries += tries
        if fault is None:
            self.survived += tries
        elif len(self.faults) < _MOST:
            self.faults.append(fault)

    @property
    def lost(self) -> int:
        """How many did not survive."""
        return self.tries - self.survived


def table(tallies: list[Tally]) -> str:
    """All of them, in Markdown."""
    lines = ["| fault | tries | survived | lost |", "|---|---|---|---|"]
    rows = [*tallies, _total(tallies)]
    lines += [f"| {t.kind} | {t.tries:,} | {t.survived:,} | {t.lost:,} |" for t in rows]
    return "\n".join(lines)


def _total(tallies: list[Tally]) -> Tally:
    return Tally("all", sum(t.tries for t in tallies), sum(t.survived for t in tallies))
