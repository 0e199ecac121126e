"""Runs to make pages of, with answers and thoughts, some of them hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentgym.evaluation.columns import Run
from latentgym.evaluation.results import Result, find_results

HOSTILE = (
    "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'> & \" ' {{ 7 }}"
)


def result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "agent": "cot",
        "env": "latent/GSM8K-token",
        "task": "GSM8K",
        "family": "token",
        "model": "tiny:llama",
        "checkpoint": None,
        "split": "test",
        "source": "data:gsm8k",
        "dataset_hash": "0" * 16,
        "n": 4,
        "seeds": [0],
        "accuracy": 0.5,
        "accuracy_ci95": [0.2, 0.8],
        "metrics": {"status/no_answer": 0.25},
        "thoughts_mean": 2.0,
        "tokens_mean": 1.0,
        "latent_share": 0.0,
        "forward_positions": {"prompt": 10.0, "thought": 2.0},
        "flops_per_answer": 1e6,
        "wall_s": 1.0,
        "answers_per_s": 4.0,
        "device": "cpu",
        "control": None,
        "config": {"agent": {"temperature": 0.5}, "env_options": {"split": "test"}},
        "versions": {"latentgym": "0"},
        "git": "abc",
        "created": "2026-01-01T00:00:00",
    }
    return Result(**{**values, **changes})


def rollout(index: int, score: float, text: str = "so it is", **more: Any) -> dict[str, Any]:
    step = {"ids": [3, 4], "tokens": [" a", "b\n"], "weights": [0.75, 0.25]}
    return {
        "index": index,
        "seed": 0,
        "question": f"how many? {text}",
        "target": str(index),
        "thoughts": "a b",
        "completion": text,
        "answer": text,
        "parsed": text,
        "status": "ok",
        "score": score,
        "components": {"correct": score},
        "n_thoughts": 2,
        "n_tokens": 1,
        "steps": [{**step, "norm": 1.25, "entropy": 0.5, "gate": 0.9}, step],
        "truncated": False,
        "segments": [{"kind": "answer", "text": text}],
        "samples": [score],
        **more,
    }


def saver(root: Path) -> Callable[..., Path]:
    """`save("name", **changes)`: a run of four answers in a folder of that name, the last right."""

    def make(name: str, rollouts: Any = None, **changes: Any) -> Path:
        right = 4 - round(4 * changes.get("accuracy", 0.5))
        made = rollouts or [rollout(i, float(i >= right)) for i in range(4)]
        folder = root / "runs" / name
        result(**changes).save(folder, made)
        return folder

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    return saver(tmp_path)


@pytest.fixture
def found(tmp_path: Path) -> list[Run]:
    return runs_of_all_kinds(tmp_path)


def runs_of_all_kinds(root: Path) -> list[Run]:
    """A few runs: two methods, a control, one with a learning curve, one that is hostile."""
    save = saver(root)
    save("cot")
    soft = {"agent": "soft-thinking", "env": "latent/GSM8K-continuous", "family": "continuous"}
    save("soft", accuracy=0.75, accuracy_ci95=[0.4, 0.95], flops_per_answer=2e6, **soft)
    save("soft-zero", accuracy=0.25, accuracy_ci95=[0.1, 0.5], control="zero", **soft)
    trained = save("trained", task="MNNS", checkpoint="runs/start", accuracy=1.0)
    lines = [{"step": i, "reward/score": i / 10, "train/loss": 1 / (i + 1)} for i in range(10)]
    (trained / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers = [rollout(i, 0.0, HOSTILE) for i in range(4)]
    answers[0]["steps"][0]["tokens"] = [HOSTILE, "\x1b[31m"]
    hostile = {"model": HOSTILE, "git": HOSTILE, "source": "sample", "accuracy": 0.0}
    save("hostile", answers, accuracy_ci95=[0.0, 0.6], oracle=True, **hostile)
    return find_results([root / "runs"])
