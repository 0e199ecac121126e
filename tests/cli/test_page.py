"""`view`, and the page of `leaderboard --html`."""

from __future__ import annotations

import shutil
import webbrowser
from pathlib import Path

import pytest

from latentgym.cli.main import main

EVAL = ["eval", "cot", "latent/MNNS-token", "--model", "tiny:gpt2:1x1x16", "--limit", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cot"
    assert main([*EVAL, "--out", str(out)]) == 0
    return out


def test_a_leaderboard_is_a_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html, plots = tmp_path / "new" / "page.html", tmp_path / "plots"
    assert main(["leaderboard", str(run.parent), "--html", str(html), "--plots", str(plots)]) == 0
    told = capsys.readouterr()
    assert str(html) in told.err and "MNNS, test, generated" in told.out
    assert 'data-run="cot"' in html.read_text()


def test_a_run_is_viewed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)))
    assert main(["view", str(run)]) == 0
    assert opened == [(run / "page.html").resolve().as_uri()]
    assert "there is no browser here" in capsys.readouterr().err
    (run / "below").mkdir()
    (run / "below" / "result.json").write_text("what is below is not looked at")
    assert main(["view", str(run), "--no-browser"]) == 0
    shutil.rmtree(run / "below")
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["view", "{runs}"], "holds no result.json"),
        (["view", "{runs}/none"], "there is no folder"),
        (["leaderboard", "{runs}", "--plots", "{runs}/x"], "--plots goes with --html"),
        (["leaderboard", "{runs}", "--html", "{runs}/cot/result.json/page.html"], "cannot write"),
        (["leaderboard", "{runs}", "--html", "{runs}/x.html", "--answers", "-1"], "--answers"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    argv: list[str], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("{runs}", str(run.parent)) for word in argv]) == 2
    assert says in capsys.readouterr().err
