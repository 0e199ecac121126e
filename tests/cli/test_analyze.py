"""`latentgym analyze` as a user types it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from latentgym.analysis import depth, residual
from latentgym.analysis.page import PAGE, REPORT, page
from latentgym.analysis.plots import draw
from latentgym.cli.analyze import MEASURES, PARTS, _show
from latentgym.cli.main import main
from latentgym.cli.options import output
from latentgym.system.terminal import printable

QUICK = [
    "-o",
    "size=20",
    "--limit",
    "3",
    "--measures",
    "contributions",
    "lens",
    "skips",
    "thoughts",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of training, and beside it an evaluation of it."""
    out = tmp_path_factory.mktemp("trained")
    argv = ["mts-grpo", "latent/MNNS-continuous", "--model", "tiny:llama:2x2x16", "--stage", "csft"]
    assert (
        main(["train", *argv, "--steps", "2", "--out", str(out / "run"), "--eval-limit", "4"]) == 0
    )
    seen = ["eval", *argv[:2], "--checkpoint", str(out / "run"), "--limit", "4", "--seeds", "5"]
    assert main([*seen, "--out", str(out / "result")]) == 0
    return out


def report(capsys: pytest.CaptureFixture[str], *argv: str, action: str = "depth") -> dict[str, Any]:
    capsys.readouterr()
    assert main(["analyze", action, *argv, "--json"]) == 0, capsys.readouterr().err
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize(
    ("agent", "family", "kind"),
    [
        ("cot", "token", "chain"),
        ("coconut", "hybrid", "hybrid"),
        ("mts-grpo", "continuous", "latent"),
    ],
)
def test_a_model_as_it_is(
    agent: str, family: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["tiny:llama:3x2x16", f"latent/ProsQA-{family}", "--agent", agent, *QUICK]
    told = report(capsys, *argv)
    assert told["blocks"] == 3 and told["sequences"] == 3
    assert set(told["positions"]) == {"prompt", kind, "answer"}
    for measure in ("contributions", "lens", "skips", "thoughts"):
        assert measure in told and told["definitions"][measure] and told["seconds"][measure] >= 0
    assert told["skips"]["block"]["output"][kind]["mean"][0] > 0
    # The same question again is the same report, but for the clock.
    again = report(capsys, *argv)
    assert {**told, "seconds": None} == {**again, "seconds": None}


@pytest.mark.parametrize("source", ["run", "result"])
def test_runs_and_results_have_their_own_agent(
    source: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = report(capsys, str(trained / source), "--limit", "2", "--measures", "contributions")
    assert (told["agent"], told["env"]) == ("mts-grpo", "latent/MNNS-continuous")
    assert told["checkpoint"] is not None and "latent" in told["positions"]


def test_a_moved_run_is_its_own(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not what stands where it was, nor the checkpoint that its result names."""
    moved = shutil.copytree(trained / "run", tmp_path / "moved")
    short = ["--limit", "2", "--measures", "contributions"]
    assert report(capsys, str(moved), *short)["checkpoint"].startswith(str(moved))
    next(moved.glob("checkpoints/*/policy.safetensors")).write_bytes(b"no weights")
    assert main(["analyze", "depth", str(moved), *short]) == 2


def test_searches_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["tiny", "latent/MNNS-token", "--agent", "best-of-n", "--limit", "1"]
    assert main(["analyze", "outliers", *argv]) == 2
    assert "makes several attempts" in capsys.readouterr().err
    assert main(["analyze", "outliers", *argv, "--demonstrations"]) == 0


def test_a_result_is_looked_at_on_its_own_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "cot", "latent/MNNS-token", "--model", "tiny:gpt2:1x1x8", "--limit", "2"]
    assert main([*argv, "--split", "train", "--out", str(tmp_path)]) == 0
    told = report(capsys, str(tmp_path), "--limit", "3", action="outliers")
    assert told["env_options"]["split"] == "train" and len(told["questions"]) == 3


def test_several_sequences_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Of unequal length."""
    argv = ["tiny:llama:2x2x16", "latent/ProsQA-token", "-o", "size=20", "--demonstrations"]
    told = report(capsys, *argv, "--limit", "3", "--measures", "gradients", "--explained", "3")
    assert len({len(each["value"]) for each in told["gradients"]}) > 1
    for each in told["gradients"]:
        assert len(each["value"]) == len(each["kinds"])
        assert sum(each["value"]) == pytest.approx(each["change"], rel=0.011)


def test_what_cannot_be_told_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked(*_: Any, **__: Any) -> None:
        raise AssertionError("minutes of work")

    (tmp_path / "file").write_text("")
    monkeypatch.setattr("latentgym.analysis.contributions.layer_contributions", worked)
    monkeypatch.setattr("latentgym.analysis.causal_map", worked)
    tiny = ["tiny:llama:2x2x16", "latent/MNNS-token", "--limit", "2"]
    assert main(["analyze", "depth", *tiny, "--out", str(tmp_path / "file")]) == 2
    assert main(["analyze", "depth", *tiny, "--layers", "9"]) == 2
    assert main(["analyze", "latents", *tiny, "--layers", "9"]) == 2
    silent = ["tiny:llama:2x2x16", "latent/RG_chain_sum-token", "--limit", "2", "-o", "think=2"]
    assert main(["analyze", "depth", *silent]) == 2
    assert "no answer token" in capsys.readouterr().err


def test_files_are_whole_and_the_page_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "looks"
    argv = [
        "tiny:llama:3x2x16",
        "latent/ProsQA-token",
        *QUICK,
        "--demonstrations",
        "--out",
        str(out),
    ]
    told = report(capsys, *argv)
    assert json.loads((out / REPORT).read_text()) == told
    pictures = {path.stem for path in out.glob("*.svg")}
    assert (
        pictures == {path.stem for path in out.glob("*.png")} >= {"contributions", "lens", "skips"}
    )
    html = (out / PAGE).read_text()
    assert html.count("<figure>") == len(pictures) and "Definitions" in html
    assert not re.search(r"<script|<link|src=|url\(http", html)
    drawn = draw(told, "svg")
    assert html == page(told, drawn)
    hostile = page({**told, "model": "<script>alert(1)</script>"}, drawn)
    assert "<script>" not in hostile and "&lt;script&gt;" in hostile
    # What is there is not overwritten.
    assert main(["analyze", "depth", *argv]) == 2
    assert "holds an analysis already" in capsys.readouterr().err


def test_measures_of_the_command_line_are_those_of_the_report() -> None:
    """Listed twice, so that help imports no torch."""
    assert tuple(MEASURES) == depth.MEASURES and tuple(PARTS) == residual.PARTS


def test_tables_fit_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    argv = ["tiny:llama:3x2x16", "latent/ProsQA-token", *QUICK, "--demonstrations"]
    assert main(["analyze", "depth", *argv]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "block/h" in out and "first layer with top-5 overlap > 0.3" in out


@pytest.mark.thorough
def test_all_measures_of_sequences_that_are_too_short_for_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["tiny:llama:2x2x16", "latent/MNNS-continuous", "--agent", "mts-grpo", "--limit", "2"]
    told = report(capsys, *argv, "--out", str(tmp_path / "looks"))
    assert told["future"]["output"] == {} and told["thoughts"]["output"]["all"]["mean"][0] > 0
    assert all(each["complete"] for each in told["gradients"])


@pytest.mark.parametrize("agent", ["mts-grpo", "coconut"])
def test_outliers_of_a_model(agent: str, capsys: pytest.CaptureFixture[str]) -> None:
    family = {"mts-grpo": "continuous", "coconut": "hybrid"}[agent]
    argv = ["tiny:op:3x2x16", f"latent/ProsQA-{family}", "--agent", agent, "-o", "size=20"]
    told = report(capsys, *argv, "--limit", "3", action="outliers")
    assert told["outliers"]["layers"] == ["h_0", "h_1", "h_2", "h_3"]
    groups = told["outliers"]["groups"]
    assert all(1 <= x <= 16 for group in groups.values() for x in group["kurtosis"])
    assert told["definitions"]["outliers"]["kurtosis"]


def test_latents_of_a_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "looks"
    argv = [str(trained / "run"), "--limit", "6", "--steps", "2", "--total", "--out", str(out)]
    told = report(capsys, *argv, action="latents")["latents"]
    for effect in ("direct", "total"):
        for cells in told[effect]["map"].values():
            assert [cell["step"] for cell in cells] == [0, 2, "all"]
    assert {(row["row"], row["step"]) for row in told["decoded"]} == {
        (row, step) for row in range(6) for step in range(3)
    }
    assert "causal-map" in {path.stem for path in out.glob("*.svg")}
    assert "thoughts in tokens" in (out / PAGE).read_text()


@pytest.mark.parametrize("token", ["[/]", "[bold]", "\x1b[31m", "[/INST]", "a\nb", "", ":smile:"])
def test_thoughts_in_tokens_are_no_markup(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = [{"id": 7, "text": token, name: 0.5} for name in ("cosine", "probability")]
    near, then = ([each] for each in told)
    row = {"row": 0, "step": 0, "kind": "latent", "nearest": near, "lens": {"1": then}}
    head = {"model": "m", "blocks": 1, "sequences": 1, "env": "e", "positions": {"latent": 1}}
    head |= {"questions": [0], "demonstrations": True}
    _show({**head, "latents": {"decoded": [row]}}, output())
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert " ".join(f"{printable(token) or 7} 0.50".split()) in out


def test_demonstrations_have_direct_effects_alone(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["tiny:llama:2x2x16", "latent/MNNS-token", "--limit", "6", "--demonstrations"]
    told = report(capsys, *argv, action="latents")["latents"]
    assert told.keys() == {"direct", "decoded"}
    assert main(["analyze", "latents", *argv, "--total"]) == 2
    assert "leave --demonstrations out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["tiny"], "name an environment behind it"),
        (["tiny", "latent/MNNS-token", "--measures", "lense"], "did you mean 'lens'"),
        (["tiny", "latent/MNNS-token", "--parts", "blok"], "did you mean 'block'"),
        (["tiny", "latent/MNNS-token", "--parts"], "--parts is empty"),
        (["tiny", "latent/MNNS-token", "--layers", "7"], "layers are numbers from 0 to 1"),
        (["tiny", "latent/MNNS-token", "--agent", "nobody"], "no agent 'nobody'"),
        (["tiny", "latent/MNNS-continuous"], "cot thinks in the token family"),
        (["{run}", "--agent", "cot"], "is of mts-grpo, not cot"),
        (["{run}", "--preset", "grpo"], "has settings of its own"),
        (["{empty}"], "holds no complete checkpoint"),
    ],
)
def test_what_cannot_work_is_a_sentence(
    argv: list[str],
    sentence: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"run": trained / "run", "empty": tmp_path}
    capsys.readouterr()
    assert main(["analyze", "depth", *(word.format(**names) for word in argv)]) == 2
    assert sentence in capsys.readouterr().err
