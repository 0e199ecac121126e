"""A small model with a tokenizer on disk, a task of many turns, and stand-ins for vLLM's engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch

from latentgym.data import Question
from latentgym.envs import Demonstration, Task, ToolCall
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.lm import LatentLM, load_model
from latentgym.rewards import Grade

VOCAB = 264  # more than the tokenizer has, as in many models
EOS = 257


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama over bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("bytes")
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<unk>", "</s>"]
    raw = Tokenizer(models.BPE({s: i for i, s in enumerate(symbols)}, [], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def lm(folder: str) -> LatentLM:
    model: LatentLM = load_model(folder, dtype="float32", device="cpu")
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer(folder: str) -> Any:
    """As OpenRLHF loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def every(n: int, rest: int) -> StopMatcher:
    return StopMatcher("#", ["#" if i % n == rest else "a" for i in range(VOCAB)])


class Talking(Task):
    """One id in six is a call, to which the environment replies with one to three tokens."""

    name, source, dataset_hash, licence = "Talking", "generated", "0" * 16, "none"
    split, prompt_budget = "test", 16

    def __init__(self, name: str, family: Any, tokenizer: Any, options: Any) -> None:
        super().__init__(family, tokenizer)

    def __len__(self) -> int:
        return 5

    def question(self, index: int) -> Question:
        return Question("why? " * (1 + index % 3), str(index))

    def prompt(self, index: int) -> list[int]:
        return self.tokenizer.encode(self.question(index).text)

    def protocol(self) -> Protocol:
        return Protocol(
            think=Budget(20),
            answer=Budget(6),
            marker=every(30, 0),
            stop=every(15, 2),
            tool_call=every(6, 1),
            max_tool_response=3,
            eos=(EOS,),
            forced_prompt=(65, 66),
        )

    def tool_responses(self, calls: Sequence[ToolCall]) -> list[list[int]]:
        return [[70 + call.index] * (1 + len(call.text) % 3) for call in calls]

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        score = len(completion) % 7 / 7
        return Grade(score, answer, "ok" if answer else "no_answer", {"correct": score})

    def demonstration(self, index: int) -> Demonstration:
        raise NotImplementedError


@pytest.fixture(scope="package", autouse=True)
def talking(registered: Callable[..., Any]) -> Iterator[None]:
    with registered("Talking", Talking):
        yield


def params(max_tokens: int | None = None, logprobs: int | None = 1) -> SimpleNamespace:
    """vLLM's sampling parameters, as far as an executor looks at them."""
    return SimpleNamespace(max_tokens=max_tokens, logprobs=logprobs)


class SamplingEngine:
    """Writes with a model as vLLM does: to its end of sequence, or as far as it may."""

    def __init__(self, lm: LatentLM, seed: int) -> None:
        self.lm, self.generator = lm, torch.Generator().manual_seed(seed)
        self.running, self.most_running = 0, 0

    async def generate(self, token_ids: Sequence[int], params: Any) -> Any:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        ids, log_probs = list(token_ids), []
        for _ in range(params.max_tokens):
            with torch.inference_mode():
                x = self.lm.embed(torch.tensor([ids]))
                hidden = self.lm.hidden(x, torch.ones(1, len(ids), dtype=torch.bool))
                logp = self.lm.logits(hidden[0, -1]).log_softmax(-1)
            token = int(torch.multinomial(logp.exp(), 1, generator=self.generator))
            ids.append(token)
            log_probs.append({token: SimpleNamespace(logprob=float(logp[token]))})
            await asyncio.sleep(0)
            if token == EOS:
                break
        self.running -= 1
        return written(ids[len(token_ids) :], log_probs)


class ScriptedEngine:
    """Writes what it is told to, and remembers what it was asked."""

    def __init__(self, *texts: Sequence[int]) -> None:
        self.texts, self.asked = list(texts), list[tuple[list[int], int]]()

    async def generate(self, token_ids: Sequence[int], params: Any) -> Any:
        self.asked.append((list(token_ids), params.max_tokens))
        return written(self.texts.pop(0)[: params.max_tokens], None)


def written(tokens: Sequence[int], log_probs: Any) -> Any:
    """As much of vLLM's output as an executor looks at."""
    return SimpleNamespace(outputs=[SimpleNamespace(token_ids=list(tokens), logprobs=log_probs)])


@pytest.fixture
def engines() -> Any:
    return SimpleNamespace(Sampling=SamplingEngine, Scripted=ScriptedEngine, params=params)


@pytest.fixture
def by_hand(folder: str) -> Callable[..., Any]:
    """Steps an environment through the actions of an executor's answer, token by token."""

    def play(env_id: str, index: int, episode: Any, **options: Any) -> Any:
        env = gym.make(env_id, model=folder, **options).unwrapped
        observation, _ = env.reset(options={"index": index})
        tokens = observation["prompt"][: observation["prompt_length"]].tolist()
        tokens += observation["inserted"][: observation["inserted_length"]].tolist()
        result: Any = None
        for start, end in episode["action_ranges"]:
            for token in episode["observation_tokens"][start:end]:
                result = env.step(token)
                observation = result[0]
                inserted = observation["inserted"][: observation["inserted_length"]]
                tokens += [token, *inserted.tolist()]
        return tokens, *result[1:]

    return play
