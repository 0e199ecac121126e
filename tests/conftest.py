"""Settings and fixtures of all tests."""

from __future__ import annotations

import os

# Two cores are often busy: threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["LATENTGYM_OFFLINE"] = "1"  # tests never reach for the hub
os.environ["HF_HUB_OFFLINE"] = "1"

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import hypothesis
import numpy as np
import psutil
import pytest
import torch

from latentgym import registry
from latentgym.data import DATASETS, Dataset, available, load
from latentgym.evaluation.results import Result
from latentgym.evaluation.stats import question_interval
from latentgym.lm import LatentLM, load_model
from latentgym.system.sealed import SEAL, sealed
from latentgym.text.tokenizers import ByteTokenizer

for profile, examples in (("latentgym", 20), ("thorough", 200)):
    hypothesis.settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],  # as anything is on a busy machine
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "latentgym"))
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Fresh weights are the same in every order of the tests, and in every process."""
    torch.manual_seed(0)


@pytest.fixture
def own_random_numbers() -> Iterator[None]:
    """For tests of Stable-Baselines3, which seeds the generators of the process."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    np.random.set_state(state)


@pytest.fixture(scope="session")
def character_model() -> Callable[[Path, int], Path]:
    """`character_model(folder, width)`: a folder as of the hub, of a model that reads characters.

    Its weights are there again whenever it is loaded, unlike a tiny model's.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    def save(folder: Path, width: int) -> Path:
        vocabulary = {c: i for i, c in enumerate(["<s>", "</s>", *map(chr, range(32, 127))])}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
        words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>"}
        PreTrainedTokenizerFast(tokenizer_object=words, **ends).save_pretrained(folder)
        torch.manual_seed(3)
        sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2}
        sizes |= {"vocab_size": len(vocabulary), "num_attention_heads": 2, "eos_token_id": 1}
        LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def real_data() -> str:
    """The folder of real data, where there is one."""
    folder = os.environ.get("LATENTGYM_DATA")
    if not folder:
        pytest.skip("set LATENTGYM_DATA to the folder of real data to run this")
    return folder


@pytest.fixture(scope="session")
def real_dataset(real_data: str) -> Callable[[str, str], Dataset]:
    """`real_dataset(name, split)`: the questions of real data; a skip where it is not there."""

    def read(name: str, split: str) -> Dataset:
        if not available(DATASETS[name], split).startswith("data:"):
            pytest.skip(f"{real_data} has no {name} {split}")
        return load(DATASETS[name], split)

    return read


@pytest.fixture(scope="session")
def in_time() -> Callable[..., Any]:
    """`in_time(seconds, act)`: what `act()` gives, which must not take longer.

    A busy machine makes anything slow. So what is late by the clock is tried twice more, by the
    processor's time of this process and those it started, with ten times the seconds to wait.
    """

    def run(seconds: float, act: Callable[[], Any]) -> Any:
        taken = []
        for spent in (time.perf_counter, _processor_seconds, _processor_seconds):
            before, start = spent(), time.perf_counter()
            result = act()
            taken.append(max(spent() - before, (time.perf_counter() - start) / 10))
            if taken[-1] < seconds:
                return result
        raise AssertionError(f"took {taken} s, more than {seconds} s each time")

    return run


def _processor_seconds() -> float:
    """Of this process and those it started, to 10 ms; what has ended counts where it began."""
    process = psutil.Process()
    total = time.process_time() + sum(process.cpu_times()[2:4])
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:4])
    return total


@pytest.fixture(scope="session")
def changed() -> Callable[..., None]:
    """`changed(path, change)`: a sealed JSON file as `change` leaves what it says.

    Sealed anew, or with `older=True` without a seal, as files were before there were any.
    """

    def rewrite(
        path: Path, change: Callable[[dict[str, Any]], Any], *, older: bool = False
    ) -> None:
        data = json.loads(path.read_text("utf-8"))
        del data[SEAL]
        change(data)
        path.write_text(json.dumps(data if older else sealed(data)), "utf-8")

    return rewrite


@pytest.fixture(scope="session")
def registered() -> Callable[[str, Callable[..., Any]], AbstractContextManager[None]]:
    """`with registered("Name", make):` a task of that name, as a user would register one."""

    @contextmanager
    def register(name: str, make: Callable[..., Any]) -> Iterator[None]:
        module = ModuleType(f"task_{name.lower()}")
        module.make = make  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        registry.register_task(name, f"{module.__name__}:make")
        try:
            yield
        finally:
            for family in registry.FAMILY_NAMES:
                del gym.registry[f"latent/{name}-{family}"]
            del registry.TASKS[name], sys.modules[module.__name__]

    return register


@pytest.fixture(scope="session")
def random_lm() -> Callable[..., LatentLM]:
    """Tiny models over bytes by architecture: `random_lm("llama", seed=0)`. Treat them as fixed.

    The weights of a fresh model are tripled: as it comes it is so flat that tests would see little.
    """

    @functools.cache
    def make(arch: str = "llama", seed: int = 0) -> LatentLM:
        name = f"tiny:{arch}:2x4x32"
        lm: LatentLM = load_model(
            name, tokenizer=ByteTokenizer(), seed=seed, dtype="float32", device="cpu"
        )
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.mul_(3)
        return lm.eval()

    return make


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Path, Result]]:
    """`made(name, scores, **changes)`: a stored run with these scores, (n,) or (seeds, n).

    `samples` are the scores of several samples of each question, under each seed.
    """

    def store(name: str, scores: Any, samples: Any = (), **changes: Any) -> tuple[Path, Result]:
        score_SQ = np.atleast_2d(np.asarray(scores, dtype=np.float64))
        values: dict[str, Any] = {
            **dict.fromkeys(("thoughts_mean", "tokens_mean", "wall_s", "flops_per_answer"), 1.0),
            "agent": "cot",
            "env": "latent/MNNS-token",
            "task": "MNNS",
            "family": "token",
            "model": "tiny",
            "checkpoint": None,
            "split": "test",
            "source": "generated",
            "dataset_hash": "0",
            "n": score_SQ.shape[1],
            "seeds": list(range(len(score_SQ))),
            "accuracy": float(score_SQ.mean()),
            "accuracy_ci95": list(question_interval(score_SQ.T)),
            "metrics": {},
            "latent_share": 0.5,
            "forward_positions": {"answer": 1.0},
            "answers_per_s": 2.0,
            "device": "cpu",
            "control": None,
            "config": {},
            "index": [],
        }
        result = Result(**{**values, **changes}).stamp()
        asked = result.index or range(result.n)
        texts = {"completion": "", "answer": "", "thoughts": "", "target": "0"}
        rollouts = [
            {"index": question, "seed": seed, **texts, "score": float(score)}
            for seed, score_Q in zip(result.seeds, score_SQ, strict=True)
            for question, score in zip(asked, score_Q, strict=True)
        ]
        drawn = samples * len(result.seeds)
        rollouts = [
            {**rollout, **({"samples": drawn[i]} if samples else {})}
            for i, rollout in enumerate(rollouts)
        ]
        result.save(tmp_path / name, rollouts)
        return tmp_path / name, result

    return store


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser without a window; while it is there, an event loop runs in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs chromium (Debian's package)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


_ILLEGIBLE = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const seen = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = seen(getComputedStyle(at).backgroundColor);
      if (colour[3] > 127) return colour;
    }
    return page;
  };
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.background = "Canvas";  // of the scheme, which a canvas does not know by name
  const page = seen(getComputedStyle(probe).backgroundColor);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, text = texts.currentNode.textContent.trim();
    if (!text || element.closest("svg") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [less, more] = [seen(style.color), behind(element)].map(light).sort((a, b) => a - b);
    if ((more + 0.05) / (less + 0.05) < 4.5) found.push(text);
  }
  return found;
}"""


@pytest.fixture
def illegible(chromium: Any) -> Callable[[Path, str], list[str]]:
    """`illegible(page, scheme)`: texts of a page that are hard to read, "light" or "dark".

    Below a contrast of 4.5 between a text and what lies behind it (WCAG 2.2, AA); not of pictures.
    """

    def look(path: Path, scheme: str) -> list[str]:
        page = chromium.new_page(color_scheme=scheme)
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        found: list[str] = page.evaluate(_ILLEGIBLE)
        page.close()
        return found

    return look
