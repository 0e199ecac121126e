"""Mixtures that know when to stop: latent or explicit by entropy, and the cold stop.

`SwitchingHead` is SwiReasoning ("SwiReasoning: Switch-Thinking in Latent and Explicit for
Pareto-Superior Reasoning LLMs", arXiv 2510.05069): a model thinks in mixtures while it grows less
sure, and in words as soon as it grows surer. `ColdStopHead` ends Soft Thinking where the model has
been sure for many steps (arXiv 2505.15778, section 3.2). Neither is trained.

Legend: B rows, V vocabulary, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, State
from latentgym.heads.distributions import entropy
from latentgym.heads.rng import CounterRNG
from latentgym.heads.superposition import MixtureHead
from latentgym.heads.token import TokenHead


class ColdStopHead(MixtureHead):
    """Soft Thinking that ends once entropy has been low for some steps in a row.

    Args:
        top_k, top_p, temperature: of the mixture.
        bound: entropy in nats below which a step is cold.
        patience: so many of them in a row end thinking.
        end: the token that does, end-of-sequence.
    """

    def __init__(
        self, top_k: int, top_p: float, temperature: float, bound: float, patience: int, end: int
    ) -> None:
        super().__init__(top_k, top_p, temperature)
        if bound < 0 or patience < 1:
            raise UsageError(
                f"a cold stop needs a bound of at least 0 and at least one step, but has {bound} "
                f"and {patience}."
            )
        self.bound, self.patience, self.end = bound, patience, end

    def initial_state(self, rows: int, device: torch.device) -> State:
        return {"cold": torch.zeros(rows, dtype=torch.int64, device=device)}

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        action = super().sample(read, rng)
        cold = torch.where(entropy(read.logits) < self.bound, read.state["cold"] + 1, 0)
        stop = cold >= self.patience
        token = torch.where(stop, self.end, action["token"])
        return {**action, "token": token, "plain": stop, "cold": cold}


class SwitchingHead(PolicyHead):
    """Latent or explicit thoughts, by the trend of the entropy.

    The entropy at the last switch is the reference. A latent thought gives way to words as soon as
    entropy falls below it, words to latent thoughts when it rises above it and they have been at it
    for `window` steps.

    Args:
        token_head: draws the words.
        window: fewest explicit steps before latent ones.
        fall, rise: by how much, in nats, entropy must be below or above the reference.
        begins_latent: how thinking begins.
        most_switches: to words; after so many it stays with them. None for no bound.
        marks: ids whose embeddings say that latent thinking begins, and that it ends; None has
            none.
        alpha: share of the mixture where latent thinking begins; the rest is the first mark.
        beta: share of the word where it ends; the rest is the second.
        words_only: ids that are read as words even in latent thinking; None for none.
    """

    family = "hybrid"
    deterministic = True  # nothing learns from what is drawn

    def __init__(
        self,
        token_head: TokenHead,
        *,
        window: int = 512,
        fall: float = 0.0,
        rise: float = 0.0,
        begins_latent: bool = True,
        most_switches: int | None = None,
        marks: tuple[int, int] | None = None,
        alpha: float = 1.0,
        beta: float = 0.7,
        words_only: Tensor | None = None,
    ) -> None:
        super().__init__()
        if window < 0 or not 0 <= alpha <= 1 or not 0 <= beta <= 1:
            raise UsageError(
                f"switching needs window >= 0 and shares between 0 and 1, but has window={window}, "
                f"alpha={alpha}, beta={beta}."
            )
        self.token_head, self.window, self.fall, self.rise = token_head, window, fall, rise
        self.begins_latent, self.most_switches = begins_latent, most_switches
        self.marks, self.alpha, self.beta = marks, alpha, beta
        none = torch.zeros(0, dtype=torch.int64)
        self.words_only: Tensor
        self.register_buffer("words_only", none if words_only is None else words_only, False)

    def initial_state(self, rows: int, device: torch.device) -> State:
        whole = torch.zeros(rows, dtype=torch.int64, device=device)
        return {
            "explicit": torch.full_like(whole, not self.begins_latent, dtype=torch.bool),
            "started": torch.zeros_like(whole, dtype=torch.bool),
            "stayed": whole,
            "switches": whole.clone(),
            "reference": torch.zeros(rows, device=device),
        }

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        s, now = read.state, entropy(read.logits)
        explicit, started = s["explicit"], s["started"]
        reference = torch.where(started, s["reference"], now)
        stayed = s["stayed"] + started
        to_words = started & ~explicit & (now < reference - self.fall)
        to_latent = started & explicit & (now > reference + self.rise) & (stayed >= self.window)
        if self.most_switches is not None:
            to_latent &= s["switches"] < self.most_switches
        switched = to_words | to_latent
        explicit = explicit ^ switched
        word = self.token_head.sample(read, rng)["token"]
        as_word = explicit | torch.isin(word, self.words_only)
        latent = self._latent(read, word, to_words, to_latent, as_word)
        blended = to_words if self.marks is not None else torch.zeros_like(to_words)
        return {
            "token": torch.where(as_word, word, read.logits.argmax(-1)),
            "plain": as_word & ~blended,
            "latent": latent,
            "explicit": explicit,
            "started": torch.ones_like(started),
            "stayed": torch.where(switched, 0, stayed),
            "switches": s["switches"] + to_words,
            "reference": torch.where(switched, now, reference),
        }

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        return action["latent"]

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return torch.zeros_like(read.logits[..., 0])

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        return 2.0 * vocab_size * hidden_size, 0.0

    def _latent(
        self, read: Readout, word: Tensor, to_words: Tensor, to_latent: Tensor, as_word: Tensor
    ) -> Tensor:
        """What is read where no plain word is, (B, D)."""
        table = read.table_VD
        mixed = read.logits.softmax(-1).to(table.dtype) @ table
        if self.marks is None:
            return mixed
        begin, end = table[self.marks[0]], table[self.marks[1]]
        mixed = torch.where(
            to_latent[:, None], self.alpha * mixed + (1 - self.alpha) * begin, mixed
        )
        left = self.beta * nn.functional.embedding(word, table) + (1 - self.beta) * end
        return torch.where((to_words & as_word)[:, None], left, mixed)
