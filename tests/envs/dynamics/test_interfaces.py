"""What actions say, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from latentgym.envs.dynamics.interfaces import (
    INTERFACES,
    Likeliest,
    Setting,
    principal_directions,
)
from latentgym.envs.dynamics.options import DynamicsOptions
from latentgym.episodes.spaces import family
from latentgym.errors import ActionError, UsageError

V, D, K, B = 11, 6, 3, 4
TABLE_VD = torch.randn(V, D, generator=torch.Generator().manual_seed(1))
LOGP_BV = torch.randn(B, V, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
SEEN = Likeliest(*(part for part in reversed(LOGP_BV.topk(K))))


def made(name: str, of: str = "continuous", **options: Any) -> Any:
    return INTERFACES[name](Setting(TABLE_VD, DynamicsOptions(k=K, **options), family(of), 2))


def test_zeros_mix_as_the_model_does() -> None:
    token_B, x_BD = made("mixture").read(np.zeros((B, K)), SEEN)
    p_Bk = SEEN.logp_Bk.exp() / SEEN.logp_Bk.exp().sum(-1, keepdim=True)
    assert_close(x_BD, (p_Bk[..., None] * TABLE_VD[SEEN.ids_Bk]).sum(1))
    assert torch.equal(token_B, LOGP_BV.argmax(-1))


def test_without_prior_they_mix_evenly() -> None:
    _, x_BD = made("mixture", prior=0).read(np.zeros((B, K), dtype=np.float32), SEEN)
    assert_close(x_BD, TABLE_VD[SEEN.ids_Bk].mean(1))


@given(place=st.lists(st.integers(0, K - 1), min_size=B, max_size=B))
def test_one_number_far_above_the_others_is_that_token(place: list[int]) -> None:
    numbers = np.where(np.arange(K) == np.array(place)[:, None], 1.0, -1.0)
    token_B, x_BD = made("mixture", scale=50.0).read(numbers, SEEN)
    chosen, plain_BD = made("token").read(np.array(place), SEEN)
    assert torch.equal(token_B, chosen)
    assert torch.equal(chosen, SEEN.ids_Bk[torch.arange(B), torch.tensor(place)])
    assert_close(x_BD, plain_BD)


@pytest.mark.parametrize("gate", [0.0, 0.6, 1.0])
def test_a_gate_blends_a_token_with_its_mixture(gate: float) -> None:
    numbers = np.zeros((B, K + 1), dtype=np.float32)
    numbers[:, -1] = 2 * gate - 1
    token_B, x_BD = made("gate").read(numbers, SEEN)
    p_Bk = SEEN.logp_Bk.softmax(-1)
    p_Bk = p_Bk / p_Bk.norm(dim=-1, keepdim=True)
    h_BD = (p_Bk[..., None] * TABLE_VD[SEEN.ids_Bk]).sum(1)
    assert_close(x_BD, gate * TABLE_VD[token_B] + (1 - gate**2) ** 0.5 * h_BD)


def test_a_latent_has_the_size_of_embeddings() -> None:
    numbers = np.random.default_rng(0).uniform(-1, 1, (B, D)).astype(np.float32)
    token_B, x_BD = made("latent").read(numbers, SEEN)
    assert torch.equal(token_B, LOGP_BV.argmax(-1))  # the model's own likeliest
    size = TABLE_VD.square().mean().sqrt()
    assert_close(x_BD, torch.from_numpy(numbers) * size)
    _, twice_BD = made("latent", scale=2.0).read(numbers, SEEN)
    assert_close(twice_BD, 2 * x_BD)


@pytest.mark.parametrize("rank", [1, 2, D])
def test_a_low_rank_latent_keeps_its_size(rank: int) -> None:
    basis_RD = principal_directions(TABLE_VD, rank)
    assert_close(basis_RD @ basis_RD.T, torch.eye(rank), atol=1e-5, rtol=0)
    centred = TABLE_VD - TABLE_VD.mean(0)
    _, _, right = torch.linalg.svd(centred)
    assert_close((basis_RD @ right[:rank].T).abs(), torch.eye(rank), atol=1e-4, rtol=0)
    numbers = np.random.default_rng(0).uniform(-1, 1, (B, rank)).astype(np.float32)
    _, x_BD = made("latent", rank=rank).read(numbers, SEEN)
    size = torch.from_numpy(numbers).square().mean(-1).sqrt() * TABLE_VD.square().mean().sqrt()
    assert_close(x_BD.square().mean(-1).sqrt(), size)


def test_weights_of_a_superposition_add_up_to_one() -> None:
    native = made("native")
    ids = np.array([[1, 2]] * B)
    _, x_BD = native.read({"ids": ids, "weights": np.full((B, 2), 0.25, np.float32)}, SEEN)
    assert_close(x_BD, TABLE_VD[[1, 2]].mean(0).expand(B, -1))


def test_numbers_beyond_the_bounds_are_taken_to_them() -> None:
    mixture = made("mixture")
    far, near = (mixture.read(np.full((B, K), n), SEEN)[1] for n in (7.0, 1.0))
    assert torch.equal(far, near)


@pytest.mark.parametrize(
    ("name", "action", "says"),
    [
        ("mixture", np.zeros((B, K + 1)), "3 numbers for each of 4 rows"),
        ("mixture", np.zeros(K), "3 numbers for each of 4 rows"),
        ("mixture", np.array([["a"] * K] * B), "3 numbers for each of 4 rows, not <U1"),
        ("gate", np.array([[0.0] * (K + 1)] * (B - 1) + [[np.nan] * (K + 1)]), "row 3 holds NaN"),
        ("latent", np.full((B, D), np.inf), "row 0 holds NaN or infinity"),
        ("token", np.full(B, K), "from 0 to 2"),
        ("token", np.full(B, -1), "from 0 to 2"),
        ("token", np.zeros(B), "a whole number from 0 to 2"),
    ],
)
def test_actions_outside_the_space(name: str, action: Any, says: str) -> None:
    with pytest.raises(ActionError, match=says):
        made(name).read(action, SEEN)


def test_more_directions_than_there_are() -> None:
    with pytest.raises(UsageError, match="choose rank <= 6"):
        made("latent", rank=7)


def native(name: str) -> Any:
    return made("native", of=name)


@pytest.mark.parametrize("dtype", [">f4", np.float16, np.longdouble, np.int8])
def test_numbers_of_any_type_of_numpy(dtype: Any) -> None:
    whole = np.ones((B, D), dtype=dtype)
    action = {"token": np.arange(B, dtype=">i2"), "latent": 2 * whole, "gate": 0 * whole}
    token_B, x_BD = native("hybrid").read(action, SEEN)
    assert token_B.tolist() == list(range(B)) and (x_BD == 2).all()
    weights = np.eye(B, K, dtype=dtype) + np.eye(B, K, -1, dtype=dtype)
    ids = np.tile(np.arange(K, dtype=">i2"), (B, 1))
    _, x_BD = native("continuous").read({"ids": ids, "weights": weights}, SEEN)
    assert_close(x_BD[0], TABLE_VD[0])


@pytest.mark.parametrize("fault", ["a", [[1.0], [1.0, 2.0]], np.full((B, D), None)])
def test_parts_that_are_no_numbers(fault: Any) -> None:
    good = {"token": np.zeros(B, dtype=int), "latent": np.ones((B, D)), "gate": np.ones((B, D))}
    for name in good:
        with pytest.raises(ActionError, match=f"the {name} of a hybrid action must be"):
            native("hybrid").read({**good, name: fault}, SEEN)
