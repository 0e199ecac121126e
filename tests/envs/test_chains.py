"""GSM8KAug with generated questions, in symbols and with a model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest

from latentgym.cli.main import main
from latentgym.envs.chains import ChainsTask
from latentgym.errors import UsageError
from latentgym.registry import FAMILY_NAMES
from latentgym.testing import EnvConformance, check_task
from latentgym.text.tokenizers import ByteTokenizer


def task(family: str = "token", **options: Any) -> Any:
    env = gym.make(f"latent/GSM8KAug-{family}", source="generated", **options)
    return env.unwrapped.task  # type: ignore[attr-defined]


for _family in FAMILY_NAMES:
    globals()[f"TestGenerated_{_family}"] = type(
        f"TestGenerated_{_family}",
        (EnvConformance,),
        {
            "env_id": f"latent/GSM8KAug-{_family}",
            "options": {"source": "generated", "size": 50, "think": 8},
        },
    )


def test_symbols_and_budgets() -> None:
    symbols = task()
    assert (symbols.source, symbols.tokenizer.name, len(symbols)) == ("generated", "symbols", 20000)
    assert len(symbols.dataset_hash) == 16
    rules, shown = symbols.protocol(), symbols.demonstration(0)
    written = symbols.tokenizer.decode(shown.ids_TS[:, 0].tolist())
    question = symbols.question(0)
    assert written == f"{' '.join(question.steps)} #### {question.gold}"
    # The longest chain and its answer fit, and an episode in latents opens the answer by itself.
    longest = [len(symbols.demonstration(i).ids_TS) for i in range(50)]
    assert max(longest) - 2 <= rules.think.steps == 32 and rules.answer.steps == 4
    forced_prompt = task("continuous").protocol().forced_prompt
    assert symbols.tokenizer.decode(forced_prompt) == "####"
    for text in ("( Thinking speed : 3 )", "Let's think step by step :"):
        assert symbols.tokenizer.decode(symbols.tokenizer.encode(text)) == text


def test_a_demonstration_is_a_right_episode() -> None:
    env: Any = gym.make("latent/GSM8KAug-token", source="generated", size=5).unwrapped
    env.reset(options={"index": 3})
    for token in env.task.demonstration(3).ids_TS[:, 0].tolist():
        _, reward, terminated, truncated, info = env.step(token)
    assert (reward, terminated, truncated, info["source"]) == (1.0, True, False, "generated")
    assert info["answer"] == info["target"] == env.task.question(3).gold


def test_a_models_tokenizer_reads_the_same_text() -> None:
    words = ChainsTask(task().family, ByteTokenizer(), size=20)
    assert words.question(4).text in words.tokenizer.decode(words.prompt(4))
    assert words.system and words.protocol().think.steps == 256
    assert words.question(4) == task(size=20).question(4)
    check_task(words)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_validate(split: str) -> None:
    argv = ["validate", "GSM8KAug-token", "-o", "source=generated", "--split", split]
    assert main([*argv, "--limit", "200"]) == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: task(split="dev"), "no split 'dev'"),
        (lambda: task(limit=51, size=50), "choose a limit from 1 to 50"),
        (lambda: task(max_operations=9), "from 1 to 4, not 9"),
        (lambda: task(format="boxed"), "hashes only"),
        (lambda: task(paths=3), "latent/GSM8KAug-token got an unexpected .*paths"),
        (lambda: gym.make("latent/GSM8KAug-token", size=3), "have size; add source=generated"),
        (lambda: gym.make("latent/GSM8K-token", source="generated"), "GSM8K cannot be generated"),
    ],
)
def test_bad_options(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        call()
