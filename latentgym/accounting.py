"""What an answer costs: forward positions and floating-point operations.

Counted, not timed: a position of the prompt, a thought, an answer token, positions thrown away, and
what search at test time adds. A prompt shared by a group counts once for the group.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass

from latentgym.lm.model import LatentLM


@dataclass
class Positions:
    """Forward positions by what they were for.

    Attributes:
        prompt: of the question.
        thought, answer: thought and spoken.
        discarded: computed and thrown away.
        verifier_prompt: read by a verifier that drew nothing from them.
        verifier: written by verifiers.
        gradient: latents that were moved by a gradient through the language-model head alone.
        inserted: put there by the environment: bridges to answers, and replies to calls.
    """

    prompt: float = 0.0
    thought: float = 0.0
    answer: float = 0.0
    discarded: float = 0.0
    verifier_prompt: float = 0.0
    verifier: float = 0.0
    gradient: float = 0.0
    inserted: float = 0.0

    def __add__(self, other: Positions) -> Positions:
        return Positions(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def scaled(self, factor: float) -> Positions:
        """All counts times a factor."""
        return Positions(*(value * factor for value in astuple(self)))

    def as_dict(self) -> dict[str, float]:
        """For the result record."""
        return asdict(self)


@dataclass(frozen=True)
class ModelSizes:
    """What a forward position costs depends on these alone.

    Attributes:
        body: parameters outside the tables.
        table: elements of the embedding table, and so of the language-model head.
        layers, width: of the transformer.
    """

    body: int
    table: int
    layers: int
    width: int

    @classmethod
    def of(cls, lm: LatentLM) -> ModelSizes:
        """Those of a model."""
        config, table = lm.backbone.config, lm.table_VD.numel()
        body = lm.n_parameters() - table * (1 if config.tie_word_embeddings else 2)
        return cls(body, table, int(config.num_hidden_layers), lm.hidden_size)


def flops(sizes: ModelSizes, positions: Positions, context: float) -> float:
    """Floating-point operations of forward positions.

    Two per weight and position, the language-model head only where something is drawn, and
    attention's 4 * layers * width per position and position attended to. Moving a latent costs
    six per weight of the head: forward, back to the latent, and forward again from where it has
    come; the weights get no gradient.

    Args:
        sizes: of the model.
        positions: how many of each kind.
        context: mean number of positions attended to.
    """
    drawn = positions.thought + positions.answer + positions.discarded + positions.verifier
    body = drawn + positions.prompt + positions.verifier_prompt + positions.inserted
    attention = 4 * sizes.layers * sizes.width * context
    head = 2 * drawn + 6 * positions.gradient
    return float(body * (2 * sizes.body + attention) + head * sizes.table)
