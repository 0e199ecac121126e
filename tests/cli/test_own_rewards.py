"""Reward functions of the user's own on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentgym.cli.main import main
from latentgym.evaluation.results import load_result

TRAIN = [
    *("train", "cot", "latent/MNNS-token", "--model", "tiny:gpt2:1x1x8", "--preset", "grpo-tiny"),
    *("--grpo.prompts", "4", "--grpo.group-size", "2", "--steps", "2", "--eval-limit", "8"),
]
MODULE = """
def place(index, answer, **more):
    print("to people")
    return [float(i) for i in range(len(index))]

async def chat(completions):
    return [float(len(completion[0]["content"]) > 0) for completion in completions]

def fails(index):
    raise LookupError("no judge")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_rewards_of_test.py").write_text(MODULE)
    yield
    sys.modules.pop("my_rewards_of_test", None)


def named(*specs: str) -> list[str]:
    return [word for spec in specs for word in ("--reward", f"my_rewards_of_test:{spec}")]


def logged(out: str) -> dict[str, float]:
    line: dict[str, float] = json.loads(Path(out, "metrics.jsonl").read_text().splitlines()[-1])
    return line


def test_a_run_is_paid_by_them(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*TRAIN, *named("place=0.5", "chat"), "--reward", "task=2", "--json", "--out", "a"]
    assert main([*argv, "--grpo.completions", "messages"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["accuracy"] is not None and "to people" in err
    line = logged("a")
    assert line["reward/place"] == 3.5
    total = 0.5 * 3.5 + line["reward/chat"] + 2 * line["reward/task"]
    assert line["reward/score"] == pytest.approx(total)
    result = load_result(Path("a"))  # whose accuracy is the grader's
    assert 0 <= result.accuracy <= 1 and "return" not in result.metrics
    grpo = result.config["agent"]["grpo"]
    assert grpo["rewards"] == [*named("place=0.5", "chat")[1::2], "task=2"]
    # It goes on as it was started, and answers without its rewards.
    assert main([*argv, "--grpo.completions", "messages", "--steps", "3", "--resume"]) == 0
    Path("my_rewards_of_test.py").unlink()
    assert main(["eval", "cot", "latent/MNNS-token", "--checkpoint", "a", "--limit", "8"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--reward", "place"], "no reward 'place'; write module:function"),
        (named("place=lots"), "the weight of the reward my_rewards_of_test:place is nan"),
        (named("gone"), "has no 'gone'"),
        (["--reward", "no_module_of_test:f"], "there is no module 'no_module_of_test'"),
        (named("place", "place=2"), "is given twice"),
        ([*named("place"), "--grpo.reward", "perplexity"], "are for whole episodes"),
        (named("fails"), "the reward fails failed on question"),
        (named("chat"), "the reward chat failed on question"),
        ([*named("place"), "--stage", "sft"], "--grpo.rewards would have no effect"),
    ],
    ids=str,
)
def test_what_cannot_work_is_told_in_a_sentence(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, *words, "--out", "a"]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not Path("a", "checkpoints").exists()
