"""Checks for environments and tasks, ours and yours.

A user's task or environment is sound when these pass:

    class TestMyTask(EnvConformance):
        env_id = "me/MyTask-continuous"
        options = {"think": 8}

`EnvConformance` is a mixin for pytest; `check_task` and `check_vector_env` can be called from
anywhere. A failed check raises `AssertionError` with a sentence that says what is wrong.
"""

from __future__ import annotations

from latentgym.testing.checks import GARBAGE, check_task, check_vector_env, paid_garbage
from latentgym.testing.conformance import EnvConformance
from latentgym.testing.variants import right_variants, wrong_variants

__all__ = [
    "GARBAGE",
    "EnvConformance",
    "check_task",
    "check_vector_env",
    "paid_garbage",
    "right_variants",
    "wrong_variants",
]
