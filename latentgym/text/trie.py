"""A closed set of token sequences as a trie: what may come next, and what remains.

Built from sorted sequences in one vectorised pass, and kept as flat arrays, so that the children of
many nodes are looked up at once. Every sequence ends with end-of-sequence, so a title that begins
another is told from it by that last token.

Legend: E sequences, L tokens of the longest, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from latentgym.errors import UsageError

IntArray = npt.NDArray[np.int64]


class Trie:
    """Token sequences, none of which begins another.

    Nodes are numbered depth by depth from the root, 0; children of a node are neighbours.

    Args:
        sequences: token ids, two or more sequences.

    Attributes:
        ids_EL: the sequences, padded with -1; int64.
        length_E: their lengths.
        token_N: the token that leads to each node; -1 for the root.
        first_N, count_N: the first child of each node, and how many there are.
        entry_N: the one sequence that passes through each node, -1 where there are several.

    Raises:
        UsageError: fewer than two sequences, an empty one, two that are equal, or one that begins
            another.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.length_E: IntArray = np.fromiter(map(len, sequences), np.int64, len(sequences))
        if len(sequences) < 2:
            raise UsageError(f"one can only choose among two or more, not {len(sequences)}.")
        if not self.length_E.all():
            raise UsageError(f"choice {int(self.length_E.argmin())} has no tokens; leave it out.")
        longest = int(self.length_E.max())
        self.ids_EL: IntArray = np.full((len(sequences), longest), -1, dtype=np.int64)
        real_EL = np.arange(longest) < self.length_E[:, None]
        self.ids_EL[real_EL] = np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences])
        order = np.lexsort(self.ids_EL.T[::-1])
        sorted_EL, real_EL = self.ids_EL[order], real_EL[order]
        # Whether a row parts at a column, or before it, from the row above.
        new_EL = np.ones_like(real_EL)
        new_EL[1:] = np.logical_or.accumulate(sorted_EL[1:] != sorted_EL[:-1], axis=1)
        self._check(order, new_EL)
        new_EL &= real_EL
        starts_DE = np.cumsum(new_EL.T.ravel()).reshape(longest, -1)  # the node of each row
        nodes = 1 + int(new_EL.sum())
        parent_DE = np.vstack([np.zeros_like(starts_DE[:1]), starts_DE[:-1]])
        first = new_EL.T
        self.token_N: IntArray = np.full(nodes, -1, dtype=np.int64)
        self.token_N[1:] = sorted_EL.T[first]
        parent: IntArray = parent_DE[first]
        self.count_N: IntArray = np.bincount(parent, minlength=nodes).astype(np.int64)
        self.first_N: IntArray = np.cumsum(self.count_N) - self.count_N + 1
        below_N = np.bincount(starts_DE[real_EL.T], minlength=nodes)
        self.entry_N: IntArray = np.full(nodes, -1, dtype=np.int64)
        self.entry_N[starts_DE[real_EL.T]] = np.broadcast_to(order, real_EL.T.shape)[real_EL.T]
        self.entry_N[below_N != 1] = -1

    def __len__(self) -> int:
        """How many sequences there are."""
        return len(self.length_E)

    def _check(self, order: IntArray, new_EL: npt.NDArray[np.bool_]) -> None:
        """Where a row does not part from the one above within the upper one, that begins it."""
        upper = self.length_E[order[:-1]] - 1
        alike = np.flatnonzero(~new_EL[1:][np.arange(len(upper)), upper])
        if alike.size:
            one, other = order[alike[0]], order[alike[0] + 1]
            raise UsageError(
                f"choices {int(one)} and {int(other)} are the same tokens, or one begins the other;"
                " make them differ, and end each with a token that stands nowhere else."
            )
