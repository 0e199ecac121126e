"""An evaluation that was killed goes on, and ends with the record of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latentgym.agents.base import Agent
from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.evaluation.accounting import Positions
from latentgym.evaluation.answers import Answer
from latentgym.evaluation.evaluate import Evaluation
from latentgym.evaluation.journal import JOURNAL, Journal
from latentgym.evaluation.results import load_result, load_rollouts
from latentgym.registry import ADDED
from latentgym.system.sealed import SEAL, UnverifiedWarning, sealed

EVAL = [
    *("eval", "mts-grpo", "latent/MNNS-continuous", "--model", "tiny:gpt2:1x1x16"),
    *("--thoughts", "mts", "--k", "4", "--limit", "20", "--batch", "4", "--seeds", "0", "3"),
]
# Runs the same evaluation several times, each in a process of its own that dies by SIGKILL after
# so many calls (0: never); says how each ended and how many calls the last one took. Calls are
# counted, not seconds, so the kills happen at the same moments on any machine.
LAUNCHER = """
import os, signal, sys
from latentgym.agents import mts_grpo
from latentgym.cli import evaluate
from transformers.models.gpt2 import modeling_gpt2

def doomed(moment, ask):
    def counted(*args, **options):
        calls = 0
        def on_call(frame, event, argument):
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(on_call)
        try:
            return ask(*args, **options)
        finally:
            sys.setprofile(None)
            print(calls, flush=True)
    return counted

moments, argv = sys.argv[1].split(","), sys.argv[2:]
for moment in map(int, moments):
    pid = os.fork()
    if pid == 0:
        try:
            evaluate.evaluate = doomed(moment, evaluate.evaluate)
            os._exit(evaluate.main(argv))
        finally:
            os._exit(1)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def launched(moments: str, out: Path) -> list[int]:
    """What the launcher says."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, moments, *EVAL[1:], "--out", str(out), "--resume"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.splitlines() if line.isdigit()]


def without_seal(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != SEAL}


def same_but_for_the_clock(one: Path, other: Path) -> None:
    assert list(load_rollouts(one)) == list(load_rollouts(other))
    records = [vars(load_result(folder)) for folder in (one, other)]
    for record in records:
        for own in ("wall_s", "answers_per_s", "created", "command"):
            assert record.pop(own)
    assert records[0] == records[1]


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.thorough
def test_killed_twice_and_resumed_is_the_evaluation_that_was_not(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    calls, status = launched("0", whole)
    assert status == 0 and calls > 10_000
    moments = [*(str(int(calls * share)) for share in (0.3, 0.4)), "0"]
    *statuses, fewer, status = launched(",".join(moments), killed)
    assert all(os.WIFSIGNALED(s) and os.WTERMSIG(s) == signal.SIGKILL for s in statuses)
    assert status == 0 and len(statuses) == 2
    assert 0.3 * calls < fewer < 0.7 * calls  # the first batches were not asked for again
    assert sorted(path.name for path in killed.iterdir()) == ["result.json", "rollouts.jsonl.gz"]
    same_but_for_the_clock(whole, killed)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of an evaluation that was stopped after its third batch."""
    out = tmp_path_factory.mktemp("unfinished")
    add, batches = Journal.add, []

    def interrupted(*args: Any) -> None:
        add(*args)
        batches.append(args)
        if len(batches) == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "add", interrupted)
        assert main([*EVAL, "--out", str(out)]) == 130
    assert len(lines(out)) == 4
    return (out / JOURNAL).read_bytes()


@pytest.fixture
def out(unfinished: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / JOURNAL).write_bytes(unfinished)
    return folder


def test_only_what_is_missing_is_asked_and_the_clock_goes_on(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *before, last = lines(out)
    last = sealed({**without_seal(last), "wall_s": 1000.0}, before[-1][SEAL])
    (out / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in (*before, last)))
    answer, asked = Agent.answer, []

    def asking(self: Any, policy: Any, env: Any, questions: Any, seed: int, *args: Any) -> Any:
        asked.append((seed, questions.tolist()))
        return answer(self, policy, env, questions, seed, *args)

    monkeypatch.setattr(Agent, "answer", asking)
    assert main([*EVAL, "--out", str(out), "--resume"]) == 0
    assert asked == [(0, list(range(12, 20))), (3, list(range(20)))]
    result = load_result(out)
    assert 1000 < result.wall_s < 1100
    assert result.answers_per_s == 40 / result.wall_s


def test_only_the_record_is_missing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "save", interrupted)
        assert main([*EVAL, "--out", str(out), "--resume"]) == 130
    monkeypatch.setattr(Agent, "answer", interrupted)
    assert main([*EVAL, "--out", str(out), "--resume"]) == 0
    assert load_result(out).n == 20


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--k", "5"], "(it differs in config.agent.k)"),
        (["--seeds", "0"], "(it differs in seeds)"),
        (["--limit", "39"], "(it differs in questions)"),
        (["--control", "noise"], "(it differs in control)"),
        (["-o", "m=3"], "env_options"),
        (["--dtype", "bfloat16"], "(it differs in weights)"),
    ],
)
def test_other_settings_are_refused_by_name(
    argv: list[str], says: str, out: Path, unfinished: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EVAL, *argv, "--out", str(out), "--resume"]) == 2
    assert says in capsys.readouterr().err
    assert (out / JOURNAL).read_bytes() == unfinished


def test_another_batch_size_may_go_on(out: Path) -> None:
    assert main([*EVAL, "--batch", "16", "--out", str(out), "--resume"]) == 0


def test_an_earlier_run_is_not_overwritten(
    out: Path, unfinished: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EVAL, "--out", str(out)]) == 2
    assert "holds an earlier run" in capsys.readouterr().err
    assert (out / JOURNAL).read_bytes() == unfinished


def test_a_finished_evaluation_has_nothing_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*EVAL, "--out", str(tmp_path / "run"), "--resume"]
    assert main(argv) == 0  # without a journal it begins
    assert main(argv) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    assert main([*EVAL, "--resume"]) == 2
    assert "--resume needs --out" in capsys.readouterr().err


IDENTITY = {"seeds": [0, 1], "config": {"k": 4, "layers": (1, 2)}}


def answers(*index: int) -> list[Answer]:
    return [
        Answer(
            index=i,
            info={"answer": "zw\u00f6lf \u2028\ud800\n", "score": 0.1 + i, "parsed": None},
            thoughts="",
            positions=Positions(1.5, gradient=2),
            context=3,
            samples=(1.0, 0.0),
            metrics={"latent/norm": 1 / 3, "nan": float("inf")},
            trace=[{"tried": [1, {"score": 0.3}]}],
        )
        for i in index
    ]


def written(folder: Path) -> dict[tuple[int, int], Answer]:
    """Two batches in a journal; what should be found in it."""
    journal = Journal(folder, IDENTITY)
    assert (journal.answers, journal.wall_s) == ({}, 0.0)
    journal.add(0, answers(4, 7), 1.5)
    journal.add(1, answers(4), 2.25)
    return dict(zip([(0, 4), (0, 7), (1, 4)], answers(4, 7, 4), strict=True))


def test_what_is_written_is_found(tmp_path: Path) -> None:
    expected = written(tmp_path / "new" / "run")
    found = Journal(tmp_path / "new" / "run", IDENTITY)
    assert (found.answers, found.wall_s) == (expected, 2.25)


def test_a_last_line_that_ends_anywhere_is_cut_off(tmp_path: Path) -> None:
    expected = written(tmp_path)
    path = tmp_path / JOURNAL
    data = path.read_bytes()
    first, second = data.splitlines(keepends=True)[:2]
    for size in range(len(data)):
        path.write_bytes(data[:size])
        found = Journal(tmp_path, IDENTITY)
        seeds = sum(size >= part for part in (len(first + second), len(data)))
        assert set(found.answers) == {key for key in expected if key[0] < seeds}
        assert path.read_bytes() == (first + second if seeds else first)
    Journal(tmp_path, IDENTITY).add(0, answers(4, 7), 1.5)
    Journal(tmp_path, IDENTITY).add(1, answers(4), 2.25)
    assert Journal(tmp_path, IDENTITY).answers == expected


@pytest.mark.parametrize(
    "line", [b"\n", b"\0\0\0\n", b"{\n", b"[1]\n", b'{"seed": 1, "ans', b"\xff"]
)
def test_a_damaged_last_line_is_cut_off_and_another_is_refused(tmp_path: Path, line: bytes) -> None:
    expected = written(tmp_path)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + line)
    assert Journal(tmp_path, IDENTITY).answers == expected
    assert path.read_bytes() == whole
    path.write_bytes(whole + line.rstrip(b"\n") + b"\n" + whole.splitlines(keepends=True)[-1])
    with pytest.raises(UsageError, match="damaged in line 4"):
        Journal(tmp_path, IDENTITY)


def test_a_journal_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    other = {**IDENTITY, "config": {"k": 5, "layers": (1, 2)}, "split": "test"}
    with pytest.raises(UsageError, match=r"differs in config\.k, split\)"):
        Journal(tmp_path, other)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        Journal(tmp_path / "file", IDENTITY)


def test_a_line_that_was_changed_lost_doubled_or_moved_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    Journal(tmp_path, IDENTITY).add(1, answers(7), 3.0)
    path = tmp_path / JOURNAL
    head, one, two, three = path.read_bytes().splitlines(keepends=True)
    for changed in (
        [head, one.replace(b'"score": 4.1', b'"score": 1.0'), two, three],
        [head, two, three],
        [head, one, one, two, three],
        [head, two, one, three],
        [head, json.dumps(without_seal(json.loads(one))).encode() + b"\n", two, three],
        [json.dumps(without_seal(json.loads(head))).encode() + b"\n", one, two, three],
    ):
        path.write_bytes(b"".join(changed))
        with pytest.raises(UsageError, match=r"damaged in line|is of another run"):
            Journal(tmp_path, IDENTITY)


def test_a_journal_from_before_a_setting_was_a_choice_goes_on(tmp_path: Path) -> None:
    older = {"config": {"agent": {"cue": "", "grpo": {"prompts": 4}}}}
    grpo = {"prompts": 4, **ADDED["grpo"]}
    now = {"config": {"agent": {"prompt_suffix": "", "grpo": grpo}}}
    Journal(tmp_path, older).add(0, answers(4), 1.0)
    assert Journal(tmp_path, now).answers.keys() == {(0, 4)}
    grpo["loss"] = "gspo"
    with pytest.raises(UsageError, match=r"differs in config\.agent\.grpo\.loss"):
        Journal(tmp_path, now)


@pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
def test_a_journal_from_before_there_were_seals_goes_on(tmp_path: Path) -> None:
    expected = written(tmp_path)
    path = tmp_path / JOURNAL
    path.write_text("".join(json.dumps(without_seal(line)) + "\n" for line in lines(tmp_path)))
    with pytest.warns(UnverifiedWarning, match="not verified"):
        found = Journal(tmp_path, IDENTITY)
    assert found.answers == expected
    found.add(1, answers(7), 3.0)
    again = Journal(tmp_path, IDENTITY).answers
    assert again == {**expected, (1, 7): answers(7)[0]}


@pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
@pytest.mark.parametrize(
    "change",
    [
        {"answers": None},
        {"answers": [7]},
        {"seed": []},
        {"wall_s": "x"},
        {"answers": [{"index": 1}]},
    ],
)
def test_a_journal_that_says_something_else_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    written(tmp_path)
    head, one, two = map(without_seal, lines(tmp_path))
    changed = [head, {**one, **change}, two]
    (tmp_path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in changed))
    with pytest.raises(UsageError, match="damaged in line 2"):
        Journal(tmp_path, IDENTITY)
