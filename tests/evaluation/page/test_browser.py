"""The page in a real browser: it sorts, filters, opens, and runs nothing that a model wrote."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latentgym.evaluation.columns import Run
from latentgym.evaluation.page import write_page

from .conftest import result, runs_of_all_kinds


class Opened:
    """A page in the browser, with what it complained of and what it asked the network for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.page.on("console", lambda line: self._note(line))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = path.as_uri()
        self.go("")

    def _note(self, line: Any) -> None:
        if line.type in ("error", "warning"):
            self.complaints.append(line.text)

    def go(self, address: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(self.url + address)
        self.page.wait_for_selector("html[data-ready=yes]", timeout=20_000)

    def names(self) -> list[str]:
        """Of the runs that are shown, in their order."""
        links = self.page.locator("#results tbody a[data-run]").all()
        return [link.get_attribute("data-run") for link in links]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the runs of `found`, written once."""
    folder = tmp_path_factory.mktemp("page")
    write_page(runs_of_all_kinds(folder), folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def opened(chromium: Any, page: Path) -> Iterator[Opened]:
    opened = Opened(chromium, page)
    yield opened
    assert opened.complaints == []
    assert [
        url for url in opened.asked if not url.startswith(("file:", "blob:", "data:", "about:"))
    ] == []
    assert opened.page.evaluate("window.hurt") is None
    opened.page.close()


def test_it_sorts_and_says_so(opened: Opened) -> None:
    heading = opened.page.locator("th[data-name=accuracy]")
    heading.click()
    assert opened.names() == ["trained", "soft", "cot", "soft-zero", "hostile"]
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("[role=button]").focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_selector("th[data-name=accuracy][aria-sort=ascending]")
    assert opened.names()[0] == "hostile"
    assert "sort=accuracy.asc" in opened.page.url
    opened.go("#sort=flops.desc")
    assert opened.names()[0] == "soft"


def test_it_filters_and_an_address_says_how(opened: Opened) -> None:
    opened.page.select_option("[data-filter=task]", "MNNS")
    assert opened.names() == ["trained"]
    opened.page.select_option("[data-filter=task]", "")
    opened.page.select_option("[data-filter=control]", "no")
    assert "soft-zero" not in opened.names() and len(opened.names()) == 4
    address = opened.page.evaluate("location.hash")
    opened.go(address)
    assert len(opened.names()) == 4
    opened.page.fill("#search", "soft-thinking")
    assert opened.names() == ["soft"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_it_can_be_read(
    scheme: str, page: Path, illegible: Callable[[Path, str], list[str]]
) -> None:
    assert illegible(page, scheme) == []


def test_what_is_shown_is_a_file_too(opened: Opened, tmp_path: Path) -> None:
    opened.page.fill("#search", "soft")
    with opened.page.expect_download() as download:
        opened.page.click("#download")
    download.value.save_as(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == opened.names() == ["soft", "soft-zero"]
    assert [float(row["accuracy"]) for row in rows] == [0.75, 0.25]


def test_columns_come_and_go(opened: Opened) -> None:
    assert not opened.page.locator("th[data-name=git]").count()
    opened.page.locator("summary", has_text="columns").click()
    opened.page.check("#columns input[value=git]")
    assert opened.page.locator("th[data-name=git]").is_visible()
    opened.go(opened.page.evaluate("location.hash"))
    assert opened.page.locator("th[data-name=git]").is_visible()


def test_a_run_opens_with_settings_curves_and_questions(opened: Opened) -> None:
    opened.page.click("a[data-run=trained]")
    run = opened.page.locator("#run")
    run.locator("table").wait_for()
    run.locator("#question h2").wait_for()
    assert opened.page.evaluate("document.activeElement.tagName") == "H2"
    assert "agent.temperature" not in run.inner_text(), "settings are folded"
    run.locator("summary", has_text="settings").click()
    assert "runs/start" in run.inner_text() and "agent.temperature" in run.inner_text()
    assert run.locator("svg[role=img]").count() == 1
    assert run.locator("tbody tr").count() == 4
    assert "question 0" in run.locator("#question").inner_text(), "the first is open"
    opened.page.go_back()
    assert run.is_hidden()


def test_answers_stand_side_by_side_thought_by_thought(opened: Opened) -> None:
    opened.go("#run=soft&question=3&with=soft-zero,cot")
    columns = opened.page.locator("#question article")
    assert [title.split(" ")[0] for title in columns.locator("h3").all_inner_texts()] == [
        *("soft", "soft-zero", "cot")
    ]
    first = columns.first
    assert first.locator(".thoughts li").count() == 2
    assert first.locator(".chip").first.inner_text().startswith("␣a")
    assert "norm 1.25 · entropy 0.50 · gate 0.90" in first.inner_text()
    assert "right" in first.inner_text() and "read as" in first.inner_text()
    opened.page.uncheck("#question input[value=cot]")
    assert columns.count() == 2 and "with=soft-zero" in opened.page.url


@pytest.mark.parametrize("width", [1280, 380])
def test_a_page_of_one_run_opens_on_its_answers(
    width: int, chromium: Any, found: list[Run], tmp_path: Path
) -> None:
    write_page([run for run in found if run[0].name == "soft"], tmp_path / "page.html")
    opened = Opened(chromium, tmp_path / "page.html", width)
    page = opened.page
    assert "question 0" in page.locator("#question").inner_text()
    assert page.locator("#questions a").first.bounding_box()["y"] < 800
    page.locator("#questions a").nth(3).click()
    page.locator("#question h2", has_text="question 3").wait_for()
    assert 0 <= page.locator("#question h2").bounding_box()["y"] < 800, "where one sees it"
    assert page.locator("#questions tr.open a").inner_text() == "3"
    assert not page.locator("#search").is_visible()
    page.close()


def test_a_small_screen_has_the_accuracy(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 380, "height": 900})
    cell = opened.page.locator("th[data-name=accuracy]").bounding_box()
    assert cell["x"] + cell["width"] <= 380
    wide = opened.page.evaluate(
        "(e => e.scrollWidth > e.clientWidth)(document.querySelector('.scroll'))"
    )
    assert wide, "the one that casts a shadow where there is more"


def test_what_a_model_wrote_is_text(opened: Opened) -> None:
    opened.go("#run=hostile&question=0")
    said = opened.page.locator("#question").inner_text()
    assert "<img src=x" in said and "window.hurt = 1" in said
    assert opened.page.evaluate("document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize(
    "address",
    [
        "#run=cot&question=99",
        *(
            pytest.param(address, marks=pytest.mark.thorough)
            for address in ("#run=none", "#question=x", "#sort=.;&with=,")
        ),
    ],
)
def test_addresses_of_nothing_show_the_table(opened: Opened, address: str) -> None:
    opened.go(address)
    assert len(opened.names()) == 5


@pytest.mark.thorough
def test_of_a_thousand_runs_so_many_are_drawn_as_one_looks_at(
    chromium: Any, tmp_path: Path
) -> None:
    runs = [
        (tmp_path / f"run-{i}", result(agent=f"agent-{i % 7}", accuracy=i / 1000))
        for i in range(1000)
    ]
    write_page(runs, tmp_path / "page.html")
    opened = Opened(chromium, tmp_path / "page.html")
    opened.page.click("th[data-name=accuracy]")
    drawn = opened.names()
    assert drawn[0] == "run-999" and len(drawn) == 100
    assert "1,000 runs" in opened.page.locator(".dt-info").inner_text()
    opened.page.close()
