"""Every environment id fulfils the conformance kit that we ship."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from latentgym.data.recommendation import THINGS
from latentgym.registry import FAMILY_NAMES, TASKS
from latentgym.testing import EnvConformance

_SHORT = {"think": 8, "answer": 4}
_SAMPLE = {**_SHORT, "source": "sample"}
_WITH_PROCESSES = (
    "GSM8K-hybrid",
    "MNNS-continuous",
    "AmazonCDs-token",
    "RG_sudoku-token",
)
_RETRIEVAL = ("NQ", "TriviaQA", "HotpotQA", "2WikiMultihopQA", "Bamboogle")
# A few of Reasoning Gym's hundred: plain, of several lines, with a memory of bad answers.
_REASONING_GYM = ("RG_chain_sum", "RG_sudoku", "RG_prime_factorization", "RG_knights_knaves")


def _options(task: str) -> dict[str, Any]:
    if task == "MNNS":
        return {"limit": 200}
    if task in ("ProsQA", "ProntoQA"):
        return {"size": 50}
    if task in _RETRIEVAL:  # one of them with Lucene, which takes seconds to start
        return {**_SAMPLE, "engine": "lucene" if task == "NQ" else "bm25s"}
    if task in THINGS:  # their answers are as long as titles are
        return {"source": "sample", "think": 2, "limit": 60}
    return {**_SHORT, "size": 20} if task.startswith("RG_") else _SAMPLE


# Tasks that are read and graded as one of the others is: of each, one family is enough, or none.
_KIN: dict[str, str | None] = {
    **dict.fromkeys(("GSM8KAug", "GSMHard", "SVAMP", "MultiArith"), "hybrid"),
    **dict.fromkeys(("MATH500", "AIME2024", "AIME2025"), "token"),
    "NQ": "token",
    "HotpotQA": "hybrid",
    **dict.fromkeys(("TriviaQA", "2WikiMultihopQA", "Bamboogle"), None),
    **dict.fromkeys(("AmazonOffice", "AmazonIndustrial"), "token"),
}

for _task, _family in [
    # Questions of a user's own are tested beside the files that they are in.
    *product((t for t in TASKS if not t.startswith("RG_") and t != "Custom"), FAMILY_NAMES),
    *zip(_REASONING_GYM, ("continuous", "token", "hybrid", "token"), strict=True),
]:
    _name = f"Test_{_task}_{_family}"
    globals()[_name] = type(
        _name,
        (EnvConformance,),
        {
            "env_id": f"latent/{_task}-{_family}",
            "options": _options(_task),
            "processes": f"{_task}-{_family}" in _WITH_PROCESSES,
            "pytestmark": [pytest.mark.thorough] if _KIN.get(_task, _family) != _family else [],
        },
    )
