"""What needs no OpenRLHF: checks before launch, the order of questions, the form of samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentgym.episodes.rng import derive
from latentgym.errors import CheckpointError, UsageError
from latentgym.openrlhf.launch import _remember
from latentgym.openrlhf.samples import StepRow, TrainingRows, action_ranges, collate
from latentgym.training.order import Order, batch_indices


@pytest.mark.parametrize(
    ("grpo", "cluster"),
    [({"prompts": 9}, {}), ({"prompts": 8}, {"gpus": 3}), ({"mini_batches": 8}, {"nodes": 4})],
)
def test_what_does_not_divide_is_refused_before_anything_starts(make_job, grpo, cluster) -> None:
    with pytest.raises(UsageError, match=r"do not divide among \d workers"):
        make_job(grpo=grpo, **cluster)


def test_no_workers_are_refused(make_job) -> None:
    with pytest.raises(UsageError, match="--gpus and --nodes"):
        make_job(gpus=0)


def test_another_optimiser_than_deepspeeds_is_refused(make_job) -> None:
    job = make_job()
    with pytest.raises(UsageError, match="DeepSpeed trains with AdamW, not with soap"):
        replace(job, optimisation=replace(job.optimisation, optimizer="soap"))


@pytest.mark.parametrize("grpo", [{"loss": "cispo"}, {"loss": "gspo"}])
def test_a_loss_that_openrlhf_does_not_have_is_refused(make_job, grpo) -> None:
    with pytest.raises(UsageError, match=rf"no --grpo.loss {grpo['loss']} with --grpo.mean token"):
        make_job(grpo=grpo)
    make_job(grpo={"loss": "gspo", "mean": "sequence"})


@pytest.mark.parametrize(
    ("grpo", "option"),
    [
        ({"dynamic_sampling": 2}, "--grpo.dynamic-sampling"),
        ({"truncated": "mask"}, "--grpo.truncated mask"),
        ({"kl": 0.1, "kl_in": "reward"}, "--grpo.kl-in"),
        ({"kl": 0.1, "reference_every": 3}, "--grpo.reference-every"),
        ({"entropy": 0.1, "mean": "phase"}, "--grpo.entropy with --grpo.mean phase"),
    ],
)
def test_what_openrlhf_does_not_have_is_refused(make_job, grpo, option) -> None:
    with pytest.raises(UsageError, match=rf"OpenRLHF .*{option}.*--backend local"):
        make_job(grpo=grpo)


def test_a_run_from_before_epsilon_was_a_choice_is_resumed(make_job, changed) -> None:
    settings = {"optimisation": {"lr": 1e-3, "eps": 1e-8, "optimizer": "adamw"}}
    job = make_job()
    job = replace(job, identity={**job.identity, "config": settings})
    _remember(job)
    older = {"optimisation": {"lr": 1e-3}}
    changed(job.out / "run.json", lambda stored: stored.update(config=older))
    _remember(replace(job, resume=True))
    changed(job.out / "run.json", lambda stored: stored.update(config={"optimisation": {"lr": 1}}))
    with pytest.raises(UsageError, match=r"differs in config\.optimisation\.lr"):
        _remember(replace(job, resume=True))


def test_a_run_of_an_older_optimiser_is_not_resumed(make_job, changed) -> None:
    job = make_job()
    _remember(job)
    again = replace(job, resume=True)
    _remember(again)
    changed(job.out / "run.json", lambda stored: stored.pop("optimiser"))
    with pytest.raises(CheckpointError, match=r"started by a version .* train again"):
        _remember(again)


@pytest.mark.parametrize(
    ("prompts", "group", "most", "gpus", "expected"),
    [(8, 4, 8, 2, 8), (8, 4, 64, 1, 32), (6, 5, 8, 2, 5), (2, 7, 4, 2, 1)],
)
def test_micro_batches_divide_a_workers_share(
    make_job, prompts: int, group: int, most: int, gpus: int, expected: int
) -> None:
    grpo = {"prompts": prompts, "group_size": group, "micro_batch": most}
    job = make_job(grpo=grpo, gpus=gpus)
    assert job.micro_batch == expected
    assert prompts * group // gpus % job.micro_batch == 0


def test_questions_come_in_the_order_of_the_local_backend() -> None:
    rows = TrainingRows(Order(11, 4, derive(5, 3)), steps=7)
    assert len(rows) == 28
    for step in range(7):
        chosen = [rows[4 * step + place] for place in range(4)]
        assert [row.question for row in chosen] == batch_indices(11, 4, derive(5, 3), step).tolist()
        assert [(row.step, row.place) for row in chosen] == [(step, place) for place in range(4)]


def test_a_batch_carries_its_rows_as_labels() -> None:
    rows = [StepRow(0, 0, 7), StepRow(0, 1, 9)]
    sources, prompts, labels, images = collate(rows)
    assert labels == rows and prompts == ["7", "9"] and images == [None, None]
    assert len(sources) == 2


def test_inserted_tokens_are_no_actions() -> None:
    acted = np.array([1, 1, 0, 1, 1, 0, 0, 1], dtype=bool)
    assert action_ranges(2, acted) == [(2, 4), (5, 7), (9, 10)]
    assert action_ranges(2, np.zeros(0, dtype=bool)) == []
