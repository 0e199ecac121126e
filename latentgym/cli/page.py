"""`latentgym view RUN`, and the page of `latentgym leaderboard --html FILE`."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from latentgym.cli.answers import show_question
from latentgym.cli.options import output, parse
from latentgym.errors import UsageError
from latentgym.evaluation.columns import Run, run_name
from latentgym.evaluation.results import RESULT, load_result
from latentgym.system.nearby import no_folder
from latentgym.system.options.ranges import Interval, SizeOrZero
from latentgym.system.terminal import say

PAGE = "page.html"


@dataclass(frozen=True)
class PageOptions:
    """Options of a page of results."""

    html: Path | None = None
    """Write all of it as one page, which opens without a network."""
    plots: Path | None = None
    """Folder for the page's pictures as files, SVG and PNG."""
    answers: SizeOrZero = 100
    """Answers of each run that the page has, the first ones."""

    def write(self, found: Sequence[Run], title: str = "Latent reasoning: results") -> None:
        """Write the page, if one is wanted, and say where it is.

        Raises:
            UsageError: pictures are wanted without a page, or see `write_page`.
        """
        if self.html is None:
            if self.plots is not None:
                raise UsageError("--plots goes with --html, the page that has the pictures.")
            return
        from latentgym.evaluation.page import write_page

        write_page(
            found, self.html, title=title, most_answers=self.answers, plots_folder=self.plots
        )
        say(f"wrote {self.html}; open it in a browser")


@dataclass(frozen=True)
class ViewOptions:
    """Options of view."""

    run: tyro.conf.Positional[Path]
    """Folder with result.json and rollouts.jsonl.gz."""
    page: Annotated[PageOptions, tyro.conf.arg(name="")] = field(default_factory=PageOptions)
    browser: bool = True
    """Open the page in a browser."""
    question: Interval | None = None
    """Print what was thought and answered to the question of this number, and write no page."""


def view(argv: Sequence[str]) -> int:
    """Write the page of one run, page.html in its folder, and open it; or print one question."""
    options = parse(ViewOptions, argv, "view", "Look at a run: its answers, thought by thought.")
    if not options.run.is_dir():
        raise UsageError(f"{no_folder(options.run)}.")
    if not (options.run / RESULT).is_file():
        raise UsageError(
            f"{options.run} holds no {RESULT}; give a folder that eval wrote, or see all runs "
            f"below it with latentgym leaderboard {options.run} --html FILE."
        )
    run = (options.run, load_result(options.run))
    if options.question is not None:
        if options.page.html or options.page.plots:
            raise UsageError("--question prints and writes no page; leave --html and --plots out.")
        show_question(run, options.question, output())
        return 0
    html = options.page.html or options.run / PAGE
    title = f"{run_name(options.run)}: {run[1].agent} on {run[1].task}"
    PageOptions(html, options.page.plots, options.page.answers).write([run], title)
    if options.browser and not webbrowser.open(html.resolve().as_uri()):
        say("there is no browser here; copy the page to where one is")
    return 0
