"""`latentgym eval ... --watch`: a search as it goes, attempt by attempt."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from latentgym.agents.search import Try
from latentgym.errors import UsageError
from latentgym.system.console import Console
from latentgym.system.terminal import printable
from latentgym.text.tokenizers import Tokenizer

_MOST = 1200  # characters of a chain


def show_searches(agent: Any) -> None:
    """Let an agent's attempts be shown on stderr.

    Raises:
        UsageError: it makes but one attempt at a question.
    """
    if not agent.searches:
        raise UsageError(
            f"{agent.name} makes one attempt at a question, so there is nothing to watch; choose "
            "latentseek, best-of-n or self-reflection, or leave out --watch."
        )
    agent.watch = SearchView()


class SearchView:
    """Shows tries as they are made: reward, checks, answer, and which searched tokens changed."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, emoji=False)
        self._last: dict[int, Try] = {}

    def __call__(self, new: Try, tokenizer: Tokenizer) -> None:
        attempt, before = new.attempt, self._last.get(new.attempt.index)
        if before is None:
            question = printable(str(attempt.info["question"]))
            self._console.print(Panel(Text(question), title=f"question {attempt.index}"))
        self._last[attempt.index] = new
        parts = [self._verdict(new), self._chain(new, before, tokenizer)]
        title = f"question {attempt.index}, iteration {new.iteration}"
        style = "green" if attempt.right else "red"
        panel = Panel(Group(*parts), title=title, title_align="left", border_style=style)
        self._console.print(panel)

    def _verdict(self, new: Try) -> Text:
        info = new.attempt.info
        truth = "right" if new.attempt.right else "wrong"
        text = Text.assemble(
            ("reward ", "dim"),
            (f"{new.verdict.reward:.3f}", "bold"),
            ("   answer ", "dim"),
            (printable(str(info["parsed"])).strip() or "none", "bold"),
            (f" ({truth}; gold {printable(str(info['target']))})", "dim"),
            ("   tokens changed ", "dim"),
            (str(new.changed), "bold"),
        )
        for name, passed in new.verdict.checks.items():
            text.append(f"\n{'yes' if passed else 'no ':<4}", "green" if passed else "red")
            text.append(printable(name), "dim")
        return text

    def _chain(self, new: Try, before: Try | None, tokenizer: Tokenizer) -> Text:
        """The chain: given tokens first, changed ones of them marked, then what was decoded."""
        tokens, pieces, text = new.attempt.token_T.tolist(), tokenizer.pieces(), Text()
        old = [] if before is None else before.attempt.token_T.tolist()
        for place, token in enumerate(tokens):
            given = place < new.attempt.prefix
            same = place < len(old) and old[place] == token
            style = ("" if same else "black on yellow") if given else "dim"
            text.append(printable(pieces[token]), style)
            if len(text) > _MOST:
                text.append(" ...", "dim")
                break
        return text
