"""A checkpoint is loaded whole, or refused: never as if it had the weights that it has not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.errors import CheckpointError
from latentgym.rollout import Policy
from latentgym.training import checkpoint
from latentgym.training.manifest import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
MODEL = "tiny:llama:1x2x8"  # with tied embeddings
Tensors = dict[str, torch.Tensor]


def run_of(agent: str, env: str, **options: Any) -> Run:
    config = agent_class(agent).config_class(**options)
    return Run(agent, config, env, MODEL, {"m": 2, "high": 4}, device="cpu", dtype="float32")


HRPO = run_of("hrpo", "MNNS-hybrid")
COT = run_of("cot", "MNNS-token")


def saved(run: Run, root: Path, *, hashes: bool) -> Path:
    """A checkpoint of a run whose weights are not the fresh ones."""
    policy = run.learner()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(1.0)
    optimizer = torch.optim.AdamW(policy.parameters())
    for weight in policy.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    folder = checkpoint.save(root, 3, policy, optimizer, {"run": run.identity()})
    if not hashes:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["files"], manifest["sha256"]
        path.write_text(json.dumps(manifest))
    return folder


@pytest.fixture(params=[True, False], ids=["hashes", "older"])
def hashes(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_whole_checkpoint_is_loaded(tmp_path: Path, hashes: bool) -> None:
    folder = saved(HRPO, tmp_path, hashes=hashes)
    expected = load_file(str(folder / "policy.safetensors"))
    for policy in (replace(HRPO, checkpoint=tmp_path).actor(), HRPO.learner()):
        checkpoint.load(folder, policy)
        found = policy.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (read_manifest(folder).get("files") is not None) == hashes


def test_the_manifest_has_the_hash_of_every_file(tmp_path: Path) -> None:
    from hashlib import sha256

    folder = saved(HRPO, tmp_path, hashes=True)
    files = read_manifest(folder)["files"]
    others = {path.name: path for path in folder.iterdir() if path.name != "manifest.json"}
    assert files == {name: sha256(path.read_bytes()).hexdigest() for name, path in others.items()}
    assert set(files) == {"policy.safetensors", "optimizer.safetensors"}


def one_left(tensors: Tensors) -> Tensors:
    return dict([next(iter(tensors.items()))])


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if part not in k}


def with_one(change: Callable[[torch.Tensor], torch.Tensor], part: str) -> Any:
    def changed(tensors: Tensors) -> Tensors:
        name = next(name for name in tensors if part in name)
        return {**tensors, name: change(tensors[name])}

    return changed


def last_is(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def changed(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return changed


DAMAGES: dict[str, Callable[[Tensors], Tensors]] = {
    "no tensors": lambda _: {},
    "one tensor left": one_left,
    "a model's tensor missing": without("q_proj"),
    "the tied tensor missing": lambda tensors: without("lm_head")(without("embed_tokens")(tensors)),
    "no head": without("head."),
    "a head's tensor missing": without("head.Lambda"),
    "all of int8": lambda tensors: {k: v.to(torch.int8) for k, v in tensors.items()},
    "one of int64": with_one(lambda tensor: tensor.long(), "norm"),
    "all NaN": lambda tensors: {k: torch.full_like(v, torch.nan) for k, v in tensors.items()},
    "one NaN": with_one(last_is(torch.nan), "down_proj"),
    "one infinite": with_one(last_is(torch.inf), "head.input_gate"),
    "another shape": with_one(lambda tensor: tensor[:-1].contiguous(), "gate_proj"),
    "transposed": with_one(lambda tensor: tensor.T.contiguous(), "up_proj"),
    "an unknown tensor": lambda tensors: {**tensors, "lm.model.more": torch.ones(2)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_without_its_weights_is_refused(
    damage: str, hashes: bool, tmp_path: Path
) -> None:
    folder = saved(HRPO, tmp_path, hashes=hashes)
    path = folder / "policy.safetensors"
    tensors = {name: x.contiguous() for name, x in DAMAGES[damage](load_file(str(path))).items()}
    save_file(tensors, str(path))
    for load in (
        lambda: checkpoint.load(folder, HRPO.learner()),
        lambda: replace(HRPO, checkpoint=tmp_path).actor(),
        lambda: replace(HRPO, checkpoint=folder).learner(),
    ):
        with pytest.raises(CheckpointError, match="SHA-256" if hashes else "fit|damaged") as error:
            load()
        assert "checkpoint." in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"half", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_file_that_is_none_is_refused(content: bytes, hashes: bool, tmp_path: Path) -> None:
    folder = saved(HRPO, tmp_path, hashes=hashes)
    (folder / "policy.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256" if hashes else "damaged"):
        replace(HRPO, checkpoint=tmp_path).actor()
    (folder / "policy.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        replace(HRPO, checkpoint=tmp_path).actor()


def test_numbers_that_are_other_ones_are_noticed(tmp_path: Path) -> None:
    folder = saved(HRPO, tmp_path, hashes=True)
    path = folder / "policy.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="SHA-256"):
        replace(HRPO, checkpoint=tmp_path).actor()


OPTIMIZER: dict[str, Callable[[Tensors], Tensors]] = {
    "no tensors": lambda _: {},
    "no random state": without("rng"),
    "another shape": with_one(lambda tensor: tensor[:-1].contiguous(), "exp_avg"),
    "one NaN": with_one(last_is(torch.nan), "exp_avg_sq"),
    "another parameter": lambda tensors: {**tensors, "999/exp_avg": torch.ones(2)},
}


@pytest.mark.parametrize("damage", OPTIMIZER)
def test_an_optimiser_that_is_another_is_refused(damage: str, hashes: bool, tmp_path: Path) -> None:
    folder = saved(HRPO, tmp_path, hashes=hashes)
    path = folder / "optimizer.safetensors"
    save_file(OPTIMIZER[damage](load_file(str(path))), str(path))
    policy = HRPO.learner()
    before = torch.get_rng_state()
    said = "SHA-256" if hashes else "does not fit|in other groups"
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(folder, policy, torch.optim.AdamW(policy.parameters()))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_chain_of_words_may_start_a_policy_with_another_head(
    tmp_path: Path, hashes: bool
) -> None:
    folder = saved(COT, tmp_path, hashes=hashes)
    fresh, started = HRPO.learner(), replace(HRPO, checkpoint=tmp_path).learner()
    expected = load_file(str(folder / "policy.safetensors"))
    for name, tensor in started.state_dict().items():
        if name.startswith("head."):
            assert torch.equal(tensor, fresh.state_dict()[name])
        elif name in expected:
            assert torch.equal(tensor, expected[name])


def test_a_latent_policy_may_start_a_chain_of_words(tmp_path: Path) -> None:
    folder = saved(HRPO, tmp_path, hashes=True)
    started: Policy = replace(COT, checkpoint=tmp_path).learner()
    expected = load_file(str(folder / "policy.safetensors"))
    name = "lm.model.model.norm.weight"
    assert torch.equal(started.state_dict()[name], expected[name])


@pytest.mark.parametrize("damage", ["one tensor left", "a model's tensor missing", "one of int64"])
def test_what_starts_another_agent_must_be_whole(damage: str, tmp_path: Path) -> None:
    path = saved(COT, tmp_path, hashes=False) / "policy.safetensors"
    save_file(DAMAGES[damage](load_file(str(path))), str(path))
    with pytest.raises(CheckpointError, match="fit"):
        replace(HRPO, checkpoint=tmp_path).learner()


def test_bf16_weights_are_loaded_in_fp32(tmp_path: Path) -> None:
    """As a run on a GPU writes them."""
    policy = HRPO.learner().bfloat16()
    checkpoint.save(tmp_path, 1, policy, None, {"run": HRPO.identity()})
    found = replace(HRPO, checkpoint=tmp_path).actor().state_dict()
    for name, tensor in policy.state_dict().items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], tensor.float())


def test_a_scale_that_is_not_measured_yet_may_be_saved(tmp_path: Path) -> None:
    run = run_of("colar-grpo", "MNNS-hybrid", prompt_suffix="")
    policy = run.learner()
    assert policy.state_dict()["head.scale"].isnan()
    folder = checkpoint.save(tmp_path, 1, policy, None, {"run": run.identity()})
    checkpoint.load(folder, run.learner())
