"""Exact replay: the log-probabilities of stored actions in one parallel, differentiable pass.

A rollout stores what was thought, not the distributions. Replay embeds the stored thoughts
(`head.embed`), reads prompt and steps in one forward pass, and scores every action from the
position before it. It agrees with step-by-step decoding for every head, with left padding and
rows of unequal length; that is what makes training on latent rollouts trustworthy.

Legend: N rows, P prompt positions, T steps, M scored positions, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentgym.heads import PolicyHead, Readout
from latentgym.lm.model import left_pad
from latentgym.rollout.policy import Policy
from latentgym.rollout.rollouts import Kind, Rollouts

_MOST_LOGITS = 1 << 26  # elements of fp32 logits alive at once: 256 MiB


@dataclass
class Scores:
    """What replay computes.

    Attributes:
        logp_NT: log-probability of each action, 0 where there is none; fp32.
        entropy_NT: entropy of the next-token distribution at each action, without gradient.
        action_NT: True where there is an action.
        thought_NT: True where it is a thought.
        latent_norm: mean norm of the thoughts' embeddings over the mean norm of the table.
    """

    logp_NT: Tensor
    entropy_NT: Tensor
    action_NT: Tensor
    thought_NT: Tensor
    latent_norm: float


def replay(policy: Policy, rollouts: Rollouts) -> Scores:
    """Score the stored actions under the policy as it is now.

    Args:
        policy: the policy; gradients flow to its model, its head and, through the embedding of
            stored ids, to the embedding table.
        rollouts: N rows.
    """
    lm, head, device = policy.lm, policy.head, policy.lm.device
    prompts = [rollouts.prompts[i] for i in rollouts.prompt_N]
    ids_NP, mask_NP = left_pad(prompts, lm.tokenizer.pad_id, device)
    token_NT = torch.from_numpy(rollouts.token_NT).to(device)
    kind_NT = torch.from_numpy(rollouts.kind_NT).to(device)
    actions = {name: value.to(device) for name, value in rollouts.actions.items()}
    actions["token"] = token_NT
    thought_NT, spoken_NT = kind_NT == Kind.THOUGHT, kind_NT == Kind.SPOKEN

    x_NTD = lm.embed(token_NT)
    latent_norm = 1.0
    if not policy.speaks_its_thoughts and bool(thought_NT.any()):
        latent_MD = head.embed({k: v[thought_NT] for k, v in actions.items()}, lm.table_VD)
        x_NTD = x_NTD.masked_scatter(thought_NT[..., None], latent_MD.to(x_NTD.dtype))
        with torch.no_grad():
            latent_norm = float(latent_MD.norm(dim=-1).mean() / lm.table_VD.norm(dim=-1).mean())
    x = torch.cat([lm.embed(ids_NP), x_NTD], dim=1)[:, :-1]
    mask = torch.cat([mask_NP, kind_NT != Kind.PAD], dim=1)[:, :-1]
    hidden = lm.hidden(x, mask)
    # The hidden state before step t tells its distribution.
    hidden_NTD = hidden[:, ids_NP.shape[1] - 1 :]
    memory_NPD = hidden[:, : ids_NP.shape[1]] if head.needs_memory else None

    logp_NT = torch.zeros(kind_NT.shape, device=device)
    entropy_NT = torch.zeros(kind_NT.shape, device=device)
    for where_NT, scorer in ((thought_NT, head), (spoken_NT, policy.voice)):
        if not bool(where_NT.any()):
            continue
        row_M = where_NT.nonzero()[:, 0]
        acted = {name: value[where_NT] for name, value in actions.items()}
        logp_M, entropy_M = _score(
            policy, scorer, acted, hidden_NTD[where_NT], row_M, memory_NPD, mask_NP
        )
        logp_NT = logp_NT.masked_scatter(where_NT, logp_M.float())
        entropy_NT = entropy_NT.masked_scatter(where_NT, entropy_M)
    return Scores(logp_NT, entropy_NT, thought_NT | spoken_NT, thought_NT, latent_norm)


def _score(
    policy: Policy,
    scorer: PolicyHead,
    action: dict[str, Tensor],
    hidden_MD: Tensor,
    row_M: Tensor,
    memory_NPD: Tensor | None,
    mask_NP: Tensor,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of M actions, in chunks that bound the logits in memory."""
    lm = policy.lm

    def score(rows: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits = lm.logits(hidden)
        memory = mask = None
        if scorer.needs_memory and memory_NPD is not None:
            memory, mask = memory_NPD[row_M[rows]], mask_NP[row_M[rows]]
        read = Readout(logits, hidden, lm.table_VD, memory, mask)
        chunk = {name: value[rows] for name, value in action.items()}
        return scorer.log_prob(chunk, read), entropy(logits)

    size = max(1, _MOST_LOGITS // lm.vocab_size)
    chunks = torch.split(torch.arange(len(hidden_MD), device=hidden_MD.device), size)
    if len(chunks) == 1:
        return score(chunks[0], hidden_MD)
    recompute = torch.is_grad_enabled()
    parts = [
        checkpoint(score, rows, hidden_MD[rows], use_reentrant=False)
        if recompute
        else score(rows, hidden_MD[rows])
        for rows in chunks
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


@torch.no_grad()
def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits), (..., V) to (...,)."""
    p = logits.softmax(-1)
    return logits.logsumexp(-1) - (p * logits).nan_to_num(0.0).sum(-1)


def micro_batches(
    rollouts: Rollouts, rows: int
) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Row indices of consecutive batches of at most `rows` rows, in order."""
    index = np.arange(len(rollouts))
    return [index[i : i + rows] for i in range(0, len(index), rows)]
