"""A step of text as the eigenpairs of its hidden states, and which latent state that is (CTRLS).

"CTRLS: Chain-of-Thought Reasoning via Latent State-Transition" (arXiv 2507.08182, Eq. 5): with the
hidden states E of a step's n tokens, e = [sqrt(l_1) q_1; ...; sqrt(l_k) q_k] from the k largest
eigenvalues l and eigenvectors q of the Gram matrix. Ours is that of E / sqrt(n), which does not
count tokens, and the sign of an eigenvector is settled. Neither the order of the tokens nor how
often all are repeated is in it.

Legend: B steps, N places for tokens, n of them taken, D width, k eigenpairs, K states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLAT = 1e-10  # eigenvalues below this share of the largest are zero up to rounding


def spectral_summary(steps_BND: Tensor, count_B: Tensor, k: int) -> Tensor:
    """The k largest eigenpairs of steps, each eigenvector times the root of its eigenvalue.

    They are taken from the products of tokens, N by N, and not from the Gram matrix, D by D: with
    E = U S Q^T the scaled eigenvectors sqrt(l) q are the columns of E^T U / sqrt(n).

    Args:
        steps_BND: hidden states; what stands behind the first n has no meaning.
        count_B: n.
        k: how many; where a step has fewer tokens, the rest is zero.

    Returns:
        fp32 (B, k, D); of each eigenvector the coordinate that is largest in magnitude is positive.
    """
    N = steps_BND.shape[1]
    real_BN = torch.arange(N, device=steps_BND.device) < count_B[:, None]
    e_BND = torch.where(real_BN[..., None], steps_BND.double(), 0.0)
    e_BND = e_BND / count_B.clamp_min(1).double().sqrt()[:, None, None]
    values_BN, vectors_BNN = torch.linalg.eigh(e_BND @ e_BND.mT)  # in rising order
    most = min(k, N)
    values_Bk, vectors_BNk = values_BN[:, -most:].flip(-1), vectors_BNN[..., -most:].flip(-1)
    e_BkD = vectors_BNk.mT @ e_BND
    e_BkD = torch.where((values_Bk > _FLAT * values_Bk[:, :1])[..., None], e_BkD, 0.0)
    peak_Bk1 = e_BkD.gather(-1, e_BkD.abs().argmax(-1, keepdim=True))
    e_BkD = torch.where(peak_Bk1 < 0, -e_BkD, e_BkD).float()
    return nn.functional.pad(e_BkD, (0, 0, 0, k - most))


class StateEncoder(nn.Module):
    """Q(z | e): the latent state of a step, by a linear map of its standardised summary.

    Args:
        width: D.
        states: K.
        k: eigenpairs.

    Attributes:
        mean, std: of summaries, measured by `fit`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, states: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.logits = nn.Linear(k * width, states)
        self.register_buffer("mean", torch.zeros(k * width))
        self.register_buffer("std", torch.ones(k * width))

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been called."""
        return bool((self.std != 1).any())

    def forward(self, steps_BND: Tensor, count_B: Tensor) -> Tensor:
        """Log-probabilities of the states of steps, fp32 (B, K); see `spectral_summary`."""
        return self.of_summaries(spectral_summary(steps_BND, count_B, self.k))

    def of_summaries(self, e_BkD: Tensor) -> Tensor:
        """The same of what `spectral_summary` gives."""
        x_BF = (e_BkD.flatten(1) - self.mean) / self.std
        logits_BK: Tensor = self.logits(x_BF)
        return logits_BK.log_softmax(-1)

    @torch.no_grad()
    def fit(self, e_BkD: Tensor, generator: torch.Generator, rounds: int = 10) -> None:
        """Begin with the clusters of k-means: states are near the steps that they summarise.

        Args:
            e_BkD: summaries of some steps.
            generator: chooses the first centres, far from each other (k-means++).
            rounds: of Lloyd's algorithm.
        """
        x_BF = e_BkD.flatten(1)
        self.mean.copy_(x_BF.mean(0))
        self.std.copy_(x_BF.std(0, correction=0).clamp_min(1e-6))
        x_BF = (x_BF - self.mean) / self.std
        centre_KF = _far_apart(x_BF, self.logits.out_features, generator)
        for _ in range(rounds):
            nearest_B = torch.cdist(x_BF, centre_KF).argmin(-1)
            of_KB = nn.functional.one_hot(nearest_B, len(centre_KF)).T.to(x_BF)
            size_K1 = of_KB.sum(-1, keepdim=True)
            centre_KF = torch.where(size_K1 > 0, of_KB @ x_BF / size_K1.clamp_min(1), centre_KF)
        # Softmax of minus half the squared distance, in units of the number of features.
        features = x_BF.shape[-1]
        self.logits.weight.copy_(centre_KF / features)
        self.logits.bias.copy_(-0.5 * centre_KF.square().sum(-1) / features)


def _far_apart(x_BF: Tensor, K: int, generator: torch.Generator) -> Tensor:
    """K of these points, each drawn in proportion to its squared distance from those before."""
    squared_B = torch.ones(len(x_BF), device=x_BF.device)
    chosen: list[Tensor] = []
    for _ in range(K):
        weight_B = squared_B if bool((squared_B > 0).any()) else torch.ones_like(squared_B)
        chosen.append(x_BF[torch.multinomial(weight_B, 1, generator=generator)[0]])
        squared_B = torch.cdist(x_BF, torch.stack(chosen)).square().amin(-1)
    return torch.stack(chosen)
