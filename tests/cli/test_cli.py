"""The command line as a user meets it: outputs, records, and one sentence for every mistake."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from latentgym.cli.main import main, run
from latentgym.cli.options import DECIDED
from latentgym.evaluation.accounting import Positions
from latentgym.evaluation.results import load_result
from latentgym.registry import AGENTS, RESERVED, TASKS
from latentgym.training.manifest import find

_CPU = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
TRAIN = ["train", "mts-grpo", "latent/MNNS-continuous", "--model", "tiny:gpt2:1x1x16"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "csft"
    assert main([*TRAIN, "--steps", "20", "--eval-limit", "50", "--out", str(out)]) == 0
    return out


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    line = capsys.readouterr().out.strip().splitlines()[-1]
    data = json.loads(line)
    assert isinstance(data, dict)
    return data


def test_training_leaves_checkpoint_metrics_and_result(trained: Path) -> None:
    assert (trained / "checkpoints" / "step-00000020" / "policy.safetensors").is_file()
    assert (trained / "metrics.jsonl").is_file()
    assert any((trained / "tensorboard").iterdir())
    result = load_result(trained)
    assert (result.agent, result.task, result.family) == ("mts-grpo", "MNNS", "continuous")
    assert (result.n, result.split, result.source) == (50, "test", "generated")


def test_result_record_has_the_frozen_keys(trained: Path) -> None:
    keys = set(json.loads((trained / "result.json").read_text()))
    assert keys >= {
        *("schema", "agent", "env", "task", "family", "model", "checkpoint", "split", "source"),
        *("dataset_hash", "n", "seeds", "accuracy", "accuracy_ci95", "metrics", "thoughts_mean"),
        *("tokens_mean", "latent_share", "forward_positions", "flops_per_answer", "wall_s"),
        *("answers_per_s", "device", "control", "config", "versions", "git", "created"),
    }
    positions = json.loads((trained / "result.json").read_text())["forward_positions"]
    assert set(positions) >= {"prompt", "thought", "answer", "discarded"}
    assert set(positions) == set(Positions().as_dict())


def test_eval_of_a_checkpoint_repeats_the_final_evaluation(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "mts-grpo", "latent/MNNS-continuous", "--checkpoint", str(trained)]
    assert main([*argv, "--limit", "50", "--out", str(tmp_path / "eval"), "--json"]) == 0
    assert last_json(capsys)["accuracy"] == load_result(trained).accuracy
    paths = [folder / "rollouts.jsonl.gz" for folder in (trained, tmp_path / "eval")]
    first, again = (gzip.decompress(path.read_bytes()) for path in paths)
    assert first == again


def older_copy(trained: Path, copy: Path, changed: Any) -> Path:
    """Its record without the hash of its rollouts, as records were before they had one."""
    copy.mkdir()
    shutil.copy(trained / "result.json", copy)
    changed(copy / "result.json", lambda data: data.pop("files"), older=True)
    return copy


@pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
def test_rescore_agrees_and_notices_a_changed_answer(
    trained: Path, tmp_path: Path, changed: Any
) -> None:
    assert main(["rescore", str(trained)]) == 0
    copy = older_copy(trained, tmp_path / "copy", changed)
    with gzip.open(trained / "rollouts.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    wrong = next(row for row in rows if row["score"] == 0)
    wrong["answer"] = wrong["completion"] = wrong["target"]
    with gzip.open(copy / "rollouts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert main(["rescore", str(copy)]) == 1


@pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
def test_rescore_of_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", str(tmp_path)]) == 2
    assert "holds no result.json" in capsys.readouterr().err


def test_rescore_notices_rows_that_are_lost(
    trained: Path, tmp_path: Path, changed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with gzip.open(trained / "rollouts.jsonl.gz", "rt") as file:
        rows = file.readlines()
    copy = older_copy(trained, tmp_path / "copy", changed)
    said = {copy: "of 50 answers 40 are missing", tmp_path / "now": "its SHA-256 differs"}
    shutil.copytree(trained, tmp_path / "now")
    for folder, sentence in said.items():
        with gzip.open(folder / "rollouts.jsonl.gz", "wt") as file:
            file.writelines(rows[:10])
        assert main(["rescore", str(folder)]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"env": "CartPole-v1"}, "no environment 'latent/CartPole-v1'"),
        ({"env": "latent/Nothing-token"}, "no environment"),
        ({"model": "no/such/model"}, "no/such/model"),
        ({"config": {"env_options": {"m": "many"}}}, "m of latent/MNNS-continuous is"),
        ({"config": {"env_options": []}}, "are no options by name"),
        ({"config": {"env_options": {"num_envs": 2}}}, "num_envs cannot be among"),
        ({"n": 10**12}, "no share of questions"),
    ],
    ids=str,
)
def test_rescore_of_a_foreign_record_is_told(
    change: dict[str, Any],
    says: str,
    trained: Path,
    tmp_path: Path,
    changed: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    changed(tmp_path / "run" / "result.json", lambda data: data.update(change))
    assert main(["rescore", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said


def test_controls_replace_thoughts(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "mts-grpo", "latent/MNNS-continuous", "--checkpoint", str(trained)]
    assert main([*argv, "--limit", "20", "--control", "noise", "--json"]) == 0
    assert last_json(capsys)["control"] == "noise"


def test_adapters_train_alone_and_are_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lora"
    argv = [*TRAIN[:-1], "tiny:llama:1x2x16", "--lora-r", "2", "--steps", "5"]
    assert main([*argv, "--eval-limit", "30", "--out", str(out)]) == 0
    weights = load_file(str(find(out) / "policy.safetensors"))
    adapted = [v for k, v in weights.items() if "lora_B" in k]
    assert adapted
    assert any(float(v.abs().max()) > 0 for v in adapted)
    again = ["eval", "mts-grpo", "latent/MNNS-continuous", "--checkpoint", str(out)]
    assert main([*again, "--limit", "30", "--json"]) == 0
    assert last_json(capsys)["accuracy"] == load_result(out).accuracy


def test_leaderboard_shows_what_was_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "MNNS, test, generated" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_envs_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "--json"]) == 0
    tasks = last_json(capsys)["tasks"]
    assert isinstance(tasks, list)
    assert {"GSM8K", "MNNS", "RG_chain_sum"} <= {task["task"] for task in tasks}
    for more, listed in (([], False), (["--all"], True)):
        assert main(["envs", *more]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
        words = shown.split()
        assert all(f"latent/{task}-*" in words for task in TASKS if task[:3] != "RG_" or listed)
        assert ("latent/RG_chain_sum-*" in words) == listed
    assert main(["info", "latent/MNNS-token"]) == 0
    assert "exactly 3 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    "env", ["GSM8K-token", "NQ-token", "MNNS-token", "MovieLens-token", "RG_gcd-token"]
)
def test_info_says_how_answers_are_graded(env: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-o", "engine=bm25s"] if env == "NQ-token" else []
    assert main(["info", env, *options, "--json"]) == 0
    out = capsys.readouterr().out
    grader = json.loads(out)["grader"]  # all of stdout is JSON
    assert len(grader.split()) > 3 and grader.endswith(".") and out.count("\n") == 1


def test_validate_tells_a_gold_answer_that_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "RG_ab-token", "--limit", "19"]) == 1  # all tokens of 18 vanish
    said = capsys.readouterr()
    assert "gold answer of question 18 is empty" in said.err and "1 faults" in said.out


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("RG_chainsum-token", "'latent/RG_chain_sum-token'"),
        ("RG_xyzzy-token", "latentgym envs lists all."),
        ("gsm8k-token", "did you mean 'latent/GSM8K-token'?"),
        ("MNNS-continous", "did you mean 'latent/MNNS-continuous'?"),
        ("MNNS", "'latent/MNNS-token' or 'latent/MNNS-hybrid' or 'latent/MNNS-continuous'"),
    ],
)
def test_the_nearest_ids_are_named(
    wrong: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", wrong]) == 2
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize(
    "env", ["GSM8K-token", "MATH-token", "ProsQA-continuous", "AIME2024-token"]
)
def test_validate(env: str) -> None:
    assert main(["validate", f"latent/{env}", "--limit", "5"]) == 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["evl"], "did you mean 'eval'"),
        (["info", "latent/GSM8K-tokens"], "did you mean 'latent/GSM8K-token'"),
        (["eval", "cott", "latent/MNNS-token"], "did you mean 'cot'"),
        (["eval", "cot", "latent/MNNS-continuous"], "latent/MNNS-token"),
        (["eval", "cot", "latent/MNNS-token", "--model", "no/such/folder"], "there is no folder"),
        (["eval", "cot", "latent/MNNS-token", "--model", "tiny:rnn"], "no tiny architecture"),
        (["eval", "cot", "latent/MNNS-token", "--model", "tiny", "-o", "depth=3"], "depth"),
        (["eval", "cot", "latent/MNNS-token", "--model", "tiny", "-o", "depth"], "name=value"),
        (["info", "latent/MNNS-token", "-o", "m=99", "-o", "high=9"], "from 2 to 8, not 99"),
        (["info", "latent/MNNS-token", "-o", "m=abc"], "from 2 to 8, not 'abc'"),
        (["info", "latent/MNNS-token", "-o", "think=abc"], "think of latent/MNNS-token is a whole"),
        (["info", "latent/MNNS-token", "-o", "model=x"], "say --model"),
        (["info", "latent/MNNS-token", "-o", "split=test"], "say --split"),
        (["info", "latent/MNNS-token", "-o", "num_envs=3"], "how many rows there are"),
        (["info", "latent/MNNS-token", "-o", "task=ProsQA"], "name another one"),
        (["info", "latent/MNNS-token", "-o", "render_mode=human"], "show rows themselves"),
        (["info", "latent/MNNS-token", "-o", "wrappers=[]"], "without wrappers"),
        (["info", "latent/MNNS-token", "-o", "m=4", "-o", "m=5"], "given twice"),
        (["info", "latent/MNNS-token", "-o", f"m={'[' * 100_000}"], "nested too deeply"),
        (["info", "latent/MNNS-token", "-o", f"m={'9' * 10_000}"], "from 2 to 8, not '999"),
        (
            ["info", "latent/MNNS-token", "-o", f"limit=1{'0' * 400}"],
            "from 1 to 2147483647 or none, not 100",
        ),
        (
            ["info", "latent/MNNS-hybrid", "-o", f"hidden_size=-1{'0' * 400}"],
            "from 1 to 65536 or none, not -100",
        ),
        (["info", "latent/MNNS-token", "-o", "low=NaN"], "from 1 to 999, not nan"),
        (["info", "latent/GSM8K-token", "-o", "source=sample", "-o", "answer=0"], "from 1 to"),
        (["eval", "cot", "latent/MNNS-token", "--model", "tiny", "--limit", "99999"], "questions"),
        (["eval", "cot", "latent/MNNS-token", "--limit", "3", "--index", "1"], "one of them out"),
        (
            ["eval", "cot", "latent/MNNS-token", "--checkpoint", "nowhere"],
            "there is no folder nowhere",
        ),
        (["eval", "cot", "latent/GSM8K-token", "--model", "tiny", "--split", "dev"], "split"),
        (["train", "soft-thinking", "latent/MNNS-continuous"], "no training"),
        ([*TRAIN, "--preset", "nope"], "no preset"),
        ([*TRAIN, "--steps", "0"], "--steps"),
        (["leaderboard", "nowhere"], "no folder"),
        (["rescore", "nowhere"], "no folder"),
        (["bench", "rolout"], "did you mean 'rollout'"),
        ([*TRAIN, "--preset", "grpo", "--k", "500", "--steps", "1"], "smaller k"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_two(
    argv: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if argv[0] == "train":
        argv = [*argv, "--out", str(tmp_path / "run")]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize("option", ["modle=x", "autoreset=3", "splitt=test", "nenvs=3"])
def test_options_that_cannot_be_given_are_not_suggested(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "latent/MNNS-token", "-o", option]) == 2
    told = capsys.readouterr().err
    assert "unexpected keyword argument" in told and "think" in told
    assert not any(name in told.replace(repr(option.split("=")[0]), "") for name in NEVER)


NEVER = DECIDED.keys() - {"id", "task", "split"}  # which are in other words of the sentence


def test_whatever_commands_decide_on_is_in_no_record_and_no_pair() -> None:
    assert DECIDED.keys() >= RESERVED


def test_a_run_is_not_overwritten(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--out", str(trained)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_checkpoint_of_another_model_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "mts-grpo", "latent/MNNS-continuous", "--checkpoint", str(trained)]
    assert main([*argv, "--model", "tiny:gpt2:1x1x32"]) == 2
    assert "another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["soft-thinking", "latent/MNNS-continuous", "--limit", "1"],
        ["soft-thinking", "latent/MNNS-continuous", "--limit", "4", "--batch", "1"],
    ],
)
def test_no_question_is_given_its_own_thoughts_as_anothers(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", *more, "--model", "tiny:gpt2:1x1x16", "--control", "shuffle"]
    assert main(argv) == 2
    assert "two or more are answered at once" in capsys.readouterr().err


def test_unknown_option_exits_with_two() -> None:
    code = "from latentgym.cli.main import run; run()"
    argv = [sys.executable, "-c", code, *TRAIN, "--lerning-rate", "1"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"latentgym train {TRAIN[1]} --help" in done.stderr  # where its options are listed


@pytest.mark.parametrize("words", [["--force-answer", "true"], ["--think=9"], ["--holdout", "0"]])
def test_options_of_the_environment_are_told_apart(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "cot", "GSM8K-token", *words, "--steps", "1"])
    name = words[0].partition("=")[0][2:].replace("-", "_")
    assert end.value.code == 2
    assert f"{name} is an option of the environment: -o {name}=VALUE" in capsys.readouterr().err
    for refused in (["--thinc", "9"], ["--limit", "x"]):
        with pytest.raises(SystemExit):
            main(["eval", "cot", "GSM8K-token", *refused])
        assert "-o" not in capsys.readouterr().err.split()


def test_help_lists_the_agents_that_the_command_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    for command, others in (("train", {"best-of-n", "soft-thinking"}), ("eval", set[str]())):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told = " ".join(capsys.readouterr().out.split())
        listed = told.partition("Agents: ")[2].partition(".")[0].split(", ")
        assert "cot" in listed and others <= set(AGENTS) - set(listed)
        assert command == "train" or listed == list(AGENTS)


def test_every_option_of_the_environment_counts(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["info", "latent/GSM8K-token", "-o", "think=5", "-o", "answer=3", "--json"]
    assert main([*argv, "-o", "source=sample"]) == 0
    told = json.dumps(last_json(capsys))
    assert "at most 5 steps" in told and "at most 3 steps" in told and "sample" in told


def test_options_of_a_cluster_need_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--gpus", "2", "--out", str(tmp_path)]) == 2
    assert "go with --backend openrlhf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--preset", "grpo", "--backend", "openrlhf"], "leave out --rollout-dtype, or use"),
        (["--preset", "csft"], "--grpo.rollout-dtype would have no effect"),
    ],
)
def test_rollouts_in_bf16_are_refused_where_there_is_no_copy_to_roll_out(
    more: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, *more, "--rollout-dtype", "bfloat16", "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


SEARCH = [
    *("eval", "latentseek", "latent/MNNS-token", "--model", "tiny", "--limit", "9", "--json"),
    *("--reward", "constant", "--ratio", "1", "--lr", "1"),
]


def test_every_logged_key_is_documented(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    start = ["--checkpoint", str(trained), "--preset", "grpo", "--steps", "1"]
    start += ["--eval-every", "1", "--eval-limit", "4"]
    small = ["--grpo.prompts", "2", "--grpo.group-size", "2", "--grpo.kl", "0.1"]
    again = ["--grpo.dynamic-sampling", "1", "--grpo.entropy", "0.1"]
    inside = ["--outliers-every", "1", "--dtype", "float32"]
    assert main([*TRAIN, *start, *small, *again, *inside, "--out", str(tmp_path / "grpo")]) == 0
    named = ["train", "mts-grpo", "latent/ProsQA-continuous", "--prompt-weight", "1"]
    few = ["--model", "tiny:gpt2:1x1x16", "-o", "size=4", "--steps", "1", "--eval-limit", "0"]
    assert main([*named, *few, "--batch-size", "2", "--out", str(tmp_path / "named")]) == 0
    chains = "latent/GSM8KAug-hybrid"
    few += ["-o", "source=generated", "-o", "think=4"]
    searching = [*few[:2], *few[4:], "-o", "search=action", "-o", "engine=bm25s"]
    shop = [*few[:2], *few[4:8], "-o", "source=generated", "-o", "items=10"]
    perplexity = ["--grpo.reward", "perplexity"]
    rounded = ["--rollout-dtype", "bfloat16"]
    paid = ["--reward", "task", "--grpo.truncated", "penalty"]
    states = ["--checkpoint", str(tmp_path / "ctrls-elbo")]
    small_rl = ["--rl.prompts", "2", "--rl.group-size", "2"]
    for name, argv in {
        "search": ["cot", "HotpotQA-token", "--preset", "grpo-tiny", *small, *searching],
        "hrpo": ["hrpo", chains, "--preset", "tiny", *small, *few],
        "colar-sft": ["colar-grpo", chains, "--preset", "sft-tiny", *few],
        "ctrls-elbo": ["ctrls", chains, "--preset", "tiny", *few],
        "ctrls-grpo": ["ctrls", chains, "--preset", "grpo-tiny", *small, *few, *states],
        "colar-grpo": [
            "colar-grpo",
            chains,
            "--preset",
            "grpo-tiny",
            *small,
            *few,
            *rounded,
            *paid,
        ],
        "latentr3": ["latentr3", "MovieLens-hybrid", "--preset", "rl-tiny", *small_rl, *shop],
        "score": [
            "hrpo",
            "MovieLens-hybrid",
            "--preset",
            "tiny",
            *small,
            *perplexity,
            *shop,
            *rounded,
        ],
        "coconut": ["coconut", "latent/MNNS-hybrid", *few[:2], *few[4:8]],
    }.items():
        assert main(["train", *argv, "--out", str(tmp_path / name)]) == 0
    logged = set()
    for out in (trained, *(f for f in tmp_path.iterdir() if f != trained)):
        for line in (out / "metrics.jsonl").read_text().splitlines():
            logged |= set(json.loads(line)) - {"step"}
    assert main(SEARCH) == 0
    metrics = last_json(capsys)["metrics"]
    logged |= {key for key in metrics if key.startswith("search/")}
    moved = ["eval", "ltpo", "MNNS-token", "--model", "tiny", "--limit", "1", "--json"]
    assert main(moved) == 0
    logged |= {key for key in last_json(capsys)["metrics"] if key.startswith("ltpo/")}
    ranking = ["eval", "cot", "MovieLens-token", "--model", "tiny", "-o", "source=sample"]
    assert main([*ranking, "--limit", "2", "--json"]) == 0
    metrics = last_json(capsys)["metrics"]
    logged |= {re.sub(r"@\d+", "@K", key) for key in metrics if "/" not in key}
    documented = {line.split("`")[1] for line in docs.splitlines() if line.startswith("| `")}
    assert logged <= documented, sorted(logged - documented)
    elsewhere = {"reward/<component>", "reward/<function>"}
    assert documented <= logged | elsewhere, sorted(documented - logged)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(_CPU), None],
    ids=["python", "gpu", "cpu", "other"],
)
def test_too_little_memory_is_a_sentence(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise error or RuntimeError("something else")

    monkeypatch.setattr("latentgym.cli.agents.main", fails)
    if error is None:  # a fault of ours stays one
        with pytest.raises(RuntimeError, match="something else"):
            main(["agents"])
        return
    assert main(["agents"]) == 2
    assert "there is not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "closed"),
    [
        *((argv.split(), "stdout") for argv in (
            "envs", "envs --json", "agents", "info MNNS-token", "leaderboard", "bench", "--help",
            "train cot MNNS-token --help", "validate MNNS-token --limit 3",
        )),
        (["nothing"], "stderr"),
        (["info", "nothing"], "stderr"),
    ],
)  # fmt: skip
def test_a_reader_that_leaves_ends_any_command_alike(
    argv: list[str], closed: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    folder = [str(trained)] if argv == ["leaderboard"] else []
    monkeypatch.setattr(sys, "argv", ["latentgym", *argv, *folder])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with os.fdopen(write, "w", buffering=1) as pipe, (tmp_path / "other").open("w") as other:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, pipe if name == closed else other)
        with pytest.raises(SystemExit) as end:
            run()
    assert end.value.code == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("argv", ["envs", "info MNNS-token --json", "--help"])
def test_a_full_disk_behind_stdout_is_told(argv: str) -> None:
    command = [sys.executable, "-m", "latentgym", *argv.split()]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("argv", [["index"], ["data"], ["index", "--help"], ["data", "-h"]])
def test_commands_of_several_actions_list_them(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    assert f"usage: latentgym {argv[0]} ACTION" in capsys.readouterr().out
