"""CoLaR's supervised stage: groups, losses, and what they are at c = 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from latentgym.episodes.protocol import Budget, Protocol
from latentgym.errors import UsageError
from latentgym.heads import GaussianHead, MixtureHead, TokenHead
from latentgym.heads.superposition import mix
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import (
    Compression,
    CompressionConfig,
    Optimisation,
    Supervised,
    SupervisedConfig,
    Trainer,
)
from latentgym.training.compression import compress, compression_loss

PROMPT_SUFFIX = "( Thinking speed : {c} )"
CONFIG = CompressionConfig(prompt_suffix=PROMPT_SUFFIX, batch_size=6)


def chains(family: str = "hybrid", **options: Any) -> Any:
    return make_vector_env(f"latent/GSM8KAug-{family}", 1, source="generated", **options)


def make_policy(env: Any, **options: Any) -> Policy:
    tokenizer = env.unwrapped.task.tokenizer
    lm = load_model("tiny:qwen2:2x2x16", tokenizer=tokenizer, dtype="float32", device="cpu")
    torch.manual_seed(1)
    return Policy(lm, GaussianHead(16, 16, **options))


def gradients(policy: Policy) -> list[Tensor]:
    return [p.grad.clone() for p in policy.lm.parameters() if p.grad is not None]


def test_groups_are_divided_by_the_root_of_their_size() -> None:
    out = compress(np.array([5, 6, 7, 8, 9]), 4, 3)
    assert out.ids_TS.tolist() == [[5, 6, 7], [8, 0, 0], [9, 0, 0]] and out.groups == 2
    assert_close(out.weights_TS[0], np.full(3, 3**-0.5, np.float32))
    assert out.weights_TS[1:].tolist() == [[1, 0, 0], [1, 0, 0]]
    mean = compress(np.array([5, 6, 7, 8, 9]), 4, 3, "mean")
    assert_close(mean.weights_TS[0], np.full(3, 1 / 3, np.float32))


@given(st.integers(0, 23), st.integers(1, 6), st.integers(1, 7))
def test_compression_loses_no_token_and_mixes_none_with_the_mark(
    reasoning: int, plain: int, c: int
) -> None:
    ids = np.arange(1, reasoning + plain + 1)
    out = compress(ids, reasoning, c)
    assert out.ids_TS[out.weights_TS > 0].tolist() == ids.tolist()
    assert out.groups == -(-reasoning // c)
    assert ((out.weights_TS[out.groups :] > 0).sum(1) == 1).all()
    assert_close((out.weights_TS**2).sum(1), np.ones(len(out.ids_TS), np.float32))


@pytest.mark.parametrize("c", [1, 2, 3, 5])
def test_variance_is_kept(c: int) -> None:
    table = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    out = compress(np.arange(20_000), 20_000 - 20_000 % c, c)
    x = mix(torch.from_numpy(out.ids_TS), torch.from_numpy(out.weights_TS), table)
    assert float(x[: out.groups].var()) == pytest.approx(1, abs=0.06)


def test_one_token_a_thought_is_ordinary_supervised_training() -> None:
    """The loss on words and its gradients, bit for bit but for the order of sums."""
    env = chains()
    policy = make_policy(env)
    config = replace(CONFIG, prompt_suffix="", c_max=1, latent_weight=0.0)
    ours = Compression(policy, env, config, seed=3).step(2, GradientRecorder(policy))
    mine = gradients(policy)
    plain = Supervised(policy, chains("token"), SupervisedConfig(batch_size=6), seed=3)
    theirs = plain.step(2, GradientRecorder(policy))
    assert ours["train/word_loss"] == pytest.approx(theirs["train/loss"], rel=1e-6)
    assert ours["train/answer_accuracy"] == theirs["train/answer_accuracy"]
    for one, other in zip(mine, gradients(policy), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert any(g.abs().max() > 1e-3 for g in mine)


def test_a_batch_says_its_speed_and_labels_are_of_the_group() -> None:
    env = chains()
    stage = Compression(make_policy(env), env, CONFIG)
    tokenizer = env.unwrapped.task.tokenizer
    batch = stage.batch(range(6), 3, np.random.default_rng(0))
    prompt_suffix = tokenizer.encode(PROMPT_SUFFIX.format(c=3))
    assert all(row[-len(prompt_suffix) :].tolist() == prompt_suffix for row in batch.prompt_BP)
    assert (
        ((batch.ids_BTS == batch.label_BT[..., None]) & (batch.weights_BTS > 0))
        .any(-1)[batch.mask_BT]
        .all()
    )
    for row in range(6):
        demonstration = env.unwrapped.task.demonstration(row)
        tokens = demonstration.ids_TS[:, 0]
        latent, answer = int(batch.latent_BT[row].sum()), int(batch.answer_BT[row].sum())
        assert latent == -(-sum(demonstration.steps) // 3)
        assert answer == len(tokens) - demonstration.thoughts
        marker = batch.label_BT[row, latent].item()
        assert tokenizer.decode([marker]) == "####" and not batch.answer_BT[row, latent]


@pytest.mark.parametrize("kind", ["soft_mse", "nll"])
def test_latent_losses_in_closed_form(kind: Any) -> None:
    env = chains()
    policy = make_policy(env)
    config = replace(CONFIG, latent_loss=kind, entropy_weight=0.3)
    stage = Compression(policy, env, config)
    batch = stage.batch(range(4), 2, np.random.default_rng(0))
    with torch.no_grad():
        found = float(compression_loss(policy, batch, config).latent)
        lm, total = policy.lm, 0.0
        x = mix(batch.ids_BTS, batch.weights_BTS, lm.table_VD)
        whole = torch.cat([lm.embed(batch.prompt_BP), x], 1)
        mask = torch.cat([batch.prompt_mask_BP, batch.mask_BT], 1)
        hidden = lm.hidden(whole, mask)[:, batch.prompt_BP.shape[1] - 1 : -1]
        for b, t in batch.latent_BT.nonzero().tolist():
            mean, log_std = policy.head.distribution(hidden[b, t])  # type: ignore[operator]
            target = x[b, t] / lm.table_VD.std()
            if kind == "nll":
                each = (target - mean) ** 2 / (2 * log_std.exp() ** 2) + log_std
            else:
                each = (target - mean) ** 2 + log_std.exp() ** 2 - 0.3 * log_std
            total += float(each.mean())
    assert found == pytest.approx(total, rel=1e-4)


def test_what_stands_at_padded_places_changes_nothing() -> None:
    env = chains()
    policy = make_policy(env)
    batch = Compression(policy, env, CONFIG).batch(range(6), 2, np.random.default_rng(0))
    assert not batch.mask_BT.all()
    garbage = torch.where(batch.mask_BT[..., None], batch.ids_BTS, 17)
    weights = torch.where(batch.mask_BT[..., None], batch.weights_BTS, 9.0)
    with torch.no_grad():
        clean = compression_loss(policy, batch, CONFIG)
        dirty = compression_loss(
            policy, batch._replace(ids_BTS=garbage, weights_BTS=weights), CONFIG
        )
    assert_close(clean, dirty)


def test_micro_batches_do_not_change_the_gradient() -> None:
    env = chains()
    policy = make_policy(env)
    config = replace(CONFIG, c_max=1)  # with one token a group there is no label to draw
    Compression(policy, env, config).step(0, GradientRecorder(policy))
    whole = gradients(policy)
    Compression(policy, env, replace(config, micro_batch=2)).step(0, GradientRecorder(policy))
    for one, other in zip(whole, gradients(policy), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_resumed_is_uninterrupted(tmp_path: Any) -> None:
    def train(steps: int, folder: str, resume: bool = False, stop: int = 0) -> Policy:
        env = chains()
        policy = make_policy(env)
        trainer = Trainer(
            Compression(policy, env, CONFIG),
            Optimisation(lr=1e-2, schedule="constant", warmup=0.0),
            steps,
            out=tmp_path / folder,
            save_every=2,
        )
        if stop:
            save = trainer._save

            def save_and_stop(done: int) -> None:
                save(done)
                if done == stop:
                    raise KeyboardInterrupt

            trainer._save = save_and_stop  # type: ignore[method-assign]
        trainer.run(resume=resume)
        return policy

    whole = train(4, "whole")
    with pytest.raises(KeyboardInterrupt):
        train(4, "parts", stop=2)
    resumed = train(4, "parts", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_cue_is_read_behind_every_prompt(random_lm: Any) -> None:
    lm = random_lm("llama")
    policy = Policy(lm, GaussianHead(32, 16), TokenHead(), prompt_suffix=(7, 8, 9))
    rules = Protocol(think=Budget(5, exact=True), answer=Budget(2, exact=True))
    rollouts = Engine(policy).rollout([[1, 2], [3]], rules, seed=0)
    assert rollouts.prompts == [[1, 2, 7, 8, 9], [3, 7, 8, 9]]
    assert rollouts.thoughts_N.tolist() == [5, 5]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"c_min": 0}, "--c-min must be at least 1"),
        ({"c_min": 4, "c_max": 3}, "c_min <= c_max"),
        ({"pooling": "max"}, "sqrt_mean or mean"),
        ({"latent_loss": "l1"}, "soft_mse or nll"),
        ({"entropy_weight": -1.0}, "--entropy-weight must be at least 0"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], says: str) -> None:
    env = chains()
    with pytest.raises(UsageError, match=says):
        Compression(make_policy(env), env, replace(CONFIG, **change))


def test_other_heads_and_soft_chains_are_refused() -> None:
    env = chains()
    with pytest.raises(UsageError, match="predicts vectors"):
        Compression(Policy(make_policy(env).lm, MixtureHead()), env, CONFIG)
    soft = make_vector_env("latent/MNNS-continuous", 1)
    with pytest.raises(UsageError, match="-hybrid environment"):
        Compression(make_policy(soft), soft, CONFIG)
