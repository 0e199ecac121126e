"""`python -m benchmarks.chaos`, `make chaos`: tries, survived and lost by kind of fault.

Exit code 1 if anything was lost.

python -m benchmarks.chaos --size 1 --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.chaos.answers import NAMES, hostile
from benchmarks.chaos.breaks import Breaks
from benchmarks.chaos.commands import commands
from benchmarks.chaos.flips import flips, kinds
from benchmarks.chaos.tally import Tally, table
from latentgym.evaluation.results import git_commit, versions
from latentgym.storage import atomic_write

# Tries of each kind at size 1.
KILLS, DISKS, FLIPS, ANSWERS = 12, 12, 150, 400


def tallies(folder: Path, size: float, seed: int) -> Iterator[Tally]:
    """Everything, kind by kind."""

    def tries(most: int) -> int:
        return max(1, round(most * size))

    (folder / "files").mkdir()
    for kind in kinds(folder / "files"):
        yield flips(kind, tries(FLIPS), random.Random(f"{seed} {kind.name}"))
    for name in NAMES:
        yield hostile(name, tries(ANSWERS), random.Random(f"{seed} {name}"))
    for number, command in enumerate(commands(folder)):
        rng = random.Random(f"{seed} {command.name}")
        breaks = Breaks(command, folder / str(number), rng)
        yield breaks.kills(tries(KILLS))
        yield breaks.full_disks(tries(DISKS))


def main() -> int:
    """Try everything, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="tries, as a share of the usual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="folder to write chaos.json to")
    o = parser.parse_args()
    began, found, commit = time.monotonic(), list[Tally](), git_commit()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LATENTGYM_CACHE"] = f"{folder}/cache"
        for tally in tallies(Path(folder), o.size, o.seed):
            found.append(tally)
            print(f"{tally.kind}: {tally.survived} of {tally.tries}", file=sys.stderr, flush=True)
            for fault in tally.faults:
                print(f"    {fault}", file=sys.stderr, flush=True)
    print(table(found))
    if o.record is not None:
        rows = [asdict(tally) for tally in found]
        about = {"size": o.size, "seed": o.seed, "seconds": round(time.monotonic() - began)}
        record = {**about, "rows": rows, "versions": versions(), "git": commit}
        o.record.mkdir(parents=True, exist_ok=True)
        with atomic_write(o.record / "chaos.json") as path:
            path.write_text(json.dumps(record, indent=1) + "\n")
    return int(any(tally.lost for tally in found))


if __name__ == "__main__":
    sys.exit(main())
