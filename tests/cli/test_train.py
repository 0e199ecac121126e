"""What a training run knows before its first step, and what it tells afterwards."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from latentgym.cli.main import main
from latentgym.evaluation.results import load_result
from latentgym.registry import make_vector_env
from latentgym.system.lock import in_use
from latentgym.training.manifest import latest as find_checkpoint

TINY = ["--model", "tiny:gpt2:1x1x16", "--steps", "2"]
GRPO = ["--stage", "grpo"]
MNNS = ["train", "cot", "latent/MNNS-token", *TINY]
GSM8K = ["train", "cot", "latent/GSM8K-token", *TINY, "-o", "source=sample", "--eval-limit", "0"]


def refused(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert says in capsys.readouterr().err


def test_an_agent_has_a_model_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "eval"):
        argv = [verb, "cot", "latent/MNNS-token", "--model", "tiny:gpt2:1x1x16"]
        refused([*argv, "-o", "dynamics=tiny"], "dynamics cannot be given with -o", capsys)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--eval-split", "tset"], "splits train and test"),
        (["--eval-limit", "100000"], "questions, not 100000"),
        (["--eval-limit", "-1"], "--eval-limit must be at least 0"),
        (["--device", "cuda"], "no device 'cuda' here"),
        (["--optimisation.schedule", "cosinus"], "no schedule 'cosinus'; choose constant"),
        ([*GRPO, "--grpo.group-size", "1"], "--grpo.group-size must be at least 2"),
        ([*GRPO, "--grpo.mini-batches", "3"], "which does not divide the 128 rows"),
        ([*GRPO, "--grpo.advantage", "rlo"], "no advantage estimator 'rlo'; did you mean 'rloo'?"),
        ([*GRPO, "--grpo.kl-estimator", "k4"], "no KL estimator 'k4'"),
        ([*GRPO, "--grpo.mean", "tokens"], "no mean 'tokens'; did you mean 'token'?"),
        (["--samples", "3"], "several greedy samples are all the same"),
        (["--lora-alpha", "3"], "give --lora-r"),
        (["--model", ""], "--model is empty"),
        (["--checkpoint="], "--checkpoint is empty"),
        (["--model", "a" * 300], "File name too long"),
        (["--checkpoint", "a" * 300], "File name too long"),
    ],
)
def test_what_cannot_end_well_does_not_begin(
    argv: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    refused([*MNNS, *argv, "--out", str(out)], says, capsys)
    assert not out.exists()


def test_the_second_process_in_a_folder_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_use(tmp_path):
        refused([*MNNS, "--out", str(tmp_path)], "is in use by process", capsys)
        evaluation = ["eval", "cot", "latent/MNNS-token", "--model", "tiny", "--limit", "3"]
        refused([*evaluation, "--out", str(tmp_path)], "is in use by process", capsys)


def test_a_disk_that_is_too_small_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 4096))
    refused([*MNNS, "--out", str(tmp_path / "run")], "two checkpoints take", capsys)


def test_demonstrations_that_are_too_long_are_told_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In bytes, some of the sample's questions and chains are longer than the model can read."""
    long = ["-o", "system=" + 720 * "x"]
    says = "questions need more than the model's 1024 positions"
    refused([*GSM8K, *long, "--out", str(tmp_path / "a")], says, capsys)
    kept = tmp_path / "b"
    assert main([*GSM8K, *long, "--skip-long", "--out", str(kept)]) == 0
    assert "questions are left out" in capsys.readouterr().err
    refused([*GSM8K, *long, "--resume", "--out", str(kept)], says, capsys)  # as it was started


def test_prompts_that_are_too_long_are_told_before_anything_is_rolled_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "questions need more than the model's 1024 positions"
    budget = ["-o", "think=800"]
    refused([*GSM8K, "--stage", "grpo", *budget, "--out", str(tmp_path / "a")], says, capsys)
    evaluation = ["eval", "cot", "latent/GSM8K-token", "--model", "tiny", "-o", "source=sample"]
    refused([*evaluation, *budget], says, capsys)


def test_questions_that_were_trained_on_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, limited = tmp_path / "run", ["-o", "limit=40"]
    assert main([*MNNS, *limited, "--eval-limit", "20", "--out", str(out)]) == 0
    assert load_result(out).trained_on == 0
    evaluation = ["eval", "cot", "latent/MNNS-token", "--checkpoint", str(out), "--limit", "50"]
    assert main([*evaluation, "--split", "train", "--out", str(tmp_path / "again")]) == 0
    assert load_result(tmp_path / "again").trained_on == 40
    assert "40 of 50 questions were trained on" in " ".join(capsys.readouterr().out.split())
    # Of another division into train and test some are the same, under another number.
    other = ["-o", "split_seed=5", "-o", "limit=1000", "--out", str(tmp_path / "other")]
    assert main([*evaluation[:-1], "600", *other]) == 0
    task, asked = (
        make_vector_env("latent/MNNS-token", 1, **options).unwrapped.task
        for options in ({"limit": 40}, {"split": "test", "split_seed": 5})
    )
    texts = {task.question(i).text for i in range(40)}
    both = sum(asked.question(i).text in texts for i in range(600))
    assert 0 < both == load_result(tmp_path / "other").trained_on


def test_what_a_run_began_from_was_trained_on_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    assert main([*MNNS, "-o", "limit=40", "--eval-limit", "0", "--out", str(first)]) == 0
    last = [*MNNS, "--split", "test", "-o", "limit=10", "--checkpoint", str(first)]
    assert main([*last, "--eval-limit", "20", "--eval-split", "train", "--out", str(second)]) == 0
    assert "20 questions, 20 of them trained on" in " ".join(capsys.readouterr().out.split())
    asked = ["eval", "cot", "latent/MNNS-token", "--checkpoint", str(second), "--split", "train"]
    assert main([*asked, "--limit", "50", "--out", str(third)]) == 0
    assert load_result(third).trained_on == 40
    shutil.rmtree(first)
    for split, known in (("train", None), ("test", 10)):
        out = tmp_path / split
        assert main([*asked[:-1], split, "--limit", "50", "--out", str(out)]) == 0
        assert load_result(out).trained_on == known
        assert "not all that this checkpoint was trained on is known" in capsys.readouterr().err


def test_rows_of_a_file_are_held_out_or_the_evaluation_says_that_they_were_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(40)]
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["train", "cot", "latent/GSM8K-token", *TINY, "-o", f"source={mine}", "-o", "think=20"]
    assert main([*argv, "--out", str(tmp_path / "a")]) == 0
    assert "10 % of" in capsys.readouterr().err
    held = load_result(tmp_path / "a")
    assert (held.n, held.trained_on, held.source) == (4, 0, f"path:{mine}")
    assert main([*argv, "-o", "holdout=0", "--out", str(tmp_path / "b")]) == 0
    assert "40 questions, 40 of them trained on" in " ".join(capsys.readouterr().out.split())
    assert load_result(tmp_path / "b").trained_on == 40
    # The evaluation of the checkpoint asks what was held out, as the run itself did.
    again = ["eval", "cot", "latent/GSM8K-token", "--checkpoint", str(tmp_path / "a")]
    assert main([*again, "--out", str(tmp_path / "c")]) == 0
    assert load_result(tmp_path / "c").n == 4
    assert main(["leaderboard", str(tmp_path / "b")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "40 of 40 questions were trained on" in shown and "GSM8K, test, path:" in shown


def test_a_run_is_made_longer_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path), "--eval-limit", "20"]
    assert main([*MNNS, *out]) == 0
    assert main([*MNNS, *out, "--steps", "3", "--resume"]) == 0
    assert load_result(tmp_path).config["steps"] == 3
    told = capsys.readouterr().err
    assert "was of 2 steps and is now of 3" in told
    assert "the result of step 2 is now" in told  # it is not that of the weights of step 3
    assert load_result(tmp_path / "step-2.result.json").config["steps"] == 2
    # What trains nothing leaves the result where it is.
    refused([*MNNS, *out, "--steps", "4", "--seed", "1", "--resume"], "is of another run", capsys)
    assert load_result(tmp_path).config["steps"] == 3
    # Nor does a run without an evaluation of its own keep that of other weights.
    assert main([*MNNS, *out[:-1], "0", "--steps", "4", "--resume"]) == 0
    assert not (tmp_path / "result.json").exists() and (tmp_path / "step-3.result.json").exists()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [1, 2, 3, 4]


def test_a_run_goes_on_with_its_own_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "cot", "latent/MNNS-token", "--out", str(tmp_path), "--eval-limit", "0"]
    assert main([*argv, *TINY]) == 0
    assert main([*argv, "--steps", "3", "--resume"]) == 0
    assert "no --model" not in capsys.readouterr().err


def test_a_run_that_is_finished_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*MNNS, "--out", str(tmp_path), "--eval-limit", "0"]
    assert main(argv) == 0
    assert "trained 2 steps" in capsys.readouterr().err
    assert main([*argv, "--resume"]) == 0
    told = capsys.readouterr().err
    assert "nothing is left to train, all 2 steps are taken" in told and "trained 2" not in told


def test_an_evaluation_that_is_finished_is_shown_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "cot", "latent/MNNS-token", "--model", "tiny", "--out", str(tmp_path)]
    assert main([*argv, "--limit", "4"]) == 0
    written = (tmp_path / "result.json").read_bytes()
    assert main([*argv, "--limit", "4", "--resume"]) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    refused([*argv, "--limit", "5", "--resume"], "it differs in n", capsys)
    refused([*argv, "--limit", "4"], "holds a result already", capsys)
    assert (tmp_path / "result.json").read_bytes() == written


def test_a_run_that_is_interrupted_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*MNNS, "--steps", "3000", "--save-every", "5", "--out", str(tmp_path / "run")]
    # Tests that were started in the background pass on that they ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        while not find_checkpoint(tmp_path / "run" / "checkpoints"):
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        assert main(argv) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    told = capsys.readouterr().err
    assert "go on with the same command and --resume" in told
    assert told.endswith("latentgym train: interrupted.\n") and "Traceback" not in told
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_process_that_is_stopped_says_how_to_go_on(
    sent: signal.Signals, code: int, word: str, tmp_path: Path
) -> None:
    if signal.getsignal(sent) is signal.SIG_IGN:
        pytest.skip("tests that were started in the background pass on that they ignore it")
    argv = [*MNNS, "--steps", "100000", "--save-every", "5", "--out", str(tmp_path / "run")]
    command = [sys.executable, "-m", "latentgym", *argv]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        for _ in range(600):
            if run.poll() is not None or find_checkpoint(tmp_path / "run" / "checkpoints"):
                break
            time.sleep(0.1)
        run.send_signal(sent)
        assert run.stderr is not None
        told = run.stderr.read()
    assert run.returncode == code
    assert "go on with the same command and --resume" in told
    assert told.endswith(f"latentgym train: {word}.\n")
    assert "Traceback" not in told
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    command = f"{sys.executable} -m latentgym envs | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
