"""A model that computes in bf16 over fp32 weights: what is bf16 then, and what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.heads import Action, MultiTokenHead, PolicyHead, RATTHead, Readout
from latentgym.lm import LatentLM, load_model
from latentgym.lm.model import left_pad
from latentgym.rollout import Engine, Policy, Rollouts, log_probs, replay
from latentgym.text.tokenizers import ByteTokenizer


def mixed(arch: str = "llama", dtype: str = "bfloat16") -> LatentLM:
    lm: LatentLM = load_model(
        f"tiny:{arch}:2x4x32",
        tokenizer=ByteTokenizer(),
        dtype=dtype,
        device="cpu",
        mixed_precision=True,
    )
    with torch.no_grad():  # a fresh model is so flat that tests of it would see little
        for parameter in lm.parameters():
            parameter.mul_(3)
    return lm.eval()


def rolled_out(policy: Policy, prompts: list[list[int]], protocol: Protocol) -> Rollouts:
    engine = Engine(policy, record_log_probs=True)
    return engine.rollout(prompts, protocol, seed=3, group_size=3)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Of eight bits the last are wrong now and then; a density sums that over its elements."""
    assert (found - expected).abs().mean() < 2**-5 * expected.abs().mean()


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_replay_agrees_with_decoding_as_far_as_bf16_can_tell(
    arch: str, head: PolicyHead, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(mixed(arch), head)
    rollouts = rolled_out(policy, prompts, protocol)
    with torch.no_grad():
        scores = replay(policy, rollouts)
        whole = replay(Policy(mixed(arch, "float32"), head, policy.answer_head), rollouts)
    assert rollouts.logp_NT is not None
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_near(scores.joint(scores.logp_NT), expected)
    # It is bf16 that was compared, and it is near what fp32 says.
    assert not torch.equal(scores.entropy_NT, whole.entropy_NT)
    assert_near(scores.logp_NT, whole.logp_NT)


def test_all_but_the_model_is_fp32(head: PolicyHead, prompts: Any, protocol: Protocol) -> None:
    """Logits, log-probabilities, densities, latents; also where a caller has an autocast."""
    policy = Policy(mixed(), head)
    rollouts = rolled_out(policy, prompts, protocol)
    with torch.autocast("cpu", torch.bfloat16):
        within = rolled_out(policy, prompts, protocol)
        around = log_probs(policy, rollouts, 4)
    assert rollouts.logp_NT is not None and within.logp_NT is not None
    assert torch.equal(within.logp_NT, rollouts.logp_NT)
    assert torch.equal(around, log_probs(policy, rollouts, 4))
    seen: list[Tensor] = [rollouts.logp_NT, *replay_parts(policy, rollouts)]
    seen += [value for value in rollouts.actions.values() if value.is_floating_point()]
    assert {value.dtype for value in seen} == {torch.float32}
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}


def replay_parts(policy: Policy, rollouts: Rollouts) -> Iterator[Tensor]:
    """What a replay computes, its logits and densities among it."""
    seen: list[Tensor] = []
    logits, log_prob = policy.lm.logits, policy.head.log_prob

    def keep(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args: seen.append(function(*args)) or seen[-1]

    policy.lm.logits, policy.head.log_prob = keep(logits), keep(log_prob)  # type: ignore[method-assign]
    scores = replay(policy, rollouts)
    policy.lm.logits, policy.head.log_prob = logits, log_prob  # type: ignore[method-assign]
    assert len(seen) >= 3
    yield from (*seen, scores.logp_NT, scores.entropy_NT)


def test_heads_compute_in_fp32_beside_a_narrow_model(
    head: PolicyHead, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(mixed(dtype="float32"), head)
    rolled_out(policy, prompts, protocol)  # some measure the table when they first see it
    before = {name: value.clone() for name, value in policy.head.state_dict().items()}
    policy.to(torch.bfloat16)
    assert policy.lm.table_VD.dtype == torch.bfloat16
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    scored: list[tuple[Tensor, Tensor]] = []
    log_prob = head.log_prob

    def both(action: Action, read: Readout) -> Tensor:
        """With what a narrow model says, and with the same numbers in fp32."""
        memory = None if read.memory is None else read.memory.float()
        wide = replace(
            read, hidden=read.hidden.float(), table_VD=read.table_VD.float(), memory=memory
        )
        assert read.hidden.dtype == torch.bfloat16
        scored.append((log_prob(action, read), log_prob(action, wide)))
        return scored[-1][0]

    head.log_prob = both  # type: ignore[method-assign]
    rolled_out(policy, prompts, protocol)
    for found, expected in scored:
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    assert {p.dtype for p in head.half().parameters()} <= {torch.float32}
    assert {p.dtype for p in head.double().parameters()} <= {torch.float64}


def test_gradients_are_fp32_and_near_those_of_fp32(prompts: Any, protocol: Protocol) -> None:
    gradients = []
    for dtype in ("float32", "bfloat16"):
        policy = Policy(mixed(dtype=dtype), MultiTokenHead(3))
        if not gradients:
            rollouts = rolled_out(policy, prompts, protocol)
        replay(policy, rollouts).logp_NT.sum().backward()
        gradients.append([p.grad for p in policy.parameters() if p.grad is not None])
        assert {g.dtype for g in gradients[-1]} == {torch.float32}
    for fp32, bf16 in zip(*gradients, strict=True):
        assert torch.nn.functional.cosine_similarity(fp32.flatten(), bf16.flatten(), 0) > 0.99


def test_gradients_flow_after_a_pass_without_them_in_a_callers_autocast(
    prompts: Any, protocol: Protocol
) -> None:
    """Autocast must not hand on what it cast for a pass that wanted no gradients."""
    policy = Policy(mixed(), MultiTokenHead(3))
    with torch.autocast("cpu", torch.bfloat16):
        rollouts = rolled_out(policy, prompts, protocol)
        log_probs(policy, rollouts, 4)
        replay(policy, rollouts).logp_NT.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.lm.parameters())


@pytest.mark.parametrize("chunked", [False, True])
def test_recomputed_activations_give_the_same_gradients(
    chunked: bool, prompts: Any, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = []
    if chunked:
        monkeypatch.setattr("latentgym.lm.model.MOST_LOGITS", 259 * 7)
    for recomputes in (False, True):
        policy = Policy(mixed(), MultiTokenHead(3))
        if recomputes:
            policy.lm.checkpoint_gradients()
            policy.lm.train()
        else:
            rollouts = rolled_out(policy, prompts, protocol)
        replay(policy, rollouts).logp_NT.sum().backward()
        gradients.append([p.grad for p in policy.parameters() if p.grad is not None])
    for kept, recomputed in zip(*gradients, strict=True):
        assert torch.nn.functional.cosine_similarity(kept.flatten(), recomputed.flatten(), 0) > 0.99


class CountCasts(TorchDispatchMode):
    """How often a matrix of that shape is cast."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.casts = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].shape == self.shape:
            self.casts += 1
        return func(*args, **(kwargs or {}))


def test_decoding_casts_weights_once(prompts: Any) -> None:
    lm = mixed()
    down = next(m for name, m in lm.named_modules() if name.endswith("0.mlp.down_proj"))
    assert isinstance(down, nn.Linear)
    ids_QP, mask_QP = left_pad(prompts, 0, lm.device)
    with lm.decoding(), CountCasts(down.weight.shape) as count:
        prefill = lm.prefill(ids_QP, mask_QP)
        x_N1D = lm.embed(ids_QP[:, :1])
        for _ in range(4):
            lm.extend(x_N1D, mask_QP.sum(1, keepdim=True), prefill.cache)
    assert count.casts == 2  # of each layer


def test_adapters_are_fp32_over_weights_in_bf16(prompts: Any, protocol: Protocol) -> None:
    lm = mixed()
    lm.add_lora(4, 8)
    policy = Policy(lm, MultiTokenHead(2))
    trained = {p.dtype for p in policy.parameters() if p.requires_grad}
    frozen = {p.dtype for p in policy.parameters() if not p.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})
    rollouts = rolled_out(policy, prompts, protocol)
    scores = replay(policy, rollouts)
    assert rollouts.logp_NT is not None
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_near(scores.logp_NT.detach(), expected)
    scores.logp_NT.sum().backward()
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)


def test_frozen_weights_are_kept_in_bf16(prompts: Any, protocol: Protocol) -> None:
    lm, whole = mixed(), mixed(dtype="float32")
    lm.freeze()
    whole.freeze()
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in (*lm.parameters(), *whole.parameters()))
    policy = Policy(lm, RATTHead(32, 0.5))
    rollouts = rolled_out(policy, prompts, protocol)
    scores = replay(policy, rollouts)
    assert rollouts.logp_NT is not None
    expected = torch.where(scores.action_NT, rollouts.logp_NT, 0.0)
    assert_near(scores.logp_NT.detach(), expected)
    scores.logp_NT.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in policy.head.parameters())


def test_a_reference_computes_as_the_policy_does(prompts: Any, protocol: Protocol) -> None:
    policy = Policy(mixed(), MultiTokenHead(2))
    rollouts = rolled_out(policy, prompts, protocol)
    expected = log_probs(policy, rollouts, 4)
    assert torch.equal(log_probs(policy.reference(), rollouts, 4), expected)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
def test_the_self_test_is_one_of_weights_in_fp32(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What autocast rounds is no fault of a model; nobody has loaded it before here."""
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path))
    assert mixed(arch).autocast == torch.bfloat16
    assert [*tmp_path.rglob("self-tests/*")]


def test_types_that_cannot_be_trained_in_are_refused() -> None:
    with pytest.raises(UsageError, match="float32 or bfloat16, not in float16"):
        mixed(dtype="float16")
