"""llama.cpp as a peer: measured where it is, a sentence where it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from latentgym.cli.benches import peer_llama_cpp
from latentgym.cli.benches.peer_llama_cpp import absent, llama_cpp_ms
from latentgym.errors import UsageError


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setattr(peer_llama_cpp.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"GGUF")
    return path


def program(folder: Path, body: str) -> None:
    path = folder / "llama-bench"
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    path.chmod(0o755)


def test_without_it_a_sentence_says_so(gguf: Path) -> None:
    for given in (None, gguf):
        told = absent(given)
        assert told is not None and "neither" in told


def test_without_weights_a_sentence_asks_for_them(tmp_path: Path) -> None:
    program(tmp_path, "")
    told = absent(None)
    assert told is not None and "--gguf" in told


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        absent(tmp_path / "none.gguf")


def test_the_program_is_asked_for_new_tokens(gguf: Path, tmp_path: Path) -> None:
    body = """
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert words["-m"].endswith("weights.gguf") and words["-n"] == "7" and words["-t"] == "1"
print(json.dumps([{"n_prompt": 9, "n_gen": 0, "avg_ts": 1}, {"n_gen": 7, "avg_ts": 50.0}]))
"""
    program(tmp_path, body)
    assert absent(gguf) is None
    assert llama_cpp_ms(gguf, [1, 2, 3], 7, 1) == 20


@pytest.mark.parametrize("body", ["sys.exit('no such model')", "print('[]')", "print('{}')"])
def test_a_program_that_fails_is_told_of(body: str, gguf: Path, tmp_path: Path) -> None:
    program(tmp_path, body)
    with pytest.raises(UsageError, match="give another --gguf"):
        llama_cpp_ms(gguf, [1], 7, 1)


def test_the_package_reads_the_prompt_and_then_tokens(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []

    class Llama:
        def __init__(self, path: str, n_ctx: int, n_threads: int, verbose: bool) -> None:
            read.append((path, n_ctx, n_threads))

        def eval(self, tokens: list[int]) -> None:
            read.append(tokens)

    package = ModuleType("llama_cpp")
    package.Llama = Llama  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_cpp", package)
    monkeypatch.setattr(peer_llama_cpp.importlib.util, "find_spec", lambda name: package)
    assert absent(gguf) is None
    assert llama_cpp_ms(gguf, [1, 2, 3], 5, 1) >= 0
    assert read == [(str(gguf), 8, 1), [1, 2, 3], [1], [2], [3], [1], [2]]
