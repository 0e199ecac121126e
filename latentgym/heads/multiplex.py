"""Thoughts of K sampled tokens, each of which learns by a ratio of its own (Multiplex Thinking).

"Multiplex Thinking: Reasoning via Token-wise Branch-and-Merge" (arXiv 2601.08808): K tokens are
drawn independently from the next-token distribution and merged into one input embedding, as a plain
mean or weighted by their probabilities. Where MTS (`MultiTokenHead`) has one ratio of a thought,
the geometric mean over its tokens, here every sub-token has its own, clipped by itself.

Legend: ... any leading shape, K sub-tokens, V vocabulary, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from latentgym.heads.base import Action, Readout
from latentgym.heads.distributions import gather_log_prob
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import MultiTokenHead, each_once, mix

Merge = Literal["mean", "probability"]


class MultiplexHead(MultiTokenHead):
    """K ids drawn independently, with K ratios.

    A thought counts as one action: of its K parts each has the weight 1 / K. With K = 1 it is the
    token head.

    Args:
        k: ids per thought.
        temperature: of the distribution they are drawn from.
        merge: `mean` has the model read the mean of their embeddings, as MTS; `probability` weighs
            them by their probabilities, renormalised over the K.

    Raises:
        UsageError: k below 1, or a temperature that is not positive.
    """

    def __init__(self, k: int = 3, temperature: float = 1.0, merge: Merge = "mean") -> None:
        super().__init__(k, temperature)
        self.merge = merge
        self.part_weights = (1 / k,) * k

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        action = super().sample(read, rng)
        if self.merge == "mean":
            return action
        # What was fed is stored: the policy that learns weighs the same ids otherwise.
        return {**action, "weights": self._each(action, read).softmax(-1)}

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        if self.merge == "mean":
            return super().embed(action, table_VD)
        return mix(action["ids"], action["weights"], table_VD)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        """Of each sub-token, (..., K); (...,) for one."""
        logp = self._each(action, read)
        return logp if self.k > 1 else logp[..., 0]

    def heaviest(self, action: Action, read: Readout, most: int) -> tuple[Tensor, Tensor] | None:
        """Each sampled id once, with the weight of all its samples."""
        weights = action.get("weights")
        if weights is None:
            return super().heaviest(action, read, most)
        return each_once(action["ids"], weights, most)

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        """Of the merge: weights have products beside the sums."""
        mean, prompt = super().flops(vocab_size, hidden_size)
        return (mean if self.merge == "mean" else 2 * mean), prompt

    def _each(self, action: Action, read: Readout) -> Tensor:
        return gather_log_prob(self._scaled(read.logits), action["ids"])
