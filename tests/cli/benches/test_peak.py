"""The most memory that was alive at once, on the CPU."""

from __future__ import annotations

import pytest
import torch

from latentgym.cli.benches.peak import peak_bytes

CPU = torch.device("cpu")


def test_only_what_is_alive_together_counts() -> None:
    def run() -> None:
        x = torch.zeros(1000)
        y = x + 1
        del x
        z = y * 2
        y.view(10, 100).add_(z.view(10, 100))  # views and work in place take none

    assert peak_bytes(run, CPU) == 2 * 4000


def test_what_stood_before_does_not_count() -> None:
    stood = torch.zeros(1000)

    def run() -> None:
        stood.add_(1)
        stood.exp()

    assert peak_bytes(run, CPU) == 4000
    with torch.inference_mode():
        assert peak_bytes(run, CPU) == 4000


@pytest.mark.parametrize("layers", [1, 5])
def test_what_autograd_keeps_counts(layers: int) -> None:
    x = torch.zeros(1000, requires_grad=True)

    def run() -> None:
        y = x
        for _ in range(layers):
            y = y.exp()  # which keeps its result
        y.sum().backward()

    assert layers * 4000 < peak_bytes(run, CPU) <= (layers + 3) * 4000


def test_nothing_is_taken_on_the_meta_device() -> None:
    assert peak_bytes(lambda: torch.zeros(1000, device="meta").exp(), CPU) == 0
