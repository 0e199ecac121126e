"""A policy: a language model, the head it thinks with, and the head it answers with.

Legend: B rows, T positions (prompt and steps), M scored positions, V vocabulary, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError, told
from latentgym.heads import Action, PolicyHead, Readout, TokenHead
from latentgym.heads.base import part_log_probs, shaped
from latentgym.lm.chunks import in_chunks
from latentgym.lm.model import LatentLM
from latentgym.rollout.rollouts import StepKind
from latentgym.rollout.shared import hidden_states


class Policy(nn.Module):
    """What is rolled out, replayed, trained and saved.

    Args:
        lm: the language model.
        head: thinks. With a `TokenHead`, thoughts are tokens.
        answer_head: samples the answer's tokens; the head itself if that is a `TokenHead`.
        prompt_suffix: token ids that the policy reads behind every prompt before it thinks.
        attend_padding: score left-padded prompts as trainers do that pass no attention mask, so
            that padding is read and shifts positions. Wrong; for comparison with their results.

    Raises:
        UsageError: the weights of the head's parts are not finite numbers of at least 0.
    """

    def __init__(
        self,
        lm: LatentLM,
        head: PolicyHead,
        answer_head: TokenHead | None = None,
        *,
        prompt_suffix: Sequence[int] = (),
        attend_padding: bool = False,
    ) -> None:
        super().__init__()
        self.lm = lm
        _check_parts(head)
        self.head = head.to(lm.device)
        if answer_head is None:
            answer_head = head if isinstance(head, TokenHead) else TokenHead()
        self.answer_head = answer_head
        self.prompt_suffix = tuple(prompt_suffix)
        self.attend_padding = attend_padding

    @property
    def thinks_in_tokens(self) -> bool:
        """Whether thoughts and answers are drawn by the same head (the token family)."""
        return self.answer_head is self.head

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups: the model's trainable parameters, then the head's own.

        Matrices decay. Biases, norms and whatever else has fewer than two dimensions do not, or
        they would move where nothing is learnt; a head's group may say a `weight_decay` of its own.
        """
        trainable = [p for p in self.lm.parameters() if p.requires_grad]
        groups = [{"params": trainable, "lr": lr}, *self.head.parameter_groups(lr)]
        return [part for group in groups for part in _matrices_and_vectors(group)]

    def reference(self) -> Policy:
        """This policy as it is now, frozen: what divergence is measured from.

        Weights that are frozen already are shared, so beside adapters it costs next to nothing.
        """
        frozen = {id(p): p for p in self.lm.parameters() if not p.requires_grad}
        lm = copy.deepcopy(self.lm, frozen).requires_grad_(False)
        head = self.head.reference()
        answer_head = None if self.thinks_in_tokens else self.answer_head
        extras: dict[str, Any] = {
            "prompt_suffix": self.prompt_suffix,
            "attend_padding": self.attend_padding,
        }
        return Policy(lm, head, answer_head, **extras).eval()

    def forward(
        self,
        token_BT: Tensor,
        kind_BT: Tensor,
        thoughts: Action,
        given_MD: Tensor | None = None,
        entropy_gradient: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Score stored actions in one parallel, differentiable pass.

        It is the module's forward, so whatever wraps modules for training (DeepSpeed, DDP) wraps
        this. `latentgym.rollout.replay` calls it with rollouts.

        Args:
            token_BT: the token by which each position is read, padded on either side.
            kind_BT: `StepKind` of each position.
            thoughts: the head's actions, those of the kinds `THOUGHTS`, in row-major order, without
                what tokens and kinds tell: tensors of shape (n thoughts, ...).
            given_MD: what is read at the positions of kind GIVEN, in row-major order, if any are.
            entropy_gradient: whether entropies have gradients.

        Returns:
            Log-probability of each action and target, fp32 (B, T), 0 where there is none; of each
            part of it, (B, T, J), where the head's thoughts have J > 1, the first of them for plain
            tokens. And the entropy of what it was drawn from, fp32 (B, T).

        Raises:
            UsageError: a head gives log-probabilities or embeddings of another shape than (M,), or
                (M, J), and (M, D), for M actions.
        """
        with self.lm.full_precision():
            return self._forward(token_BT, kind_BT, thoughts, given_MD, entropy_gradient)

    def _forward(
        self,
        token_BT: Tensor,
        kind_BT: Tensor,
        thoughts: Action,
        given_MD: Tensor | None,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        lm, head, table_VD = self.lm, self.head, self.lm.table_VD
        thought_BT = (kind_BT == StepKind.THOUGHT) | (kind_BT == StepKind.PLAIN)
        tokens_BT = (kind_BT == StepKind.TOKEN) | (kind_BT == StepKind.TARGET)
        plain_M = (kind_BT == StepKind.PLAIN)[thought_BT]
        thoughts = {**thoughts, "token": token_BT[thought_BT], "plain": plain_M}
        x_BTD = self.inputs(token_BT, kind_BT, thoughts, given_MD, table_VD)
        present_BT = torch.ones_like(thought_BT) if self.attend_padding else kind_BT != StepKind.PAD
        before = slice(None, -1)  # nothing is scored behind the last position
        hidden_BTD = hidden_states(
            lm, *(part[:, before] for part in (x_BTD, present_BT, token_BT, kind_BT))
        )
        memory = _memory(head, hidden_BTD, kind_BT) if head.needs_memory else None

        parts = len(head.part_weights)
        logp_BTJ = torch.zeros(*kind_BT.shape, parts, device=x_BTD.device)
        entropy_BT = torch.zeros(kind_BT.shape, device=x_BTD.device)
        for where_BT, scorer, acted in (
            (thought_BT, head, thoughts),
            (tokens_BT, self.answer_head, {"token": token_BT[tokens_BT]}),
        ):
            if not len(acted["token"]):
                continue
            # The hidden state before a position tells its distribution.
            hidden_MD = hidden_BTD[where_BT[:, 1:]]
            row_M = where_BT.nonzero()[:, 0]
            logp_MJ, entropy_M = self._score(
                scorer, acted, hidden_MD, row_M, table_VD, memory, entropy_gradient
            )
            has_J = torch.arange(parts, device=x_BTD.device) < logp_MJ.shape[-1]
            logp_BTJ = logp_BTJ.masked_scatter(where_BT[..., None] & has_J, logp_MJ.float())
            entropy_BT = entropy_BT.masked_scatter(where_BT, entropy_M)
        return logp_BTJ if parts > 1 else logp_BTJ[..., 0], entropy_BT

    def inputs(
        self,
        token_BT: Tensor,
        kind_BT: Tensor,
        thoughts: Action,
        given_MD: Tensor | None,
        table_VD: Tensor,
    ) -> Tensor:
        """What the model reads of stored sequences, (B, T, D).

        Args:
            token_BT: the token by which each position is read.
            kind_BT: `StepKind` of each position.
            thoughts: the head's actions, in row-major order, with their token, and `plain` where
                the head chose.
            given_MD: what is read at the positions of kind GIVEN, if any are.
            table_VD: the embedding table.

        Raises:
            UsageError: the head makes embeddings of another shape than (M, D), for M thoughts.
        """
        x_BTD = self.lm.embed(token_BT)
        if len(thoughts["token"]):
            thought_BT = (kind_BT == StepKind.THOUGHT) | (kind_BT == StepKind.PLAIN)
            latent_MD = self.thought_inputs(thoughts, table_VD).to(x_BTD.dtype)
            x_BTD = x_BTD.index_put(thought_BT.nonzero(as_tuple=True), latent_MD)
        if given_MD is not None and len(given_MD):
            given = (kind_BT == StepKind.GIVEN).nonzero(as_tuple=True)
            x_BTD = x_BTD.index_put(given, given_MD.to(x_BTD.dtype))
        return x_BTD

    def thought_inputs(self, thoughts: Action, table_VD: Tensor) -> Tensor:
        """What the model reads of M actions of the head, (M, D): latents, or plain tokens.

        Args:
            thoughts: with their token, and `plain` where the head chose.
            table_VD: the embedding table.

        Raises:
            UsageError: as `inputs`.
        """
        latent_MD = self.head.embed(thoughts, table_VD)
        shape = (len(thoughts["token"]), self.lm.hidden_size)
        shaped(latent_MD, shape, self.head, "embed")
        plain_M = thoughts.get("plain")
        if plain_M is None or not plain_M.any():
            return latent_MD
        plain_MD = self.lm.embed(thoughts["token"]).to(latent_MD.dtype)
        return torch.where(plain_M[:, None], plain_MD, latent_MD)

    def _score(
        self,
        scorer: PolicyHead,
        action: Action,
        hidden_MD: Tensor,
        row_M: Tensor,
        table_VD: Tensor,
        memory: tuple[Tensor, Tensor] | None,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (M, J) and entropies (M,) of actions, in chunks that bound logits."""
        lm = self.lm

        def score(rows: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
            logits = lm.logits(hidden)
            read = Readout(logits, hidden, table_VD)
            if scorer.needs_memory and memory is not None:
                read.memory, read.memory_mask = (part[row_M[rows]] for part in memory)
            chunk = {name: value[rows] for name, value in action.items()}
            logp_MJ = part_log_probs(scorer, chunk, read)
            with nullcontext() if entropy_gradient else torch.no_grad():
                entropy_M = shaped(scorer.entropy(chunk, read), rows.shape, scorer, "entropy")
            return logp_MJ, entropy_M.float()

        rows = torch.arange(len(hidden_MD), device=hidden_MD.device)
        logp_MJ, entropy_M = in_chunks(score, lm.logits_at_once, rows, hidden_MD)
        return logp_MJ, entropy_M


def _check_parts(head: PolicyHead) -> None:
    weights = head.part_weights
    if (
        not isinstance(weights, tuple | list)
        or not weights
        or not all(0 <= w < inf for w in weights)
    ):
        raise UsageError(
            f"{type(head).__name__}.part_weights is {told(weights)}, not a tuple with a finite "
            "weight of at least 0 for each part of a thought; mend the head."
        )


def _matrices_and_vectors(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An optimiser group, in two where it does not say how it decays; none that is empty."""
    if "weight_decay" in group:
        yield group
        return
    matrices = [p for p in group["params"] if p.ndim > 1]
    vectors = [p for p in group["params"] if p.ndim <= 1]
    if matrices:
        yield {**group, "params": matrices}
    if vectors:
        yield {**group, "params": vectors, "weight_decay": 0.0}


def _memory(head: PolicyHead, hidden_BTD: Tensor, kind_BT: Tensor) -> tuple[Tensor, Tensor]:
    """What a head remembers up to the end of the longest prompt, and what is of the prompt."""
    prompt_BT = kind_BT == StepKind.PROMPT
    longest = int(prompt_BT.any(0).nonzero().max()) + 1
    prompt_BP = prompt_BT[:, :longest]
    return head.remember(hidden_BTD[:, :longest], prompt_BP), prompt_BP
