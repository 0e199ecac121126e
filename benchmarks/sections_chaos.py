"""The table of docs/faults.md."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.chaos.tally import Tally, table

_RECORD = Path(__file__).parent / "records" / "chaos.json"


def chaos() -> str:
    """Tries, survived and lost by kind of fault."""
    record = json.loads(_RECORD.read_text())
    return table([Tally(**row) for row in record["rows"]])


SECTIONS = {"chaos": chaos}
