"""What a training step computes: golden equalities between methods, and closed forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.heads import (
    Action,
    GatedHead,
    GaussianHead,
    MixtureHead,
    MultiplexHead,
    MultiTokenHead,
    PolicyHead,
    RoutedHead,
    TokenHead,
)
from latentgym.heads.superposition import mix
from latentgym.lm import LatentLM, load_model
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.rollout import Engine, Policy
from latentgym.rollout.own_thoughts import OwnThoughts
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import GRPO, GRPOConfig, Supervised, SupervisedConfig
from latentgym.training.demonstrations import Demonstrations
from latentgym.training.losses import soft_target_loss
from latentgym.training.order import batch_indices
from latentgym.training.supervised import supervised_loss

GENERATED = {"source": "generated", "max_operations": 3, "largest": 19}
SHOP = {"source": "generated", "items": 30, "customers": 40}


def mnns(family: str, num_envs: int = 1, **options: Any) -> Any:
    return make_vector_env(f"latent/MNNS-{family}", num_envs, **options)


def tiny(env: Any, seed: int = 0) -> LatentLM:
    lm: LatentLM = load_model(
        "tiny:gpt2:2x2x16", tokenizer=env.unwrapped.task.tokenizer, seed=seed, dtype="float32"
    )
    with torch.no_grad():  # a fresh model is so flat that tests of it would see nothing
        for parameter in lm.parameters():
            parameter.mul_(4)
    return lm


def grpo_step(
    head: PolicyHead, family: str, config: GRPOConfig, answer_head: TokenHead | None = None
) -> tuple[dict[str, float], GradientRecorder]:
    # The other families close their prompt with an arrow, so all use the continuous task's data
    # with the family that fits the head.
    env = mnns(family, config.prompts * config.group_size)
    if family != "continuous":
        env.unwrapped.task.prompt = lambda i: mnns_prompts[i]
    env.unwrapped.task.grade = _grade_parity
    policy = Policy(tiny(env), head, answer_head)
    recorder = GradientRecorder(policy)
    metrics = GRPO(policy, env, config, seed=5).step(0, recorder)
    return metrics, recorder


def _grade_parity(index: int, completion: str, answer: str) -> Grade:
    """A reward that an untrained model earns half of the time, so that groups have a signal."""
    score = float(sum(map(ord, answer)) % 2)
    return Grade(score, answer, "ok", {"correct": score})


def _grade_nothing(index: int, completion: str, answer: str) -> Grade:
    return Grade(0.0, None, "no_answer", {"correct": 0.0})


mnns_prompts: dict[int, list[int]] = {}


@pytest.fixture(autouse=True, scope="module")
def _prompts() -> None:
    env = mnns("continuous").unwrapped
    for i in range(env.n_questions):
        mnns_prompts[i] = env.prompt(i)


SMALL = GRPOConfig(prompts=8, group_size=4, micro_batch=8)


def test_one_sample_thoughts_are_token_grpo_bit_for_bit() -> None:
    metrics_k1, k1 = grpo_step(MultiTokenHead(1), "continuous", SMALL)
    metrics_token, token = grpo_step(TokenHead(), "token", SMALL)
    assert metrics_k1["reward/score"] == metrics_token["reward/score"]
    assert all(torch.equal(a, b) for a, b in zip(k1.losses, token.losses, strict=True))
    pairs = list(zip(k1.lm_gradients, token.lm_gradients, strict=True))
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(float(a.abs().max()) > 0 for a, _ in pairs)


def test_one_sub_token_is_token_grpo_bit_for_bit() -> None:
    _, one = grpo_step(MultiplexHead(1), "continuous", SMALL)
    _, token = grpo_step(TokenHead(), "token", SMALL)
    assert one.losses and all(
        torch.equal(a, b) for a, b in zip(one.losses, token.losses, strict=True)
    )
    pairs = list(zip(one.lm_gradients, token.lm_gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(float(a.abs().max()) > 0 for a, _ in pairs)


def test_a_shut_router_is_token_grpo_bit_for_bit() -> None:
    words = TokenHead(0.7)
    shut = RoutedHead(16, words, soft_share=0.0)
    metrics, routed = grpo_step(shut, "hybrid", SMALL, words)
    metrics_token, token = grpo_step(words, "token", SMALL)
    assert metrics["reward/score"] == metrics_token["reward/score"]
    assert all(torch.equal(a, b) for a, b in zip(routed.losses, token.losses, strict=True))
    pairs = list(zip(routed.lm_gradients, token.lm_gradients, strict=True))
    assert pairs and all(torch.equal(a, b) for a, b in pairs)


def test_a_closed_gate_is_token_grpo_bit_for_bit() -> None:
    words = TokenHead(0.7, top_k=6)

    def closed_gate(eps: float) -> tuple[dict[str, float], GradientRecorder]:
        gate = GatedHead(16, words, eps=eps)
        with torch.no_grad():
            gate.Lambda.fill_(1e9)  # a = 1
        return grpo_step(gate, "hybrid", SMALL, words)

    metrics_gate, closed = closed_gate(0.0)
    metrics_token, token = grpo_step(words, "token", SMALL)
    assert metrics_gate["reward/score"] == metrics_token["reward/score"]
    assert metrics_gate["latent/share"] == 0
    assert all(torch.equal(a, b) for a, b in zip(closed.losses, token.losses, strict=True))
    _, closed = closed_gate(1e-16)  # at 0 the root has no derivative
    for a, b in zip(closed.lm_gradients, token.lm_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_gate_learns_where_episodes_differ_and_only_there() -> None:
    for grade, learns in ((_grade_parity, True), (_grade_nothing, False)):
        env = mnns("hybrid", 32)
        env.unwrapped.task.grade = grade
        policy = Policy(tiny(env), GatedHead(16, TokenHead()))
        GRPO(policy, env, SMALL, seed=5).step(0, GradientRecorder(policy))
        gradients = [p.grad for p in policy.head.parameters()]
        assert all(g is not None and bool(g.any()) is learns for g in gradients)


def test_divergence_is_measured_from_words() -> None:
    """With the weights unmoved it is above 0 all the same: the reference reads no latents."""
    config = replace(SMALL, kl=0.1)
    gated, _ = grpo_step(GatedHead(16, TokenHead(), r_min=0.5), "hybrid", config)
    words, _ = grpo_step(TokenHead(), "token", config)
    assert gated["train/kl"] > 1e-4
    assert words["train/kl"] == 0


def test_the_value_of_an_on_policy_loss_is_nought_and_its_gradient_reinforces() -> None:
    """Sequence means of one update: the loss is -mean(A) = 0 in value, not in gradient."""
    config = replace(SMALL, mean="sequence", micro_batch=64)
    metrics, recorder = grpo_step(GatedHead(16, TokenHead()), "hybrid", config)
    assert abs(metrics["train/loss"]) < 1e-6
    assert any(g.abs().max() > 1e-4 for g in recorder.lm_gradients)


def test_first_on_policy_ratios_are_one() -> None:
    metrics, _ = grpo_step(MultiTokenHead(3), "continuous", SMALL)
    assert metrics["train/ratio_deviation"] == 0.0
    assert metrics["train/clip_fraction"] == 0.0


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (lambda: MultiTokenHead(3), "continuous"),
        (lambda: GaussianHead(16, 8), "hybrid"),
        (lambda: GaussianHead(16, 8, density="sum"), "hybrid"),
        (lambda: GatedHead(16, TokenHead()), "hybrid"),
    ],
)
def test_replayed_old_log_probabilities_give_ratio_one_too(
    make: Callable[[], PolicyHead], family: str
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = make()
    config = GRPOConfig(prompts=8, group_size=4, micro_batch=8, mini_batches=2)
    metrics, _ = grpo_step(head, family, config)
    assert metrics["train/ratio_deviation"] < 1e-4


def test_micro_batches_do_not_change_the_gradient() -> None:
    _, whole = grpo_step(MultiTokenHead(3), "continuous", GRPOConfig(8, 4, micro_batch=32))
    _, parts = grpo_step(MultiTokenHead(3), "continuous", GRPOConfig(8, 4, micro_batch=5))
    for a, b in zip(whole.lm_gradients, parts.lm_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_equal_rewards_give_no_gradient() -> None:
    env = mnns("continuous", 32)
    env.unwrapped.task.grade = _grade_nothing
    policy = Policy(tiny(env), MultiTokenHead(2))
    recorder = GradientRecorder(policy)
    metrics = GRPO(policy, env, SMALL, seed=1).step(0, recorder)
    assert metrics["train/groups_without_signal"] == 1.0
    assert all(float(g.abs().max()) == 0 for g in recorder.lm_gradients)


def test_divergence_from_the_start_is_zero_before_the_first_update() -> None:
    config = GRPOConfig(prompts=4, group_size=4, kl=0.1)
    metrics, _ = grpo_step(MultiTokenHead(2), "continuous", config)
    assert metrics["train/kl"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value"), [("group_size", 1), ("prompts", 0), ("mini_batches", 3)]
)
def test_settings_that_cannot_work_are_refused(field: str, value: int) -> None:
    config = GRPOConfig(**{**vars(GRPOConfig(prompts=4, group_size=4)), field: value})
    with pytest.raises(UsageError):
        config.validate()


def test_continuous_supervision_with_one_path_is_ordinary_supervision() -> None:
    env = mnns("continuous", paths=1)
    lm = tiny(env)
    batch = Demonstrations(env).batch(np.arange(64), lm.device)
    loss_BT, mask, *_ = supervised_loss(lm, batch)
    # Written out as next-token cross-entropy over the plain token ids.
    ids = torch.cat([batch.prompt_BP, batch.ids_BTS[..., 0]], dim=1)
    logits = lm.logits(lm.hidden(lm.embed(ids), torch.ones_like(ids, dtype=torch.bool)))
    start = batch.prompt_BP.shape[1]
    expected = torch.nn.functional.cross_entropy(
        logits[:, start - 1 : -1].reshape(-1, lm.vocab_size), ids[:, start:].reshape(-1)
    )
    torch.testing.assert_close(loss_BT[mask].mean(), expected)


def test_soft_supervision_is_the_divergence_from_the_targets() -> None:
    env = mnns("continuous")
    lm = tiny(env)
    batch = Demonstrations(env).batch(np.arange(16), lm.device)
    loss_BT, *_ = supervised_loss(lm, batch)
    dense = torch.zeros(*batch.ids_BTS.shape[:2], lm.vocab_size)
    dense.scatter_add_(-1, batch.ids_BTS, batch.weights_BTS)
    x = torch.cat([lm.embed(batch.prompt_BP), dense @ lm.table_VD], dim=1)[:, :-1]
    hidden = lm.hidden(x, torch.ones(x.shape[:2], dtype=torch.bool))
    logq = lm.logits(hidden[:, batch.prompt_BP.shape[1] - 1 :]).log_softmax(-1)
    expected = torch.nn.functional.kl_div(logq, dense, reduction="none").sum(-1)
    torch.testing.assert_close(loss_BT, expected, rtol=1e-4, atol=1e-5)


def test_supervised_training_learns() -> None:
    env = mnns("continuous")
    policy = Policy(tiny(env), MixtureHead())
    stage = Supervised(policy, env, SupervisedConfig(batch_size=64))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []

    def update(parts: Iterable[Tensor]) -> float:
        optimizer.zero_grad()
        for part in parts:
            part.backward()
        optimizer.step()
        return 0.0

    for number in range(60):
        losses.append(stage.step(number, update)["train/loss"])
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_batches_cover_every_item_once_an_epoch_and_know_no_past() -> None:
    epoch = np.concatenate([batch_indices(10, 4, 3, number) for number in range(5)])
    assert sorted(epoch[:10]) == sorted(epoch[10:]) == list(range(10))
    assert not np.array_equal(epoch[:10], epoch[10:])
    assert np.array_equal(batch_indices(10, 4, 3, 2), epoch[8:12])


def own(head: PolicyHead, rows: int, every: int = 1) -> OwnThoughts:
    return OwnThoughts(head, torch.arange(rows) % every == 0)


def test_rows_that_read_the_targets_are_teacher_forced() -> None:
    """The sequential pass over a differentiable cache is the parallel one."""
    env = make_vector_env("latent/ProsQA-continuous", 1, size=20)  # prompts of unequal length
    lm = tiny(env)
    batch = Demonstrations(env).batch(np.arange(8), lm.device)
    forced, mask, *_ = supervised_loss(lm, batch)
    rows = own(MixtureHead(), 8, every=4)
    mixed, *_ = supervised_loss(lm, batch, own=rows)
    assert not torch.allclose(mixed[rows.row_B], forced[rows.row_B], atol=1e-3)
    torch.testing.assert_close(mixed[~rows.row_B], forced[~rows.row_B], rtol=1e-4, atol=1e-5)
    assert bool(mask.all())


def test_certain_thoughts_that_are_right_are_teacher_forced() -> None:
    """With one-hot targets that the model predicts surely, its own mixtures are the targets."""
    env = mnns("continuous", paths=1)
    lm = tiny(env)
    batch = Demonstrations(env).batch(np.arange(8), lm.device)
    with torch.no_grad():
        for _ in range(batch.ids_BTS.shape[1]):  # make each prediction the next target
            forced, *_ = supervised_loss(lm, batch)
            x = torch.cat([lm.embed(batch.prompt_BP), lm.embed(batch.ids_BTS[..., 0])], 1)[:, :-1]
            hidden = lm.hidden(x, torch.ones(x.shape[:2], dtype=torch.bool))
            batch.ids_BTS[..., 0] = lm.logits(hidden)[:, batch.prompt_BP.shape[1] - 1 :].argmax(-1)
    sure = MixtureHead(temperature=1e-4)
    forced, _, right, _ = supervised_loss(lm, batch)
    fed, *_ = supervised_loss(lm, batch, own=own(sure, 8))
    assert bool(right.all())
    torch.testing.assert_close(fed, forced, rtol=1e-4, atol=1e-5)


def test_own_thoughts_are_those_of_the_rollout() -> None:
    """What a row reads in training is what it would read when it answers."""
    env = make_vector_env("latent/ProsQA-continuous", 1, size=20)
    lm = tiny(env)
    policy = Policy(lm, MixtureHead(), TokenHead(temperature=0.0))
    batch = Demonstrations(env).batch(np.arange(8), lm.device)
    seen: list[Tensor] = []

    class Watching(MixtureHead):
        def embed(self, action: Action, table_VD: Tensor) -> Tensor:
            seen.append(super().embed(action, table_VD))
            return seen[-1]

    _, _, right, _ = supervised_loss(lm, batch, own=own(Watching(), 8))
    task = env.unwrapped.task
    rollouts = Engine(policy).rollout([task.prompt(i) for i in range(8)], task.protocol(), seed=0)
    decoded = rollouts.actions["latent"][:, : len(seen)]
    torch.testing.assert_close(torch.stack(seen, 1), decoded, rtol=1e-4, atol=1e-4)
    answered = rollouts.token_NT[:, -1] == batch.ids_BTS[:, -1, 0].numpy()
    assert (right[:, -1].numpy() == answered).all()


def test_gradients_run_through_own_thoughts() -> None:
    env = mnns("continuous")
    lm = tiny(env)
    batch = Demonstrations(env).batch(np.arange(8), lm.device)
    made: list[Tensor] = []

    class Watching(MixtureHead):
        def embed(self, action: Action, table_VD: Tensor) -> Tensor:
            latent = super().embed(action, table_VD)
            latent.retain_grad()
            made.append(latent)
            return latent

    loss_BT, *_ = supervised_loss(lm, batch, own=own(Watching(), 8))
    loss_BT[:, -1].sum().backward()  # of the answer alone
    assert len(made) == 3
    assert all(m.grad is not None and float(m.grad.abs().max()) > 0 for m in made)


def test_a_share_of_own_thoughts_is_drawn_anew_and_a_function_of_the_step() -> None:
    env = mnns("continuous")
    stage = Supervised(Policy(tiny(env), MixtureHead()), env, SupervisedConfig(own_thoughts=0.5))
    batch = stage.demonstrations.batch(np.arange(64), torch.device("cpu"))
    rows = [stage.own_rows(batch, number) for number in (3, 4, 3)]
    assert rows[0] is not None
    assert rows[1] is not None
    assert rows[2] is not None
    assert torch.equal(rows[0].row_B, rows[2].row_B)
    assert not torch.equal(rows[0].row_B, rows[1].row_B)
    assert 16 < int(rows[0].row_B.sum()) < 48
    with pytest.raises(UsageError, match="at least 0 and at most 1"):
        Supervised(stage.policy, env, SupervisedConfig(own_thoughts=1.5))


def test_no_own_thoughts_is_teacher_forcing_bit_for_bit() -> None:
    env = mnns("continuous")
    results = []
    for share in (None, 0.0):
        policy = Policy(tiny(env), MixtureHead())
        recorder = GradientRecorder(policy)
        more = {} if share is None else {"own_thoughts": share}
        config = SupervisedConfig(16, dropout=0.1, **more)
        Supervised(policy, env, config, seed=2).step(3, recorder)
        results.append((recorder.losses, recorder.lm_gradients))
    # The loss written out with the same dropout, as it was before own thoughts existed.
    lm = tiny(env)
    batch = Demonstrations(env).batch(batch_indices(len(Demonstrations(env)), 16, 2, 3), lm.device)
    x = torch.cat(
        [lm.embed(batch.prompt_BP), mix(batch.ids_BTS, batch.weights_BTS, lm.table_VD)], dim=1
    )[:, :-1]
    generator = torch.Generator().manual_seed(derive(2, 3, 1))
    x = x * (torch.rand(x.shape, generator=generator) >= 0.1) / 0.9
    mask = torch.cat([batch.prompt_mask_BP, batch.mask_BT], dim=1)[:, :-1]
    logits = lm.logits(lm.hidden(x, mask)[:, batch.prompt_BP.shape[1] - 1 :][batch.mask_BT])
    ids, weights = batch.ids_BTS[batch.mask_BT], batch.weights_BTS[batch.mask_BT]
    expected = soft_target_loss(logits, ids, weights).sum() / batch.mask_BT.sum()
    for losses, gradients in results:
        torch.testing.assert_close(losses[0], expected.detach(), rtol=1e-6, atol=0)
        pairs = zip(gradients, results[0][1], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_targets_on_prompts_are_learnt_beside_the_chain() -> None:
    env = make_vector_env("latent/ProsQA-continuous", 1, size=20)
    lm = tiny(env)
    batch = Demonstrations(env).batch(np.arange(6), lm.device)
    assert batch.prompt_ids_BPS is not None
    assert batch.prompt_weights_BPS is not None
    found = supervised_loss(lm, batch, prompts=True)
    # Row by row, without padding.
    expected, chains = [], []
    for row in range(6):
        real = batch.prompt_mask_BP[row]
        weights = batch.prompt_weights_BPS[row, real]
        ids = batch.prompt_ids_BPS[row, real]
        x = lm.embed(batch.prompt_BP[row : row + 1, real])
        logits = lm.logits(lm.hidden(x, torch.ones(x.shape[:2], dtype=torch.bool)))[0]
        named = weights.sum(1) > 0
        expected.append(soft_target_loss(logits[named], ids[named], weights[named]))
        chains.append(supervised_loss(lm, Demonstrations(env).batch(np.array([row]), lm.device))[0])
    torch.testing.assert_close(found.prompt_M, torch.cat(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.loss_BT, torch.cat(chains), rtol=1e-4, atol=1e-5)
    fed = supervised_loss(lm, batch, prompts=True, own=own(MixtureHead(), 6))
    torch.testing.assert_close(fed.prompt_M, found.prompt_M, rtol=1e-4, atol=1e-5)


def test_prompt_weight_adds_the_mean_over_the_whole_batch() -> None:
    env = make_vector_env("latent/ProsQA-continuous", 1, size=20)
    gradients = []
    for micro in (0, 2):
        policy = Policy(tiny(env), MixtureHead())
        recorder = GradientRecorder(policy)
        stage = Supervised(policy, env, SupervisedConfig(6, micro, prompt_weight=2.0))
        metrics = stage.step(0, recorder)
        total = metrics["train/loss"] + 2.0 * metrics["train/prompt_loss"]
        assert float(torch.stack(recorder.losses).sum()) == pytest.approx(total, rel=1e-4)
        gradients.append(recorder.lm_gradients)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_a_task_without_targets_on_its_prompts_refuses_their_weight() -> None:
    env = mnns("continuous")
    with pytest.raises(UsageError, match="no targets on its prompts"):
        Supervised(Policy(tiny(env), MixtureHead()), env, SupervisedConfig(prompt_weight=1.0))


STAGES = {
    "supervised": ("cot", "sft-tiny", "latent/MNNS-token", {}),
    "own thoughts": ("coconut", "tiny", "latent/MNNS-hybrid", {}),
    "compressed chains": ("colar-grpo", "sft-tiny", "latent/GSM8KAug-hybrid", GENERATED),
    "policy gradient": ("mts-grpo", "grpo", "latent/MNNS-continuous", {}),
    "gradient through thoughts": ("latentr3", "rl-tiny", "latent/MovieLens-hybrid", SHOP),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_step_leaves_every_part_in_the_mode_it_had(name: str) -> None:
    agent, preset, env, options = STAGES[name]
    config = agent_class(agent).presets[preset]
    run = Run(agent, config, env, "tiny:gpt2:1x2x16", options)
    policy, stage = run.learner(), run.make_agent().recipe().stage
    small = {"prompts": 4, "group_size": 2, "batch_size": 8}
    stage = replace(stage, **{k: v for k, v in small.items() if hasattr(stage, k)})
    policy.train()
    policy.lm.backbone.h[0].eval()
    before = [part.training for part in policy.modules()]
    within: list[bool] = []

    def update(losses: Iterable[Tensor]) -> float:
        for _ in losses:
            within.append(policy.lm.backbone.h[0].training)
        return 0.0

    stage.build(policy, run.make_env, 0).step(0, update)
    assert [part.training for part in policy.modules()] == before
    # Supervised stages learn with dropout, policy gradients as they acted.
    assert set(within) == {hasattr(stage, "batch_size")}
