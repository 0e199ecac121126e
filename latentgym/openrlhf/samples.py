"""Questions as OpenRLHF's data rows, and episodes as OpenRLHF's responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentgym.rollout import THOUGHTS, Episodes, Policy, StepKind
from latentgym.rollout.collect import COUNTS
from latentgym.rollout.replay import action_parts
from latentgym.training import Order


@dataclass(frozen=True)
class StepRow:
    """A question of a step.

    Attributes:
        step: the step it belongs to: with the run's seed it decides all random numbers.
        place: its place within the step.
        question: number of the question.
    """

    step: int
    place: int
    question: int


class TrainingRows:
    """The questions of all steps, in the order of the local backend; made when they are asked for.

    Args:
        order: of the questions of the environment.
        steps: in all.
    """

    def __init__(self, order: Order, steps: int) -> None:
        self._order, self._steps = order, steps

    def __len__(self) -> int:
        return self._order.size * self._steps

    def __getitem__(self, number: int) -> StepRow:
        step, place = divmod(number, self._order.size)
        return StepRow(step, place, int(self._order.batch(step)[place]))


def collate(rows: Sequence[StepRow]) -> tuple[list[str], list[str], list[StepRow], list[None]]:
    """A batch as OpenRLHF samples it: data sets, prompts, labels and images.

    The row travels as the label; the prompt only tells questions apart.
    """
    return ["eval"] * len(rows), [str(r.question) for r in rows], list(rows), [None] * len(rows)


def responses(
    policy: Policy,
    rows: Sequence[StepRow],
    episodes: Episodes,
    group_size: int,
    latents: Mapping[str, float],
) -> list[list[dict[str, Any]]]:
    """For each question the responses of its group, as OpenRLHF's agents return them.

    Args:
        policy: that acted.
        rows: the questions.
        episodes: theirs.
        group_size: episodes of each.
        latents: numbers to log of all these episodes together.
    """
    rollouts = episodes.rollouts
    shape = (*rollouts.kind_NT.shape, len(policy.head.part_weights))
    part_NTJ, weight_NTJ = (x.cpu().view(shape) for x in action_parts(policy, rollouts))
    parts = shape[-1]
    numbers = _numbers(episodes)
    out: list[list[dict[str, Any]]] = []
    for q, row in enumerate(rows):
        group = []
        for n in range(q * group_size, (q + 1) * group_size):
            prompt = rollouts.prompts[rollouts.prompt_N[n]]
            present = rollouts.kind_NT[n] != StepKind.PAD
            kinds = rollouts.kind_NT[n][present]
            thought = torch.from_numpy(np.isin(rollouts.kind_NT[n], THOUGHTS))
            kind = np.concatenate([np.full(len(prompt), StepKind.PROMPT, dtype=np.int8), kinds])
            tokens = np.array([*prompt, *rollouts.tokens(n).tolist()])
            drawn = part_NTJ[n].numpy()[present].reshape(-1)
            weight = torch.ones(len(kind), parts)
            weight[len(prompt) :] = weight_NTJ[n][torch.from_numpy(present)]
            group.append(
                {
                    "prompt": str(row.question),
                    "label": row,
                    "images": None,
                    "observation_tokens": tokens.repeat(parts).tolist(),
                    "action_ranges": action_ranges(len(prompt) * parts, drawn),
                    "rollout_log_probs": None,  # the training pass tells them
                    "mm_train_inputs": {
                        "kind": torch.from_numpy(kind),
                        "part_weight": weight,
                        **{k: v[n].cpu()[thought] for k, v in rollouts.actions.items()},
                    },
                    "truncated": bool(rollouts.truncated_N[n]),
                    "reward": float(episodes.reward_N[n]),
                    "scores": float(episodes.reward_N[n]),
                    "extra_logs": {
                        **{name: float(values[n]) for name, values in numbers.items()},
                        **latents,
                    },
                }
            )
        out.append(group)
    return out


def action_ranges(prompt: int, acted_T: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """Begin and end of each run of actions; what the environment inserted is none.

    Args:
        prompt: places before the first step.
        acted_T: at which places behind it there is an action.
    """
    edges = np.flatnonzero(np.diff(acted_T.astype(np.int8), prepend=0, append=0)) + prompt
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def is_ours(name: str) -> bool:
    """Whether a logged number is one of ours: of the reward, of the latents, or a count."""
    return name.startswith(("reward/", "latent/")) or name in COUNTS


def _numbers(episodes: Episodes) -> dict[str, Any]:
    """What is logged of each episode, under the names of docs/metrics.md."""
    names = sorted(name for name in episodes.infos[0] if name.startswith("reward/"))
    return {**{name: episodes.component(name) for name in names}, **episodes.counts()}
