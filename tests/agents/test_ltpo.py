"""LTPO: its reward, its update, its limits, its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from latentgym.agents.ltpo import LTPO, Confidence, LTPOConfig, search
from latentgym.agents.run import Run
from latentgym.errors import UsageError
from latentgym.evaluation.evaluate import evaluate
from latentgym.lm import LatentLM, load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, collect

ENV = "latent/GSM8KAug-token"
CHAINS = {"source": "generated", "split": "test", "think": 8}
SMALL = LTPOConfig(k=3, steps=4, sigma=0.5)


def setting(rows: int = 5, **options: Any) -> tuple[Any, Policy]:
    env = make_vector_env(ENV, rows, **{**CHAINS, **options})
    lm = load_model("tiny:llama:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    return env, LTPO(SMALL).policy(lm, acting=True)


def prompts(env: Any, n: int) -> list[list[int]]:
    return [env.unwrapped.prompt(i) for i in range(n)]


def directly(lm: LatentLM, prompt: list[int], x_kD: torch.Tensor, top: int) -> float:
    """The reward by one plain pass over everything."""
    x = torch.cat([lm.embed(torch.tensor(prompt)), x_kD])[None]
    with torch.no_grad():
        hidden = lm.hidden(x, torch.ones(1, x.shape[1], dtype=torch.bool))
        p = lm.logits(hidden)[0, len(prompt) :].softmax(-1)
    return float(-p.topk(top, dim=-1).values.log().mean())


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
def test_the_reward_is_that_of_a_direct_calculation(arch: str, random_lm: Callable) -> None:
    lm = random_lm(arch)
    asked = [list(b"seven bytes"), list(b"two"), list(b"a longer prompt")]
    confidence = Confidence(lm, asked, 10)
    for seed in range(2):  # its cache is as it was before each
        x = torch.randn(3, 4, lm.hidden_size, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            found = confidence(x)
        expected = [directly(lm, p, v, 10) for p, v in zip(asked, x, strict=True)]
        assert_close(found, torch.tensor(expected))


def test_without_steps_it_is_the_prompt_with_fillers() -> None:
    env, policy = setting()
    c = replace(SMALL, steps=0, filler=7)
    found = search(policy, prompts(env, 5), np.arange(5), c, 0)
    given = collect(Engine(policy), env, range(5), seed=0, given_QkD=found.given_QkD).rollouts
    filled = [p + [7] * 3 for p in prompts(env, 5)]
    expected = collect(Engine(policy), env, range(5), seed=0, prompts=filled).rollouts
    assert np.array_equal(given.token_NT, expected.token_NT)
    assert np.array_equal(given.kind_NT, expected.kind_NT)


def test_questions_side_by_side_are_searched_as_one_by_one() -> None:
    env, policy = setting()
    together = search(policy, prompts(env, 5), np.arange(5), SMALL, 3)
    for i in range(5):
        alone = search(policy, prompts(env, 5)[i : i + 1], np.array([i]), SMALL, 3)
        assert_close(alone.given_QkD[0], together.given_QkD[i], rtol=1e-4, atol=1e-4)
        assert_close(alone.best_Q[0], together.best_Q[i], rtol=1e-4, atol=1e-4)
        assert alone.step_Q[0] == together.step_Q[i]


def test_the_update_is_reinforce_of_one_candidate() -> None:
    """After one step x = x0 + lr R (x' - x0) / sigma^2, whatever the noise was."""
    env, policy = setting()
    one = replace(SMALL, steps=1)
    candidate = search(policy, prompts(env, 2), np.arange(2), replace(one, keep="candidate"), 0)
    mean = search(policy, prompts(env, 2), np.arange(2), one, 0)
    x0 = policy.lm.embed(torch.full((2, 3), policy.lm.tokenizer.pad_id)).float().detach()
    moved = one.lr * candidate.best_Q[:, None, None] / one.sigma**2
    expected = x0 + moved * (candidate.given_QkD - x0)
    assert_close(mean.given_QkD, expected)
    noise = (candidate.given_QkD - x0) / one.sigma
    assert 0.7 < float(noise.std()) < 1.3
    assert torch.equal(candidate.best_Q, candidate.start_Q)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_a_search_that_goes_on_for_long_stays_finite(decay: float) -> None:
    env, policy = setting()
    c = replace(SMALL, steps=1200, decay=decay, keep="last")  # .5 to the power of 1200 is 0
    found = search(policy, prompts(env, 1), np.arange(1), c, 0)
    assert found.given_QkD.isfinite().all() and found.best_Q.isfinite().all()
    assert float(found.given_QkD.abs().max()) < 1e5


def test_the_best_step_is_kept() -> None:
    env, policy = setting()
    c = replace(SMALL, steps=6, keep="candidate")
    found = search(policy, prompts(env, 4), np.arange(4), c, 0)
    reward = Confidence(policy.lm, prompts(env, 4), c.top)(found.given_QkD).detach()
    assert_close(reward, found.best_Q, rtol=1e-4, atol=1e-4)
    assert (found.best_Q >= found.start_Q).all() and (found.step_Q > 0).any()
    last = search(policy, prompts(env, 4), np.arange(4), replace(c, keep="last"), 0)
    assert not torch.equal(last.given_QkD, found.given_QkD)


def test_an_answer_says_what_the_search_cost() -> None:
    run = Run("ltpo", SMALL, ENV, "tiny:llama:2x2x32", CHAINS, device="cpu")
    policy = run.actor()
    found = evaluate(run.make_agent(), policy, run.env_id, run.make_env(2), limit=5)
    read = np.mean([len(run.make_env(1).unwrapped.prompt(i)) for i in range(5)])
    spent = found.result.forward_positions
    assert spent["prompt"] == pytest.approx(read + 3)
    assert spent["verifier_prompt"] == pytest.approx(read)
    assert spent["discarded"] >= 4 * 3
    assert {"ltpo/start", "ltpo/reward", "ltpo/step"} <= found.result.metrics.keys()
    plain = Run("ltpo", replace(SMALL, steps=0), ENV, run.model, CHAINS, device="cpu")
    without = evaluate(plain.make_agent(), policy, run.env_id, run.make_env(2), limit=5)
    assert without.result.flops_per_answer < found.result.flops_per_answer
    # Rows that fit at once change nothing.
    other = evaluate(run.make_agent(), policy, run.env_id, run.make_env(5), limit=5)
    assert [r["answer"] for r in other.rollouts] == [r["answer"] for r in found.rollouts]


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_more_vectors_than_the_model_has_positions_are_refused_before_the_search(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, _ = setting()
    lm = load_model(f"tiny:{arch}:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    agent = LTPO(replace(SMALL, k=lm.max_positions))
    monkeypatch.setattr("latentgym.agents.ltpo.search", lambda *given: pytest.fail("it searched"))
    with pytest.raises(UsageError, match=r"vectors and .* do not fit .* or give fewer vectors"):
        evaluate(agent, agent.policy(lm, acting=True), ENV, env, limit=2)


@pytest.mark.parametrize("given", [{"lr": 1e38}, {"sigma": 1e39, "keep": "candidate"}])
def test_a_search_that_leaves_all_numbers_says_so(given: dict[str, Any]) -> None:
    env, policy = setting()
    c = replace(SMALL, **{"keep": "last", **given})
    with pytest.raises(UsageError, match="--sigma and --lr lower"):
        search(policy, prompts(env, 1), np.arange(1), c, 0)


def test_what_cannot_be() -> None:
    env, policy = setting()
    with pytest.raises(UsageError, match="--filler"):
        search(policy, prompts(env, 1), np.arange(1), replace(SMALL, filler=10_000), 0)
