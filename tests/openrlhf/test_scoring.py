"""Rollouts through OpenRLHF's own experience handling are scored as replay scores them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("openrlhf", reason="needs OpenRLHF (see the README)")

from latentgym.heads import DirichletHead, MixtureHead, MultiTokenHead, PolicyHead, TokenHead
from latentgym.lm import load_model
from latentgym.openrlhf.samples import StepRow, responses
from latentgym.openrlhf.shim import install
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, collect, replay
from latentgym.training.grpo_config import ADVANTAGES, DUAL
from latentgym.training.losses import (
    advantages,
    kl_estimate,
    masked_mean,
)
from latentgym.training.surrogates import surrogate

install()

from openrlhf.models import PolicyLoss
from openrlhf.models.utils import compute_approx_kl
from openrlhf.trainer.ppo_utils.experience import (
    Experience,
    make_experience_batch,
    remove_padding_in_sequences,
    split_experience_batch,
)
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from openrlhf.utils.vlm_utils import merge_mm_train_inputs

from latentgym.openrlhf.actor import PolicyActor
from latentgym.openrlhf.trainer import ExperienceMaker

HEADS: dict[str, Callable[[], PolicyHead]] = {
    "token": TokenHead,
    "mts": lambda: MultiTokenHead(3),
    "mixture": lambda: MixtureHead(top_k=4),
    "dirichlet": lambda: DirichletHead(support=8),
}


def experiences(policy: Policy, env: Any, group: int = 3) -> tuple[Any, list[Experience]]:
    """Episodes, and what OpenRLHF makes of them, one experience each."""
    episodes = collect(Engine(policy), env, [4, 9, 2], group_size=group, seed=1)
    rows = [StepRow(0, place, question) for place, question in enumerate((4, 9, 2))]
    answers = [answer for group in responses(policy, rows, episodes, group, {}) for answer in group]
    convert = SamplesGenerator._process_response_into_experience
    return episodes, [convert(None, answer, max_len=1 << 20) for answer in answers]


def scored(policy: Policy, batch: Experience) -> torch.Tensor:
    inputs = merge_mm_train_inputs(batch.mm_train_inputs, torch.device("cpu"))
    return PolicyActor(policy)(batch.sequences, batch.action_mask, batch.attention_mask, **inputs)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("task", ["GSM8K", "MNNS"])
def test_scores_are_those_of_replay(name: str, task: str) -> None:
    head = HEADS[name]()
    options = {"think": 9, "answer": 5} if task == "GSM8K" else {}
    env = make_vector_env(f"latent/{task}-{head.family}", 9, **options)
    lm = load_model("tiny:llama:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    policy = Policy(lm, head)
    episodes, items = experiences(policy, env)
    with torch.no_grad():
        expected_NT = replay(policy, episodes.rollouts).logp_NT
        # Two batches, split, trimmed and batched anew, as the replay buffer does.
        parts = [
            part
            for some in (items[:5], items[5:])
            for part in split_experience_batch(Experience.concat_experiences(some, 0))
        ]
        parts = remove_padding_in_sequences(parts)
        order = np.random.default_rng(0).permutation(len(parts)).reshape(3, 3)
        for rows in order:
            logp = scored(policy, make_experience_batch([parts[row] for row in rows]))
            assert_close(
                logp.sum(1), expected_NT[torch.from_numpy(rows)].sum(1), rtol=1e-4, atol=1e-4
            )
    assert float(expected_NT.abs().max()) > 0 or name == "mixture"


@pytest.mark.parametrize("mean", ["token", "phase"])
@pytest.mark.parametrize("kind", sorted(ADVANTAGES))
def test_advantages_are_those_of_the_local_backend(kind: str, mean: str) -> None:
    reward = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.1, 0.1, 0.1, 0.1])
    items = [
        Experience(
            rewards=reward[[i, 7 - i]],
            index=[i, 7 - i],
            action_mask=torch.tensor([[1, 1, 0], [0, 1, 1]]),
            response_length=torch.tensor([2, 2]),
            truncated=torch.zeros(2),
            kl=torch.zeros(2, 3),
            info={},
            mm_train_inputs=[
                {"kind": torch.tensor([4, 1, 2, 0]), "part_weight": torch.ones(4, 1)},
                {"kind": torch.tensor([4, 3, 1, 2]), "part_weight": torch.ones(4, 1)},
            ],
        )
        for i in range(4)
    ]
    maker = ExperienceMaker.__new__(ExperienceMaker)
    maker.strategy = SimpleNamespace(
        job=SimpleNamespace(grpo=SimpleNamespace(group_size=4, advantage=kind, mean=mean)),
        args=_maker_args(),
    )
    maker.args, maker.advantage_estimator = maker.strategy.args, "dr_grpo"
    maker.kl_ctl = SimpleNamespace(value=0.0)
    expected = advantages(reward, 4, kind)
    for i, item in enumerate(maker.compute_advantages_and_returns(items)):
        # Two actions a row, one of them a thought: each phase counts as if it were both.
        want = expected[[i, 7 - i]][:, None] * item.action_mask * (2 if mean == "phase" else 1)
        assert_close(item.advantages, want)


def _maker_args() -> Any:
    from latentgym.openrlhf.arguments import _parsed

    return _parsed(
        [
            *("--actor.model_name_or_path", "x", "--vllm.num_engines", "0"),
            *("--reward.remote_url", "env", "--rollout.n_samples_per_prompt", "4"),
            *("--algo.advantage.estimator", "dr_grpo"),
        ]
    )


@pytest.mark.parametrize(
    ("kind", "mean"),
    [("clip", "token"), ("clip", "sequence"), ("dual_clip", "token"), ("gspo", "sequence")],
)
def test_the_loss_is_openrlhfs_policy_loss(kind: str, mean: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logp, old = -torch.rand(2, 6, 5, generator=generator) * 3
    advantage = torch.randn(6, generator=generator)
    mask = torch.rand(6, 5, generator=generator) < 0.7
    mask[:, 0] = True
    ours = surrogate(kind, logp, old, advantage[:, None], mask, 0.1, 0.3)
    options = {"dual_clip": {"dual_clip": DUAL}, "gspo": {"policy_loss_type": "gspo"}}
    theirs = PolicyLoss(0.1, 0.3, token_level_loss=mean == "token", **options.get(kind, {}))
    loss, clipped, *_ = theirs(logp, old, advantage[:, None].expand(-1, 5), mask.float())
    assert_close(masked_mean(ours.loss_NT, mask, mean), loss)
    if (kind, mean) == ("clip", "token"):
        assert_close(masked_mean(ours.clipped_NT.float(), mask), clipped)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_the_divergence_is_openrlhfs(kind: str) -> None:
    logp, reference = -torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1)) * 3
    everywhere = torch.ones(4, 5, dtype=torch.bool)
    expected = compute_approx_kl(logp, reference, kl_estimator=kind)
    assert_close(kl_estimate(logp, reference, everywhere, kind), expected)
