"""`latentgym baseline`: results as agents have them, and what is said when it cannot work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.data import DATASETS
from latentgym.data.recommendation import sequences
from latentgym.evaluation.ranking import ranking_metrics
from latentgym.evaluation.recommenders import answerer
from latentgym.evaluation.recommenders.base import ranks
from latentgym.evaluation.results import load_result, load_rollouts
from latentgym.registry import make_vector_env

SHOP = ["-o", "source=generated", "-o", "items=40", "-o", "customers=60", "-o", "purchases=8"]


def test_a_result_like_that_of_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "popularity"
    argv = ["baseline", "popularity", "MovieLens-token", *SHOP, "--limit", "30", "--seed", "4"]
    assert main([*argv, "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = load_result(out)
    assert said == vars(result)
    assert (result.agent, result.model, result.split, result.n) == ("popularity", "-", "test", 30)
    assert result.seeds == [4] and result.source == "generated"
    assert result.accuracy == result.metrics["hr@1"] and result.flops_per_answer == 0
    assert result.accuracy_ci95 == result.metrics_ci95["hr@1"]
    low, high = result.metrics_ci95["ndcg@5"]
    assert low < result.metrics["ndcg@5"] < high
    assert set(ranking_metrics([1])) <= set(result.metrics)
    rollouts = list(load_rollouts(out))
    for rollout in rollouts:
        assert len(rollout["trace"]) == 20
        scores = [each["score"] for each in rollout["trace"]]
        assert scores == sorted(scores, reverse=True)
    shown = [r["target"] in [each["title"] for each in r["trace"]] for r in rollouts]
    assert sum(shown) / 30 == result.metrics["hr@20"]

    assert main(["leaderboard", str(out)]) == 0 and main(["rescore", str(out)]) == 0
    assert "0 of 30 scores changed" in " ".join(capsys.readouterr().out.split())
    assert main([*argv, "--out", str(out)]) == 2
    assert "holds a result already" in capsys.readouterr().err


def test_families_agree_and_history_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def run(*more: str) -> Any:
        assert main(["baseline", "cooccurrence", *more, *SHOP, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    token, latent = run("MovieLens-token"), run("latent/MovieLens-continuous")
    assert token["metrics"] == latent["metrics"]
    apart = run("MovieLens-token", "--exclude-history")
    assert apart["metrics"] != token["metrics"]
    assert run("MovieLens-token", "--split", "valid")["split"] == "valid"


def test_a_shown_item_is_not_ranked_with_exclude_history(tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["baseline", "popularity", "MovieLens-token", *SHOP, "--exclude-history"]
    assert main([*argv, "--out", str(out)]) == 0
    options = {"source": "generated", "items": 40, "customers": 60, "purchases": 8}
    task = make_vector_env("latent/MovieLens-token", 1, split="test", **options).unwrapped.task
    for rollout in load_rollouts(out):
        titles = task.question(rollout["index"]).extra["titles"]
        assert not {each["title"] for each in rollout["trace"]} & set(titles)


def test_an_evaluation_that_was_killed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["baseline", "cooccurrence", "MovieLens-token", *SHOP, "--limit", "9"]
    whole, part = str(tmp_path / "whole"), str(tmp_path / "part")
    assert main([*argv, "--out", whole]) == 0
    monkeypatch.setattr(answerer, "_NUMBERS", 2 * 40)  # two questions at once
    ranked = []

    def killed(score_QE: Any, entry_Q: Any) -> Any:
        ranked.append(len(entry_Q))
        if len(ranked) == 3:
            raise KeyboardInterrupt
        return ranks(score_QE, entry_Q)

    with monkeypatch.context() as patch:
        patch.setattr(answerer, "ranks", killed)
        assert main([*argv, "--out", part]) == 130
    assert main([*argv, "--out", part]) == 2 and "--resume" in capsys.readouterr().err
    assert main([*argv, "--out", part, "--resume"]) == 0
    assert ranked == [2, 2, 2]
    assert list(load_rollouts(Path(part))) == list(load_rollouts(Path(whole)))
    assert load_result(Path(part)).metrics == load_result(Path(whole)).metrics


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["popularty", "MovieLens-token"], "did you mean 'popularity'"),
        (["popularity", "MovieLens-tokn"], "did you mean 'latent/MovieLens-token'"),
        (["popularity", "MNNS-token"], "MNNS has no catalogue to rank"),
        (["popularity", "MovieLens-token", *SHOP, "--limit", "0"], "--limit must be at least 1"),
        (["popularity", "MovieLens-token", *SHOP, "--seed", "-1"], "--seed must be at least 0"),
        (["popularity", "MovieLens-token", *SHOP, "--split", "tset"], "did you mean 'test'"),
        (["popularity", "MovieLens-token", "-o", "source=nowhere"], "nowhere"),
    ],
)
def test_mistakes(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", *argv]) == 2
    shown = capsys.readouterr().err
    assert says in shown and "Traceback" not in shown


def test_a_library_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "latentgym.evaluation.recommenders._rectools", raising=False)
    monkeypatch.delattr("latentgym.evaluation.recommenders._rectools", raising=False)
    monkeypatch.setitem(sys.modules, "rectools", None)
    assert main(["baseline", "sasrec", "MovieLens-token", *SHOP]) == 2
    assert "sasrec needs RecTools" in capsys.readouterr().err


def test_it_never_learns_from_the_questions_that_it_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file given as source is every split."""
    data, catalogue = sequences(DATASETS["MovieLens"], "test", source="sample", limit=5)
    rows = [json.dumps(dict(data.row(i).fields)) + "\n" for i in range(len(data))]
    (tmp_path / "test.jsonl").write_text("".join(rows))
    items = [
        json.dumps({"item_id": item, "title": catalogue.titles[entry]}) + "\n"
        for item, entry in catalogue.entry_of.items()
    ]
    (tmp_path / "items.jsonl").write_text("".join(items))
    source = f"source={tmp_path / 'test.jsonl'}"
    assert main(["baseline", "popularity", "MovieLens-token", "-o", source]) == 2
    assert "give the folder of all splits" in capsys.readouterr().err
    source = f"source={tmp_path}"
    assert main(["baseline", "popularity", "MovieLens-token", "-o", source]) == 2
    assert "has no file train" in capsys.readouterr().err
