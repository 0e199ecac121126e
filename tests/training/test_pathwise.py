"""Stage 2 of LatentR3, and the perplexity reward, against closed forms and each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.heads import GatedHead, MixtureHead, MultiTokenHead, PolicyHead, RATTHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, replay
from latentgym.rollout.targets import (
    perplexity_reward,
    target_log_probs,
    think,
    with_targets,
)
from latentgym.testing.gradients import GradientRecorder
from latentgym.text.tokenizers import ByteTokenizer
from latentgym.training import (
    GRPO,
    GRPOConfig,
    Pathwise,
    PathwiseConfig,
    Supervised,
    SupervisedConfig,
)
from latentgym.training.losses import CLEAN, advantages
from latentgym.training.order import batch_indices

SHOP = {"source": "generated", "items": 30, "customers": 40}
SMALL = PathwiseConfig(prompts=4, group_size=3, micro_batch=6)


def shop(family: str = "hybrid", rows: int = 1, **options: Any) -> Any:
    return make_vector_env(f"latent/MovieLens-{family}", rows, **{**SHOP, **options})


def policy_of(env: Any, head: PolicyHead | None = None, seed: int = 0) -> Policy:
    lm = load_model(
        "tiny:qwen2:2x2x16", tokenizer=env.unwrapped.task.tokenizer, seed=seed, dtype="float32"
    )
    with torch.no_grad():  # a fresh model is so flat that tests of it would see nothing
        for parameter in lm.parameters():
            parameter.mul_(4)
    torch.manual_seed(seed)
    return Policy(lm, head or RATTHead(16, 0.5), TokenHead())


def step(
    config: PathwiseConfig, **options: Any
) -> tuple[Pathwise, GradientRecorder, dict[str, float]]:
    env = shop(**options)
    policy = policy_of(env)
    policy.lm.requires_grad_(False)
    stage, recorder = Pathwise(policy, env, config, seed=3), GradientRecorder(policy)
    return stage, recorder, stage.step(2, recorder)


def questions_of(stage: Pathwise) -> np.ndarray:
    return batch_indices(len(stage.demonstrations), stage.config.prompts, derive(3, 3), 2)


def by_hand(stage: Pathwise, thoughts: int) -> Tensor:
    """Log-probabilities of the right titles, chain by chain and token by token."""
    policy, c = stage.policy, stage.config
    engine = Engine(policy, share_prompts=False, compact_every=0)
    env = stage.demonstrations._env
    questions = questions_of(stage)
    rollouts = think(
        *(engine, env, questions),
        group_size=c.group_size,
        seed=derive(3, 4, 2),
        noise_free=int(c.advantage == CLEAN),
    )
    assert (rollouts.thoughts_N == thoughts).all()
    targets = [env.demonstration(int(i)).ids_TS[:, 0].tolist() for i in questions]
    logp, mask = target_log_probs(policy, rollouts, targets, micro_batch=2)
    return (logp * mask).sum(-1) / mask.sum(-1)


@pytest.mark.parametrize("thoughts", [1, 3])
def test_rewards_are_those_of_the_engines_chains(thoughts: int) -> None:
    """The stage thinks what a rollout thinks, with the same noise; the first chain has none."""
    stage, _, metrics = step(SMALL, think=thoughts)
    reward = -torch.exp(-by_hand(stage, thoughts)).view(-1, SMALL.group_size)
    assert metrics["reward/score"] == pytest.approx(float(reward.mean()), rel=1e-4)
    assert metrics["reward/clean"] == pytest.approx(float(reward[:, 0].mean()), rel=1e-4)
    assert metrics["train/ratio"] == 1.0 and metrics["train/clip_fraction"] == 0.0


def test_the_gradient_is_likelihood_weighted_by_advantages() -> None:
    """With a ratio of 1 the loss is -A log p of the right tokens, averaged over all of them."""
    stage, recorder, _ = step(SMALL)
    policy = stage.policy
    scored = stage._scored(questions_of(stage), seed=derive(3, 4, 2))
    with torch.no_grad():
        reward = perplexity_reward(-scored.loss_BT, scored.mask_BT)
    advantage = advantages(reward, SMALL.group_size, CLEAN)
    policy.zero_grad()
    (scored.loss_BT * advantage[:, None]).sum().div(scored.mask_BT.sum()).backward()
    expected = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    assert expected.keys() == recorder.gradients.keys()
    for name, gradient in recorder.gradients.items():
        assert_close(gradient, expected[name], atol=1e-6, rtol=1e-3)
    assert any(float(g.abs().max()) > 1e-6 for g in expected.values())


def test_the_gradient_through_the_latent_is_that_of_finite_differences() -> None:
    env = shop()
    policy = policy_of(env).double()
    policy.lm.requires_grad_(False)
    stage = Pathwise(policy, env, SMALL, seed=3)
    bias = policy.head.value.bias

    def loss() -> Tensor:
        return stage._scored(np.arange(2), seed=1).loss_BT.sum()

    loss().backward()
    gradient = bias.grad.clone()
    with torch.no_grad():
        for i in (0, 7):
            eps = 1e-3
            bias[i] += eps
            above = float(loss())
            bias[i] -= 2 * eps
            below = float(loss())
            bias[i] += eps
            # Logits are in fp32 whatever the model is.
            assert float(gradient[i]) == pytest.approx((above - below) / (2 * eps), rel=0.02)


def test_only_the_attention_layer_is_trained() -> None:
    _, recorder, _ = step(SMALL)
    assert {name.split(".")[0] for name in recorder.gradients} == {"head"}


@pytest.mark.parametrize("micro_batch", [1, 3, 12])
def test_micro_batches_change_nothing(micro_batch: int) -> None:
    _, one, first = step(SMALL)
    _, other, second = step(replace(SMALL, micro_batch=micro_batch))
    assert len(one.losses) != len(other.losses)
    assert sum(map(float, one.losses)) == pytest.approx(sum(map(float, other.losses)), abs=1e-6)
    for name, gradient in one.gradients.items():
        assert_close(gradient, other.gradients[name], atol=1e-6, rtol=1e-3)
    assert first["reward/score"] == pytest.approx(second["reward/score"], rel=1e-5)


def test_later_updates_have_ratios_that_are_clipped() -> None:
    env = shop()
    policy = policy_of(env)
    policy.lm.requires_grad_(False)
    optimizer = torch.optim.SGD(policy.head.parameters(), lr=50.0)

    def update(losses: Iterable[Tensor]) -> float:
        optimizer.zero_grad()
        for loss in losses:
            loss.backward()
        optimizer.step()
        return 0.0

    stage = Pathwise(policy, env, replace(SMALL, updates=3), seed=3)
    metrics = stage.step(2, update)
    assert metrics["train/ratio"] != 1.0 and metrics["train/clip_fraction"] > 0


def test_without_noise_a_single_prompt_has_no_advantage_and_several_differ_by_prompt() -> None:
    """As the sheet has it: A is then the difference of the prompts' rewards from their mean."""
    reward = torch.tensor([-2.0] * 4)
    assert not advantages(reward, 4, CLEAN).any()
    two = torch.tensor([-2.0] * 4 + [-4.0] * 4)
    a = advantages(two, 4, CLEAN)
    assert_close(a, torch.tensor([1.0] * 4 + [-1.0] * 4) / (8**0.5 + 1e-6))


def test_the_baseline_is_the_mean_of_the_clean_rewards_in_any_order() -> None:
    torch.manual_seed(0)
    reward = torch.randn(5, 4)
    a = advantages(reward.reshape(-1), 4, CLEAN).view(5, 4)
    centred = reward - reward[:, 0].mean()
    assert_close(a, centred / (centred.square().sum().sqrt() + 1e-6))
    # The authors' code permutes the groups' baselines before it averages them: no difference.
    order = torch.randperm(5)
    assert_close(advantages(reward[order].reshape(-1), 4, CLEAN).view(5, 4), a[order])


def test_prompts_may_share_their_baseline_in_blocks() -> None:
    stage = Pathwise(policy_of(shop()), shop(), replace(SMALL, baseline_prompts=2))
    reward = torch.randn(12)
    halves = [advantages(half, 3, CLEAN) for half in reward.split(6)]
    assert_close(stage.advantages(reward), torch.cat(halves))


def test_the_perplexity_reward_is_its_formula() -> None:
    logp = torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -9.0, -9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert_close(perplexity_reward(logp, mask), -torch.tensor([1.5, 0.5]).exp())


def test_targets_stand_right_behind_each_row() -> None:
    env = shop("token", think=0)
    policy = policy_of(env, TokenHead())
    rollouts = think(Engine(policy), env, np.array([3, 1]), group_size=2, seed=0)
    targets = [[5, 6, 7], [8]]
    scored = with_targets(rollouts, targets)
    assert scored.token_NT.tolist() == [[5, 6, 7], [5, 6, 7], [8, 0, 0], [8, 0, 0]]
    logp, mask = target_log_probs(policy, rollouts, targets, micro_batch=3)
    with torch.no_grad():
        for row in range(4):
            ids = rollouts.prompts[row // 2] + targets[row // 2]
            x = policy.lm.embed(torch.tensor([ids]))
            hidden = policy.lm.hidden(x, torch.ones(1, len(ids), dtype=torch.bool))
            said = policy.lm.logits(hidden).log_softmax(-1)[0]
            n = len(targets[row // 2])
            expected = [float(said[len(ids) - n - 1 + i, t]) for i, t in enumerate(ids[-n:])]
            assert logp[row, mask[row]].tolist() == pytest.approx(expected, abs=1e-4)


HEADS = {
    "hybrid": lambda: GatedHead(16, TokenHead(0.8), r_min=0.5),
    "continuous": lambda: MultiTokenHead(2),
    "token": TokenHead,
}


@pytest.mark.parametrize("family", sorted(HEADS))
def test_any_head_can_learn_from_the_perplexity_of_the_answer(family: str) -> None:
    config = GRPOConfig(prompts=4, group_size=4, micro_batch=8, reward="perplexity")
    env = shop(family, config.rows, think=2)
    policy = policy_of(env, HEADS[family]())
    recorder = GradientRecorder(policy)
    metrics = GRPO(policy, env, config, seed=1).step(0, recorder)
    assert metrics["reward/score"] == -metrics["reward/perplexity"] <= -1
    assert metrics["rollout/tokens"] == 0 and metrics["rollout/thoughts"] == 2
    moved = sum(float(g.abs().sum()) for g in recorder.gradients.values())
    assert moved > 0


def test_thoughts_without_chance_cannot_learn_from_a_reward() -> None:
    config = GRPOConfig(prompts=2, group_size=2, reward="perplexity")
    env = shop("continuous", config.rows, think=2)
    policy = policy_of(env, MixtureHead())
    with pytest.raises(UsageError, match="drawn at random"):
        GRPO(policy, env, config, seed=1).step(0, GradientRecorder(policy))


def test_chains_of_words_learn_from_the_answer_behind_their_bridge() -> None:
    """On a task with markers: the right answer stands behind the forced prompt that opens it."""
    env = make_vector_env("latent/GSM8K-token", 8, source="sample", think=3, force_answer=True)
    lm = load_model("tiny:llama:1x2x16", tokenizer=ByteTokenizer(), dtype="float32")
    policy = Policy(lm, TokenHead())
    rollouts = think(Engine(policy), env, np.array([0, 1]), group_size=4, seed=0)
    assert (rollouts.inserted_N == len(env.unwrapped.protocol.forced_prompt)).all()
    config = GRPOConfig(prompts=2, group_size=4, micro_batch=8, reward="perplexity")
    metrics = GRPO(policy, env, config, seed=1).step(0, GradientRecorder(policy))
    assert metrics["reward/score"] <= -1 and metrics["train/groups_without_signal"] < 1


def test_the_score_function_and_the_path_agree_where_the_reward_is_linear_in_the_noise() -> None:
    """Both estimate the gradient of expected likelihood: on average they point the same way."""
    env = shop(items=30)
    policy = policy_of(env, RATTHead(16, 0.05))
    policy.lm.requires_grad_(False)
    n = 1500
    stage = Pathwise(policy, env, replace(SMALL, prompts=1, group_size=n, advantage="dr_grpo"))
    scored = stage._scored(np.array([0]), seed=1)
    reward = -scored.loss_BT.sum(-1)
    policy.zero_grad()
    reward.mean().backward()
    path = policy.head.value.bias.grad.clone()
    rollouts = think(Engine(policy), env, np.array([0]), group_size=n, seed=1)
    policy.zero_grad()
    logp = replay(policy, rollouts).logp_NT[:, 0]
    gained = reward.detach() - reward.detach().mean()
    (gained * logp).mean().backward()
    score = policy.head.value.bias.grad
    cosine = torch.nn.functional.cosine_similarity(path, score, dim=0)
    assert float(cosine) > 0.8
    assert 0.7 < float(score.norm() / path.norm()) < 1.4


def test_latents_in_demonstrations_are_read_and_not_learnt() -> None:
    env = shop(think=2)
    policy = policy_of(env, RATTHead(16, 0.0))
    config = SupervisedConfig(batch_size=4, own_thoughts=1.0, latents=True)
    stage, recorder = Supervised(policy, env, config, seed=0), GradientRecorder(policy)
    metrics = stage.step(0, recorder)
    assert {name.split(".")[0] for name in recorder.gradients} == {"head", "lm"}
    assert float(recorder.gradients["head.value.weight"].abs().max()) > 0
    shown = stage.shown(0, 0, env.unwrapped.demonstration(0))
    assert shown.thoughts == 2 and not shown.weights_TS[:2].any()
    assert metrics["train/loss"] > 0


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"group_size": 1}, "group-size"),
        ({"prompts": 0}, "at least 1"),
        ({"baseline_prompts": 3}, "does not divide"),
        ({"advantage": "clean"}, "clean_batch"),
    ],
)
def test_settings_that_cannot_work_are_refused(config: dict, what: str) -> None:
    env = shop()
    with pytest.raises(UsageError, match=what):
        Pathwise(policy_of(env), env, replace(SMALL, **config)).step(
            0, GradientRecorder(policy_of(env))
        )


def test_tasks_without_a_fixed_number_of_thoughts_are_refused() -> None:
    env = make_vector_env("latent/GSM8K-hybrid", 1, source="sample")
    with pytest.raises(UsageError, match="fixed number"):
        Pathwise(policy_of(shop()), env, SMALL)
    with pytest.raises(UsageError, match="own_thoughts"):
        SupervisedConfig(latents=True).validate()
    with pytest.raises(UsageError, match="task or perplexity"):
        GRPOConfig(reward="loss").validate()  # type: ignore[arg-type]


def test_with_a_centred_advantage_the_published_gradient_climbs_the_slope() -> None:
    """Not the likelihood: E[A grad log p(r + e)] = std^2 grad |grad log p(r)|^2 / 2, for small e.

    A = log p(r + e) less its mean is e . g to first order, and grad log p(r + e) = g + H e.
    """
    std, n, env = 0.05, 4000, shop()
    policy = policy_of(env, RATTHead(16, std))
    policy.lm.requires_grad_(False)
    stage = Pathwise(policy, env, replace(SMALL, prompts=1, group_size=n))
    bias = policy.head.value.bias  # moves the latent one to one, as attention's weights add up to 1

    def gradient(shift: Tensor) -> Tensor:
        """Of the likelihood without noise, from a shifted latent."""
        policy.head.std = 0.0
        with torch.no_grad():
            bias.add_(shift)
        policy.zero_grad()
        noise_free = replace(SMALL, prompts=1, group_size=2)
        (
            -Pathwise(policy, env, noise_free)._scored(np.array([0]), seed=0).loss_BT.sum() / 2
        ).backward()
        with torch.no_grad():
            bias.sub_(shift)
        policy.head.std = std
        return bias.grad.clone()

    g = gradient(torch.zeros(16))
    step = 1e-2 * g / g.norm()
    climbs = std**2 * g.norm() * (gradient(step) - gradient(-step)) / 2e-2
    policy.zero_grad()
    logp = -stage._scored(np.array([0]), seed=1).loss_BT.sum(-1)
    (logp * (logp.detach() - logp.detach().mean())).mean().backward()
    cosine = torch.nn.functional.cosine_similarity(bias.grad, climbs, dim=0)
    assert float(cosine) > 0.99
    assert float(bias.grad.norm() / climbs.norm()) == pytest.approx(1, abs=0.1)
