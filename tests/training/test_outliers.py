"""The watch for outliers: what it reads and logs, when it warns, and that it changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentgym.agents import agent_class, preset
from latentgym.agents.run import Run
from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.heads import HiddenStateHead, MixtureHead
from latentgym.lm import LatentLM, load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.rollout.own_thoughts import OwnThoughts
from latentgym.text.tokenizers import ByteTokenizer
from latentgym.training import OutlierWatch, Trainer
from latentgym.training.demonstrations import Demonstrations
from latentgym.training.inputs import of_batch
from latentgym.training.latents import with_latents
from latentgym.training.outliers import FACTOR, outside_band

SHOP = {"source": "generated", "items": 10}
CHAINS = {"source": "generated", "think": 4}
# Every stage of an agent that trains, and whether its thoughts are latents.
STAGES: dict[str, tuple[str, str, str, dict[str, Any], bool]] = {
    "supervised": ("cot", "MNNS-token", "sft-tiny", {}, False),
    "soft": ("mts-grpo", "MNNS-continuous", "csft", {}, True),
    "grpo": ("mts-grpo", "MNNS-continuous", "grpo", {}, True),
    "hybrid": ("hrpo", "GSM8KAug-hybrid", "tiny", CHAINS, True),
    "compressed": ("colar-grpo", "GSM8KAug-hybrid", "sft-tiny", CHAINS, True),
    "curriculum": ("coconut", "MNNS-hybrid", "tiny", {}, True),
    "pathwise": ("latentr3", "MovieLens-hybrid", "rl-tiny", SHOP, True),
}


def trainer(stage: str, *, watched: bool, out: Path | None = None, **options: Any) -> Trainer:
    """Few steps of a stage, small."""
    agent, env, name, env_options, _ = STAGES[stage]
    config: Any = preset(agent_class(agent), name)
    small = {"prompts": 2, "group_size": 2, "mini_batches": 1, "micro_batch": 4}
    for group in ("grpo", "rl"):
        if hasattr(config, group):
            known = {k: v for k, v in small.items() if hasattr(getattr(config, group), k)}
            config = replace(config, **{group: replace(getattr(config, group), **known)})
    if stage == "curriculum":
        config = replace(config, first_stage=2)
    run = Run(agent, config, env, "tiny:gpt2:2x2x16", env_options, device="cpu", dtype="float32")
    policy, recipe = run.learner(), run.make_agent().recipe()
    watch = OutlierWatch(policy, 2) if watched else None
    steps = recipe.stage.build(policy, run.make_env, 0)
    return Trainer(steps, recipe.optimisation, 2, out=out, watch=watch, **options)


@pytest.mark.parametrize(
    "stage",
    [pytest.param(s, marks=[pytest.mark.thorough] if s == "pathwise" else []) for s in STAGES],
)
def test_training_is_the_same_bit_for_bit(stage: str) -> None:
    plain, watched = trainer(stage, watched=False), trainer(stage, watched=True)
    state = torch.get_rng_state()
    before = plain.run()
    between = torch.get_rng_state()
    torch.set_rng_state(state)
    after = watched.run()
    assert torch.equal(between, torch.get_rng_state())
    for one, other in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    looked_at = {k: v for k, v in after.items() if k.startswith("outlier/")}
    assert {k: v for k, v in after.items() if k not in looked_at and "seconds" not in k} == {
        k: v for k, v in before.items() if "seconds" not in k
    }
    places = {f"{p}/{m}" for p in ("first", "middle", "last") for m in ("norm", "kurtosis")}
    assert looked_at.keys() >= {f"outlier/{name}" for name in (*places, "most/kurtosis")}
    assert ("outlier/alarm" in looked_at) == STAGES[stage][-1]
    assert all(np.isfinite(value) for value in looked_at.values())


def test_it_looks_at_the_first_step_and_every_nth_and_these_are_logged(tmp_path: Path) -> None:
    run = trainer("soft", watched=True, out=tmp_path, log_every=1000)
    run.steps = 5
    run.run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "outlier/alarm" in line] == [1, 2, 4]


@torch.no_grad()
@pytest.mark.parametrize("head", [HiddenStateHead, MixtureHead])
def test_own_thoughts_are_read_once_more_as_in_the_step(head: Any) -> None:
    env = make_vector_env("latent/MNNS-hybrid", 1)
    lm: LatentLM = load_model("tiny:gpt2:2x2x16", tokenizer=env.unwrapped.task.tokenizer)
    policy = Policy(lm, head())

    def shown(index: int, demonstration: Any) -> Any:
        return with_latents(demonstration, 1 + index % 2, 1)

    batch = Demonstrations(env).batch(np.arange(4), lm.device, shown)
    own = OwnThoughts(policy.head, torch.tensor([True, True, True, True]), seed=3)
    found = of_batch(policy, batch, own)
    prompt = batch.prompt_BP.shape[1]
    given = torch.nn.functional.embedding(batch.ids_BTS[..., 0], lm.table_VD)
    mask = torch.cat([batch.prompt_mask_BP, batch.mask_BT], dim=1)
    expected = own.hidden_states(
        lm, lm.embed(batch.prompt_BP), given, mask, batch.thought_BT, batch.question_B, lambda x: x
    )
    hidden = lm.hidden(found.x_NTD, found.mask_NT)
    real = found.mask_NT
    torch.testing.assert_close(hidden[real], expected[real], rtol=1e-4, atol=1e-5)
    latent = (PositionKind.HYBRID, PositionKind.LATENT)
    kinds = sum((found.kind_NT[:, prompt:] == kind).int() for kind in latent)
    assert kinds.sum(1).tolist() == [1, 2, 1, 2]
    last_N = (batch.mask_BT.sum(1) - 1).tolist()  # read by nobody
    assert real[:, prompt:].sum(1).tolist() == last_N


def rows(lm: LatentLM, scale: float) -> Sequences:
    """Prompts of tokens, and latents that are tokens of another size."""
    ids = torch.arange(10, 40).view(3, 10)
    kind = torch.full_like(ids, PositionKind.PROMPT)
    kind[:, 4:] = PositionKind.LATENT
    with torch.no_grad():
        x = lm.embed(ids) * torch.where(kind == PositionKind.LATENT, scale, 1.0)[..., None]
    return Sequences(ids, kind, x)


def test_the_alarm_is_told_once_until_it_has_recovered(
    random_lm: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = random_lm("llama")
    watch = OutlierWatch(Policy(lm, MixtureHead()), 1)
    looks = [
        (10.0, 1.0, None),  # nothing is learnt yet, so nothing collapses
        (10.0, 1.0, "a larger norm"),
        (0.1, 1.0, None),
        (1.0, 0.0, None),
        (0.1, 1.0, "a smaller norm"),
    ]
    for step, (scale, outside, told) in enumerate(looks, start=1):
        found = watch.look(rows(lm, scale), step)
        assert found["outlier/latent_norm_outside"] == outside == found["outlier/alarm"]
        assert found["outlier/latent_kurtosis_outside"] == 0  # which no scale changes
        err = capsys.readouterr().err
        says = f"alarm: at step {step} 100 % of the latents have {told} than token embeddings do"
        assert says in err if told else not err
    words = replace(rows(lm, 10.0), kind_NT=torch.full((3, 10), PositionKind.CHAIN))
    assert "outlier/alarm" not in watch.look(words, 6)


def test_the_band_reaches_beyond_the_percentiles_by_the_factor() -> None:
    words = torch.diag(torch.linspace(1.0, 101.0, 101))  # percentiles 2 and 100
    sizes = torch.tensor([1.99 / FACTOR, 2.01 / FACTOR, 99.9 * FACTOR, 100.1 * FACTOR, torch.nan])
    latents = sizes[:, None] * torch.eye(101)[:5]
    assert outside_band(latents, words)["norm"].share == pytest.approx(3 / 5)
    assert outside_band(latents[:4], words)["kurtosis"].share == 0
    even = torch.ones(1, 101)
    even[:, ::2] = -1
    assert outside_band(even, words)["kurtosis"].share == 1  # far below that of one element alone


def test_what_cannot_be_watched_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = load_model(
        "tiny:llama", tokenizer=ByteTokenizer(), dtype="bfloat16", mixed_precision=True
    )
    with pytest.raises(UsageError, match="--dtype float32"):
        OutlierWatch(Policy(half, MixtureHead()), 5)
    with pytest.raises(UsageError, match="at least 1"):
        OutlierWatch(Policy(load_model("tiny:gpt2", tokenizer=ByteTokenizer()), MixtureHead()), 0)
    argv = ["train", "cot", "latent/MNNS-token", "--model", "tiny:gpt2:1x1x8", "--steps", "1"]
    argv += ["--outliers-every", "1", "--out", str(tmp_path / "run")]
    assert main([*argv, "--dtype", "bfloat16"]) == 2
    assert "--dtype float32" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert main([*argv, "--preset", "grpo-tiny", "--backend", "openrlhf"]) == 2
    assert "leave out --outliers-every" in capsys.readouterr().err
