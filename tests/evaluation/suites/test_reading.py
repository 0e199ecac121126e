"""Suites as files: what they may say, what is refused, and which commands come of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentgym.errors import UsageError
from latentgym.evaluation.suites.cells import Cell
from latentgym.evaluation.suites.keys import CELL
from latentgym.evaluation.suites.reading import Suite, read_suite, shipped

Read = Callable[..., Suite]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read(cells, **over)`: the suite of a file with these lines."""

    def of(text: str, **over: Any) -> Suite:
        path = tmp_path / "own.toml"
        path.write_text(f'about = "x"\n{text}')
        return read_suite(str(path), **over)

    return of


COT = 'eval = "cot"\nenv = "latent/MNNS-token"\n'


def words(cell: Cell) -> str:
    return " ".join(cell.argv)


def test_what_a_cell_says_is_in_its_command(read: Read) -> None:
    suite = read(
        """
        seeds = [0, 1]
        [defaults]
        model = "tiny"
        options = { m = 4, high = 9 }
        [defaults.eval]
        settings.batch = 8
        [cells.a]
        eval = "cot"
        env = "latent/MNNS-token"
        preset = "greedy"
        limit = 5
        split = "train"
        options = { high = 8, arrow = true }
        settings = { verifier.forced = false, temperature = 0.5, stop = ["x", "y"], watch = true }
        """
    )
    [cell] = suite.cells
    assert words(cell) == (
        "eval cot latent/MNNS-token --preset greedy --model tiny --split train --limit 5 "
        "-o m=4 -o high=8 -o arrow=true --batch 8 --verifier.no-forced --temperature 0.5 "
        "--stop x y --watch"
    )
    assert cell.seeds == (0, 1)
    assert cell.command(Path("runs"), 1)[-4:] == ["--seeds", "1", "--out", "runs/a/seed-1"]


def test_what_starts_from_a_cell_has_its_weights_and_its_model(read: Read) -> None:
    suite = read(
        f"""
        [defaults]
        model = "tiny"
        [cells.b]
        {COT}
        start = "a"
        [cells.a]
        train = "cot"
        env = "latent/MNNS-token"
        steps = 3
        limit = 4
        """
    )
    assert [cell.name for cell in suite.cells] == ["a", "b"]
    start, cell = suite.cells
    assert words(start) == "train cot latent/MNNS-token --model tiny --steps 3 --eval-limit 4"
    assert "--model" not in cell.argv
    at = cell.command(Path("runs"), 7)
    assert at[at.index("--checkpoint") + 1] == "runs/a/seed-7"


def test_controls_of_what_was_trained_and_of_what_was_not(read: Read) -> None:
    suite = read(
        """
        [cells.trained]
        train = "hrpo"
        env = "latent/MNNS-hybrid"
        steps = 3
        settings.grpo.prompts = 2
        options.m = 4
        paper = 1.5
        controls = ["zero"]
        [cells.asked]
        eval = "mts-grpo"
        env = ["latent/MNNS-continuous", "latent/ProsQA-continuous"]
        controls = ["noise"]
        """
    )
    cells = {cell.name: cell for cell in suite.cells}
    zero = cells["trained-zero"]
    assert (zero.start, zero.paper) == ("trained", None)
    assert words(zero) == "eval hrpo latent/MNNS-hybrid -o m=4 --control zero"
    noise = cells["asked-noise/ProsQA"]
    assert noise.start is None and words(noise) == (
        "eval mts-grpo latent/ProsQA-continuous --control noise"
    )


def test_rows_fill_names_values_and_defaults(read: Read) -> None:
    suite = read(
        """
        [defaults]
        options.m = "{m}"
        [lists]
        tasks = [{ task = "MNNS", m = 3, paper = 9.5 }, { task = "MNNS", m = 4 }]
        agents = [{ agent = "cot", family = "token" }, { agent = "hrpo", family = "hybrid" }]
        [cells."{agent}-{m}"]
        eval = "{agent}"
        env = "latent/{task}-{family}"
        paper = "{paper}"
        each = ["tasks", "agents"]
        [cells.plain]
        eval = "cot"
        env = "latent/MNNS-token"
        options.system = "say {x}"
        """
    )
    cells = {cell.name: cell for cell in suite.cells}
    assert list(cells) == ["cot-3", "hrpo-3", "cot-4", "hrpo-4", "plain"]
    assert words(cells["hrpo-4"]) == "eval hrpo latent/MNNS-hybrid -o m=4"
    assert (cells["cot-3"].paper, cells["cot-4"].paper) == (9.5, None)
    assert words(cells["plain"]).endswith("-o system=say {x}")  # without each, braces are braces


@pytest.mark.parametrize(
    ("knob", "option"), [("knob.samples", "--samples"), ("knob.options.m", "-o")]
)
def test_a_knob_is_a_cell_for_each_value(read: Read, knob: str, option: str) -> None:
    suite = read(f'[cells.a]\neval = "cot"\nenv = ["latent/MNNS-token"]\n{knob} = [3, 4]\n')
    name = knob.rpartition(".")[2]
    assert [cell.name for cell in suite.cells] == [f"a-{name}-3/MNNS", f"a-{name}-4/MNNS"]
    assert [cell.knob for cell in suite.cells] == [
        ("a/MNNS", knob.removeprefix("knob."), value) for value in (3, 4)
    ]
    assert option in suite.cells[0].argv


def test_model_limit_and_seeds_may_be_others(read: Read) -> None:
    text = f'[defaults]\nmodel = "tiny"\n[cells.a]\n{COT}limit = 3\n[cells.b]\n{COT}model = "own"'
    one, other = read(text, model="mine", limit=9, seeds=[4]).cells
    assert words(one) == "eval cot latent/MNNS-token --model mine --limit 9"
    assert words(other) == "eval cot latent/MNNS-token --model own --limit 9"
    assert one.seeds == other.seeds == (4,)


REFUSED = {
    "no toml": ("[cells", "no TOML"),
    "twice": (f"[cells.a]\n{COT}[cells.a]\n{COT}", "no TOML.*twice"),
    "no cells": ("", "cells is missing"),
    "unknown": ("cellz = 1", "unknown key 'cellz' of a suite; did you mean 'cells'"),
    "unknown key": (
        f"[cells.a]\n{COT}limmit = 3",
        "cell a: unknown key 'limmit' of a cell; did you mean",
    ),
    "text for a number": (f'[cells.a]\n{COT}limit = "3"', "limit cannot be '3', but is a whole"),
    "true for a number": (f"[cells.a]\n{COT}limit = true", "limit cannot be True"),
    "no command": ('[cells.a]\nenv = "latent/MNNS-token"', "one of train, eval, baseline"),
    "two commands": (f'[cells.a]\n{COT}train = "cot"', "but this has 2"),
    "no env": ('[cells.a]\neval = "cot"', "env is missing"),
    "other env": ('[cells.a]\neval = "cot"\nenv = "latent/MNSS-token"', "no environment"),
    "other agent": ('[cells.a]\neval = "cto"\nenv = "MNNS-token"', "eval knows no 'cto'"),
    "other baseline": ('[cells.a]\nbaseline = "sas"\nenv = "MNNS-token"', "did you mean 'sasrec'"),
    "steps of eval": (f"[cells.a]\n{COT}steps = 3", "steps goes with train, not with eval"),
    "no start": (f'[cells.a]\n{COT}start = "b"', "start names no cell 'b'"),
    "a ring": (
        f'[cells.a]\n{COT}start = "b"\n[cells.b]\n{COT}start = "a"',
        "start from each other in a ring: a, b",
    ),
    "itself": (f'[cells.a]\n{COT}start = "a"', "ring: a"),
    "one name": (f'[cells."{{x}}"]\n{COT}each = [{{x = "b"}}, {{x = "b"}}]', "have the name b"),
    "no list": (f'[cells.a]\n{COT}each = "tasks"', "each names no list 'tasks'"),
    "no place": (f'[cells."{{y}}"]\n{COT}each = [{{x = 1}}]', "no row of each has 'y'"),
    "a place unfilled": (
        f'[cells."{{y}}-{{x}}"]\n{COT}each = [{{x = 1, y = 1}}, {{x = 2}}]',
        "a row of each lacks 'y'",
    ),
    "no seeds": (f"[cells.a]\n{COT}seeds = []", "seeds needs at least one"),
    "equal seeds": (f"seeds = [1, 1]\n[cells.a]\n{COT}", "each once"),
    "two knobs": (f"[cells.a]\n{COT}knob = {{ a = [1], b = [1] }}", "knob has one name"),
    "a knob of texts": (f'[cells.a]\n{COT}knob.a = ["x"]', "knob has one name"),
    "lists that multiply": (
        "[lists]\na = [" + "{ x = 1 }, " * 101 + f']\n[cells."{{x}}"]\n{COT}each = ["a", "a", "a"]',
        "each has more than 10,000 rows",
    ),
    "a knob of many": (f"[cells.a]\n{COT}knob.a = {[*range(10_001)]}", "more than 10,000 cells"),
    "a way out": (f'[cells."../a"]\n{COT}', "is no name of a cell"),
    "a seed's name": (f'[cells."a/seed-0"]\n{COT}', "is no name of a cell"),
    "a default of one": ('[defaults]\nstart = "a"\n[cells.a]\n' + COT, "each cell's own"),
    "a setting of nothing": (f"[cells.a]\n{COT}settings.x = [[1]]", "settings.x cannot be"),
    "a setting of no number": (f"[cells.a]\n{COT}settings.x = nan", "settings.x cannot be"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_said_with_its_file(what: str, read: Read, tmp_path: Path) -> None:
    text, sentence = REFUSED[what]
    with pytest.raises(UsageError, match=sentence) as error:
        read(text)
    assert str(error.value).startswith(str(tmp_path / "own.toml"))
    assert "\n" not in str(error.value) and re.search(r"[^.?][.?]$", str(error.value))


def test_suites_are_found_by_name_or_path(tmp_path: Path) -> None:
    assert "cpu-demo" in shipped()
    with pytest.raises(UsageError, match="no suite 'cpu-dem'; did you mean 'cpu-demo'"):
        read_suite("cpu-dem")
    (tmp_path / "latin.toml").write_bytes(b"about = '\xff'")
    with pytest.raises(UsageError, match="cannot be read"):
        read_suite(str(tmp_path / "latin.toml"))


def test_some_cells_are_chosen(read: Read) -> None:
    suite = read(
        f'[cells.a]\n{COT}part = "one"\n[cells.b]\n{COT}part = "two"\n'
        f'[cells.d]\n{COT}start = "e"\n[cells.e]\n{COT}start = "b"\n'
    )
    assert [cell.name for cell in suite.chosen(match="d").cells] == ["b", "e", "d"]
    assert [cell.name for cell in suite.chosen(["two"]).cells] == ["b"]
    assert [cell.name for cell in suite.chosen(match="a").cells] == ["a"]
    with pytest.raises(UsageError, match="no part 'three'; its parts are one, results, two"):
        suite.chosen(["three"])
    with pytest.raises(UsageError, match="has 'c' in its name"):
        suite.chosen(match="c")


def test_the_suites_of_the_page_are_read(read: Read, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "suites.md").read_text()
    own, more = re.findall(r"^```toml.*?\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "my.toml").write_text(own)
    cells = [cell.name for cell in read_suite(str(tmp_path / "my.toml")).cells]
    assert {"words", "mixtures-noise", "votes-samples-16"} <= {*cells}
    assert len(read(more).cells) == 4
    listed = set(re.findall(r"`([\w-]+)`", page[page.index("| suite |") : page.index("## A ")]))
    assert {name for name in shipped() if not name.startswith("paper-")} <= listed
    keys = page[page.index("| key of a cell |") : page.index("Several tasks times")]
    first = "".join(re.findall(r"^\| ([^|]+)\|", keys, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first)) == {*CELL}
