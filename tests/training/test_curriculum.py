"""The curriculum of latents: what is left out, what is learnt, and what its gradients are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from latentgym.errors import UsageError
from latentgym.heads import HiddenStateHead, PauseHead, PolicyHead, TokenHead
from latentgym.lm import LatentLM, load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy
from latentgym.rollout.own_thoughts import OwnThoughts
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import (
    Curriculum,
    CurriculumConfig,
    Optimisation,
    Supervised,
    SupervisedConfig,
    Trainer,
)
from latentgym.training.latents import with_latents
from latentgym.training.losses import soft_target_loss
from latentgym.training.manifest import latest
from latentgym.training.supervised import supervised_loss


def env_of(env_id: str, **options: Any) -> Any:
    return make_vector_env(f"latent/{env_id}", 1, **options)


def tiny(env: Any, seed: int = 0) -> LatentLM:
    lm: LatentLM = load_model(
        "tiny:llama:2x2x16", tokenizer=env.unwrapped.task.tokenizer, seed=seed, dtype="float32"
    )
    with torch.no_grad():  # a fresh model is so flat that tests of it would see nothing
        for parameter in lm.parameters():
            parameter.mul_(4)
    return lm


def curriculum(env: Any, head: PolicyHead | None = None, seed: int = 0, **more: Any) -> Curriculum:
    """One training step a stage, so that step s is stage s."""
    settings = {"batch_size": 8, "stages": 3, "steps_per_stage": 1, **more}
    policy = Policy(tiny(env), head or HiddenStateHead())
    return Curriculum(policy, env, CurriculumConfig(**settings), seed)


def test_stage_zero_is_supervised_training_bit_for_bit() -> None:
    env = env_of("ProsQA-hybrid", size=20)
    plain = Supervised(
        Policy(tiny(env), HiddenStateHead()), env, SupervisedConfig(8, micro_batch=3, dropout=0.1)
    )
    staged = curriculum(env, micro_batch=3, dropout=0.1)
    recorders = [GradientRecorder(stage.policy) for stage in (plain, staged)]
    metrics = [stage.step(0, r) for stage, r in zip((plain, staged), recorders, strict=True)]
    assert metrics[0]["train/loss"] == metrics[1]["train/loss"]
    assert metrics[1]["train/stage"] == 0
    one, other = recorders
    assert all(torch.equal(a, b) for a, b in zip(one.losses, other.losses, strict=True))
    pairs = list(zip(one.lm_gradients, other.lm_gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(bool(a.any()) for a, _ in pairs)


@pytest.mark.parametrize("env_id", ["MNNS-hybrid", "ProsQA-hybrid"])
@pytest.mark.parametrize("c", [0, 1, 2])
def test_a_stage_has_its_latents_and_learns_what_remains(env_id: str, c: int) -> None:
    env = env_of(env_id)
    task = env.unwrapped.task
    whole = task.demonstration(5)
    chain = whole.thoughts
    staged = curriculum(env, c=c, stages=chain)
    for stage in range(chain + 3):
        assert staged.stage(stage) == min(stage, chain + 1)
        batch = staged.demonstrations.batch(
            np.array([5]), torch.device("cpu"), lambda i, d, s=stage: staged.shown(s, i, d)
        )
        removed = min(stage, chain)
        latents, remaining = removed * c, chain + 1 - removed
        assert batch.thought_BT[0].tolist() == [True] * latents + [False] * remaining
        assert batch.targets_BT[0].tolist() == [False] * latents + [True] * remaining
        assert batch.mask_BT.all()
        left = batch.ids_BTS[0, latents:, 0].numpy()
        assert (left == whole.ids_TS[removed:, 0]).all()
        assert not batch.weights_BTS[0, :latents].any()
        assert task.demonstration(5).thoughts == chain  # what is kept is not changed


def test_stages_leave_out_lines_of_text() -> None:
    env = env_of("GSM8KAug-hybrid", source="sample", think=6, exact_thoughts=True)
    task = env.unwrapped.task
    staged = curriculum(env, c=2, stages=3)
    counts = {len(task.question(i).steps) for i in range(len(task))}
    assert min(counts) < 3 < max(counts)  # shorter and longer chains than there are stages
    for index in range(len(task)):
        steps, gold = task.question(index).steps, task.question(index).gold
        for stage in range(5):
            shown = staged.shown(stage, index, task.demonstration(index))
            latents = 2 * min(stage, 3)
            assert shown.thoughts == latents
            assert not shown.weights_TS[:latents].any()
            assert (shown.weights_TS[latents:].sum(1) == 1).all()
            ids = shown.ids_TS[latents:, 0].tolist()
            left = steps[stage:] if stage <= 3 else ()  # the last stage leaves out all
            said = "".join(f"{line}\n" for line in left)
            assert task.tokenizer.decode(ids) == f"{said}#### {gold}"
            assert ids[-1] == task.tokenizer.eos_id


def naive_loss(lm: LatentLM, staged: Curriculum, stage: int, rows: list[int]) -> Tensor:
    """Mean loss without a cache: for every latent the whole sequence is read again, row by row."""
    losses = []
    for row in rows:
        prompt, demonstration = staged.demonstrations.item(row)
        shown = staged.shown(stage, row, demonstration)
        x = lm.embed(torch.tensor([prompt]))

        def read(x_1TD: Tensor) -> Tensor:
            return lm.hidden(x_1TD, torch.ones(x_1TD.shape[:2], dtype=torch.bool))

        for _ in range(shown.thoughts):
            x = torch.cat([x, read(x)[:, -1:]], dim=1)
        ids = torch.from_numpy(shown.ids_TS[shown.thoughts :, 0])
        x = torch.cat([x, lm.embed(ids)[None]], dim=1)[:, :-1]
        logits = lm.logits(read(x)[0, -len(ids) :])
        losses.append(torch.nn.functional.cross_entropy(logits, ids, reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("stage", [1, 3, 5])
@pytest.mark.parametrize("c", [1, 2])
def test_gradients_are_those_of_the_naive_way(stage: int, c: int) -> None:
    env = env_of("ProsQA-hybrid", size=20)  # prompts of unequal length
    staged = curriculum(env, stages=5, c=c, micro_batch=3)
    rows: list[int] = []
    shown = staged.shown

    def watching(number: int, index: int, demonstration: Any) -> Any:
        rows.append(index)
        return shown(number, index, demonstration)

    staged.shown = watching  # type: ignore[method-assign]
    recorder = GradientRecorder(staged.policy)
    metrics = staged.step(stage, recorder)
    staged.shown = shown  # type: ignore[method-assign]
    found = recorder.lm_gradients
    lm = tiny(env)
    expected = naive_loss(lm, staged, stage, rows)
    expected.backward()
    torch.testing.assert_close(sum(recorder.losses), expected.detach(), rtol=1e-5, atol=1e-6)
    assert metrics["train/loss"] == pytest.approx(expected.item(), rel=1e-5)
    gradients = [p.grad for p in lm.parameters() if p.grad is not None]
    scale = max(float(g.abs().max()) for g in gradients)
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * scale)


def test_gradients_run_through_every_latent() -> None:
    env = env_of("MNNS-hybrid")
    staged = curriculum(env)
    made: list[Tensor] = []

    class Watching(HiddenStateHead):
        def embed(self, action: Any, table_VD: Tensor) -> Tensor:
            latent = super().embed(action, table_VD)
            latent.retain_grad()
            made.append(latent)
            return latent

    staged.policy.head = Watching()
    staged.step(3, GradientRecorder(staged.policy))
    assert len(made) == 3
    assert all(m.grad is not None and bool(m.grad.any()) for m in made)


def test_what_stands_in_a_latents_place_changes_nothing() -> None:
    env = env_of("ProsQA-hybrid", size=20)
    staged = curriculum(env, stages=5)
    lm = staged.policy.lm
    batch = staged.demonstrations.batch(
        np.arange(6), lm.device, lambda i, d: with_latents(d, i % 4, i % 4)
    )  # rows with unequal numbers of latents
    other = replace(batch, ids_BTS=batch.ids_BTS.masked_fill(batch.thought_BT[..., None], 7))
    own = OwnThoughts(HiddenStateHead(), torch.ones(6, dtype=torch.bool))
    results = []
    for each in (batch, other):
        lm.zero_grad()
        loss_BT, targets_BT, right_BT, _ = supervised_loss(lm, each, own=own)
        loss_BT.sum().backward()
        results.append((loss_BT.detach(), lm.table_VD.grad.clone()))
        assert not loss_BT[~targets_BT].any() and not right_BT[~targets_BT].any()
        assert not (targets_BT & batch.thought_BT).any()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    # Beside rows with more latents a row is what it is alone.
    for row in range(6):
        alone = staged.demonstrations.batch(
            np.array([row]), lm.device, lambda i, d: with_latents(d, i % 4, i % 4)
        )
        one = OwnThoughts(HiddenStateHead(), torch.ones(1, dtype=torch.bool))
        loss_1T, *_ = supervised_loss(lm, alone, own=one)
        torch.testing.assert_close(
            results[0][0][row, : loss_1T.shape[1]], loss_1T[0], rtol=1e-4, atol=1e-5
        )


def test_the_last_stage_reads_what_the_rollout_does() -> None:
    env = env_of("ProsQA-hybrid", size=20)
    staged = curriculum(env, stages=5)
    lm, task = staged.policy.lm, env.unwrapped.task
    made: list[Tensor] = []

    class Watching(HiddenStateHead):
        def embed(self, action: Any, table_VD: Tensor) -> Tensor:
            made.append(super().embed(action, table_VD))
            return made[-1]

    batch = staged.demonstrations.batch(np.arange(8), lm.device, lambda i, d: staged.shown(5, i, d))
    own = OwnThoughts(Watching(), torch.ones(8, dtype=torch.bool))
    _, _, right, _ = supervised_loss(lm, batch, own=own)
    policy = Policy(lm, HiddenStateHead(), TokenHead(temperature=0.0))
    rollouts = Engine(policy).rollout([task.prompt(i) for i in range(8)], task.protocol(), seed=0)
    latents = rollouts.actions["latent"][:, :5]
    torch.testing.assert_close(torch.stack(made, 1), latents, rtol=1e-4, atol=1e-4)
    answered = rollouts.token_NT[:, -1] == batch.ids_BTS[:, -1, 0].numpy()
    assert (right[:, -1].numpy() == answered).all()


def test_a_learned_pause_learns_and_is_a_constant() -> None:
    env = env_of("MNNS-hybrid")
    torch.manual_seed(0)
    head = PauseHead(16)
    staged = curriculum(env, head)
    recorder = GradientRecorder(staged.policy)
    staged.step(0, recorder)
    assert head.pause_D.grad is None
    staged.step(2, recorder)
    assert head.pause_D.grad is not None and bool(head.pause_D.grad.any())
    batch = staged.demonstrations.batch(
        np.arange(5), staged.policy.lm.device, lambda i, d: staged.shown(2, i, d)
    )
    own = OwnThoughts(head, torch.ones(5, dtype=torch.bool))
    loss_BT, *_ = supervised_loss(staged.policy.lm, batch, own=own)
    # Written out in one pass, with the pause at both places.
    lm = staged.policy.lm
    pause = head.pause_D.expand(5, 2, -1)
    x = torch.cat([lm.embed(batch.prompt_BP), pause, lm.embed(batch.ids_BTS[:, 2:, 0])], 1)[:, :-1]
    hidden = lm.hidden(x, torch.ones(x.shape[:2], dtype=torch.bool))
    logits = lm.logits(hidden[:, -2:])
    expected = soft_target_loss(logits, batch.ids_BTS[:, 2:], batch.weights_BTS[:, 2:])
    torch.testing.assert_close(loss_BT[:, 2:], expected, rtol=1e-4, atol=1e-5)


def test_without_latents_steps_only_go() -> None:
    options = {"think": 0}

    def make_env(num_envs: int, **more: Any) -> Any:
        return make_vector_env("latent/MNNS-hybrid", num_envs, **{**options, **more})

    policy = Policy(tiny(make_env(1)), HiddenStateHead())
    config = CurriculumConfig(8, c=0, stages=3, steps_per_stage=1)
    staged = config.build(policy, make_env, seed=0)
    recorder = GradientRecorder(policy)
    for stage in range(4):
        shown = staged.shown(stage, 0, staged.demonstrations.item(0)[1])
        assert shown.thoughts == 0 and len(shown.ids_TS) == 4 - stage
        staged.step(stage, recorder)
    # In the end it is the answer alone, as an environment without thoughts shows it.
    alone = GradientRecorder(policy)
    Supervised(policy, make_env(1), SupervisedConfig(8)).step(3, alone)
    assert torch.equal(alone.losses[-1], recorder.losses[-1])


def test_a_mixture_of_stages_is_drawn_anew_and_a_function_of_the_step() -> None:
    env = env_of("MNNS-hybrid")
    staged = curriculum(env, mix=0.5, seed=4)

    def latents(number: int) -> list[int]:
        items = staged.demonstrations
        return [staged.shown(number, i, items.item(i)[1]).thoughts for i in range(200)]

    found = latents(2)
    assert found == latents(2) and found != latents(3)[:200]
    counts = np.bincount(found, minlength=4)
    assert counts[3] == 0  # no stage that is still to come
    assert 100 < counts[2] < 160 and counts[0] > 15 and counts[1] > 15
    assert latents(0) == [0] * 200
    recorder = GradientRecorder(staged.policy)
    staged.step(2, recorder)
    assert recorder.losses[0].isfinite()


def trained(out: Path, head: PolicyHead) -> Trainer:
    env = env_of("MNNS-hybrid", limit=64)
    stage = curriculum(env, head, steps_per_stage=2, dropout=0.1, mix=0.3)
    return Trainer(stage, Optimisation(), 8, out=out, save_every=1, identity={"name": "test"})


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, stop: int) -> None:
    torch.manual_seed(1)
    head = PauseHead(16)
    start = head.pause_D.detach().clone()

    def fresh() -> PauseHead:
        again = PauseHead(16)
        again.load_state_dict({"pause_D": start})
        return again

    trained(tmp_path / "whole", fresh()).run()
    stopped = trained(tmp_path / "parts", fresh())
    step = stopped.stage.step

    def stop_there(number: int, update: Any) -> Any:
        if number == stop:
            raise KeyboardInterrupt
        return step(number, update)

    stopped.stage.step = stop_there  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    trained(tmp_path / "parts", fresh()).run(resume=True)
    weights = []
    for name in ("whole", "parts"):
        newest = latest(tmp_path / name / "checkpoints")
        assert newest is not None
        weights.append(load_file(str(newest / "policy.safetensors")))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.pause_D"], start)


def test_latents_come_to_be_used() -> None:
    """What a prompt does not say twice must pass through the latents: a chain is learnt away."""
    env = env_of("MNNS-hybrid", m=2, high=3)
    lm: LatentLM = load_model("tiny:gpt2:2x2x32", tokenizer=env.unwrapped.task.tokenizer)
    policy = Policy(lm, HiddenStateHead(), TokenHead(temperature=0.0))
    stage = Curriculum(policy, env, CurriculumConfig(16, stages=1, steps_per_stage=60))
    metrics = Trainer(stage, Optimisation(lr=3e-3), 150).run()
    assert metrics["train/stage"] == 2
    assert metrics["train/answer_accuracy"] == 1.0
    task = env.unwrapped.task
    n = len(task)
    rollouts = Engine(policy).rollout([task.prompt(i) for i in range(n)], task.protocol(), seed=0)
    gold = [task.tokenizer.encode(task.question(i).gold)[0] for i in range(n)]
    assert (rollouts.token_NT[:, -1] == gold).mean() > 0.9


def built(config: CurriculumConfig, env_id: str, **options: Any) -> Curriculum:
    def make_env(num_envs: int, **more: Any) -> Any:
        return make_vector_env(f"latent/{env_id}", num_envs, **{**options, **more})

    return config.build(Policy(tiny(make_env(1)), HiddenStateHead()), make_env, seed=0)


TEXT = {"source": "sample"}


@pytest.mark.parametrize(
    ("config", "env_id", "options", "sentence"),
    [
        ({"own_thoughts": 0.5}, "MNNS-hybrid", {}, "leave own_thoughts at 1"),
        ({"c": -1}, "MNNS-hybrid", {}, "--c must be at least 0"),
        ({"steps_per_stage": 0}, "MNNS-hybrid", {}, "--steps-per-stage must be at least 1"),
        ({"stages": 0}, "MNNS-hybrid", {}, "--stages must be at least 1"),
        ({"mix": 2.0}, "MNNS-hybrid", {}, "at least 0 and at most 1"),
        ({"stages": 2}, "MNNS-hybrid", {}, "each of 2 stages .*set -o think=2, or choose"),
        ({"c": 2}, "MNNS-hybrid", {}, "do not make the 3 thoughts"),
        ({}, "MNNS-hybrid", {"think": 0}, "do not make the 0 thoughts"),
        ({"c": 0, "stages": 3}, "MNNS-hybrid", {}, "no latents do not make the 3 .* -o think=0"),
        ({"c": 0}, "MNNS-hybrid", {}, "no latents do not make the 3 .* -o think=0"),
        ({"c": 0}, "MNNS-hybrid", {"think": 0}, "set --stages"),
        ({}, "GSM8KAug-hybrid", TEXT, "-o think=STAGES"),
        ({"c": 2, "stages": 3}, "GSM8KAug-hybrid", TEXT, "exact_thoughts=true -o think=6"),
        ({"stages": 3, "c": 0}, "GSM8KAug-hybrid", {**TEXT, "think": 0}, "exact_thoughts=true"),
        (
            {"stages": 3},
            "GSM8KAug-hybrid",
            {**TEXT, "think": 3, "exact_thoughts": True, "force_answer": True},
            "the rest of the chain follows in tokens",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(
    config: Any, env_id: str, options: Any, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        built(CurriculumConfig(**config), env_id, **options)


def test_a_chain_without_steps_is_refused() -> None:
    env = env_of("MNNS-hybrid")
    shown = env.unwrapped.task.demonstration
    env.unwrapped.task.demonstration = lambda index: replace(shown(index), steps=())
    with pytest.raises(UsageError, match="no steps"):
        curriculum(env)


def test_the_environment_tells_the_number_of_stages() -> None:
    assert built(CurriculumConfig(), "ProsQA-hybrid", size=20).stages == 5
    text = {**TEXT, "think": 6, "exact_thoughts": True}
    assert built(CurriculumConfig(c=2), "GSM8KAug-hybrid", **text).stages == 3
    later = built(CurriculumConfig(c=2, first_stage=1), "GSM8KAug-hybrid", **text)
    assert [later.stage(number) for number in (0, 999, 1000, 9999)] == [1, 1, 2, 4]
