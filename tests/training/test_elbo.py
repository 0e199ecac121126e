"""The evidence lower bound of latent states: below the truth, and near it where it can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from latentgym.errors import UsageError
from latentgym.heads import TokenHead, TransitionHead
from latentgym.heads.spectral import spectral_summary
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rollout import Policy
from latentgym.testing.gradients import GradientRecorder
from latentgym.training import ELBO, ELBOConfig
from latentgym.training.elbo import divergence, drawn_states

S, K, V = 5, 3, 4
OPTIONS = {"source": "generated", "max_operations": 3, "largest": 9}


def toy(seed: int = 0, sharp: float = 4.0) -> tuple[Tensor, Tensor]:
    """Logarithms of transitions (the first state's last) and emissions of a Markov model."""
    g = torch.Generator().manual_seed(seed)
    transitions = (2 * torch.randn(K + 1, K, generator=g)).log_softmax(-1)
    emissions = (sharp * torch.eye(K, V) + torch.randn(K, V, generator=g)).log_softmax(-1)
    return transitions, emissions


def chains(n: int, transitions: Tensor, emissions: Tensor) -> Tensor:
    """What the model emits, int64 (n, S)."""
    g, z, seen = torch.Generator().manual_seed(1), torch.full((n,), K), []
    for _ in range(S):
        z = torch.multinomial(transitions[z].exp(), 1, generator=g)[:, 0]
        seen.append(torch.multinomial(emissions[z].exp(), 1, generator=g)[:, 0])
    return torch.stack(seen, 1)


def exact(transitions: Tensor, emitted_BSK: Tensor) -> Tensor:
    """log p(x) by the forward algorithm, (B,)."""
    alpha_BK = transitions[K] + emitted_BSK[:, 0]
    for s in range(1, S):
        alpha_BK = (alpha_BK[:, :, None] + transitions[:K]).logsumexp(1) + emitted_BSK[:, s]
    return alpha_BK.logsumexp(-1)


def bound(logq_BSK: Tensor, transitions: Tensor, emitted_BSK: Tensor) -> Tensor:
    real_BS = torch.ones(logq_BSK.shape[:2], dtype=torch.bool)
    reconstruction_B = (logq_BSK.exp() * emitted_BSK).sum((1, 2))
    return reconstruction_B - divergence(logq_BSK, real_BS, transitions)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_a_lower_bound(seed: int) -> None:
    transitions, emissions = toy(seed)
    emitted_BSK = emissions.T[chains(200, transitions, emissions)]
    truth_B = exact(transitions, emitted_BSK)
    g = torch.Generator().manual_seed(seed)
    for spread in (0.0, 1.0, 10.0):
        logq = (spread * torch.randn(200, S, K, generator=g)).log_softmax(-1)
        assert (bound(logq, transitions, emitted_BSK) <= truth_B + 1e-4).all()
    # States that are known leave nothing between the two: the likelihood of text and states.
    sure = torch.nn.functional.one_hot(emitted_BSK.argmax(-1), K).float().log()
    assert (bound(sure, transitions, emitted_BSK) <= truth_B + 1e-4).all()


def test_one_step_with_the_true_posterior_is_the_likelihood() -> None:
    transitions, emissions = toy()
    emitted_B1K = emissions.T[torch.arange(V)][:, None]
    joint = transitions[K] + emitted_B1K
    found = bound(joint.log_softmax(-1), transitions, emitted_B1K)
    assert_close(found, joint.logsumexp(-1)[:, 0])


def test_transitions_learnt_by_the_bound_approach_the_true_ones() -> None:
    transitions, emissions = toy(sharp=8.0)
    emitted_BSK = emissions.T[chains(4000, transitions, emissions)]
    torch.manual_seed(0)
    learnt = torch.zeros(K + 1, K, requires_grad=True)
    encoder = torch.nn.Linear(K, K)
    torch.nn.init.zeros_(encoder.weight)
    optimizer = torch.optim.Adam([learnt, *encoder.parameters()], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        logq = encoder(emitted_BSK).log_softmax(-1)
        loss = -bound(logq, learnt.log_softmax(-1), emitted_BSK).mean()
        loss.backward()
        optimizer.step()
    apart = learnt.detach().softmax(-1) - transitions.exp()
    assert float(apart.abs().max()) < 0.06
    left = loss.detach() + exact(transitions, emitted_BSK).mean()
    assert 0 <= float(left) < 0.05


def test_the_divergence_is_the_written_sum() -> None:
    transitions = toy(3)[0]
    logq = torch.randn(2, 3, K, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    real = torch.tensor([[True, True, True], [True, False, False]])
    q = logq.exp()
    expected = []
    for row, n in enumerate((3, 1)):
        total = sum(q[row, 0, k] * (logq[row, 0, k] - transitions[K, k]) for k in range(K))
        for t in range(1, n):
            for j in range(K):
                kl = sum(q[row, t, k] * (logq[row, t, k] - transitions[j, k]) for k in range(K))
                total = total + q[row, t - 1, j] * kl
        expected.append(total)
    assert_close(divergence(logq, real, transitions), torch.stack(expected))


def test_drawn_states_are_one_hot_and_have_the_gradient_of_the_softmax() -> None:
    logq = torch.randn(4, 2, K, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gumbel = torch.distributions.Gumbel(0.0, 1.0).sample((4, 2, K))
    z, weights = drawn_states(logq, gumbel, 0.5), torch.randn(K)
    assert_close(z.detach(), torch.nn.functional.one_hot((logq + gumbel).argmax(-1), K).float())
    (found,) = torch.autograd.grad((z * weights).sum(), logq)
    soft = ((logq + gumbel) / 0.5).softmax(-1)
    assert_close(found, torch.autograd.grad((soft * weights).sum(), logq)[0])


# With a language model.


def make(config: ELBOConfig | None = None, *, seed: int = 0, **given: Any) -> ELBO:
    env = make_vector_env("latent/GSM8KAug-hybrid", 1, **OPTIONS)
    tokenizer = env.unwrapped.task.tokenizer
    torch.manual_seed(0)
    lm = load_model("tiny:llama:1x2x16", tokenizer=tokenizer)
    lm.freeze()
    end = torch.tensor(tokenizer.encode(";"))
    head = TransitionHead(16, step_end=end, **{"states": 4, "prefix": 2, "longest": 4, **given})
    return ELBO(Policy(lm, head, TokenHead()), env, config or ELBOConfig(batch_size=6), seed)


def test_steps_are_cut_where_tokens_end_them_and_nothing_is_lost() -> None:
    stage = make()
    batch = stage.batch(range(6))
    for row in range(6):
        prompt, shown = stage.demonstrations.item(row)
        words = batch.token_BL[row][batch.word_BL[row]]
        assert words.tolist() == shown.ids_TS[:, 0].tolist()
        counts = [n for n in batch.count_BS[row].tolist() if n]
        # The marker and the answer are a step of their own.
        assert counts == [*shown.steps, len(shown.ids_TS) - sum(shown.steps)]
        assert int(batch.latent_BL[row].sum()) == 2 * len(counts)
        assert stage.positions(row) >= len(prompt) + int((batch.kind_BL[row] > 0).sum()) - 1


@pytest.mark.parametrize("prefix", [0, 2])
def test_the_bound_of_a_batch_is_that_of_each_row_by_itself(prefix: int) -> None:
    stage = make(prefix=prefix)
    torch.nn.init.normal_(stage.head.vectors)
    stage.step(0, GradientRecorder(stage.policy))
    together = stage.bound(stage.batch(range(6)), 3)
    for row in range(6):
        alone = stage.bound(stage.batch([row]), 3)
        for found, expected in zip(alone[:2], together[:2], strict=True):
            assert_close(found[0], expected[row], atol=1e-4, rtol=1e-4)


def test_reconstruction_is_that_of_the_text_behind_the_prefixes() -> None:
    stage = make(prefix=1)
    stage.step(0, GradientRecorder(stage.policy))
    batch, lm, head = stage.batch([2]), stage.policy.lm, stage.head
    logp, _, logq = stage.bound(batch, 0)
    x = stage._read(batch, logq, 0)
    ids = batch.token_BL[0]
    expected = 0.0
    for at in batch.word_BL[0].nonzero()[:, 0].tolist():
        before = torch.cat([lm.embed(batch.prompt_BP), x[:, :at]], dim=1)
        hidden = lm.hidden(before, torch.ones(before.shape[:2], dtype=torch.bool))[0, -1]
        expected += float(lm.logits(hidden).detach().log_softmax(-1)[ids[at]])
    assert float(logp.detach()[0]) == pytest.approx(expected, abs=1e-3)
    # What stands at a prefix is one of the states' vectors.
    at = batch.latent_BL[0].nonzero()[0, 0]
    apart = (head.vectors[:, 0] * head.size - x[0, at]).detach().abs().amax(-1)
    assert float(apart.min()) < 1e-6


def test_without_a_prefix_states_are_added_to_the_thoughts() -> None:
    stage = make(prefix=0)
    stage.step(0, GradientRecorder(stage.policy))
    batch, lm, head = stage.batch([2]), stage.policy.lm, stage.head
    prompt, shown = stage.demonstrations.item(2)
    ids = torch.tensor([[*prompt, *shown.ids_TS[:, 0]]])
    # Vectors begin at zero: the model alone.
    hidden = lm.hidden(lm.embed(ids[:, :-1]), torch.ones_like(ids[:, :-1], dtype=torch.bool))
    logp = lm.logits(hidden[0, len(prompt) - 1 :]).log_softmax(-1)
    expected = logp.gather(-1, ids[0, len(prompt) :, None]).sum()
    found, _, logq = stage.bound(batch, 0)
    assert_close(found[0], expected, atol=1e-4, rtol=1e-4)
    assert stage.positions(2) == stage.demonstrations.positions(2)
    torch.nn.init.normal_(head.vectors)
    added = stage._read(batch, logq, 0)[0] - lm.embed(batch.token_BL[0])
    apart_TK = (added[:, None] - head.vectors * head.size).detach().abs().amax(-1)
    latent = sum(shown.steps)
    assert latent == shown.thoughts - 1  # the end of the marker is read as a plain token
    assert float(apart_TK[:latent].amin(-1).max()) < 1e-5
    assert not added[latent:].any()
    states = apart_TK[:latent].argmin(-1).split(list(shown.steps))
    assert [len(set(part.tolist())) for part in states] == [1, 1]


def test_states_are_those_that_the_head_will_see() -> None:
    """The places of a step's tokens are those in which the head keeps them."""
    stage = make(longest=3)
    batch = stage.batch(range(4))
    e, count = stage._summaries(batch)
    lm = stage.policy.lm
    for row in range(4):
        prompt, shown = stage.demonstrations.item(row)
        ids = torch.tensor([[*prompt, *shown.ids_TS[:, 0]]])
        hidden = lm.hidden(lm.embed(ids), torch.ones_like(ids, dtype=torch.bool))[0, len(prompt) :]
        at, S = 0, batch.count_BS.shape[1]
        for s, n in enumerate(int(n) for n in batch.count_BS[row] if n):
            last = hidden[at : at + n][-3:]
            expected = spectral_summary(last[None], torch.tensor([len(last)]), 4)[0]
            assert_close(e[row * S + s], expected, atol=1e-4, rtol=1e-3)
            assert int(count[row * S + s]) == len(last)
            at += n


def test_it_trains_states_and_leaves_the_model() -> None:
    stage = make()
    before = {name: x.clone() for name, x in stage.policy.lm.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in stage.policy.parameters() if p.requires_grad], lr=0.03)

    def update(losses: Any) -> float:
        optimizer.zero_grad()
        for loss in losses:
            loss.backward()
        optimizer.step()
        return 0.0

    stage.step(0, update)
    some = stage.batch(range(50, 60))
    begun, _, _ = stage.bound(some, 0)
    for number in range(1, 40):
        metrics = stage.step(number, update)
    risen_B = stage.bound(some, 0)[0] - begun
    assert (risen_B.detach() > 0).all()
    assert 1 <= metrics["train/states"] <= 4
    after = stage.policy.lm.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    grown = {n for n, p in stage.head.named_parameters() if p.grad is not None and p.grad.any()}
    assert grown == {"transitions", "vectors", "encoder.logits.weight", "encoder.logits.bias"}


def test_micro_batches_add_up() -> None:
    found = []
    for micro_batch in (0, 2):
        stage = make(ELBOConfig(batch_size=6, micro_batch=micro_batch))
        stage.head.encoder.std[0] = 2.0  # as if it had been fitted
        recorder = GradientRecorder(stage.policy)
        found.append((stage.step(0, recorder), recorder.gradients))
    (whole, slopes), (parts, others) = found
    assert whole["train/elbo"] == pytest.approx(parts["train/elbo"], rel=1e-4)
    for name, slope in slopes.items():
        assert_close(others[name], slope, atol=1e-5, rtol=1e-3)


def test_the_length_alone_tells_states_where_that_is_asked_for() -> None:
    stage = make(encoded="length")
    batch = stage.batch(range(3))
    logq = stage.bound(batch, 0)[2]
    expected = (batch.count_BS - 1).clamp(0, 3)
    assert torch.equal(logq.argmax(-1), expected) and not logq.amax(-1).any()
    assert np.isfinite(stage.step(0, GradientRecorder(stage.policy))["train/elbo"])


def test_what_it_cannot_train() -> None:
    stage = make()
    policy = Policy(stage.policy.lm, TokenHead())
    env = make_vector_env("latent/GSM8KAug-hybrid", 1, **OPTIONS)
    with pytest.raises(UsageError, match="TransitionHead"):
        ELBO(policy, env, ELBOConfig())
    soft = make_vector_env("latent/MNNS-continuous", 1)
    with pytest.raises(UsageError, match="one token at a time"):
        ELBO(stage.policy, soft, ELBOConfig())
    calls = make_vector_env("latent/HotpotQA-hybrid", 1, source="sample", search="action")
    with pytest.raises(UsageError, match="the environment speaks"):
        ELBO(stage.policy, calls, ELBOConfig())
