"""Judging hostile text in a process that may be killed: see `latentgym.system.bounded`.

The job compares mathematics, or is the scorers of another library.
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from latentgym.rewards.grade import GraderError
from latentgym.system.bounded import BoundedProcess

Verdict = Literal["equal", "different", "bad_gold", "bad_answer", "timeout", "refused", "crash"]


class Sandbox(BoundedProcess):
    """Judges answers within bounds; safe to share between threads. Make one and keep it.

    Args:
        timeout: seconds of the processor that one request may take.
        memory: bytes of address space that the judging process may take.
        job: importable name of the job's module; by default it compares mathematics.
        needs: the package that the job needs, as pip knows it.
    """

    error: ClassVar[type[Exception]] = GraderError

    def __init__(
        self,
        timeout: float = 0.75,
        memory: int = 1 << 30,
        job: str = "latentgym.rewards.algebra",
        needs: str = "math-verify",
    ) -> None:
        super().__init__(job, does="judges answers", needs=needs, timeout=timeout, memory=memory)

    def compare(self, gold: str, answer: str) -> Verdict:
        """Compare two answers, with the job that does so (`latentgym.rewards.algebra`).

        Args:
            gold: the right one.
            answer: the one to judge.

        Returns:
            "equal" or "different"; "bad_gold" or "bad_answer" if that one cannot be parsed;
            "timeout"; "refused" if comparing met what a judged text may not do; or "crash" if it
            took more memory or stack than there is.

        Raises:
            GraderError: the worker cannot start, or was ended from outside again and again.
        """
        return cast(Verdict, self.call("", gold, answer))
