"""Searches as actions behind OpenRLHF's contract: what a stand-in for vLLM writes, and reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from latentgym.openrlhf.prompts import PromptRow

pytest.importorskip("openrlhf", reason="needs OpenRLHF")
pytestmark = pytest.mark.filterwarnings("ignore")  # of OpenRLHF's imports

from latentgym.openrlhf.token_agent import AgentExecutor

HOTPOT = "latent/HotpotQA-token"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "indexes"
    monkeypatch.setenv("LATENTGYM_CACHE", str(folder))


def test_two_searches_and_an_answer(
    folder: str, tokenizer: Any, engines: Any, by_hand: Callable[..., Any]
) -> None:
    options = {"source": "sample", "search": "action", "passages": 1, "engine": "bm25s"}
    row = PromptRow(HOTPOT, 3, {"model": folder, **options})
    import gymnasium as gym

    question = gym.make(HOTPOT, model=folder, **options).unwrapped.task.question(3)
    first, second = question.extra["queries"][:2]
    # What is written behind a search, before its passages are there, is dropped.
    engine = engines.Scripted(
        tokenizer.encode(f"<search> {first} </search> I guess"),
        tokenizer.encode(f"so <search> {second} </search> #### no"),
        tokenizer.encode(f"#### {question.gold}\n"),
    )
    answer = asyncio.run(
        AgentExecutor().execute(
            "text", row.label(), engines.params(logprobs=None), 4000, tokenizer, engine
        )
    )
    said = [tokenizer.decode(answer["observation_tokens"][a:b]) for a, b in answer["action_ranges"]]
    assert said == [
        f"<search> {first} </search>",
        f"so <search> {second} </search>",
        f"#### {question.gold}\n",
    ]
    assert (answer["reward"], answer["truncated"]) == (1.0, False)
    assert answer["extra_logs"]["turns"] == 3
    tokens, reward, *_ = by_hand(HOTPOT, 3, answer, **options)
    assert (answer["observation_tokens"], answer["reward"]) == (tokens, reward)
    # The model has read the first passage before it wrote its second search.
    read = tokenizer.decode(engine.asked[1][0])
    assert "<information>" in read.partition("</search>")[2] and "I guess" not in read
