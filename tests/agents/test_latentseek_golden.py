"""LatentSeek, batched and behind caches, tries what the plain loop tries, token by token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch

from latentgym.agents.latentseek import LatentSeek, LatentSeekConfig
from latentgym.agents.search import Try, VerifierConfig, verifiers
from latentgym.cli.benches.plain_latentseek import Chain, PlainLatentSeek
from latentgym.data import Question
from latentgym.envs import Demonstration, LatentEnv, Task, ToolCall
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.text.tokenizers import ByteTokenizer

QUESTIONS = [5, 0, 3, 8, 1]
ROWS = 3


class Riddles(Task):
    """One completion in three is right, and thinking ends in many ways.

    Options: `force` asks for an answer where the mark is missing, `asks` has the environment speak
    after one id in nine.
    """

    name, source, dataset_hash, licence = "Riddles", "generated", "0" * 16, "none"
    split, prompt_budget = "test", 32

    def __init__(self, name: str, family: Any, tokenizer: Any, options: Any) -> None:
        super().__init__(family, ByteTokenizer())
        self.force, self.asks = options.get("force", False), options.get("asks", False)

    def __len__(self) -> int:
        return 12

    def question(self, index: int) -> Question:
        return Question("who? " * (1 + index % 4) + chr(97 + index), str(index))

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.encode(self.question(index).text)

    def protocol(self) -> Protocol:
        def every(n: int, rest: int) -> StopMatcher:
            return StopMatcher("#", ["#" if i % n == rest else "-" for i in range(259)])

        return Protocol(
            think=Budget(20),
            answer=Budget(6),
            marker=every(40, 7),
            tool_call=every(9, 1) if self.asks else None,
            max_tool_response=2,
            eos=(*range(4, 240, 40), 258),
            forced_prompt=(65, 66),
            force_answer=self.force,
        )

    def tool_responses(self, calls: Sequence[ToolCall]) -> list[list[int]]:
        return [[97 + call.index] * (1 + len(call.text) % 2) for call in calls]

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        drawn = crc32(f"{index} {completion}".encode())
        score, kept = float(drawn % 3 == 0), float(drawn % 5 > 0)
        return Grade(score, answer, "ok", {"correct": score, "format": kept})

    def demonstration(self, index: int) -> Demonstration:
        return Demonstration.of_tokens([7, 48, 4], thoughts=1)


@pytest.fixture(scope="module", autouse=True)
def riddles(registered: Callable[..., Any]) -> Iterator[None]:
    with registered("Riddles", Riddles):
        yield


@pytest.fixture
def babble(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model says neither true nor false, nor the mark: let other text count as such."""
    monkeypatch.setattr(verifiers, "VERDICT_TOKENS", 3)
    monkeypatch.setattr(verifiers, "verdict", lambda text: sum(map(ord, text)) % 3 > 0)


Both = list[tuple[list[Try], list[Chain]]]


def search(
    lm: Any,
    config: LatentSeekConfig,
    *,
    task: str = "Riddles",
    questions: Sequence[int] = QUESTIONS,
    rows: int = ROWS,
    cached: bool = False,
    **options: Any,
) -> Both:
    """Search both ways, and compare; what was tried of each question."""
    agent, tries = LatentSeek(config), defaultdict[int, list[Try]](list)
    agent.watch = lambda each, _: tries[each.attempt.index].append(each)
    env = make_vector_env(f"latent/{task}-token", rows, **options)
    policy = agent.policy(lm, acting=True)
    answers = agent.answer(policy, env, np.array(questions), 0, lambda _: None)

    single = LatentEnv(task, "token", **options)
    plain = PlainLatentSeek(lm, single, config, cached_verifiers=cached)
    both = []
    for index, answer in zip(questions, answers, strict=True):
        chains, ours = plain.search(index), tries[index]
        assert answer.metrics["search/iterations"] == len(chains) - 1
        for iteration, chain in enumerate(chains):
            # What a step leaves as it was is not tried again by ours.
            each = [t for t in ours if t.iteration <= iteration][-1]
            assert each.attempt.token_T.tolist() == chain.tokens, (index, iteration)
            assert each.verdict.reward == pytest.approx(chain.reward, abs=1e-4)
        assert answer.info == plain.answer(chains).info
        both.append((ours, chains))
    return both


def rewards(both: Both) -> set[float]:
    return {round(chain.reward, 3) for _, chains in both for chain in chains}


def kept(both: Both) -> int:
    """How many steps changed nothing."""
    return sum(len(chains) - len(tries) for tries, chains in both)


def changed(both: Both) -> int:
    """How many steps changed something."""
    return sum(len(tries) - 1 for tries, _ in both)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
def test_decoding_is_that_of_transformers(random_lm: Callable[..., Any], arch: str) -> None:
    lm, env = random_lm(arch), LatentEnv("Riddles", "token")
    plain = PlainLatentSeek(lm, env, LatentSeekConfig(reward="constant", iterations=0))
    for index in QUESTIONS:
        (chain,) = plain.search(index)
        ids = torch.tensor([env.prompt(index)])
        with torch.no_grad():
            out = lm.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                use_cache=False,
                max_new_tokens=len(chain.tokens),
                eos_token_id=None,
                pad_token_id=256,
            )
        assert out[0, ids.shape[1] :].tolist() == chain.tokens
    assert len(chain.tokens) > 1


@pytest.mark.parametrize(
    ("arch", "lr"),
    [
        ("qwen2", 0.3),
        pytest.param("gpt2", 0.03, marks=pytest.mark.thorough),
        *(pytest.param("llama", lr, marks=pytest.mark.thorough) for lr in (0.003, 0.03, 0.3)),
    ],
)
def test_the_oracle(random_lm: Callable[..., Any], arch: str, lr: float) -> None:
    both = search(random_lm(arch), LatentSeekConfig(reward="psrm", lr=lr, ratio=0.4))
    assert rewards(both) == {0.0, -1.0}
    assert changed(both)
    assert lr > 0.1 or kept(both)


@pytest.mark.parametrize(
    "settings",
    [
        {"ratio": 1.0, "keep": "best"},
        {"ratio": 0.0},
        *(
            pytest.param(settings, marks=pytest.mark.thorough)
            for settings in (
                {"ratio": 0.3, "start": 0.4},
                {"ratio": 1.0, "most": 2, "grad_clip": 1e-3},
                {"ratio": 0.5, "iterations": 0},
            )
        ),
    ],
    ids=str,
)
def test_settings(random_lm: Callable[..., Any], settings: dict[str, Any]) -> None:
    config = LatentSeekConfig(**{"reward": "constant", "lr": 0.1, "iterations": 6, **settings})
    both = search(random_lm("llama"), config)
    assert (changed(both) > 20) == (config.iterations * config.ratio > 0)


@pytest.mark.parametrize(
    "options",
    [
        {"force": True},
        *(
            pytest.param(options, marks=pytest.mark.thorough)
            for options in ({"asks": True}, {"force": True, "asks": True})
        ),
    ],
)
def test_the_environment_speaks(random_lm: Callable[..., Any], options: dict[str, Any]) -> None:
    config = LatentSeekConfig(reward="psrm", lr=0.2, ratio=0.7, iterations=6)
    both = search(random_lm("qwen2"), config, **options)
    assert any(not t.attempt.own_T.all() for tries, _ in both for t in tries)


@pytest.mark.thorough
def test_confidence(random_lm: Callable[..., Any]) -> None:
    config = LatentSeekConfig(
        reward="confidence", lr=1.0, ratio=0.4, iterations=6, threshold=-0.3, keep="best"
    )
    both = search(random_lm("llama"), config)
    assert len(rewards(both)) > 10
    # Decoded again, an answer that a step leaves as it was would have fewer tokens to be sure of.
    assert not kept(both)


JUDGED_BY = [("llama", "F"), ("gpt2", "|"), ("qwen2", "\t")]
JUDGING = [(0, True, False), (5, True, True), (5, False, False)]


@pytest.mark.usefixtures("babble")
@pytest.mark.parametrize(
    ("arch", "marker", "tokens", "forced", "cached"),
    [
        pytest.param(*by, *how, marks=[] if i == j == 0 else [pytest.mark.thorough])
        for i, by in enumerate(JUDGED_BY)
        for j, how in enumerate(JUDGING)
    ],
)
def test_verifiers(
    random_lm: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arch: str,
    marker: str,
    tokens: int,
    forced: bool,
    cached: bool,
) -> None:
    monkeypatch.setattr(verifiers, "MARKER", marker)  # these models write it often, but not always
    judge = VerifierConfig(tokens=tokens, forced=forced, format=1.0)
    config = LatentSeekConfig(
        verifier=judge, threshold=-0.1, lr=0.05, ratio=0.5, iterations=3, keep="best"
    )
    both = search(random_lm(arch), config, questions=QUESTIONS[:4], cached=cached)
    assert len(rewards(both)) > 2


@pytest.mark.usefixtures("babble")
@pytest.mark.thorough
def test_word_problems(random_lm: Callable[..., Any]) -> None:
    config = LatentSeekConfig(verifier=VerifierConfig(tokens=2), lr=0.05, iterations=2)
    budgets = {"source": "sample", "think": 24, "answer": 6, "force_answer": True}
    both = search(random_lm("llama"), config, task="GSM8K", questions=[4, 0, 2], rows=2, **budgets)
    assert changed(both)
