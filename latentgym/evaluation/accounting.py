"""What an answer costs: forward positions and floating-point operations.

Counted, not timed: a position of the prompt, a thought, an answer token, positions thrown away, and
what search at test time adds. A prompt shared by a group counts once for the group.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentgym.heads import PolicyHead
    from latentgym.lm import LatentLM

# How configurations call the number of experts that are chosen for a position.
_CHOSEN = ("num_experts_per_tok", "moe_topk", "moe_k")


@dataclass
class Positions:
    """Forward positions by what they were for.

    Attributes:
        prompt: of the question.
        thought, answer: of thoughts and of answer tokens.
        discarded: computed and thrown away.
        verifier_prompt: read by a verifier that drew nothing from them.
        verifier: written by verifiers.
        gradient: latents that were moved by a gradient through the language-model head alone.
        inserted: put there by the environment: forced prompts of answers, and tool responses.
        plain: of thoughts that the head had read as plain tokens.
    """

    prompt: float = 0.0
    thought: float = 0.0
    answer: float = 0.0
    discarded: float = 0.0
    verifier_prompt: float = 0.0
    verifier: float = 0.0
    gradient: float = 0.0
    inserted: float = 0.0
    plain: float = 0.0

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
    """What a forward position and a thought cost depends on these alone.

    Attributes:
        body: elements of the matrices that a position is multiplied with, outside the tables; of
            experts as many as take part.
        table: elements of the language-model head.
        layers, width: of attention; the width is that of all its heads together.
        thought: operations of the policy head for a thought.
        memory: and for a thought and each position of its prompt.
        remembered: and once for each position of a prompt.
    """

    body: int
    table: int
    layers: int
    width: int
    thought: float = 0.0
    memory: float = 0.0
    remembered: float = 0.0

    @classmethod
    def of(cls, lm: LatentLM, head: PolicyHead | None = None) -> ModelSizes:
        """Those of a model, and of the head that thinks with it."""
        thought, memory = (0.0, 0.0) if head is None else head.flops(lm.vocab_size, lm.hidden_size)
        config, heads = lm.config, int(lm.config.num_attention_heads)
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        layers, table = int(config.num_hidden_layers), lm.lm_head.weight.numel()
        remembered = 0.0 if head is None else head.remember_flops(lm.hidden_size)
        return cls(_matrices(lm), table, layers, width, thought, memory, remembered)


def _matrices(lm: LatentLM) -> int:
    """Elements of the matrices that a position is multiplied with, the head left out."""
    from torch import nn

    size = 0.0
    for name, module in lm.model.named_modules():
        if isinstance(module, nn.Embedding):  # it is looked up
            continue
        # All experts of a layer are one tensor with one more dimension; some are chosen.
        experts = ".experts." in f"{name}."
        for weight in module.parameters(recurse=False):
            if weight is not lm.lm_head.weight and weight.dim() > 1 + experts:
                size += lm.elements(weight) * (_chosen(lm.config) / len(weight) if experts else 1.0)
    return round(size)


def _chosen(config: Any) -> int:
    """How many experts are chosen for a position."""
    return int(next(k for k in (getattr(config, name, None) for name in _CHOSEN) if k))


def flops(sizes: ModelSizes, positions: Positions, context: float) -> float:
    """Floating-point operations of forward positions, and of the heads that thought at them.

    Two per weight and position, the language-model head only where something is drawn, and
    attention's 4 * layers * width per position and position attended to. Moving a latent costs
    six per weight of the head: forward, back to the latent, and forward again from where it has
    come; the weights get no gradient. A thought costs what its head says (`PolicyHead.flops`).

    Args:
        sizes: of the model.
        positions: how many of each kind.
        context: mean number of positions attended to.
    """
    thoughts = positions.thought + positions.plain
    drawn = thoughts + positions.answer + positions.discarded + positions.verifier
    body = drawn + positions.prompt + positions.verifier_prompt + positions.inserted
    attention = 4 * sizes.layers * sizes.width * context
    head = 2 * drawn + 6 * positions.gradient
    thought = sizes.thought + sizes.memory * positions.prompt
    remembered = sizes.remembered * positions.prompt
    model = body * (2 * sizes.body + attention) + head * sizes.table
    return float(model + thoughts * thought + remembered)
