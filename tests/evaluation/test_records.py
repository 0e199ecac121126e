"""What an evaluation writes is what docs/records.md says, whoever answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.evaluation.answers import KEEP_THOUGHTS
from latentgym.evaluation.journal import JOURNAL
from latentgym.evaluation.results import Result, load_result, load_rollouts
from latentgym.rollout.rollouts import MOST_STEPS
from latentgym.rollout.thoughts import SEGMENTS
from latentgym.system.sealed import UnverifiedWarning
from latentgym.text.lengths import MOST_CHARS

DOCS = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
RUNS: dict[str, list[str]] = {
    "mixture": ["mts-grpo", "latent/MNNS-continuous"],
    "token": ["cot", "latent/MNNS-token"],
    "gated": ["hrpo", "latent/MNNS-hybrid"],
    "vote": [*("cot", "latent/MNNS-token", "--samples", "3", "--temperature", "1")],
    "control": ["mts-grpo", "latent/MNNS-continuous", "--control", "noise"],
    "search": ["best-of-n", "latent/MNNS-token", "--reward", "psrm"],
    "latents": ["latentseek", "latent/MNNS-token", "--reward", "constant", "--iterations", "2"],
    "hidden": ["coconut", "latent/MNNS-hybrid"],
}


def evaluated(out: Path, *argv: str) -> tuple[Result, list[dict[str, Any]]]:
    words = ["eval", *argv, "--model", "tiny:gpt2:1x1x16", "--limit", "3", "--out", str(out)]
    assert main(words) == 0
    return load_result(out), list(load_rollouts(out))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Result, Any]]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: evaluated(folder / name, *argv) for name, argv in RUNS.items()}


def told(heading: str) -> set[str]:
    """The keys in the table below a heading."""
    section = re.split(r"^#+ ", DOCS.partition(f"# {heading}\n")[2], flags=re.M)[0]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for first in firsts for key in re.findall(r"`([^`]+)`", first)}


def test_every_key_is_documented(runs: dict[str, Any], tmp_path: Path) -> None:
    evaluated(tmp_path / "run", *RUNS["token"])
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert told("result.json") == set(record)
    rollouts = [rollout for _, found in runs.values() for rollout in found]
    assert told("rollouts.jsonl.gz") == {key for rollout in rollouts for key in rollout}
    steps = [step for rollout in rollouts for step in rollout["steps"]]
    assert told("steps") == {key for step in steps for key in step}
    assert told("segments") == set(SEGMENTS)
    bounds = f"first {MOST_STEPS} thoughts", f"{MOST_CHARS:,} characters", f"{KEEP_THOUGHTS} by"
    assert all(bound in DOCS for bound in bounds)


@pytest.mark.parametrize("name", RUNS)
def test_an_answer_is_told_thought_by_thought(name: str, runs: dict[str, Any]) -> None:
    result, rollouts = runs[name]
    for rollout in rollouts:
        steps, kinds = rollout["steps"], [each["kind"] for each in rollout["segments"]]
        assert len(steps) == rollout["n_thoughts"] == 3
        for step in steps:
            assert len(step["ids"]) == len(step["tokens"]) == len(step["weights"]) > 0
            assert step["weights"] == sorted(step["weights"], reverse=True)
        assert kinds == ["thought", "answer"][: len(kinds)] and kinds
        texts = {each["kind"]: each["text"] for each in rollout["segments"]}
        assert texts["thought"] == rollout["thoughts"]
        assert texts.get("answer", "") == rollout["answer"]
        assert rollout["truncated"] is False and len(rollout["prompt_hash"]) == 16
        assert rollout["question"].startswith("D")
    assert result.metrics["truncated"] == 0
    own = {"token": {1}, "vote": {1}, "search": {1}, "latents": {1}}
    assert {len(s["ids"]) for r in rollouts for s in r["steps"]} == own.get(name, {KEEP_THOUGHTS})


def test_so_many_tokens_are_kept_as_one_asks_for_and_nothing_else_changes(
    runs: dict[str, Any], tmp_path: Path
) -> None:
    result, rollouts = runs["mixture"]
    for most in (0, 2):
        other, found = evaluated(
            tmp_path / str(most), *RUNS["mixture"], "--keep-thoughts", str(most)
        )
        for one, whole in zip(found, rollouts, strict=True):
            steps = whole["steps"] if most else []
            cut = ("ids", "tokens", "weights")
            assert one.pop("steps") == [
                {key: value[:most] if key in cut else value for key, value in step.items()}
                for step in steps
            ]
            assert one == {key: value for key, value in whole.items() if key != "steps"}
        assert (other.accuracy, other.metrics, other.n) == (
            result.accuracy,
            result.metrics,
            result.n,
        )
    assert main(["eval", *RUNS["token"], "--keep-thoughts", "51"]) == 2


def test_the_command_is_the_one_that_was_given(tmp_path: Path) -> None:
    out = tmp_path / "a run"
    result, _ = evaluated(out, *RUNS["control"])
    line = f"latentgym eval {' '.join(RUNS['control'])} --model tiny:gpt2:1x1x16 --limit 3"
    assert result.command == line, "all but where it is kept"


def test_a_journal_from_before_is_gone_on_with(tmp_path: Path, monkeypatch: Any) -> None:
    """Its answers have no steps, and nobody said whether they were truncated."""
    from latentgym.evaluation import journal

    new = ("steps", "segments", "truncated", "prompt_hash")
    whole = journal.asdict
    with monkeypatch.context() as patch:
        patch.setattr(
            journal, "asdict", lambda a: {k: v for k, v in whole(a).items() if k not in new}
        )
        patch.setattr("latentgym.evaluation.evaluate._metrics", interrupted)
        words = ["--model", "tiny:gpt2:1x1x16", "--out", str(tmp_path / "run"), "--batch", "2"]
        assert main(["eval", *RUNS["token"], "--limit", "2", *words]) == 130
    assert (tmp_path / "run" / JOURNAL).exists()
    assert main(["eval", *RUNS["token"], "--limit", "2", *words, "--resume"]) == 0
    for rollout in load_rollouts(tmp_path / "run"):
        assert (rollout["steps"], rollout["segments"], rollout["truncated"]) == ([], [], None)
    assert "truncated" not in load_result(tmp_path / "run").metrics


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_a_record_from_before_has_no_command(tmp_path: Path, changed: Any) -> None:
    evaluated(tmp_path / "run", *RUNS["token"])
    changed(tmp_path / "run" / "result.json", lambda data: data.pop("command"), older=True)
    with pytest.warns(UnverifiedWarning):
        assert load_result(tmp_path / "run").command == ""
