"""Latents per second: which heads there are, what their floor is, and what is printed."""

from __future__ import annotations

import inspect

import pytest
import torch
from rich.console import Console

from latentgym import heads
from latentgym.cli.benches import latents
from latentgym.cli.benches.clock import clock_of
from latentgym.cli.benches.heads import every_head
from latentgym.cli.benches.latents import TOKEN, bandwidth, latents_per_second
from latentgym.cli.benches.tables import latents_tables
from latentgym.heads import ControlHead, MixtureHead, PolicyHead, TokenHead
from latentgym.lm import load_model
from latentgym.lm.footprint import layout_of
from latentgym.text.tokenizers import ByteTokenizer


def test_every_head_of_the_library_is_there() -> None:
    kinds = {getattr(heads, name) for name in heads.__all__}
    offered = {kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, PolicyHead)} - {
        PolicyHead,
        ControlHead,
    }
    assert {type(head) for head in every_head(8).values()} == offered
    mixtures = [h for h in every_head(8).values() if isinstance(h, MixtureHead)]
    assert {mixture.top_k for mixture in mixtures} == {None, 10}


def test_a_head_that_is_added_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class LongThoughtHead(TokenHead):
        pass

    monkeypatch.setattr(heads, "LongThoughtHead", LongThoughtHead, raising=False)
    monkeypatch.setattr(heads, "__all__", [*heads.__all__, "LongThoughtHead"])
    assert type(every_head(8)["long-thought"]) is LongThoughtHead


def test_floors_follow_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "bandwidth", lambda device: 1e9)
    lm = load_model("tiny:llama:1x2x16", tokenizer=ByteTokenizer())
    found = latents_per_second(lm, layout_of(lm.model), list(range(3, 15)), (1, 4), rounds=1)
    matrices = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 64 + lm.vocab_size * 16
    for rows in (1, 4):
        table = found["latents_per_second"][str(rows)]
        assert table.keys() == every_head(16).keys()
        assert all(min(entry.values()) > 0 for entry in table.values())
        assert table[TOKEN]["of_token_step"] == 1
        # Of a cached position two kinds, of one head of width 8; half the steps are behind it.
        read = 4 * (matrices + (12 + rows * latents.STEPS // 2) * 2 * 8)
        assert table[TOKEN]["floor_per_s"] == pytest.approx(rows * 1e9 / read)
        of_table = 4 * lm.vocab_size * 16
        floor = rows * 1e9 / (read + of_table)
        assert table["mixture-full"]["floor_per_s"] == pytest.approx(floor)


def test_bandwidth_is_that_of_a_long_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "_BUFFER", 1 << 20)
    assert 1e8 < bandwidth(torch.device("cpu")) < 1e13


def test_one_thread_is_timed_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clock_of(torch.device("cpu")) == "cpu"
    assert clock_of(torch.device("cuda")) == "wall"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert clock_of(torch.device("cpu")) == "wall"


@pytest.mark.parametrize("groups", [(1,), (1, 8, 32), (1, 2, 4, 8)])
def test_tables_fit_the_terminal(groups: tuple[int, ...]) -> None:
    entry = {"latents_per_s": 12345.6, "floor_per_s": 98765432.1, "of_token_step": 1.234}
    report = {
        "latents_per_second": {
            str(rows): dict.fromkeys(("token", "mixture-full"), entry) for rows in groups
        }
    }
    console = Console(width=80)
    with console.capture() as capture:
        for table in latents_tables(report):
            console.print(table)
    text = capture.get()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert text.count("98.8M") == 2 * len(groups) and text.count("1.23") == 2 * len(groups)
    assert text.count("mixture-full") == -(-len(groups) // 3)
