"""The table of docs/graders.md."""

from __future__ import annotations

import json
from pathlib import Path

_RECORD = Path(__file__).parent / "records" / "graders.json"


def graders() -> str:
    """Wrong verdicts by kind of variant, ours and those of math-verify alone."""
    record = json.loads(_RECORD.read_text())
    rows = record["rows"]
    lines = ["| the answer is | made by | pairs | wrong here | wrong with math-verify alone |"]
    lines.append("|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row["truth"], -row["math-verify"])):
        if row["ours"] or row["math-verify"]:
            lines.append(
                f"| {row['truth']} | {row['variant']} | {row['pairs']:,} | {row['ours']:,} "
                f"| {row['math-verify']:,} |"
            )
    totals = {key: sum(row[key] for row in rows) for key in ("pairs", "ours", "math-verify")}
    which = f"all, of {record['golds']:,} of {record['of']:,} gold answers"
    lines.append(
        f"| {which} | | {totals['pairs']:,} | {totals['ours']:,} | {totals['math-verify']:,} |"
    )
    return "\n".join(lines)


SECTIONS = {"graders": graders}
