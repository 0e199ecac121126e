"""OpenRLHF's actor around a policy of ours.

Thoughts travel through OpenRLHF as `mm_train_inputs`, its channel for per-sample model inputs
beside token ids (made for images): a dict of tensors per sample, concatenated over a micro-batch,
so no padding rule is needed.

    kind       (T_i,) int8: `StepKind` of each position of the sample
    <name>     (n_i, ...): the head's stored action of each of its n_i thoughts

Legend: B rows, T positions, A = T - 1 positions that may be scored.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from latentgym.openrlhf.shim import install

install()

import torch
from openrlhf.models import Actor
from torch import Tensor, nn

from latentgym.errors import UsageError
from latentgym.heads.distributions import masked
from latentgym.rollout import Policy


class PolicyActor(Actor):  # type: ignore[misc]
    """Scores sequences with a policy.

    Args:
        policy: becomes `model`, which DeepSpeed wraps.

    Attributes:
        entropy_gradient: whether entropies have gradients.

    Raises:
        UsageError: thoughts of several parts, of which OpenRLHF's loss has no ratios.
    """

    def __init__(self, policy: Policy) -> None:
        if len(policy.head.part_weights) > 1:
            raise UsageError(
                f"thoughts of {type(policy.head).__name__} have several parts, each with a ratio "
                "of its own, and OpenRLHF has one for each action; use --backend local."
            )
        super().__init__(policy)
        self.entropy_gradient = False  # costs memory, and is for a bonus alone
        self.is_vlm = True  # so that each sample's mm_train_inputs come to `forward`

    @property
    def policy(self) -> Policy:
        """The policy without its DeepSpeed engine."""
        return cast(Policy, getattr(self.model, "module", self.model))

    def forward(
        self,
        sequences: Tensor,
        action_mask: Tensor,
        attention_mask: Tensor,
        return_output: bool = False,
        ring_attn_group: Any = None,
        packed_seq_lens: Any = None,
        return_entropy: bool = False,
        *,
        kind: Tensor,
        **thoughts: Tensor,
    ) -> Any:
        """Log-probabilities of the actions, fp32 (B, A), and with `return_output` entropies too.

        Args:
            sequences: token ids (B, T), padded on the right.
            action_mask: (B, A); position t of it belongs to position t + 1 of the sequence.
            attention_mask: (B, T).
            return_output, return_entropy: as in OpenRLHF.
            ring_attn_group, packed_seq_lens: not supported with thoughts.
            kind, thoughts: of all samples in a row, see the module.
        """
        if ring_attn_group is not None or packed_seq_lens is not None:
            raise ValueError("thoughts cannot be packed; leave out packing and ring attention.")
        present_BT = attention_mask.bool()
        kind_BT = torch.zeros_like(present_BT, dtype=kind.dtype).masked_scatter(present_BT, kind)
        logp_BT, entropy_BT = self.model(
            sequences, kind_BT, thoughts, entropy_gradient=self.entropy_gradient
        )
        # OpenRLHF multiplies by the mask what it has computed, so that nothing may stand behind it.
        logp_BA, entropy_BA = (masked(x[:, 1:], action_mask.bool()) for x in (logp_BT, entropy_BT))
        if not return_output:
            return logp_BA
        return logp_BA, SimpleNamespace(entropy=entropy_BA)

    def train(self, mode: bool = True) -> PolicyActor:
        """Training mode, for gradient checkpointing; dropout stays off.

        With dropout the policy that learns would be another one than the policy that acted.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        return self

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
        self.policy.lm.checkpoint_gradients()
