"""Minimum non-negative sum (CoT2, arXiv 2505.23648, section 3.1).

Given m positive digits, choose a sign for each so that the signed sum is the smallest that is
not negative. A chain has m steps; step t holds the sum of the first t signed digits, and the
sum after step m is the answer. All m-digit tuples are few (6561 for four digits 1..9), so a
whole task is one array.

Shape legend: N instances, m digits, P = 2^m sign patterns, B paths kept (the budget), S target
slots a step, V vocabulary symbols.
"""

from __future__ import annotations

import itertools
import random

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SPECIALS = ("<pad>", "<bos>", "<eos>", "->", "<think>", "</think>")
"""Symbols that stand before the digits; ``<pad>`` is id 0 and ``<bos>`` id 1."""


def vocabulary(m: int, high: int) -> tuple[str, ...]:
    """The symbols: specials, digits ``D0..D{high}``, sums ``S-{m*high}..S{m*high}``.

    Four digits up to nine give the 89 symbols of the paper.
    """
    digits = (f"D{d}" for d in range(high + 1))
    sums = (f"S{s}" for s in range(-m * high, m * high + 1))
    return (*SPECIALS, *digits, *sums)


def digit_ids(digits: Ints) -> Ints:
    """Vocabulary ids of digits, same shape."""
    return digits + len(SPECIALS)


def sum_ids(sums: Ints, m: int, high: int) -> Ints:
    """Vocabulary ids of (partial) sums, same shape."""
    return sums + len(SPECIALS) + high + 1 + m * high


def instances(m: int = 4, low: int = 1, high: int = 9) -> Ints:
    """All ordered digit tuples in lexicographic order.

    Returns:
        (N, m) with N = (high - low + 1)^m.
    """
    if m < 1 or not 1 <= low <= high:
        raise ValueError(f"need m >= 1 and 1 <= low <= high, got m={m}, low={low}, high={high}")
    axes = np.meshgrid(*[np.arange(low, high + 1)] * m, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, m)


def split(digits: Ints, seed: int, train_fraction: float = 0.8) -> Mask:
    """Choose the training rows by multiset, so that no permutation of a test row is trained on.

    The sorted multisets are shuffled by ``random.Random(seed)`` and the first
    ``train_fraction`` of them are for training, whatever the order of the rows.

    Args:
        digits: (N, m).

    Returns:
        (N,) True for training rows.
    """
    multisets, group = np.unique(np.sort(digits, axis=1), axis=0, return_inverse=True)
    order = list(range(len(multisets)))
    random.Random(seed).shuffle(order)
    is_train = np.zeros(len(multisets), dtype=np.bool_)
    is_train[order[: int(train_fraction * len(order))]] = True
    train: Mask = is_train[group.reshape(-1)]
    return train


def signs(m: int) -> Ints:
    """All sign patterns in (+, -) product order, the first digit's sign slowest: (P, m)."""
    return np.array(list(itertools.product((1, -1), repeat=m)), dtype=np.int64)


def partial_sums(digits: Ints) -> Ints:
    """Sums after each step under every sign pattern.

    Args:
        digits: (N, m).

    Returns:
        (N, P, m), patterns in the order of :func:`signs`; ``[..., -1]`` are the final values.
    """
    return np.cumsum(digits[:, None, :] * signs(digits.shape[1]), axis=-1)


def answers(digits: Ints) -> Ints:
    """The smallest non-negative signed sum: (N, m) -> (N,)."""
    # The negation of a pattern is a pattern, so the smallest |value| is always attained at >= 0.
    smallest: Ints = np.abs(partial_sums(digits)[..., -1]).min(axis=1)
    return smallest


def n_optimal(digits: Ints) -> Ints:
    """How many sign patterns reach the answer: (N, m) -> (N,)."""
    count: Ints = (partial_sums(digits)[..., -1] == answers(digits)[:, None]).sum(axis=1)
    return count


def paths(digits: Ints, budget: int) -> Ints:
    """The ``budget`` sign patterns kept as a trace (``beam_minabs`` in the authors' code).

    They are those of smallest \\|final value\\|, ties in product order, save that the first is
    always the first pattern that reaches the answer: budget 1 is the discrete trace.

    Args:
        digits: (N, m).
        budget: B, from 1 to 2^m.

    Returns:
        (N, B) rows of :func:`signs`.
    """
    n_patterns = 2 ** digits.shape[1]
    if not 1 <= budget <= n_patterns:
        raise ValueError(f"budget must be between 1 and {n_patterns}, got {budget}")
    final_NP = partial_sums(digits)[..., -1]
    rank_NP = np.abs(final_NP)
    best_N = np.argmax(final_NP == answers(digits)[:, None], axis=1)
    rank_NP[np.arange(len(digits)), best_N] = -1
    kept: Ints = np.argsort(rank_NP, axis=1, kind="stable")[:, :budget]
    return kept


def targets(digits: Ints, budget: int, high: int) -> tuple[Ints, Floats]:
    """Soft targets of every step (CoT2, section 3.2): what continuous supervision imitates.

    At t < m the target is the empirical distribution of the kept paths' partial sums, a sum
    reached by several paths counting several times. At t = m it is the answer alone.

    Args:
        digits: (N, m).
        budget: B paths kept, see :func:`paths`.
        high: largest digit of the task, which fixes the vocabulary.

    Returns:
        ids (N, m, S) and weights (N, m, S) with S = budget: distinct vocabulary ids in
        ascending order, then unused slots with id 0 (``<pad>``) and weight 0.
    """
    n, m = digits.shape
    kept_NB = paths(digits, budget)
    sums_NBm = np.take_along_axis(partial_sums(digits), kept_NB[:, :, None], axis=1)
    sums_NBm[..., -1] = answers(digits)[:, None]
    sorted_NmB = np.sort(sums_NBm.transpose(0, 2, 1), axis=-1)
    # Equal neighbours share a slot: the slot is the number of distinct sums seen before.
    is_new = np.diff(sorted_NmB, axis=-1) != 0
    slot_NmB = np.concatenate([np.zeros((n, m, 1), np.int64), is_new.cumsum(-1)], axis=-1)
    where = (np.arange(n)[:, None, None], np.arange(m)[None, :, None], slot_NmB)
    ids = np.zeros((n, m, budget), dtype=np.int64)
    counts = np.zeros((n, m, budget), dtype=np.int64)
    ids[where] = sum_ids(sorted_NmB, m, high)
    np.add.at(counts, where, 1)
    return ids, counts / budget


def densify(ids: Ints, weights: Floats, size: int) -> Floats:
    """Spread (..., S) ids and weights over a vocabulary: (..., V), weights of equal ids added."""
    dense = np.zeros((*ids.shape[:-1], size))
    # As plain rows: a repeated (row, id) pair has to add up, which only ``add.at`` does.
    flat_ids = ids.reshape(-1, ids.shape[-1])
    rows = np.arange(len(flat_ids))[:, None]
    np.add.at(dense.reshape(-1, size), (rows, flat_ids), weights.reshape(flat_ids.shape))
    return dense
