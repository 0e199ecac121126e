"""Ranking a closed set of answers by their likelihood, behind the cache that holds the thoughts.

A beam search over a trie. Scores are ordinary log-probabilities: of the whole vocabulary, not
renormalised over what the trie allows, without a length penalty. It finds what transformers' beam
search finds, and what makes it cheaper is

    prompt and thoughts are read once for all beams of a question
    a beam that has one entry left below it reads all that remains of that entry in one pass, and
    only competes for its place from then on: few steps need the model, however long titles are
    a beam that can no longer be among the best is dropped

With as many beams as there are entries the ranking is that of the exact likelihoods.

Legend: Q questions, K beams, B beams that branch, R beams with one entry left, C candidates, M
scored positions, L tokens of the longest entry, D width, V vocabulary, N nodes, E entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentgym.heads.distributions import gather_log_prob
from latentgym.lm.cache import GroupedCache
from latentgym.lm.model import LatentLM
from latentgym.rollout.rollouts import IntArray
from latentgym.rollout.session import DecodeState
from latentgym.text.trie import Trie

_MOST_BEAMS = 1 << 14  # of all questions that are searched together
_MOST_POSITIONS = 1 << 14  # read in one pass
_SHORT = 4  # tokens, below which padding costs less than one more pass


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


def rank(lm: LatentLM, decode_state: DecodeState, trie: Trie, beams: int) -> Ranked:
    """The likeliest entries for each row of a session.

    Args:
        lm: the model.
        decode_state: where Q rows stand.
        trie: the entries.
        beams: K; all entries at most.
    """
    questions, beams = len(decode_state.hidden_ND), min(beams, len(trie))
    size = max(1, _MOST_BEAMS // beams)
    parts = torch.split(torch.arange(questions, device=lm.device), size)
    with lm.decoding():
        found = [_Search(lm, decode_state, part, trie, beams).run() for part in parts]
    return Ranked(
        np.concatenate([part.entry_QK for part in found]),
        np.concatenate([part.logp_QK for part in found]),
        np.concatenate([part.positions_Q for part in found]),
    )


class _Search:
    """The search for some questions, one token of all their beams a step."""

    def __init__(
        self, lm: LatentLM, decode_state: DecodeState, rows: Tensor, trie: Trie, beams: int
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
        self.positions_Q = torch.zeros(self.questions, dtype=torch.long, device=self.device)
        # Beams that branch: one row of the cache each, those of a question next to each other.
        self.cache: GroupedCache = decode_state.cache.fork(rows)
        self.hidden_BD = decode_state.hidden_ND[rows]
        self.position_B = decode_state.position_N[rows]
        self.question_B = torch.arange(self.questions, device=self.device)
        self.node_B = torch.zeros_like(self.question_B)
        self.logp_B = torch.zeros(self.questions, dtype=torch.float64, device=self.device)
        # Beams with one entry left, and the log-probability of its first 1, 2, ... tokens.
        self.question_R = self.entry_R = self.question_B[:0]
        self.path_RL = self.logp_B.new_zeros(0, self.ids_EL.shape[1])
        # Entries that have been read to their end, at most K of each question.
        self.question_K = self.entry_K = self.question_B[:0]
        self.logp_K = self.logp_B[:0]

    def run(self) -> Ranked:
        depth = 0
        while len(self.node_B) or len(self.entry_R):
            self._step(depth)
            depth += 1
        entry_QK = torch.full((self.questions, self.beams), -1, device=self.device)
        logp_QK = torch.full(entry_QK.shape, -torch.inf, dtype=torch.float64, device=self.device)
        at = self.question_K, _place(self.question_K)
        entry_QK[at], logp_QK[at] = self.entry_K, self.logp_K
        return Ranked(*(x.cpu().numpy() for x in (entry_QK, logp_QK, self.positions_Q)))

    def _step(self, depth: int) -> None:
        """Choose the token at that depth: K live beams of each question, and those that end."""
        parent_C, node_C, logp_C = self._children()
        branches = len(node_C)
        question_C = torch.cat([self.question_B[parent_C], self.question_R])
        entry_C = torch.cat([self.entry_N[node_C], self.entry_R])
        logp_C = torch.cat([logp_C, self.path_RL[:, depth]])
        ends_C = torch.cat([self.count_N[node_C] == 0, self.length_E[self.entry_R] == depth + 1])
        # No beam ends in two ways, so among 2 K candidates there are K that go on.
        best = _best(logp_C, question_C, 2 * self.beams)
        ended = best[ends_C[best] & (_place(question_C[best]) < self.beams)]
        self._end(question_C[ended], entry_C[ended], logp_C[ended])
        live = best[~ends_C[best]]
        live = live[_place(question_C[live]) < self.beams]
        live = live[logp_C[live] > self._bar()[question_C[live]]]
        fresh, kept = live[live < branches], live[live >= branches] - branches
        alone = fresh[entry_C[fresh] >= 0]
        path_RL = self._paths(parent_C[alone], entry_C[alone], logp_C[alone], depth)
        self.question_R = torch.cat([self.question_R[kept], question_C[alone]])
        self.entry_R = torch.cat([self.entry_R[kept], entry_C[alone]])
        self.path_RL = torch.cat([self.path_RL[kept], path_RL])
        several = fresh[entry_C[fresh] < 0]
        self._branch(parent_C[several], node_C[several], logp_C[several])

    def _children(self) -> tuple[Tensor, Tensor, Tensor]:
        """All children of the beams that branch: whose, which node, and its log-probability."""
        lm, size = self.lm, self.lm.logits_at_once
        parts = [(self.question_B[:0], self.node_B[:0], self.logp_B[:0])]
        for begin in range(0, len(self.node_B), size):
            rows = slice(begin, begin + size)
            first, count = self.first_N[self.node_B[rows]], self.count_N[self.node_B[rows]]
            parent = torch.arange(len(count), device=self.device).repeat_interleave(count)
            node = first[parent] + _place(parent)
            logits = lm.logits(self.hidden_BD[rows])
            logp = logits[parent, self.token_N[node]] - logits.logsumexp(-1)[parent]
            parts.append((parent + begin, node, self.logp_B[rows][parent] + logp))
        parent_C, node_C, logp_C = (torch.cat(column) for column in zip(*parts, strict=True))
        return parent_C, node_C, logp_C

    def _end(self, question: Tensor, entry: Tensor, logp: Tensor) -> None:
        """Keep the best entries that have been read to their end."""
        question = torch.cat([self.question_K, question])
        entry, logp = torch.cat([self.entry_K, entry]), torch.cat([self.logp_K, logp])
        best = _best(logp, question, self.beams)
        self.question_K, self.entry_K, self.logp_K = question[best], entry[best], logp[best]

    def _bar(self) -> Tensor:
        """What a beam must beat in each question: its last place, once all are taken."""
        bar_Q = torch.full((self.questions,), -torch.inf, dtype=torch.float64, device=self.device)
        last = _place(self.question_K) == self.beams - 1
        bar_Q[self.question_K[last]] = self.logp_K[last]
        return bar_Q

    def _paths(self, parent_R: Tensor, entry_R: Tensor, logp_R: Tensor, depth: int) -> Tensor:
        """Log-probabilities of the first tokens of entries, from the one at that depth on, (R, L).

        Args:
            parent_R: the beams that they come from.
            entry_R: the entries.
            logp_R: log-probability up to the token at that depth, which has not been read yet.
            depth: of that token.
        """
        path_RL = logp_R[:, None].repeat(1, self.ids_EL.shape[1])
        rest_R = self.length_E[entry_R] - depth - 1
        self.positions_Q.index_add_(0, self.question_B[parent_R], rest_R)
        # Rows of like length go together, so that little is padded.
        bucket_R = torch.ceil(torch.log2(rest_R.clamp_min(_SHORT).double())).long()
        for bucket in torch.unique(bucket_R).tolist():
            here = (bucket_R == bucket).nonzero()[:, 0]
            for rows in torch.split(here, max(1, _MOST_POSITIONS >> bucket)):
                logp = self._log_probs(parent_R[rows], entry_R[rows], rest_R[rows], depth)
                path_RL[rows, depth + 1 : depth + 1 + logp.shape[1]] += logp.cumsum(1)
                path_RL[rows, depth + 1 + logp.shape[1] :] += logp.sum(1, keepdim=True)
        return path_RL

    def _log_probs(self, parent_R: Tensor, entry_R: Tensor, rest_R: Tensor, depth: int) -> Tensor:
        """Log-probability of each of the tokens behind that depth, 0 where there are no more."""
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
        logp_Rn = torch.zeros(real_Rn.shape, dtype=torch.float64, device=self.device)
        positions = torch.arange(len(row_M), device=self.device)
        for rows in torch.split(positions, lm.logits_at_once):
            logits = lm.logits(hidden_RnD[row_M[rows], step_M[rows]])
            logp = gather_log_prob(logits, target_M[rows, None])[:, 0]
            logp_Rn[row_M[rows], step_M[rows]] = logp.double()
        return logp_Rn

    def _branch(self, parent_B: Tensor, node_B: Tensor, logp_B: Tensor) -> None:
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
