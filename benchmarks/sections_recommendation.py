"""What the pages show of recommendation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.sections import RECORDS, change, suite_cells, table
from latentgym.data.shop import Shop, ShopSettings
from latentgym.evaluation.ranking import ranking_metrics

_LABELS = {
    "popularity": "popularity",
    "cooccurrence": "co-occurrence",
    "sasrec": "SASRec (RecTools)",
    "sft": "no latent (BIGRec's way)",
    "pause": "a learned pause in the latent's place",
    "hidden": "last hidden state as the latent (without RATT)",
    "ratt": "RATT, supervised (without RL)",
    "r3": "LatentR3",
    "score": "LatentR3 by the score function",
    "group": "LatentR3 without batch advantage",
    "r3-zero": "LatentR3, latents zeroed",
    "r3-shuffle": "LatentR3, latents of another user",
    "r3-noise": "LatentR3, noise in the latents' place",
}
_SHOWN = ("hr@1", "hr@5", "ndcg@5", "mrr")


def ranks(part: str) -> str:
    """Ranking metrics of a part's cells."""
    cells = suite_cells("recommendation")
    rows = [
        [label, str(len(cell["seeds"])), *(_interval(cell, name) for name in _SHOWN)]
        for name, label in _LABELS.items()
        for cell in [cells.get(f"{part}-{name}")]
        if cell
    ]
    if part == "shop":
        rows.append(["best possible, by the law", "", *_best()])
    return table(["", "seeds", *(f"{name.upper()} % [95 %]" for name in _SHOWN)], rows)


def _interval(cell: dict[str, Any], name: str) -> str:
    mean, *ends = cell["ranking"][name]
    if len(cell["seeds"]) == 1:  # nothing is known of other seeds
        ends = cell["ranking_ci95"][name]
    low, high = (100 * end for end in ends)
    return f"{100 * mean:.2f} [{low:.2f}, {high:.2f}]"


def _best() -> list[str]:
    """What the law of the shop allows at most, on the test split of the suite."""
    shop, rank = Shop(ShopSettings(items=100, customers=3000)), []
    for row in shop.rows("test"):
        law = shop.law(row.fields["history_item_id"])
        rank.append(1 + int((law > law[row.fields["item_id"]]).sum()))
    metrics = ranking_metrics(rank)
    return [f"{100 * np.mean(metrics[name]):.2f}" for name in _SHOWN]


def seeds(part: str) -> str:
    """NDCG@5 of each seed against that without a latent, and what policy gradient did."""
    cells = suite_cells("recommendation")
    base = cells.get(f"{part}-sft")
    rows = []
    for name in ("pause", "hidden", "ratt", "r3", "score", "group"):
        cell = cells.get(f"{part}-{name}")
        if cell is None or base is None:
            continue
        own, plain = (dict(zip(c["seeds"], c["ndcg_by_seed"], strict=True)) for c in (cell, base))
        differences = [100 * (own[s] - plain[s]) for s in own if s in plain]
        shown = " ".join(f"{d:+.2f}" for d in differences)
        rows.append([_LABELS[name], shown, f"{np.mean(differences):+.2f}", change(cell, "reward")])
    header = ["NDCG@5, points above no latent", "seed by seed", "mean", "sampled reward of RL"]
    return table(header, rows)


def bench() -> str:
    """Users a second, and cost against the size of the catalogue."""
    path = RECORDS / "bench_recommend.json"
    if not path.exists():
        return "no record yet"
    (report,) = json.loads(path.read_text())
    rates, positions = report["users_per_second"], report["positions_per_user"]
    rows = [
        [name, f"{rate:.3f}", f"{positions[name]:.0f}" if name in positions else ""]
        for name, rate in rates.items()
    ]
    return "\n\n".join(
        [table(["", "users a second", "forward positions a user"], rows), _told(report)]
    )


def _told(report: dict[str, Any]) -> str:
    """The benchmark in words."""
    s, scaling, threads = report["settings"], report["scaling"], report["threads"]
    cost = scaling["seconds_per_user_by_items"].items()
    by_size = ", ".join(f"{int(items):,}: {seconds:.2f} s" for items, seconds in cost)
    shares = report["same_answers"].items()
    same = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares)
    return (
        f"{report['model']}, {report['dtype'].removeprefix('torch.')}, {threads} "
        f"thread{'s' * (threads > 1)}, {s['users']} users, {s['beams']} beams, "
        f"{s['catalogue']:,} titles: `generate` takes {report['ratios']['generate / ours']:.1f} "
        f"times as long (median of {s['rounds']} rounds). Equal answers: {same}. What a user costs "
        f"by titles in the catalogue: {by_size}; the exponent is {scaling['exponent_items']:.2f}."
    )


SECTIONS: Mapping[str, Callable[[], str]] = {
    **{f"ranks-{part}": partial(ranks, part) for part in ("shop", "movielens", "cds")},
    **{f"seeds-{part}": partial(seeds, part) for part in ("shop", "movielens", "cds")},
    "bench-recommend": bench,
}
