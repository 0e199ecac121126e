"""The page: whole, escaped, the same for the same results, and no larger than it may be."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from latentgym.errors import UsageError
from latentgym.evaluation.columns import Run
from latentgym.evaluation.page import page, write_page
from latentgym.evaluation.page.comparing import pareto
from latentgym.evaluation.results import find_results, load_rollouts
from latentgym.system.terminal import line

from .conftest import HOSTILE, result, rollout


def text_of(found: list[Run], **more: Any) -> str:
    return page(found, **{"title": "Results", "most_answers": 100, **more})[0]


def runs_of(text: str) -> list[dict[str, Any]]:
    """What the script of a page knows of its runs."""
    block = re.search(r'id="runs">(.*?)</script>', text)
    assert block is not None
    runs: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(block[1])))
    return runs


def test_the_same_results_give_the_same_bytes(found: list[Run]) -> None:
    assert text_of(found) == text_of(list(reversed(found)))


def test_every_run_has_a_row_and_a_link(found: list[Run]) -> None:
    text = text_of(found)
    assert re.findall(r'<a href="[^"]*" data-run="([^"]+)"', text) == [
        "soft",
        "cot",
        "soft-zero",
        "trained",
        "hostile",  # of made-up questions, so behind all others
    ]
    assert "75.00" in text and "[40.0, 95.0]" in text and "1 of 4" in text
    assert "zero -50.0 [" in text, "the control stands in the row of its method"


def test_texts_are_escaped(found: list[Run]) -> None:
    text = text_of(found, title=HOSTILE)
    assert "<img" not in text and text.count("<script") == text.count("</script>")
    # Runs, library, page, a learning curve, and the answers of each run.
    assert text.count("<script") == 4 + len(found)


def test_it_asks_no_network(found: list[Run]) -> None:
    text = text_of(found)
    assert not re.search(r'(src|href)="(https?:|//)', text)
    assert "default-src 'none'" in text and "@import" not in text


def test_pictures_are_files_too(found: list[Run], tmp_path: Path) -> None:
    write_page(found, tmp_path / "a" / "page.html", plots_folder=tmp_path / "plots")
    made = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert made == [
        *("controls-GSM8K--test--data-gsm8k.png", "controls-GSM8K--test--data-gsm8k.svg"),
        *("flops-GSM8K--test--data-gsm8k.png", "flops-GSM8K--test--data-gsm8k.svg"),
    ]
    assert (tmp_path / "plots" / made[0]).read_bytes().startswith(b"\x89PNG")


def test_pictures_take_the_colour_of_the_page_and_say_what_they_show(found: list[Run]) -> None:
    cost, controls = page(found, title="", most_answers=0)[1]
    assert 'aria-label="GSM8K, test, data:gsm8k: accuracy' in cost.svg
    assert "soft with zero -50.0" in controls.svg
    for plot in (cost, controls):
        assert 'role="img"' in plot.svg
        assert "currentColor" in plot.svg and "#010203" not in plot.svg


def test_answers_are_bounded(save: Callable[..., Path]) -> None:
    many = [
        rollout(i, 0.0, "x" * 10_000, steps=[{"tokens": ["a"], "weights": [1.0]}] * 500)
        for i in range(4)
    ]
    folder = save("long", many)
    text = text_of([(folder, find_results([folder])[0][1])], most_answers=2)
    told = runs_of(text)
    assert told[0]["left_out"] == 2
    assert len(text) < 1_200_000


def test_without_rollouts_or_answers_there_is_still_a_row(tmp_path: Path) -> None:
    text = text_of([(tmp_path, result())])
    assert 'data-run="' in text and runs_of(text)[0]["answers"] is None


def test_what_is_missing_is_a_sentence(found: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least one run"):
        write_page([], Path("x.html"))
    monkeypatch.setitem(sys.modules, "itables", None)
    with pytest.raises(UsageError, match=r"pip install 'latentgym\[page\]'"):
        text_of(found)


def test_the_front_is_what_nothing_cheaper_equals() -> None:
    assert pareto([(3, 1), (1, 0.5), (2, 0.4), (2, 0.7), (4, 1)]) == [(1, 0.5), (2, 0.7), (3, 1)]


@pytest.mark.parametrize("file", ["rollouts.jsonl.gz", "metrics.jsonl"])
def test_what_is_damaged_is_left_out_and_told(file: str, found: list[Run]) -> None:
    (folder,) = [folder for folder, _ in found if folder.name == "trained"]
    (folder / file).write_bytes(b"\x1f\x8b nothing that one could read")
    text = text_of(found)
    assert 'data-run="trained"' in text and f"{file} is damaged" in text


def test_no_text_is_a_formula_in_the_file_of_what_is_shown(tmp_path: Path) -> None:
    text = text_of([(tmp_path, result(model="=1+1", checkpoint="x"))])
    (told,) = runs_of(text)
    assert told["values"]["model"] == "'=1+1"
    assert (told["values"]["trained"], told["values"]["accuracy"]) == (1, 0.5)


@pytest.fixture
def suite(save: Callable[..., Path], tmp_path: Path) -> list[Run]:
    """Votes of one and four samples, and best of two, on two tasks under two seeds."""
    for task in ("GSM8K", "MNNS"):
        for seed in (0, 1):
            for name, samples, cost, accuracy in (
                *(("votes-samples-1", 1, 1e6, 0.25), ("votes-samples-4", 4, 4e6, 0.75)),
                ("best", 2, 2e6, 0.5),
            ):
                right = accuracy + seed * 0.25
                own = {"samples": samples, "vote": name == "best"}
                save(
                    f"{name}/{task}/seed-{seed}",
                    [rollout(i, float(i >= 4 - round(4 * right)), seed=seed) for i in range(4)],
                    task=task,
                    seeds=[seed],
                    accuracy=right,
                    flops_per_answer=cost,
                    config={"agent": own},
                )
    return find_results([tmp_path / "runs"])


def test_a_knob_is_a_line_that_is_read_at_equal_cost(suite: list[Run]) -> None:
    drawn = {plot.name: plot for plot in page(suite, title="", most_answers=0)[1]}
    assert [*drawn] == [
        *(
            f"{cost}-{task}, test, data:gsm8k"
            for task in ("GSM8K", "MNNS")
            for cost in ("flops", "positions")
        ),
        "profile-2 tasks",
    ]
    flops = drawn["flops-GSM8K, test, data:gsm8k"]
    assert "Lines join the values of one knob: votes (samples)." in flops.caption
    # At 2e6, half of the logarithm from 1e6 to 4e6: half way from 37.5 to 87.5.
    assert "at equal cost of 2M: best 62.5, votes 62.5." in flops.caption
    axes = flops.figure.axes[0]
    assert [len(line.get_xdata()) for line in axes.lines if line.get_ls() == "-"].count(2) >= 1


def test_who_looked_at_gold_is_drawn_but_is_not_the_best(suite: list[Run]) -> None:
    for folder, r in suite:
        r.oracle = "votes-samples-4" in folder.parts
    flops, *_, profile = page(suite, title="", most_answers=0)[1]
    assert "Best without gold: best 62.5 % at 2M, votes-samples-1 37.5 % at 1M" in flops.caption
    [front] = [line for line in flops.figure.axes[0].lines if line.get_ls() == "--"]
    assert list(front.get_xdata()) == [1e6, 2e6]
    assert "votes-samples-4" not in profile.caption


def test_profiles_are_of_methods_with_several_runs_on_the_same_tasks(suite: list[Run]) -> None:
    *_, profile = page(suite, title="", most_answers=0)[1]
    assert "Interquartile means: votes-samples-4 87.5 %, best 62.5 %" in profile.caption
    assert "bands are 95 %" in profile.caption and 'role="img"' in profile.svg
    one_each = [run for run in suite if run[1].seeds == [0] and run[1].task == "MNNS"]
    assert not any("profile" in plot.name for plot in page(one_each, title="", most_answers=0)[1])


def test_answers_are_read_once(found: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[Path]()

    def counted(folder: Path) -> Iterator[dict[str, Any]]:
        read.append(folder)
        return load_rollouts(folder)

    for module in ("page.answers", "results"):
        monkeypatch.setattr(f"latentgym.evaluation.{module}.load_rollouts", counted)
    assert "zero -50.0 [" in text_of(found)
    assert sorted(read) == sorted(folder for folder, _ in found)


@pytest.mark.parametrize(
    "name",
    [
        "a\x1b[31m\x00b<b>&名前\ud800",
        *(
            pytest.param(n, marks=pytest.mark.thorough)
            for n in ("$\\frac{1$", "a" * 9_000, "_hidden")
        ),
    ],
)
def test_any_name_stands_in_a_picture(name: str, found: list[Run], tmp_path: Path) -> None:
    for _, r in found:
        r.agent, r.control, r.task = name, r.control and name, "MNNS" if r.task == "MNNS" else name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = page(found, title="", most_answers=0)[1]
        pictures = [plot.file("svg") for plot in drawn]
    assert len(pictures) == 2
    write_page(found, tmp_path / "page.html", plots_folder=tmp_path / "plots")
    assert len([*(tmp_path / "plots").iterdir()]) == 4
    shown = line(name, 20).rstrip("…")
    for picture in pictures:
        assert shown in "".join(ElementTree.fromstring(picture).itertext())


def test_paths_are_told_from_the_working_directory(found: list[Run]) -> None:
    here = Path.cwd() / "runs" / "start"
    for _, r in found:
        r.checkpoint, r.command = str(here), f"latentgym eval cot --checkpoint {here} --limit 2"
    text = page(found, title="", most_answers=0)[0]
    runs = runs_of(text)
    assert str(here) not in text + json.dumps(runs)
    assert runs[0]["command"] == "latentgym eval cot --checkpoint runs/start --limit 2"
    assert all(r.checkpoint == str(here) for _, r in found)  # what is compared stays as it was
