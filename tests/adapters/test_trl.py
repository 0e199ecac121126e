"""TRL's own trainer takes our questions, rewards and searches."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import get_json_schema

from latentgym.adapters.trl import ForGRPO, SearchEnvironment, for_search, said
from latentgym.errors import UsageError
from latentgym.lm.zoo import describe

MATHS: dict[str, Any] = {"source": "sample", "limit": 4}
SEARCH: dict[str, Any] = {"source": "sample", "engine": "bm25s", "passages": 1, "turns": 2}


def trained(adapter: ForGRPO, folder: Path, **more: Any) -> Any:
    """A trainer of a tiny model with SmolLM2's vocabulary and template, behind one step."""
    tokenizer: Any = describe("smollm2-135m").tokenizer
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=tokenizer.eos_id,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import GRPOConfig, GRPOTrainer

        trainer = GRPOTrainer(
            model=LlamaForCausalLM(config),
            reward_funcs=adapter.rewards,
            train_dataset=adapter.dataset(),
            processing_class=tokenizer.hf,
            args=GRPOConfig(
                output_dir=str(folder),
                max_steps=1,
                per_device_train_batch_size=2,
                num_generations=2,
                max_completion_length=4,
                use_cpu=True,
                bf16=False,
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
            ),
            **more,
        )
        trainer.train()
    return trainer


def test_its_trainer_takes_a_step(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        trainer = trained(ForGRPO("latent/GSM8K-token", **MATHS), tmp_path)
    logged = next(entry for entry in trainer.state.log_history if "reward" in entry)
    assert logged["reward"] == 0 and "rewards/score/mean" in logged


def test_rewards_are_the_tasks() -> None:
    adapter = ForGRPO("latent/GSM8K-token", **MATHS)
    (score,) = adapter.rewards
    rows = adapter.dataset()
    right = [adapter.task.gold_completion(i)[0] for i in rows["index"]]
    given = {"prompts": rows["prompt"], "index": rows["index"], "trainer_state": None}
    assert score(completions=right, **given) == [1.0] * 4
    chat = [[{"role": "assistant", "content": text}] for text in right]
    assert score(completions=chat, **given) == [1.0] * 4
    assert score(completions=right[1:] + right[:1], **given) == [0.0] * 4
    assert rows["answer"][0] == adapter.task.question(0).gold


def test_what_a_completion_says() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": []}
    last = {"role": "assistant", "content": "#### 3"}
    assert said([call, {"role": "tool", "content": "x"}, last]) == "#### 3"
    assert said([call]) == "" and said([]) == "" and said("#### 3") == "#### 3"
    picture = {"type": "image"}
    parts = [{"type": "text", "text": "#### "}, picture, {"type": "text", "text": "3"}]
    assert said([call, {"role": "assistant", "content": parts}]) == "#### 3"
    assert said([{"role": "assistant", "content": [picture]}]) == said([{"content": "x"}]) == ""
    assert said(None) == said([{"role": "assistant"}]) == "" and said(last) == "#### 3"
    for completion in (3, ["#### 3"], [None], {3}):
        with pytest.raises(UsageError, match="a text or a list of messages, not"):
            said(completion)


def test_a_model_searches_as_with_a_tool() -> None:
    adapter = for_search("latent/NQ-token", **SEARCH)
    environment = adapter.environment()
    assert isinstance(environment, SearchEnvironment)
    environment.reset(**adapter.dataset()[0])
    found = [environment.search(adapter.task.question(0).text) for _ in range(3)]
    assert "<information>" in found[0] and "last search" in found[1]
    assert found[2] == "That was the last search; answer now."
    environment.reset()
    assert environment.search("moon") != found[2]
    environment.reset()
    number: Any = 1912  # what models write is not always a text
    assert environment.search(number) != found[2]
    assert "tool" in adapter.messages(0)[0]["content"]
    with pytest.raises(UsageError, match="nothing to search in GSM8K"):
        _ = ForGRPO("latent/GSM8K-token", **MATHS).environment


def test_its_tool_has_a_schema_that_models_read() -> None:
    environment = for_search("latent/NQ-token", **SEARCH).environment()
    told = get_json_schema(environment.search)["function"]
    assert told["name"] == "search" and told["parameters"]["required"] == ["query"]
    public = [name for name in vars(SearchEnvironment) if not name.startswith("_")]
    assert public == ["reset", "search"]  # all but `reset` is a tool


def test_columns_of_ones_own_data_reach_reward_functions(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows: list[dict[str, Any]] = [{"question": "1 + 1?", "answer": "2", "level": 3}]
    rows.append({"question": "1 + 2?", "answer": "3", "note": "easy"})
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    options = {"data": str(path), "grader": "number", "split": "train", "holdout": 0}
    given = ForGRPO("latent/Custom-token", **options).dataset()
    assert given.column_names == ["prompt", "index", "question", "answer", "level", "note"]
    assert given["level"] == [3, None] and given["note"] == [None, "easy"]
    path.write_text(json.dumps({**rows[0], "index": 7}) + "\n")
    with pytest.raises(UsageError, match="column index"):
        ForGRPO("latent/Custom-token", **options).dataset()
