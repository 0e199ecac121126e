"""Ranking a closed set of answers by their likelihood, behind the cache that holds the thoughts.

A beam search over a trie. Its scores are ordinary log-probabilities: of the whole vocabulary, not
renormalised over what the trie allows, without a length penalty. Two things make it cheap:

    prompt and thoughts are read once for all beams of a question
    as soon as a beam has one entry left below it, what remains of that entry is scored in one
    parallel pass, and the beam ends: few steps branch, however long the titles are

Ending early also takes nothing away from a plain beam search of the same width: whatever would
survive there survives here, as ended beams no longer compete for places. With as many beams as
there are entries the ranking is that of the exact likelihoods.

Legend: Q questions, K beams, B beams that branch, C candidates, R ended beams, M scored positions,
D width, V vocabulary, N nodes, E entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentgym.heads.base import gather_log_prob
from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import LatentLM
from latentgym.rollout.engine import Standing
from latentgym.rollout.rollouts import IntArray
from latentgym.trie import Trie

_MOST_BEAMS = 1 << 14  # of all questions that are searched together
_MOST_POSITIONS = 1 << 14  # read in one pass
_MOST_LOGITS = 1 << 26  # elements of fp32 logits alive at once: 256 MiB


@dataclass(frozen=True)
class Ranked:
    """The best entries of each question.

    Attributes:
        entry_QK: their numbers, the likeliest first; -1 where fewer were found.
        logp_QK: their log-probabilities, end-of-sequence included; -inf where there is none.
        positions_Q: forward positions read behind the prompts and the thoughts.
    """

    entry_QK: IntArray
    logp_QK: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    positions_Q: IntArray


def rank(lm: LatentLM, standing: Standing, trie: Trie, beams: int) -> Ranked:
    """The likeliest entries for each row of a session.

    Args:
        lm: the model.
        standing: where Q rows stand.
        trie: the entries.
        beams: K; all entries at most.
    """
    questions, beams = len(standing.hidden_ND), min(beams, len(trie))
    size = max(1, _MOST_BEAMS // beams)
    parts = torch.split(torch.arange(questions, device=lm.device), size)
    with lm.decoding():
        found = [_Search(lm, standing, part, trie, beams).run() for part in parts]
    return Ranked(
        np.concatenate([part.entry_QK for part in found]),
        np.concatenate([part.logp_QK for part in found]),
        np.concatenate([part.positions_Q for part in found]),
    )


class _Search:
    """The search for some questions; its state is one row per beam that still branches."""

    def __init__(
        self, lm: LatentLM, standing: Standing, rows: Tensor, trie: Trie, beams: int
    ) -> None:
        self.lm, self.beams, self.device = lm, beams, lm.device
        self.ids_EL, self.length_E, self.token_N, self.first_N, self.count_N, self.entry_N = (
            torch.from_numpy(array).to(self.device)
            for array in (
                *(trie.ids_EL, trie.length_E, trie.token_N),
                *(trie.first_N, trie.count_N, trie.entry_N),
            )
        )
        self.questions = len(rows)
        self.cache: GroupedCache = standing.cache.fork(rows)
        self.hidden_BD = standing.hidden_ND[rows]
        self.position_B = standing.position_N[rows]
        self.question_B = torch.arange(self.questions, device=self.device)
        self.node_B = torch.zeros_like(self.question_B)
        self.logp_B = torch.zeros(self.questions, dtype=torch.float64, device=self.device)
        self.question_R, self.entry_R = self.question_B[:0], self.question_B[:0]
        self.logp_R = self.logp_B[:0]
        self.positions_Q = torch.zeros_like(self.question_B)

    def run(self) -> Ranked:
        depth = 0
        while len(self.node_B):
            self._step(depth)
            depth += 1
        entry_QK = torch.full((self.questions, self.beams), -1, device=self.device)
        logp_QK = torch.full(entry_QK.shape, -torch.inf, dtype=torch.float64, device=self.device)
        at = self.question_R, _place(self.question_R)
        entry_QK[at], logp_QK[at] = self.entry_R, self.logp_R
        return Ranked(*(x.cpu().numpy() for x in (entry_QK, logp_QK, self.positions_Q)))

    def _step(self, depth: int) -> None:
        """Follow every edge of every beam, keep the best, and read what those ask for."""
        parent_C, node_C, logp_C = self._children()
        best = _best(logp_C, self.question_B[parent_C], self.beams)
        parent_C, node_C, logp_C = parent_C[best], node_C[best], logp_C[best]
        entry_C = self.entry_N[node_C]
        ends = entry_C >= 0
        self._end(parent_C[ends], entry_C[ends], logp_C[ends], depth)
        goes_on = ~ends & (logp_C > self._bar()[self.question_B[parent_C]])
        self._go_on(parent_C[goes_on], node_C[goes_on], logp_C[goes_on])

    def _children(self) -> tuple[Tensor, Tensor, Tensor]:
        """All children of all beams: whose, which node, and its log-probability."""
        lm, size = self.lm, max(1, _MOST_LOGITS // self.lm.vocab_size)
        parts = []
        for begin in range(0, len(self.node_B), size):
            rows = slice(begin, begin + size)
            first, count = self.first_N[self.node_B[rows]], self.count_N[self.node_B[rows]]
            parent = torch.arange(len(count), device=self.device).repeat_interleave(count)
            node = first[parent] + _place(parent)
            logits = lm.logits(self.hidden_BD[rows])
            said = logits[parent, self.token_N[node]] - logits.logsumexp(-1)[parent]
            parts.append((parent + begin, node, self.logp_B[rows][parent] + said))
        parent_C, node_C, logp_C = (torch.cat(column) for column in zip(*parts, strict=True))
        return parent_C, node_C, logp_C

    def _end(self, parent_R: Tensor, entry_R: Tensor, logp_R: Tensor, depth: int) -> None:
        """End beams that have one entry left, with the score of all that remains of it."""
        rest_R = self.length_E[entry_R] - depth - 1
        logp_R = logp_R.clone()
        # Rows of like length go together, so that little is padded.
        bucket_R = torch.ceil(torch.log2(rest_R.clamp_min(1).double())).long()
        for bucket in torch.unique(bucket_R[rest_R > 0]).tolist():
            here = ((bucket_R == bucket) & (rest_R > 0)).nonzero()[:, 0]
            size = max(1, _MOST_POSITIONS >> bucket)
            for rows in torch.split(here, size):
                logp_R[rows] += self._rest(parent_R[rows], entry_R[rows], rest_R[rows], depth)
        question_R = self.question_B[parent_R]
        self.positions_Q.index_add_(0, question_R, rest_R)
        question = torch.cat([self.question_R, question_R])
        entry, logp = torch.cat([self.entry_R, entry_R]), torch.cat([self.logp_R, logp_R])
        best = _best(logp, question, self.beams)
        self.question_R, self.entry_R, self.logp_R = question[best], entry[best], logp[best]

    def _rest(self, parent_R: Tensor, entry_R: Tensor, rest_R: Tensor, depth: int) -> Tensor:
        """Log-probability of the tokens behind that depth, for beams whose token there is new."""
        lm, n = self.lm, int(rest_R.max())
        step = torch.arange(n, device=self.device)
        real_Rn = step < rest_R[:, None]
        ids_Rn = self.ids_EL[entry_R, depth : depth + n].clamp_min(0)
        hidden_RnD = lm.extend(
            lm.embed(ids_Rn),
            self.position_B[parent_R][:, None] + step,
            self.cache.fork(parent_R),
            None if bool(real_Rn.all()) else real_Rn,
        )
        row_M, step_M = real_Rn.nonzero(as_tuple=True)
        target_M = self.ids_EL[entry_R[row_M], depth + 1 + step_M]
        total_R = torch.zeros(len(parent_R), dtype=torch.float64, device=self.device)
        size = max(1, _MOST_LOGITS // lm.vocab_size)
        for rows in torch.split(torch.arange(len(row_M), device=self.device), size):
            logits = lm.logits(hidden_RnD[row_M[rows], step_M[rows]])
            said = gather_log_prob(logits, target_M[rows, None])[:, 0]
            total_R.index_add_(0, row_M[rows], said.double())
        return total_R

    def _bar(self) -> Tensor:
        """What a beam must beat in each question: its last place, once all are taken."""
        bar_Q = torch.full((self.questions,), -torch.inf, dtype=torch.float64, device=self.device)
        last = _place(self.question_R) == self.beams - 1
        bar_Q[self.question_R[last]] = self.logp_R[last]
        return bar_Q

    def _go_on(self, parent_B: Tensor, node_B: Tensor, logp_B: Tensor) -> None:
        """Read the newest token of the beams that branch on."""
        self.question_B, self.node_B, self.logp_B = self.question_B[parent_B], node_B, logp_B
        if not len(node_B):
            return
        self.cache.keep(parent_B)
        position_B = self.position_B[parent_B]
        x_B1D = self.lm.embed(self.token_N[node_B])[:, None]
        self.hidden_BD = self.lm.extend(x_B1D, position_B[:, None], self.cache)[:, 0]
        self.position_B = position_B + 1
        self.positions_Q += torch.bincount(self.question_B, minlength=self.questions)


def _place(group_C: Tensor) -> Tensor:
    """The place of each member within its group, from 0; groups are runs of equal numbers."""
    at = torch.arange(len(group_C), device=group_C.device)
    new = torch.ones_like(group_C, dtype=torch.bool)
    new[1:] = group_C[1:] != group_C[:-1]
    return at - torch.where(new, at, 0).cummax(0).values if len(at) else at


def _best(score_C: Tensor, group_C: Tensor, k: int) -> Tensor:
    """Indices of the k best of each group, group by group, the best first; ties in order."""
    order = score_C.argsort(descending=True, stable=True)
    order = order[group_C[order].argsort(stable=True)]
    return order[_place(group_C[order]) < k]
