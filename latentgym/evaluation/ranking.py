"""How good a ranking of a whole catalogue is, with one right entry: HR, NDCG and MRR.

Ranks are over all entries, never over a sample of them (Krichene and Rendle, KDD 2020).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CUTS = (1, 3, 5, 10, 20)
"""The K of HR@K and NDCG@K."""


def ranking_metrics(rank_Q: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """Metrics of each question by name, from the rank of its right entry.

    With one right entry HR@K is recall@K, the ideal DCG is 1 and so NDCG@K is 1 / log2(rank + 1)
    within the first K; `mrr` is 1 / rank.

    Args:
        rank_Q: ranks, 1 for the best; 0 where the right entry was not ranked at all, which counts
            as behind all others.

    Returns:
        `hr@K` and `ndcg@K` for each K of `CUTS`, and `mrr`; float64 (Q,) each.
    """
    rank = np.asarray(rank_Q, dtype=np.int64)
    ranked = rank > 0
    safe = np.where(ranked, rank, 1)
    metrics: dict[str, npt.NDArray[np.float64]] = {}
    for k in CUTS:
        hit = ranked & (rank <= k)
        metrics[f"hr@{k}"] = hit.astype(np.float64)
        metrics[f"ndcg@{k}"] = np.where(hit, 1 / np.log2(safe + 1.0), 0.0)
    metrics["mrr"] = np.where(ranked, 1.0 / safe, 0.0)
    return metrics
