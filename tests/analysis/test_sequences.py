"""What stands where in sequences of rollouts and of demonstrations."""

from __future__ import annotations

import pytest
import torch

from latentgym.analysis.sequences import PositionKind, Sequences, of_demonstrations, of_rollouts
from latentgym.errors import UsageError
from latentgym.heads import HiddenStateHead, MixtureHead, PolicyHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, collect, replay

HEADS = {"token": TokenHead(), "hybrid": HiddenStateHead(), "continuous": MixtureHead()}
KINDS = {"token": "CHAIN", "hybrid": "HYBRID", "continuous": "LATENT"}


@pytest.mark.parametrize("family", HEADS)
def test_rollouts_are_read_as_they_were_thought(family: str) -> None:
    """The last hidden states of the sequences score the actions as replay does."""
    env = make_vector_env(f"latent/ProsQA-{family}", 6, size=20)
    lm = load_model("tiny:llama:2x4x32", tokenizer=env.unwrapped.task.tokenizer)
    head: PolicyHead = HEADS[family]
    policy = Policy(lm, head)
    rollouts = collect(Engine(policy), env, range(6), seed=0).rollouts
    sequences = of_rollouts(policy, rollouts)
    kinds = {PositionKind.PROMPT, PositionKind[KINDS[family]], PositionKind.ANSWER}
    assert set(sequences.kinds) == kinds
    steps = rollouts.token_NT.shape[1]
    assert (sequences.mask_NT[:, -steps:].sum(1).numpy() == rollouts.length_N).all()
    hidden = lm.hidden(sequences.x_NTD, sequences.mask_NT)
    logp = lm.logits(hidden).log_softmax(-1)[:, :-1].gather(-1, sequences.token_NT[:, 1:, None])
    answer = (sequences.kind_NT == PositionKind.ANSWER)[:, 1:]
    expected = replay(policy, rollouts).logp_NT
    told = torch.cat([torch.zeros(6, sequences.token_NT.shape[1] - steps), expected], 1)[:, 1:]
    torch.testing.assert_close(logp[..., 0][answer], told[answer], rtol=1e-4, atol=1e-4)


def test_demonstrations_may_be_superpositions() -> None:
    env = make_vector_env("latent/MNNS-continuous", 1, m=3).unwrapped
    lm = load_model("tiny", tokenizer=env.task.tokenizer)
    items = [(env.prompt(i), env.demonstration(i)) for i in range(4)]
    sequences = of_demonstrations(lm, items)
    assert PositionKind.LATENT in sequences.kinds
    row = sequences.kind_NT[0][sequences.mask_NT[0]]
    prompt, shown = items[0]
    assert row[: len(prompt)].eq(PositionKind.PROMPT).all()
    assert len(row) == len(prompt) + len(shown.ids_TS)
    weights = torch.from_numpy(shown.weights_TS)
    mixed = (weights[..., None] * lm.embed(torch.from_numpy(shown.ids_TS))).sum(1)
    read = sequences.x_NTD[0][sequences.mask_NT[0]][len(prompt) :]
    torch.testing.assert_close(read, mixed, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="at least one question"):
        of_demonstrations(lm, [])


def test_chunks_are_the_rows(sequences: Sequences) -> None:
    parts = list(sequences.chunks(1))
    assert [len(part) for part in parts] == [1] * len(sequences)
    for row, part in enumerate(parts):
        real = sequences.mask_NT[row]
        assert part.mask_NT.all()
        assert torch.equal(part.x_NTD[0], sequences.x_NTD[row][real])
        assert torch.equal(part.kind_NT[0], sequences.kind_NT[row][real])
        assert int(part.first_NT.sum()) == 1 and bool(part.first_NT[0, 0])
