"""CTRLS-style: text whose steps each begin in a latent state, drawn by learnt transitions.

After "CTRLS: Chain-of-Thought Reasoning via Latent State-Transition" (arXiv 2507.08182), of which
there is no code and which leaves much open: what is our own choice is said in docs/agents/ctrls.md.
`elbo` fits an encoder of steps, a prefix of each state and the transitions to demonstrations
(`latentgym.training.elbo`); `grpo` refines the transitions by outcome reward, with epsilon-greedy
exploration and an entropy bonus. The language model is frozen throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.base import Agent
from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError, told
from latentgym.system.options.ranges import NotNegative, Positive, Range, Share, Size, SizeOrZero
from latentgym.training import ELBOConfig, GRPOConfig, Optimisation, Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from latentgym.lm import LatentLM

_GRPO = GRPOConfig(prompts=8, group_size=8, micro_batch=16, kl=0.0, entropy=0.01)


@dataclass(frozen=True)
class CTRLSConfig:
    """Settings of the CTRLS-style agent; the defaults are ours: the paper has no table of them."""

    stage: Literal["elbo", "grpo"] = "elbo"
    """Fit states to demonstrations, or refine the transitions by policy gradient."""
    states: Annotated[int, Range(1, 4096)] = 16
    """Latent states, K; there are K² transitions."""
    prefix: SizeOrZero = 4
    """Vectors that the model reads of a state, in front of a step; with 0 one is added to the
    embedding of each of its tokens."""
    eigenpairs: Size = 4
    """Of a step's hidden states, in its summary."""
    longest: Size = 64
    """Of a longer step so many of its last tokens are summarised."""
    step_end: str = "\n"
    """Tokens that hold this text end a step."""
    before: Literal["inferred", "drawn"] = "inferred"
    """Transitions are from the state that is inferred from the last step, or from the one that was
    drawn for it."""
    encoded: Literal["spectral", "length"] = "spectral"
    """States are inferred from a step's spectrum or, as a control, from its length alone."""
    epsilon: Share = 0.1
    """Share of states that policy gradient draws uniformly."""
    answer_epsilon: Share = 0.0
    """The same when answering."""
    greedy_states: bool = True
    """When answering, take the likeliest state; else draw it."""
    samples: Size = 1
    """Episodes per question when answering; the first is the answer, all are in pass@k."""
    temperature: NotNegative = 0.0
    """Of tokens when answering; the paper has .5 and .7."""
    train_temperature: Positive = 0.7
    """Of tokens in the rollouts of policy gradient."""
    batch_size: Size = 32
    """Demonstrations per step of the bound."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    kl_weight: NotNegative = 1.0
    """Of the divergence in the bound."""
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(
            lr=1e-2, weight_decay=0.0, schedule="constant", warmup=0.0
        )
    )
    grpo: GRPOConfig = _GRPO


class CTRLS(Agent[CTRLSConfig]):
    """Writes text, and draws a latent state before each step of it."""

    name = "ctrls"
    families = ("hybrid",)
    config_class = CTRLSConfig
    presets: ClassVar[dict[str, CTRLSConfig]] = {
        "elbo": CTRLSConfig(),
        "grpo": CTRLSConfig(stage="grpo"),
        "pass-at-20": CTRLSConfig(samples=20, temperature=0.7, greedy_states=False),
        "tiny": CTRLSConfig(states=8, prefix=0, longest=16, step_end=";", batch_size=64),
        "grpo-tiny": CTRLSConfig(
            stage="grpo",
            states=8,
            prefix=0,
            longest=16,
            step_end=";",
            train_temperature=1.0,
            grpo=replace(_GRPO, prompts=64, micro_batch=256),
        ),
    }

    def check(self, rules: Protocol) -> None:
        self._check_samples()  # before a run trains what it could not evaluate
        end = self.config.step_end
        for marker in (rules.marker, rules.tool_call):
            # A prefix is read as a run of ends of a step, and would end thinking before any word.
            if (
                self.config.prefix
                and marker
                and not rules.think.exact
                and marker.text in end * len(marker.text)
            ):
                raise UsageError(
                    f"--step-end {told(end)} is also the marker {told(marker.text)}, by which "
                    "thinking would stop at the first state; give another text."
                )

    def _check_samples(self) -> None:
        c = self.config
        if c.samples > 1 and c.temperature == 0 and c.greedy_states and not c.answer_epsilon:
            raise UsageError(
                "several greedy samples are all the same; set a temperature, or draw the states "
                "with --no-greedy-states."
            )

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        c = self.config
        self._check_samples()
        lm.freeze()
        step_end = _step_end(lm, c.step_end)
        words = heads.FrozenTokenHead(c.temperature if acting else c.train_temperature)
        head = heads.TransitionHead(
            lm.hidden_size,
            words,
            step_end=step_end,
            states=c.states,
            prefix=c.prefix,
            k=c.eigenpairs,
            longest=c.longest,
            epsilon=c.answer_epsilon if acting else c.epsilon,
            greedy=acting and c.greedy_states,
            before=c.before,
            encoded=c.encoded,
            learns="all" if c.stage == "elbo" else "transitions",
            # What a model reads at such a place anyway disturbs it least.
            near_D=lm.table_VD[step_end[0]],
        )
        return rollout.Policy(lm, head, words)

    def check_start(self, policy: rollout.Policy) -> None:
        head = policy.head
        if (
            self.config.stage == "grpo"
            and isinstance(head, heads.TransitionHead)
            and not head.fitted
        ):
            raise UsageError(
                "policy gradient moves transitions between states that are fitted, and these are "
                "not; train the stage elbo first, and give its --checkpoint."
            )

    def recipe(self) -> Recipe:
        c = self.config
        bound = ELBOConfig(c.batch_size, c.micro_batch, c.kl_weight)
        return Recipe(bound if c.stage == "elbo" else c.grpo, c.optimisation)

    def samples_per_question(self) -> int:
        return self.config.samples

    def answering(self) -> Any:
        return self.config.samples


def _step_end(lm: LatentLM, text: str) -> Tensor:
    """The ids whose text holds this one, the shortest first.

    Raises:
        UsageError: the text is empty, or no token holds it.
    """
    import torch

    pieces = lm.tokenizer.pieces()
    ids = [i for i, piece in enumerate(pieces) if text and text in piece]
    if not ids:
        raise UsageError(
            f"no token of {lm.name} ends a step by {told(text)}; give --step-end a text that some "
            "do, such as ';'."
        )
    ids.sort(key=lambda i: (len(pieces[i]), i))
    return torch.tensor(ids, dtype=torch.int64, device=lm.device)
