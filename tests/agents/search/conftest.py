"""Attempts made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from latentgym.agents.search import Attempt
from latentgym.evaluation.accounting import Positions


@pytest.fixture
def attempt() -> Callable[..., Attempt]:
    """`attempt(solution, number=0, log_prob=0.0, **info)`: a solution in bytes, a wrong one."""

    def make(
        solution: str = "2 + 2 is 5", number: int = 0, log_prob: float = 0.0, **info: Any
    ) -> Attempt:
        token_T = np.frombuffer(solution.encode(), dtype=np.uint8).astype(np.int64)
        known = {
            "index": 0,
            "question": "What is 2 + 2?",
            "target": "4",
            "dataset": "Made",
            "source": "generated",
            "answer": solution,
            "completion": solution,
            "parsed": "5",
            "status": "ok",
            "score": 0.0,
            "thoughts": 3,
            "tokens": 1,
            "reward/correct": 0.0,
            "reward/format": 1.0,
            **info,
        }
        return Attempt(
            index=known["index"],
            number=number,
            info=known,
            token_T=token_T,
            own_T=np.ones(len(token_T), dtype=bool),
            thought_T=np.ones(len(token_T), dtype=bool),
            prefix=0,
            log_prob=log_prob,
            positions=Positions(prompt=10, thought=len(token_T)),
            context=10 + len(token_T),
            prompt_hash="",
            truncated=False,
        )

    return make
