"""What people look at of a rollout is what was thought, and what was written by whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.heads import (
    ControlHead,
    GatedHead,
    HiddenStateHead,
    MixtureHead,
    MultiTokenHead,
    PolicyHead,
    TokenHead,
)
from latentgym.rollout import (
    Engine,
    Policy,
    Rollouts,
    StepKind,
    segments,
    thought_steps,
    thoughts,
)
from latentgym.rollout.replay import whole_rows
from latentgym.text.lengths import MOST_CHARS
from latentgym.text.tokenizers import ByteTokenizer

MOST = 5


def rolled_out(policy: Policy, prompts: Any, protocol: Protocol, **engine: Any) -> Rollouts:
    made = Engine(policy, keep_thoughts=MOST, **engine)
    return made.rollout(prompts, protocol, seed=3, group_size=2)


def looked_at(policy: Policy, rollouts: Rollouts) -> list[dict[str, Any]]:
    """The thoughts of all rows, one after the other."""
    return [step for row in thought_steps(policy, rollouts, MOST) for step in row]


@torch.no_grad()
def logits_of(policy: Policy, rollouts: Rollouts) -> Tensor:
    """Logits behind which each thought was thought, (M, V), by one pass without a cache."""
    lm = policy.lm
    read = whole_rows(lm, rollouts)
    hidden = lm.hidden(policy.inputs(*read, lm.table_VD), read.kind_NT != StepKind.PAD)
    return lm.logits(hidden[:, :-1][(read.kind_NT == StepKind.THOUGHT)[:, 1:]])


@pytest.mark.parametrize(
    ("head", "temperature"),
    [
        (lambda: MixtureHead(), 1.0),
        (lambda: MixtureHead(temperature=0.5), 0.5),
        (lambda: MixtureHead(top_k=259), 1.0),
        (lambda: GatedHead(32, TokenHead(0.7)), 0.7),
    ],
    ids=["mixture", "temperature", "top-k", "gated"],
)
def test_a_mixture_is_shown_by_the_heaviest_of_its_replayed_softmax(
    head: Callable[[], PolicyHead],
    temperature: float,
    random_lm: Callable,
    prompts: Any,
    protocol: Protocol,
) -> None:
    policy = Policy(random_lm("llama"), head())
    rollouts = rolled_out(policy, prompts, protocol)
    steps, logits_MV = looked_at(policy, rollouts), logits_of(policy, rollouts)
    weights_MV = (logits_MV / temperature).softmax(-1)
    assert len(steps) == len(logits_MV) > 20
    entropy_M = -(logits_MV.softmax(-1) * logits_MV.log_softmax(-1)).sum(-1)
    for step, weights_V, entropy in zip(steps, weights_MV, entropy_M.tolist(), strict=True):
        assert step["by"] == "weights" and len(step["ids"]) == MOST
        shown, heaviest = torch.tensor(step["weights"]), weights_V.topk(MOST).values
        assert_close(shown, heaviest, rtol=6e-3, atol=1e-5)
        assert_close(weights_V[step["ids"]], heaviest, rtol=1e-3, atol=1e-5)
        assert step["entropy"] == pytest.approx(entropy, rel=6e-3)
        assert step["tokens"] == [ByteTokenizer().decode([i]) or f"<{i}>" for i in step["ids"]]


def test_a_gate_is_told_with_the_norm_of_what_is_read(
    random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm("llama"), GatedHead(32, TokenHead(0.7), r_min=0.3, r_max=0.9))
    rollouts = rolled_out(policy, prompts, protocol)
    at = rollouts.kind_NT == StepKind.THOUGHT
    made = {"soft": rollouts.actions["soft"][at], "token": torch.from_numpy(rollouts.token_NT[at])}
    table_VD = policy.lm.table_VD
    with torch.no_grad():
        gate_M = policy.head.statistics(made, table_VD)["gate"].tolist()
        norm_M = policy.head.embed(made, table_VD).norm(dim=-1) / table_VD.norm(dim=-1).mean()
    steps = looked_at(policy, rollouts)
    assert [step["gate"] for step in steps] == pytest.approx(gate_M, rel=6e-3)
    assert [step["norm"] for step in steps] == pytest.approx(norm_M.tolist(), rel=6e-3)


def test_a_token_is_itself(random_lm: Callable, prompts: Any, protocol: Protocol) -> None:
    lm = random_lm("llama")
    for head, by in ((TokenHead(), "weights"), (ControlHead(MixtureHead(), "word"), "cosine")):
        policy = Policy(lm, head)
        rollouts = rolled_out(policy, prompts, protocol)
        tokens = rollouts.token_NT[rollouts.kind_NT == StepKind.THOUGHT].tolist()
        steps = looked_at(policy, rollouts)
        assert [(s["ids"][0], s["weights"][0], s["by"]) for s in steps] == [
            (token, 1.0, by) for token in tokens
        ]
        assert all("gate" not in step for step in steps)


def test_tokens_that_were_given_have_no_entropy(random_lm: Callable, prompts: Any) -> None:
    policy = Policy(random_lm("llama"), TokenHead(0.0))
    rules = Protocol(think=Budget(4, exact=True), answer=Budget(2))
    engine = Engine(policy, keep_thoughts=MOST)
    for given in (2, 4):
        prefix = [[7, 8, 9, 10][:given]] * len(prompts)
        session = engine.start(prompts, rules, seed=0, prefix=prefix)
        session.run()
        for row in thought_steps(policy, session.finish(), MOST):
            assert [step["ids"][0] for step in row[:given]] == prefix[0]
            assert ["entropy" in step for step in row] == [i >= given for i in range(4)]


@pytest.mark.parametrize("head", [HiddenStateHead, lambda: ControlHead(MixtureHead(), "noise")])
def test_a_vector_is_shown_by_the_nearest_embeddings(
    head: Callable[[], PolicyHead], random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    policy = Policy(random_lm("gpt2"), head())
    rollouts = rolled_out(policy, prompts, protocol)
    x_MD = rollouts.actions["latent"][rollouts.kind_NT == StepKind.THOUGHT]
    cosine_MV = torch.nn.functional.cosine_similarity(x_MD[:, None], policy.lm.table_VD, dim=-1)
    for step, cosine_V in zip(looked_at(policy, rollouts), cosine_MV, strict=True):
        assert step["by"] == "cosine"
        assert_close(
            torch.tensor(step["weights"]), cosine_V.topk(MOST).values, rtol=6e-3, atol=1e-5
        )


@pytest.mark.parametrize("name", ["mixture", "mts", "gated", "hidden", "token"])
def test_neither_batch_nor_compaction_nor_looking_changes_anything(
    name: str, random_lm: Callable, prompts: Any, protocol: Protocol
) -> None:
    heads = {"mixture": MixtureHead, "mts": lambda: MultiTokenHead(4), "hidden": HiddenStateHead}
    heads |= {"gated": lambda: GatedHead(32, TokenHead(0.7)), "token": TokenHead}
    policy = Policy(random_lm("llama"), heads[name]())
    whole = rolled_out(policy, prompts, protocol)
    expected = thought_steps(policy, whole, MOST)
    plain = rolled_out(policy, prompts, protocol, compact_every=0, share_prompts=False)
    unseen = Engine(policy).rollout(prompts, protocol, seed=3, group_size=2)
    assert np.array_equal(unseen.token_NT, whole.token_NT) and unseen.seen == {}
    alone = [
        Engine(policy, keep_thoughts=MOST).rollout(
            [prompt], protocol, seed=3, group_size=2, question_Q=[number]
        )
        for number, prompt in enumerate(prompts)
    ]
    for found in (
        thought_steps(policy, plain, MOST),
        [row for each in alone for row in thought_steps(policy, each, MOST)],
        thought_steps(policy, Rollouts.concatenate([whole.select([i]) for i in range(8)]), MOST),
    ):
        assert [len(row) for row in found] == [len(row) for row in expected]
        for row, row_expected in zip(found, expected, strict=True):
            for step, step_expected in zip(row, row_expected, strict=True):
                assert step.keys() == step_expected.keys()
                for key in ("weights", "norm", "entropy"):
                    assert step[key] == pytest.approx(step_expected[key], rel=6e-3, abs=1e-5)


def test_so_many_thoughts_are_kept_and_no_more(
    random_lm: Callable, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentgym.rollout.session.MOST_STEPS", 3)
    monkeypatch.setattr(thoughts, "MOST_STEPS", 3)
    monkeypatch.setattr(thoughts, "_AT_ONCE", 2)
    policy = Policy(random_lm("llama"), MixtureHead())
    rules = Protocol(think=Budget(9, exact=True), answer=Budget(2))
    rollouts = rolled_out(policy, prompts, rules)
    assert [len(row) for row in thought_steps(policy, rollouts, MOST)] == [3] * len(rollouts)
    assert not rollouts.seen["weights"][:, 3:].any() and rollouts.seen["weights"][:, :3].all()


# Text by who wrote it.

RULES = Protocol(
    think=Budget(20),
    answer=Budget(8),
    marker=StopMatcher("#", ByteTokenizer().pieces()),
    stop=StopMatcher("!", ByteTokenizer().pieces()),
    tool_call=StopMatcher("]", ByteTokenizer().pieces()),
    max_tool_calls=2,
    max_tool_response=9,
    eos=(258,),
    forced_prompt=tuple(b"so:"),
)
# What the environment inserts stands in braces.
WRITTEN: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "marked": ("hm#42!", [("thought", "hm#"), ("answer", "42!")]),
    "forced": ("x" * 20 + "{so:}7", [("thought", "x" * 20), ("forced_prompt", "so:")]),
    "called": (
        "oh [who]{ Bob }ah#Bob!",
        [
            *(("thought", "oh "), ("tool_call", "[who]"), ("tool_response", " Bob ")),
            *(("thought", "ah#"), ("answer", "Bob!")),
        ],
    ),
    "called twice, and no more": (
        "[a]{1}b[c]{2}[d]#e!",
        [
            *(("tool_call", "[a]"), ("tool_response", "1"), ("thought", "b")),
            *(("tool_call", "[c]"), ("tool_response", "2"), ("thought", "[d]#"), ("answer", "e!")),
        ],
    ),
    "unfinished": ("hm", [("thought", "hm")]),
    "nothing": ("", []),
    "long": ("a#" + "9" * 8, [("thought", "a#"), ("answer", "9" * 8)]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_text_is_told_by_who_wrote_it(name: str) -> None:
    text, expected = WRITTEN[name]
    token_T = np.array([*text.replace("{", "").replace("}", "").encode()], dtype=np.int64)
    inserted, flags = False, []
    for char in text:
        if char in "{}":
            inserted = char == "{"
        else:
            flags.append(inserted)
    expected = [*expected, ("answer", "7")] if name == "forced" else expected
    found = segments(
        RULES,
        ByteTokenizer().decode,
        token_T,
        np.array(flags, dtype=bool),
        lambda said: max(0, said.rfind("[")),
    )
    assert [(each["kind"], each["text"]) for each in found] == expected
    whole = "".join(each["text"] for each in found)
    assert whole == text.replace("{", "").replace("}", "")


def test_text_without_end_is_cut() -> None:
    rules = replace(RULES, answer=Budget(10**6), max_tool_calls=None)
    token_T = np.array([*b"#", *b"9" * 10**5], dtype=np.int64)
    flags = np.zeros(len(token_T), dtype=bool)
    found = segments(rules, ByteTokenizer().decode, token_T, flags, len)
    assert [each["kind"] for each in found] == ["thought", "answer"]
    assert len(found[1]["text"]) < MOST_CHARS + 10 and found[1]["text"].endswith("9 [...]")
