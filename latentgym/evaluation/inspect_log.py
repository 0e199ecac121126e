"""A run as a log of Inspect (inspect.aisi.org.uk), whose viewer then shows its answers.

Written by its own library, so that what it reads is what it wrote. A seed is an epoch; the steps of
a thought, and whatever else the format has no place for, go into the metadata of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from latentgym.errors import UsageError
from latentgym.evaluation.results import Result, load_rollouts, require_all
from latentgym.storage import finite, writable

_SUFFIXES = (".eval", ".json")
# What the log says in places of its own: of an answer, and of a run.
_OF_SAMPLE = ("index", "question", "target", "completion", "parsed", "score", "components")
_OF_RUN = ("versions", "metrics", "accuracy", "accuracy_ci95", "created", "model", "n")


def write_log(folder: Path, result: Result, path: Path) -> None:
    """Write a run as a log.

    Args:
        folder: of the run.
        result: its record.
        path: of the log; its suffix says the format, `.eval` or `.json`.

    Raises:
        UsageError: the library is missing, the rollouts are damaged or not the record's, the path
            has another suffix, or it cannot be written.
    """
    if path.suffix not in _SUFFIXES:
        raise UsageError(f"{path} is no name of a log; let it end in .eval or .json.")
    try:
        log, scorer, model = (import_module(f"inspect_ai.{m}") for m in ("log", "scorer", "model"))
    except ImportError as error:
        raise UsageError(
            f"logs of Inspect are written by its own library ({error}); run pip install "
            "'latentgym[inspect]'."
        ) from error
    rollouts = list(load_rollouts(folder))
    require_all(result, rollouts, folder)
    epochs = {seed: number for number, seed in enumerate(result.seeds, start=1)}
    samples = [
        log.EvalSample(
            **_sample(rollout, epochs),
            output=model.ModelOutput.from_content(result.model, rollout["completion"]),
            messages=[
                model.ChatMessageUser(content=_question(rollout)),
                model.ChatMessageAssistant(content=_told(rollout)),
            ],
            scores={
                "score": scorer.Score(
                    value=float(rollout["score"]),
                    answer=str(rollout.get("parsed") or ""),
                    metadata=_components(rollout),
                )
            },
        )
        for rollout in rollouts
    ]
    made = log.EvalLog(
        status="success",
        eval=log.EvalSpec(
            created=result.created or "1970-01-01T00:00:00+00:00",
            task=f"latentgym/{result.task}",
            task_args={"env": result.env, "split": result.split},
            solver=result.agent,
            dataset=log.EvalDataset(
                name=result.task, location=result.source, samples=result.n, shuffled=False
            ),
            model=result.model,
            config=log.EvalConfig(epochs=len(result.seeds)),
            packages=dict(sorted(result.versions.items())),
            metadata=_metadata(result),
        ),
        results=log.EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[
                log.EvalScore(
                    name="score",
                    scorer="latentgym",
                    metrics={
                        name: log.EvalMetric(name=name, value=value)
                        for name, value in _numbers(result)
                    },
                )
            ],
        ),
        samples=samples,
    )
    with writable(path, "choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        log.write_eval_log(made, str(path.absolute()))


def _numbers(result: Result) -> Iterator[tuple[str, float]]:
    yield "accuracy", result.accuracy
    yield from zip(("low95", "high95"), result.accuracy_ci95, strict=True)
    yield from ((name, value) for name, value in result.metrics.items() if value is not None)


def _metadata(result: Result) -> dict[str, Any]:
    return {name: value for name, value in finite(asdict(result)).items() if name not in _OF_RUN}


def _question(rollout: Mapping[str, Any]) -> str:
    """Its text; records from before have its number alone."""
    return str(rollout.get("question") or f"question {rollout['index']}")


def _told(rollout: Mapping[str, Any]) -> str:
    """What was thought and answered, as text; thoughts by the tokens that they are read by."""
    segments = rollout.get("segments") or []
    if not segments:
        return str(rollout["completion"])
    return "\n\n".join(f"[{each['kind']}]\n{each['text']}" for each in segments)


def _sample(rollout: Mapping[str, Any], epochs: Mapping[int, int]) -> dict[str, Any]:
    return {
        "id": rollout["index"],
        "epoch": epochs[rollout["seed"]],
        "input": _question(rollout),
        "target": str(rollout.get("target", "")),
        "metadata": {k: value for k, value in rollout.items() if k not in _OF_SAMPLE},
    }


def _components(rollout: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": rollout.get("status"), **(rollout.get("components") or {})}
