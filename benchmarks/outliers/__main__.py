"""`python -m benchmarks.outliers`: trains, measures and writes the record (extra `soap`).

About twenty minutes on one core.

python -m benchmarks.outliers --out runs/outliers --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.outliers import blocks, collapse
from latentgym.evaluation.results import git_commit, versions
from latentgym.storage import atomic_write

PARTS = {"blocks": blocks.run, "collapse": collapse.run}


def main() -> None:
    """Run the chosen parts; the others stay in the record as they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/outliers"))
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    o = parser.parse_args()
    path = o.record / "outliers.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    for part in o.parts:
        head = {"versions": versions(), "git": git_commit()}
        record[part] = {**head, **PARTS[part](o.out / part, o.seeds)}
        o.record.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
