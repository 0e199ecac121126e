"""Latent states between the steps of a text, and transitions that are learnt (CTRLS).

After "CTRLS: Chain-of-Thought Reasoning via Latent State-Transition" (arXiv 2507.08182), of which
there is no code: what it leaves open is our own choice, see docs/agents/ctrls.md. Before each step
of a chain of text a state z is drawn from a transition model, and the frozen language model reads
its prefix, m learnt vectors, in front of the step:

    z ~ (1 - epsilon) P(z | z_before) + epsilon / K

or, without a prefix, a vector that is added to the embedding of each token of the step (the first
of them is drawn before any has been read). z_before is the state that an encoder finds in the step
just written, or the one that was drawn. Drawing a state is the only action: the tokens are those of
a model that does not learn.

Legend: ... any leading shape, B rows, M positions, N places for tokens, K states, m vectors of a
prefix, D width.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.base import Action, PolicyHead, Readout, State, rms
from latentgym.heads.distributions import categorical, masked
from latentgym.heads.distributions import entropy as entropy_of
from latentgym.heads.rng import CounterRNG
from latentgym.heads.spectral import StateEncoder
from latentgym.heads.token import TokenHead

Encoded = Literal["spectral", "length"]
_SPREAD = 0.1  # of vectors around what they begin near
Before = Literal["inferred", "drawn"]
Learns = Literal["all", "transitions"]


class FrozenTokenHead(TokenHead):
    """Tokens of a model that does not learn: drawn at random, but no actions."""

    def drawn(self, action: Action) -> Tensor:
        return torch.zeros_like(action["token"], dtype=torch.bool).unsqueeze(-1)


class TransitionHead(PolicyHead):
    """Text with a latent state before each step.

    Args:
        width: D of the model.
        token_head: draws the tokens.
        step_end: ids that end a step.
        states: K.
        prefix: m, vectors that the model reads of a state; 0 adds one to the embeddings of tokens.
        k: eigenpairs of a step's summary.
        longest: N; of a longer step the last N tokens are summarised.
        epsilon: share of states that are drawn uniformly.
        greedy: take the likeliest state, but for epsilon.
        before: of which state the transition is: the one that is inferred from the last step, or
            the one that was drawn for it.
        encoded: infer states from the spectrum of a step, or, as a control, from its length alone.
        learns: all, or the transitions alone.
        near_D: an embedding that all vectors of a prefix begin near; None begins anywhere. What is
            added begins at zero, where the text is that of the model alone.

    Raises:
        UsageError: numbers out of range, or no id that ends a step.

    Attributes:
        transitions: logits of P, (K + 1, K); the last row is that of the first state.
        vectors: what the model reads of each state, (K, m, D), or adds to words, (K, D); in
            units of `size`.
        size: root mean square of the embedding table's numbers, measured when it is first needed,
            then kept and saved.
    """

    family = "hybrid"
    size: Tensor

    def __init__(
        self,
        width: int,
        token_head: TokenHead | None = None,
        *,
        step_end: Tensor,
        states: int = 16,
        prefix: int = 1,
        k: int = 4,
        longest: int = 32,
        epsilon: float = 0.0,
        greedy: bool = False,
        before: Before = "inferred",
        encoded: Encoded = "spectral",
        learns: Learns = "all",
        near_D: Tensor | None = None,
    ) -> None:
        super().__init__()
        if min(states, k, longest) < 1 or prefix < 0 or not 0 <= epsilon <= 1:
            raise UsageError(
                "transitions need at least one state, eigenpair and token of a step, no negative "
                f"number of prefix vectors, and epsilon in [0, 1], but have states={states}, "
                f"prefix={prefix}, k={k}, longest={longest}, epsilon={epsilon}."
            )
        if not len(step_end):
            raise UsageError("no token ends a step; give another text that does.")
        self.token_head = token_head or TokenHead()
        self.states, self.prefix, self.longest = states, prefix, longest
        self.controlled = None if prefix else "added"
        self.epsilon, self.greedy, self.before, self.encoded = epsilon, greedy, before, encoded
        self.step_end: Tensor
        self.register_buffer("step_end", step_end, False)
        self.encoder = StateEncoder(width, states, k)
        self.transitions = nn.Parameter(torch.zeros(states + 1, states))
        vectors = torch.randn(states, prefix, width) if prefix else torch.zeros(states, width)
        if prefix and near_D is not None:
            near_D = near_D.detach().float().cpu()  # a head is made before it is moved
            vectors = near_D / rms(near_D) + _SPREAD * vectors
        self.vectors = nn.Parameter(vectors)
        self.register_buffer("size", torch.tensor(torch.nan))
        if learns == "transitions":
            self.requires_grad_(False)
            self.transitions.requires_grad_(True)

    @property
    def fitted(self) -> bool:
        """Whether the vectors of states have been read by a model in training or answering."""
        return not bool(self.size.isnan())

    @property
    def summarises(self) -> bool:
        """Whether anything is made of the hidden states of steps, which are kept only then."""
        return self.before == "inferred" and self.encoded == "spectral"

    def initial_state(self, rows: int, device: torch.device) -> State:
        """The state drawn last, that it was drawn after, its vectors read, and the step so far.

        Of what was read last: whether it was a token (`word`), and one that ends a step.
        """
        whole = torch.zeros(rows, dtype=torch.int64, device=device)
        size = (rows, self.longest if self.summarises else 0, self.vectors.shape[-1])
        return {
            "state": torch.full_like(whole, self.states),
            "last": torch.full_like(whole, self.states),
            "fed": whole,
            "word": torch.zeros_like(whole, dtype=torch.bool),
            "ended": torch.ones_like(whole, dtype=torch.bool),
            "count": whole.clone(),
            "step": torch.zeros(size, device=device),
        }

    def sample(self, read: Readout, rng: CounterRNG) -> Action:
        s = self._extended(read)
        begins, state = s["ended"], s["state"]
        last = state
        if self.before == "inferred":
            written = begins & (state < self.states)  # before the first state there is no step
            last = torch.where(written, self._inferred(s, written), state)
        # All vectors of a prefix tell of one draw, so whoever looks at any finds its probability.
        last = torch.where(begins, last, s["last"])
        drawn = self._draw(last, rng)
        state = torch.where(begins, drawn, state)
        fed = torch.where(begins, 0, s["fed"])
        before_words = fed < self.prefix
        word = self.token_head.sample(read, rng)["token"]
        # A prefix is read as another end of a step: nothing that would end thinking or be graded.
        token = torch.where(before_words, self.step_end[0], word)
        own: Action = {"plain": ~before_words}
        if not self.prefix:
            own = {"added": self._sized(self.vectors[state], read.table_VD)}
        return {
            **own,
            "token": token,
            "z": state,
            "before": last,
            "place": fed,
            "state": state,
            "last": last,
            "fed": (fed + 1).clamp_max(max(1, self.prefix)),
            "word": ~before_words,
            "ended": ~before_words & torch.isin(token, self.step_end),
            "count": torch.where(begins, 0, s["count"]),
            "step": s["step"],
        }

    def embed(self, action: Action, table_VD: Tensor) -> Tensor:
        """Of a prefix the vector whose turn it is, which plain tokens are read instead of."""
        if not self.prefix:
            return nn.functional.embedding(action["token"], table_VD) + action["added"]
        # Before a row's first state nothing asks for one; the number must be one all the same.
        z, place = action["z"].clamp_max(self.states - 1), action["place"]
        return self._sized(self.vectors[z, place.clamp_max(self.prefix - 1)], table_VD)

    def log_prob(self, action: Action, read: Readout) -> Tensor:
        return masked(self._log_prob_of_state(action), self.drawn(action)[..., 0])

    def entropy(self, action: Action, read: Readout) -> Tensor:
        return entropy_of(self.log_policy()[action["before"]])

    def drawn(self, action: Action) -> Tensor:
        """Where a state was drawn: where a step begins, if there are several states."""
        random = self.states > 1 and not (self.greedy and self.epsilon == 0)
        first = action["place"] == 0
        return (first & random).unsqueeze(-1)

    def mixed(self, weight_MK: Tensor, place_M: Tensor) -> Tensor:
        """Weighted sums of the states' vectors, in units of `size`, (M, D).

        Args:
            weight_MK: of each state, one-hot where one was drawn.
            place_M: which vector of a prefix; of no meaning without one.
        """
        if not self.prefix:
            return weight_MK @ self.vectors
        return torch.einsum("mk,mkd->md", weight_MK, self.vectors.transpose(0, 1)[place_M])

    def size_of(self, table_VD: Tensor) -> Tensor:
        """The size of words, see `size`."""
        return self.measured(self.size, partial(rms, table_VD))

    def log_policy(self) -> Tensor:
        """Log-probabilities with which states are drawn, (K + 1, K)."""
        logp = self.transitions.float().log_softmax(-1)
        if self.greedy:
            best = logp.argmax(-1, keepdim=True)
            logp = torch.full_like(logp, -torch.inf).scatter(-1, best, 0.0)
        if self.epsilon == 0:
            return logp
        uniform = math.log(self.epsilon / self.states)
        own = logp + math.log1p(-self.epsilon) if self.epsilon < 1 else logp - torch.inf
        return torch.logaddexp(own, torch.full_like(own, uniform))

    def flops(self, vocab_size: int, hidden_size: int) -> tuple[float, float]:
        """Of a token: its share of the products of a step's tokens, and of the encoder's map."""
        if not self.summarises:
            return 0.0, 0.0
        encoder = 2.0 * self.encoder.logits.weight.numel()
        return 2.0 * self.longest * hidden_size + encoder / self.longest, 0.0

    def statistics(self, action: Action, table_VD: Tensor) -> dict[str, Tensor]:
        """`certainty`: probability of the drawn state."""
        return {"certainty": self._log_prob_of_state(action).exp()}

    def _sized(self, vectors: Tensor, table_VD: Tensor) -> Tensor:
        return vectors.to(table_VD.dtype) * self.size_of(table_VD).to(table_VD.dtype)

    def _log_prob_of_state(self, action: Action) -> Tensor:
        z = action["z"].unsqueeze(-1)
        return self.log_policy()[action["before"]].gather(-1, z).squeeze(-1)

    def _extended(self, read: Readout) -> State:
        """The state, with the token that was just read in its step."""
        s = read.state
        inside = s["word"]
        place = (s["count"] % self.longest)[:, None, None]
        here = torch.arange(s["step"].shape[1], device=place.device)[:, None] == place
        hidden = read.hidden[:, None].to(s["step"].dtype)
        step = torch.where(here & inside[:, None, None], hidden, s["step"])
        return {**s, "step": step, "count": s["count"] + inside}

    def _inferred(self, s: State, written: Tensor) -> Tensor:
        """The likeliest state of the step so far, int64 (B,); only where one has been written."""
        if self.encoded == "length":
            return length_state(s["count"], self.states)
        # Eigenvectors cost more than the rest of the head; a compiled step looks at no numbers.
        rows = slice(None) if torch.compiler.is_compiling() else written.nonzero()[:, 0]
        count = s["count"][rows].clamp_max(self.longest)
        found = torch.zeros_like(s["state"])
        found[rows] = self.encoder(s["step"][rows], count).argmax(-1)
        return found

    def _draw(self, before: Tensor, rng: CounterRNG) -> Tensor:
        """A state for each row, int64 (B,)."""
        return categorical(self.log_policy()[before], rng.uniform(1, stream=1))[:, 0]


def length_state(count: Tensor, states: int) -> Tensor:
    """A state from the number of a step's tokens alone: each number has its own, up to K."""
    return (count - 1).clamp(0, states - 1)
