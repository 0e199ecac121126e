"""Episodes behind OpenRLHF's contract, written by a stand-in for vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from latentgym.errors import PromptTooLongError, UsageError
from latentgym.heads import TokenHead
from latentgym.lm import LatentLM
from latentgym.openrlhf.prompts import PromptRow
from latentgym.rollout import Policy, StepKind

pytest.importorskip("openrlhf", reason="needs OpenRLHF")
pytestmark = pytest.mark.filterwarnings("ignore")  # of OpenRLHF's imports

from latentgym.openrlhf.token_agent import AgentExecutor

TALKING, GSM8K = "latent/Talking-token", "latent/GSM8K-token"
KEYS = {
    *("prompt", "label", "images", "mm_train_inputs", "observation_tokens", "action_ranges"),
    *("rollout_log_probs", "truncated", "reward", "scores", "extra_logs"),
}
LOGS = {
    *("thoughts", "tokens", "turns", "cut", "status/timeout", "status/too_long"),
    *("status/invalid", "status/refused", "status/no_answer"),
}


def ask(row: PromptRow, engine: Any, sampling: Any, tokenizer: Any, max_length: int = 999) -> Any:
    return AgentExecutor().execute("text", row.label(), sampling, max_length, tokenizer, engine)


def maths(folder: str, **more: Any) -> PromptRow:
    options = {"model": folder, "source": "sample", "think": 12, "answer": 8, **more}
    return PromptRow(GSM8K, 3, options)


def many(executor: Any, engine: Any, sampling: Any, tokenizer: Any, folder: str) -> list[Any]:
    """Eight episodes at once."""
    rows = [PromptRow(TALKING, i % 5, {"model": folder}) for i in range(8)]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(
            *[
                executor.execute("text", row.label(), sampling, 200, tokenizer, engine)
                for row in rows
            ]
        )

    return asyncio.run(all_at_once())


def replayed(lm: LatentLM, answer: Any) -> list[float]:
    """Log-probabilities of the actions in one pass, 0 elsewhere."""
    tokens = torch.tensor([answer["observation_tokens"]])
    kind = torch.full_like(tokens, StepKind.INSERTED)
    for start, end in answer["action_ranges"]:
        kind[:, start:end] = StepKind.TOKEN
    with torch.no_grad():
        logp, _ = Policy(lm, TokenHead())(tokens, kind, {})
    values: list[float] = logp[0].tolist()
    return values


def test_eight_episodes_at_once_are_those_of_the_environment(
    folder: str, lm: LatentLM, tokenizer: Any, engines: Any, by_hand: Callable[..., Any]
) -> None:
    engine = engines.Sampling(lm, seed=0)
    answers = many(AgentExecutor(), engine, engines.params(), tokenizer, folder)
    assert engine.most_running > 1
    for i, answer in enumerate(answers):
        tokens, reward, terminated, truncated, info = by_hand(TALKING, i % 5, answer)
        assert answer["observation_tokens"] == tokens
        assert (answer["reward"], answer["truncated"]) == (reward, truncated)
        assert answer["scores"] == reward == info["score"]
        assert terminated or truncated
        assert set(answer) == KEYS and set(answer["extra_logs"]) == LOGS
        assert answer["extra_logs"]["thoughts"] == info["thoughts"]
        assert answer["extra_logs"]["tokens"] == info["tokens"]
        assert answer["extra_logs"]["status/no_answer"] == (info["status"] == "no_answer")
        assert len(answer["rollout_log_probs"]) == len(tokens)
        assert answer["rollout_log_probs"] == pytest.approx(replayed(lm, answer), abs=1e-6)
    assert sum(answer["extra_logs"]["turns"] for answer in answers) > 12
    assert len({answer["reward"] for answer in answers}) > 2


@pytest.mark.cluster
def test_openrlhf_loads_it_and_trains_on_what_it_answers(
    folder: str, lm: LatentLM, tokenizer: Any, engines: Any
) -> None:
    from latentgym.openrlhf.shim import install

    install()
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    from openrlhf.trainer.ray.vllm_engine import _load_agent_executor

    path = Path(__file__).parents[3] / "latentgym" / "openrlhf" / "token_agent.py"
    executor = _load_agent_executor(str(path))
    answers = many(executor, engines.Sampling(lm, seed=1), engines.params(), tokenizer, folder)
    generator = SamplesGenerator.__new__(SamplesGenerator)
    for answer in answers:
        experience = generator._process_response_into_experience(answer, max_len=200)
        expected = torch.tensor(replayed(lm, answer))[None, 1:]
        torch.testing.assert_close(experience.rollout_log_probs, expected, atol=1e-6, rtol=0)
        acted = sum(end - start for start, end in answer["action_ranges"])
        assert int(experience.action_mask.sum()) == acted
        assert bool((expected[~experience.action_mask.bool()] == 0).all())
        assert experience.rewards.tolist() == pytest.approx([answer["reward"]])
        assert set(experience.info) > LOGS


def test_what_is_written_behind_the_end_is_dropped(
    folder: str, tokenizer: Any, engines: Any, by_hand: Callable[..., Any]
) -> None:
    row = maths(folder)
    gold = gym.make(GSM8K, **row.options).unwrapped.task.question(3).gold
    right = f"ok #### {gold}"
    engine = engines.Scripted(tokenizer.encode(right), tokenizer.encode("\nand more"))
    answer = asyncio.run(ask(row, engine, engines.params(logprobs=None), tokenizer))
    (start, end), *others = answer["action_ranges"]
    said = tokenizer.decode(answer["observation_tokens"][start:])
    assert said == f"{right}\n"
    assert not others and end == len(answer["observation_tokens"])
    assert answer["rollout_log_probs"] is None
    assert not answer["truncated"]
    # vLLM stopped once where the environment had nothing to say: it went on, in the same stretch.
    assert [len(asked) for asked, _ in engine.asked] == [start, start + len(right)]
    assert [room for _, room in engine.asked] == [12 + 8, 8 - len(f" {gold}")]
    tokens, reward, *_ = by_hand(GSM8K, 3, answer, source="sample", think=12, answer=8)
    assert (answer["observation_tokens"], answer["reward"]) == (tokens, reward)
    assert reward == 1.0


@pytest.mark.parametrize("bound", ["max_length", "max_tokens"])
def test_an_episode_without_room_is_cut_and_not_graded(
    bound: str, folder: str, tokenizer: Any, engines: Any
) -> None:
    row, right = maths(folder), tokenizer.encode("ok #### 5\n")
    prompt = len(gym.make(GSM8K, **row.options).unwrapped.prompt(3))

    def cut_at(tokens: int) -> Any:
        by_length = bound == "max_length"
        sampling = engines.params(None if by_length else tokens, logprobs=None)
        longest = prompt + tokens if by_length else 9999
        engine = engines.Scripted(right[:4], right[4:])
        return asyncio.run(ask(row, engine, sampling, tokenizer, longest))

    short, whole = cut_at(len(right) - 1), cut_at(len(right))
    assert short["action_ranges"] == [(prompt, prompt + 9)]
    assert short["truncated"] and (short["reward"], short["extra_logs"]["cut"]) == (0.0, 1.0)
    assert not whole["truncated"] and whole["extra_logs"]["cut"] == 0.0
    assert set(short["extra_logs"]) == set(whole["extra_logs"]) == LOGS


def test_a_reply_that_does_not_fit_cuts_the_episode(
    folder: str, tokenizer: Any, engines: Any
) -> None:
    row = PromptRow(TALKING, 0, {"model": folder})
    call = 7  # its reply has two tokens
    prompt = len(gym.make(TALKING, model=folder).unwrapped.prompt(0))
    for room, said in ((2, 0), (3, 2)):
        engine = engines.Scripted([call, 8])
        sampling = engines.params(logprobs=None)
        answer = asyncio.run(ask(row, engine, sampling, tokenizer, prompt + room))
        assert answer["action_ranges"] == [(prompt, prompt + 1)]
        assert answer["observation_tokens"][prompt:] == [call, *[70] * said]
        assert answer["truncated"] and answer["extra_logs"]["cut"] == 1.0


def test_a_prompt_that_leaves_no_room_is_refused(folder: str, tokenizer: Any, engines: Any) -> None:
    with pytest.raises(PromptTooLongError, match="max_len, which is 20"):
        asyncio.run(ask(maths(folder), engines.Scripted(), engines.params(), tokenizer, 20))


def test_nothing_written_is_an_error(folder: str, tokenizer: Any, engines: Any) -> None:
    with pytest.raises(RuntimeError, match="wrote no token"):
        asyncio.run(ask(maths(folder), engines.Scripted([]), engines.params(), tokenizer))


def test_the_models_vocabulary_must_be_the_environments(
    folder: str, tokenizer: Any, engines: Any, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    other = type(tokenizer).from_pretrained(tmp_path)
    other.add_tokens(["<new>"])
    with pytest.raises(UsageError, match=f"--model {tmp_path}"):
        asyncio.run(ask(maths(folder), engines.Scripted(), engines.params(), other))
    symbols = PromptRow("latent/MNNS-token", 0, {"model": "tiny"})
    with pytest.raises(UsageError, match="vocabulary of symbols"):
        asyncio.run(ask(symbols, engines.Scripted(), engines.params(), tokenizer))


def test_other_data_than_the_prompts_were_written_for_is_refused(
    folder: str, tokenizer: Any, engines: Any
) -> None:
    row = PromptRow(GSM8K, 0, maths(folder).options, data="f" * 16)
    with pytest.raises(UsageError, match="LATENTGYM_DATA"):
        asyncio.run(ask(row, engines.Scripted(), engines.params(), tokenizer))
