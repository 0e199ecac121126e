"""Settings of training on compressed chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from latentgym.errors import UsageError
from latentgym.system.options.ranges import NotNegative, Size, SizeOrZero, check_ranges
from latentgym.training.stage import MakeEnv

if TYPE_CHECKING:
    from latentgym.rollout import Policy
    from latentgym.training.compression import Compression


Pooling = Literal["sqrt_mean", "mean"]


def with_speed(prompt_suffix: str, c: int) -> str:
    """A suffix for thoughts of c tokens; a checkpoint's may be any text, so no format string."""
    return prompt_suffix.replace("{c}", str(c))


@dataclass(frozen=True)
class CompressionConfig:
    """Settings of the stage."""

    prompt_suffix: str
    """Read after every prompt; {c} stands for the number of tokens of a thought."""
    batch_size: Size = 64
    """Demonstrations per step."""
    micro_batch: SizeOrZero = 0
    """Most demonstrations in memory at once; 0 for all."""
    c_min: Size = 1
    """Fewest tokens of a thought."""
    c_max: Size = 5
    """Most tokens of a thought."""
    pooling: Pooling = "sqrt_mean"
    """How embeddings of a group become one."""
    latent_loss: Literal["soft_mse", "nll"] = "soft_mse"
    """Expected squared error less the entropy, or negative log-likelihood."""
    latent_weight: NotNegative = 1.0
    """Of the loss on latents."""
    entropy_weight: NotNegative = 0.0
    """Of the Gaussian's entropy in soft_mse; at 0 the noise dies out."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        check_ranges(self)
        if not 1 <= self.c_min <= self.c_max:
            raise UsageError(
                f"a thought holds at least one token: choose 1 <= c_min <= c_max, not "
                f"{self.c_min} and {self.c_max}."
            )
        if self.pooling not in ("sqrt_mean", "mean"):
            raise UsageError(f"no pooling {self.pooling!r}; choose sqrt_mean or mean.")
        if self.latent_loss not in ("soft_mse", "nll"):
            raise UsageError(f"no latent loss {self.latent_loss!r}; choose soft_mse or nll.")

    def suffix(self, c: int) -> str:
        """What is read after a prompt where thoughts hold c tokens."""
        return with_speed(self.prompt_suffix, c)

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> Compression:
        """The stage that trains this policy."""
        from latentgym.training.compression import Compression

        return Compression(policy, make_env(1), self, seed)
