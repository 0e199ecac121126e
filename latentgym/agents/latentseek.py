"""LatentSeek: policy gradient on one question's latents at test time (arXiv 2505.13308).

Nothing is trained. The greedy chain is decoded; z_t, the last hidden states behind its first L
tokens, become free parameters. A step of REINFORCE with the reward R of the whole answer,

    loss = -R * sum_{t <= L} log( softmax(W z_t)[a_t] + eps ),   a_t = argmax_v (W z_t)_v,

moves z; the new argmax tokens are read as text, and the rest of the chain is decoded greedily
behind them. It goes on until R exceeds a threshold. R lies in [-1, 0], so a step pushes away from
the present tokens by how bad the answer is. Only the language-model head W is in the graph: the
latents themselves never enter the transformer.

The search itself: `latentgym.agents.search.latents`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from latentgym import heads, rollout
from latentgym.agents.search import SearchAgent, SearchConfig, Seeker, VerifierConfig
from latentgym.errors import UsageError
from latentgym.system.options.ranges import Interval, NotNegative, Share

if TYPE_CHECKING:
    from latentgym.lm import LatentLM


@dataclass(frozen=True)
class LatentSeekConfig(SearchConfig):
    """Settings of LatentSeek; the defaults are the paper's for GSM8K."""

    lr: NotNegative = 0.03
    """Of Adam, which is new for every question."""
    ratio: Share = 0.2
    """rho: the share of the first answer's tokens that is searched."""
    start: Share = 0.0
    """The share of the first answer's tokens that stands before the searched ones."""
    most: Interval = 300
    """Most searched tokens."""
    iterations: Interval = 10
    """Most steps."""
    grad_clip: NotNegative = 0.0
    """Largest norm of a question's gradient; 0 for no bound."""
    eps: NotNegative = 1e-8
    """In the logarithm."""
    update: Literal["gradient", "noise"] = "gradient"
    """noise replaces steps by Gaussian noise on the first latents, as a control."""
    sigma: NotNegative = 1.0
    """Standard deviation of the noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = 0 <= self.start <= 1 and 0 <= self.ratio <= 1
        if not shares or min(self.lr, self.most, self.iterations, self.grad_clip, self.sigma) < 0:
            raise UsageError(
                "latentseek needs ratio and start in [0, 1], and none of lr, most, iterations, "
                "grad-clip and sigma below 0."
            )


_MATH = VerifierConfig(format=2.0)
_MATH_EVEN = VerifierConfig(
    calculation=1.0, correctness=1.0, completeness=1.0, understanding=2.0, format=2.0
)
_OFFICIAL = VerifierConfig(
    tokens=4096, forced=False, temperature=0.7, top_p=0.8, official_parsing=True
)


class LatentSeek(SearchAgent[LatentSeekConfig]):
    """Searches each question's first tokens through their latents."""

    name = "latentseek"
    config_class = LatentSeekConfig
    # The paper's settings by task, model and prompt, as far as they are known.
    presets: ClassVar[dict[str, LatentSeekConfig]] = {
        "gsm8k": LatentSeekConfig(),
        "gsm8k-llama3.1-8b": LatentSeekConfig(verifier=VerifierConfig(format=3.0)),
        "gsm8k-qwen2-7b": LatentSeekConfig(verifier=VerifierConfig(format=2.0)),
        "gsm8k-qwen2.5-1.5b": LatentSeekConfig(ratio=0.05, verifier=VerifierConfig(format=2.0)),
        "gsm8k-qwen2.5-1.5b-json": LatentSeekConfig(lr=10.0),
        "gsm8k-qwen2.5-7b": LatentSeekConfig(lr=0.05),
        "gsm8k-qwen2.5-14b": LatentSeekConfig(ratio=0.1),
        "math": LatentSeekConfig(ratio=0.1, verifier=_MATH),
        "math-llama3.1-8b": LatentSeekConfig(ratio=0.1, verifier=_MATH_EVEN),
        "math-qwen2-7b": LatentSeekConfig(ratio=0.1, verifier=_MATH_EVEN),
        "math-qwen2.5-1.5b-json": LatentSeekConfig(ratio=0.05, verifier=_MATH),
        "aime": LatentSeekConfig(),
        "aime-qwen2.5-1.5b-json": LatentSeekConfig(lr=10.0),
        "official": LatentSeekConfig(ratio=0.1, verifier=_OFFICIAL),
        "psrm": LatentSeekConfig(reward="psrm"),
        "confidence": LatentSeekConfig(reward="confidence"),
        "constant": LatentSeekConfig(reward="constant"),
        "noise": LatentSeekConfig(update="noise"),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        return rollout.Policy(lm, heads.TokenHead(temperature=0.0))

    def seeker(self, policy: rollout.Policy, env: Any, seed: int) -> Seeker:
        from latentgym.agents.search.latents import LatentSeeker

        return LatentSeeker(self.config, policy, env, seed)
