"""Tables as files: every format takes foreign names as text."""

from __future__ import annotations

import csv
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.evaluation.columns import COLUMNS, Run
from latentgym.evaluation.exports import csv_text, hub_text, markdown_text
from latentgym.evaluation.latex import latex_text
from latentgym.evaluation.results import Result

HOSTILE = (
    '=HYPERLINK("http://x")',
    "<script>alert(1)</script>",
    "a|b\nc & d_e $f$ #g ^h ~i {j} \\k [l](javascript:m) `n` *o*",
    "\x1b[31mred\x07 \u202ereversed",
    "a,\"b\";'c'",
)


def run(name: str = "run", **changes: Any) -> Run:
    values: dict[str, Any] = {
        **dict.fromkeys(("agent", "env", "family", "split", "dataset_hash", "device"), "x"),
        "task": "GSM8K",
        "source": "hub:openai/gsm8k@main",
        "model": "m",
        "created": "2026-11-30",
        "checkpoint": None,
        "control": None,
        "config": {},
        "metrics": {"truncated": 0.25},
        "n": 200,
        "seeds": [0, 1],
        "accuracy": 0.5,
        "accuracy_ci95": [0.4325, 0.5675],
        "thoughts_mean": 1.0,
        "tokens_mean": 2.5,
        "latent_share": 0.0,
        "wall_s": 3.0,
        "forward_positions": {"prompt": 7.0},
        "flops_per_answer": 1e9,
        "answers_per_s": 2.0,
    }
    return Path(name), Result(**{**values, **changes})


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_csv_has_every_column_in_order_and_numbers_in_full() -> None:
    third = 1 / 3
    rows = read(csv_text([run("b", accuracy=third), run("a", accuracy=0.75, oracle=True)]))
    assert list(rows[0]) == [column.name for column in COLUMNS]
    assert [row["run"] for row in rows] == ["a", "b"]  # the best first
    assert [float(row["accuracy"]) for row in rows] == [0.75, third]
    assert [row["oracle"] for row in rows] == ["1", "0"]
    assert (rows[0]["truncated"], rows[0]["hr@5"], rows[0]["seeds"]) == ("0.25", "", "2")


def test_the_order_of_runs_does_not_matter() -> None:
    runs = [run("a"), run("b"), run("c", accuracy=0.9), run("d", task="SVAMP")]
    for write in (csv_text, markdown_text, latex_text):
        assert write(runs) == write(runs[::-1])


def table_of(latex: str) -> list[str]:
    """The lines between its rules, the heading first."""
    rules = ("\\toprule", "\\midrule", "\\bottomrule")
    inside = latex.partition("\\toprule\n")[2].partition("\\bottomrule")[0]
    return [line for line in inside.splitlines() if line not in rules]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_foreign_name_stays_a_name(name: str) -> None:
    runs = [run("good"), run("bad", agent=name, model=name, accuracy=0.1)]
    whole = (csv_text(runs), markdown_text(runs), latex_text(runs))
    assert all(c.isprintable() or c == "\n" for text in whole for c in text)
    rows = read(whole[0])
    assert len(rows) == 2 and not rows[1]["agent"].startswith("=")
    head, rule, _, bad = whole[1].splitlines()
    bare = bad.replace("\\\\", "").replace("\\|", "")
    assert bare.count("|") == head.count("|") == rule.count("|")
    for mark in "<>[]`*":
        assert bad.count(mark) == bad.count(f"\\{mark}")
    line = table_of(whole[2])[-1]
    cells = line.removesuffix(" \\\\").replace("\\&", "").split(" & ")
    assert len(cells) == table_of(whole[2])[0].count(" & ") + 1
    for mark in "_#$&":
        assert cells[1].count(mark) == cells[1].count(f"\\{mark}")


def test_tables_for_people_have_intervals_and_leave_empty_columns_out() -> None:
    markdown = markdown_text([run()])
    head, rule, line = markdown.splitlines()
    assert "50.00 (43.2 to 56.8)" in line and "control" not in head and "oracle" not in line
    assert rule.startswith("| --- | --- | --- | --- |")
    assert "(oracle)" in markdown_text([run(oracle=True)])


def test_a_table_for_a_paper_is_small_and_says_what_it_shows() -> None:
    runs = [
        run("best", accuracy=0.9, accuracy_ci95=[0.8, 0.95]),
        run("tie", accuracy=0.85, accuracy_ci95=[0.75, 0.9]),
        run("behind", accuracy=0.2, accuracy_ci95=[0.1, 0.3], control="zero"),
        run("gold", accuracy=1.0, accuracy_ci95=[0.9, 1.0], oracle=True),
        run("odd", accuracy=0.1, n=100),
        run("made", source="sample", task="SVAMP"),
    ]
    text = latex_text(runs)
    head, *rows = table_of(text)
    assert head == "run & agent & task & accuracy \\% & n & FLOP \\\\"
    assert [row.split(" & ")[0] for row in rows] == [
        "gold\\textsuperscript{a}",
        *("best", "tie", "behind", "odd\\textsuperscript{b}", "made\\textsuperscript{c}"),
    ]
    assert [row.split(" & ")[0] for row in rows if "textbf" in row] == ["best", "tie"]
    assert "\\textbf{90.00} (80.0 to 95.0)" in text and "x (zero)" in text
    assert "\\caption{Accuracy (x split, m), in per cent with 95 \\% intervals" in text
    notes = text.partition("\\footnotesize\n")[2]
    for note in ("{a} gold answers", "{b} other questions: 100", "{c} made-up questions"):
        assert f"\\textsuperscript{note}" in notes


def test_columns_are_chosen_by_their_names() -> None:
    runs, names = [run("a"), run("b")], ["tokens", "run", "control"]
    assert table_of(latex_text(runs, names))[0] == "tokens & run & control \\\\"
    assert markdown_text(runs, names).startswith("| tokens | run | control |")
    assert "FLOP" not in latex_text(runs, names)


def test_the_hub_gets_one_entry_for_each_run_of_a_model() -> None:
    odd = [run("c", control="noise"), run("o", oracle=True), run("s", source="sample")]
    text, left_out = hub_text([run(), run("mnns", task="MNNS"), *odd], "https://page")
    assert yaml.safe_load(text) == [
        {
            "dataset": {"id": "openai/gsm8k", "task_id": "main"},
            "value": 50.0,
            "date": "2026-11-30",
            "notes": "x (x thoughts); x, 200 questions, 2 seeds; 95 % interval 43.25 to 56.75; "
            "1G FLOP an answer",
            "source": {"url": "https://page", "name": "latentgym"},
        }
    ]
    assert len(left_out) == 4 and any("mnns asks MNNS" in each for each in left_out)
    with pytest.raises(UsageError, match="give the folders of one model"):
        hub_text([run(), run(model="other")], None)
    with pytest.raises(UsageError, match="no run belongs on the hub: s asks made-up questions"):
        hub_text([run("s", source="sample")], None)
    for name in HOSTILE:
        entry = yaml.safe_load(hub_text([run(agent=name, created=name)], None)[0])[0]
        assert "date" not in entry and entry["value"] == 50.0


def saved(folder: Path) -> Path:
    _, result = run(task="MNNS", env="latent/MNNS-token", n=2, seeds=[3, 5], family="token")
    rollouts = [
        {
            "index": q,
            "seed": s,
            "question": f"[q{q}](x)",
            "target": "4",
            "score": float(q),
            "completion": "so <b>4</b>",
            "answer": "4",
            "parsed": "4",
            "status": "ok",
            "segments": [{"kind": "thought", "text": "so"}, {"kind": "answer", "text": "4"}],
            "steps": [{"ids": [1], "tokens": ["so"], "weights": [1.0], "by": "weights"}],
            "components": {"correct": float(q)},
        }
        for s in (3, 5)
        for q in (0, 1)
    ]
    result.save(folder, rollouts)
    return folder


def test_files_are_written_beside_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "runs" / "one")
    files = [tmp_path / "out" / f"table.{kind}" for kind in ("csv", "md", "tex")]
    options = zip(("--csv", "--markdown", "--latex"), map(str, files), strict=True)
    argv = ["leaderboard", str(tmp_path / "runs"), *(word for pair in options for word in pair)]
    assert main([*argv, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["results"][0]["task"] == "MNNS"
    assert said.err.count("wrote ") == 3 and all(file.stat().st_size for file in files)
    (tmp_path / "file").write_text("in the way")
    for wrong, says in (
        (["--source-url", "https://x"], "give --hub FILE too"),
        (["--hub", "x.yaml", "--source-url", "javascript:x"], "no http address"),
        (["--hub", "x.yaml"], "no run belongs on the hub"),
        (["--latex", "x.tex", "--columns", "token"], "no column 'token'; did you mean 'tokens'"),
        (["--columns", "tokens"], "--columns are those of --markdown and --latex"),
        (["--csv", str(tmp_path / "file" / "x.csv")], "choose another file"),
    ):
        assert main(["leaderboard", str(tmp_path / "runs"), *wrong]) == 2
        assert says in capsys.readouterr().err


def test_a_log_needs_the_library_and_a_name_that_says_its_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(saved(tmp_path / "one"))
    assert main(["export", folder, "--inspect", str(tmp_path / "log.txt")]) == 2
    assert "let it end in .eval or .json" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai", None)
    assert main(["export", folder, "--inspect", str(tmp_path / "log.eval")]) == 2
    assert "pip install 'latentgym[inspect]'" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("inspect_ai") is None, reason="inspect_ai is not installed")
@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_inspect_reads_the_log(suffix: str, tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    path = tmp_path / f"log{suffix}"
    assert main(["export", str(saved(tmp_path / "one")), "--inspect", str(path)]) == 0
    log = read_eval_log(str(path))
    assert (log.status, log.eval.task, log.eval.solver) == ("success", "latentgym/MNNS", "x")
    assert log.results.scores[0].metrics["accuracy"].value == 0.5
    assert [(s.id, s.epoch) for s in log.samples] == [(0, 1), (1, 1), (0, 2), (1, 2)]
    sample = log.samples[1]
    assert (sample.input, sample.target, sample.scores["score"].value) == ("[q1](x)", "4", 1.0)
    assert sample.output.completion == "so <b>4</b>" and "[thought]" in sample.messages[1].text
    assert sample.metadata["seed"] == 3 and sample.metadata["steps"][0]["tokens"] == ["so"]
