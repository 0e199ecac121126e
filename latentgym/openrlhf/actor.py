"""OpenRLHF's actor around a policy of ours.

Thoughts travel through OpenRLHF as `mm_train_inputs`, its channel for per-sample model inputs
beside token ids (made for images): a dict of tensors per sample, concatenated over a micro-batch,
so no padding rule is needed.

    kind         (T_i,) int8: `StepKind` of each position of the sample
    part_weight  (T_i, J): weight of each part of an action there
    <name>       (n_i, ...): the head's stored action of each of its n_i thoughts

Legend: B rows, T positions, J parts of a thought, A = T J - 1 places that may be scored, see
`latentgym.openrlhf.parts`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from latentgym.openrlhf.shim import install

install()

import torch
from openrlhf.models import Actor
from torch import Tensor, nn

from latentgym.heads.distributions import masked
from latentgym.openrlhf.parts import first_part, places, positions
from latentgym.rollout import Policy


class PolicyActor(Actor):  # type: ignore[misc]
    """Scores sequences with a policy.

    Args:
        policy: becomes `model`, which DeepSpeed wraps.

    Attributes:
        entropy_gradient: whether entropies have gradients.
    """

    def __init__(self, policy: Policy) -> None:
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
        part_weight: Tensor,
        **thoughts: Tensor,
    ) -> Any:
        """Log-probabilities of the actions, fp32 (B, A), and with `return_output` entropies too.

        Args:
            sequences: token ids (B, T J), padded on the right.
            action_mask: (B, A); place t of it belongs to place t + 1 of the sequence.
            attention_mask: (B, T J).
            return_output, return_entropy: as in OpenRLHF.
            ring_attn_group, packed_seq_lens: not supported with thoughts.
            kind, part_weight, thoughts: of all samples in a row, see the module.
        """
        if ring_attn_group is not None or packed_seq_lens is not None:
            raise ValueError("thoughts cannot be packed; leave out packing and ring attention.")
        parts = part_weight.shape[1]
        present_BT = attention_mask[:, ::parts].bool()
        kind_BT = torch.zeros_like(present_BT, dtype=kind.dtype).masked_scatter(present_BT, kind)
        logp_BT, entropy_BT = self.model(  # of several parts (B, T, J)
            sequences[:, ::parts], kind_BT, thoughts, entropy_gradient=self.entropy_gradient
        )
        part_BTJ = positions(action_mask.bool(), parts)
        # OpenRLHF multiplies by the mask what it has computed, so that nothing may stand behind it.
        logp_BA = places(masked(logp_BT.view(part_BTJ.shape), part_BTJ))
        # An action has one entropy, however many parts it has.
        entropy_BA = places(masked(entropy_BT[..., None], first_part(part_BTJ)))
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
