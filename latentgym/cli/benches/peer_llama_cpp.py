"""llama.cpp, where it is installed: one sequence, from weights in its own format.

Either as the Python package `llama_cpp` or as the program `llama-bench`. Both take a GGUF file,
whose numbers should be of the model's own type: a quantised file has less to read.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from latentgym.cli.benches.clock import now
from latentgym.errors import UsageError

_PACKAGE, _PROGRAM = "llama_cpp", "llama-bench"


def absent(gguf: Path | None) -> str | None:
    """Why it is not measured, as a sentence; None if it can be.

    Raises:
        UsageError: the file that was asked for is not there.
    """
    if gguf is not None and not gguf.is_file():
        raise UsageError(f"there is no file {gguf}; give weights as a GGUF file to --gguf.")
    if importlib.util.find_spec(_PACKAGE) is None and shutil.which(_PROGRAM) is None:
        return (
            "llama.cpp is not measured: there is neither the package llama-cpp-python nor the "
            "program llama-bench."
        )
    if gguf is None:
        return "llama.cpp is not measured: give it weights of the same model, --gguf FILE."
    return None


def llama_cpp_ms(gguf: Path, prompt: Sequence[int], new: int, threads: int) -> float:
    """Milliseconds per step of one sequence, the prompt's reading left out.

    Args:
        gguf: weights.
        prompt: token ids; the program reads as many of its own.
        new: tokens.
        threads: of its computation.

    Raises:
        UsageError: the program does not measure that file.
    """
    if importlib.util.find_spec(_PACKAGE) is not None:
        return _by_package(gguf, prompt, new, threads)
    return _by_program(gguf, new, threads)


def _by_package(gguf: Path, prompt: Sequence[int], new: int, threads: int) -> float:
    package: Any = importlib.import_module(_PACKAGE)
    room = len(prompt) + new
    model = package.Llama(str(gguf), n_ctx=room, n_threads=threads, verbose=False)
    model.eval(list(prompt))
    cpu = torch.device("cpu")
    started = now(cpu)
    for token in (list(prompt) * (new // len(prompt) + 1))[:new]:
        model.eval([token])
    return (now(cpu) - started) / new


def _by_program(gguf: Path, new: int, threads: int) -> float:
    words = [
        "-m",
        str(gguf),
        "-p",
        "0",
        "-n",
        str(new),
        "-t",
        str(threads),
        "-r",
        "1",
        "-o",
        "json",
    ]
    ended = subprocess.run([_PROGRAM, *words], capture_output=True, text=True, check=False)
    try:
        tests = json.loads(ended.stdout)
        return float(next(1000 / test["avg_ts"] for test in tests if test["n_gen"]))
    except (ValueError, LookupError, TypeError, StopIteration) as error:
        told = (ended.stderr.strip().splitlines() or ["nothing"])[-1][:150]
        raise UsageError(
            f"{_PROGRAM} does not measure {gguf} (it says: {told}); give another --gguf, or none."
        ) from error
