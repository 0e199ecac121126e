"""Files of every kind that is written here, with a bit flipped in each try."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.tally import Tally
from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.errors import LatentGymError
from latentgym.evaluation.accounting import Positions
from latentgym.evaluation.answers import Answer
from latentgym.evaluation.journal import JOURNAL, Journal
from latentgym.evaluation.results import RESULT, ROLLOUTS, Result, load_result, load_rollouts
from latentgym.retrieval import Passage, build_index, open_index
from latentgym.training import checkpoint
from latentgym.training.logs import JsonLines
from latentgym.training.manifest import run_of

_IDENTITY = {"agent": "x", "seeds": [0, 1]}
_NUMBERS = ("thoughts_mean", "tokens_mean", "latent_share", "flops_per_answer", "wall_s")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        path: of the file.
        read: what it says, as something that can be compared.
        same: whether something else than what was written may be read, if it is a part of it.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    same: Callable[[Any, Any], bool] = lambda found, written: bool(found == written)


def kinds(folder: Path) -> Iterator[Kind]:
    """A file of each kind, written to a folder."""
    run = folder / "run"
    rollouts = [{"index": i, "answer": f"no. {i}", "score": 1.0} for i in range(40)]
    _record().save(run, rollouts)
    yield Kind("result.json", run / RESULT, lambda: asdict(load_result(run)))
    yield Kind("rollouts.jsonl.gz", run / ROLLOUTS, lambda: list(load_rollouts(run)))
    journal = Journal(folder / "journal", _IDENTITY)
    for seed in (0, 1):
        journal.add(seed, [_answer(i) for i in range(4)], 1.5 + seed)
    # Its last line may be what a killed process was writing.
    yield Kind(
        "journal.jsonl",
        folder / "journal" / JOURNAL,
        lambda: Journal(folder / "journal", _IDENTITY).answers,
        lambda found, written: found.items() <= written.items(),
    )
    yield from _checkpoint(folder / "checkpoints")
    yield from _index(folder / "index")
    log = folder / "metrics.jsonl"
    log.write_text("".join(f'{{"step": {i}, "train/loss": 0.5}}\n' for i in range(5)))
    # Nothing is computed from it, so it has no hashes.
    yield Kind("metrics.jsonl", log, lambda: JsonLines(log, 3).close(), lambda *_: True)


def _checkpoint(root: Path) -> Iterator[Kind]:
    import torch

    config = agent_class("hrpo").config_class()
    options = {"m": 2, "high": 4}
    run = Run("hrpo", config, "MNNS-hybrid", "tiny:llama:1x2x8", options, device="cpu")
    policy = run.learner()
    optimizer = torch.optim.AdamW(policy.parameters())
    for weight in policy.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    folder = checkpoint.save(root, 3, policy, optimizer, {"run": run.identity()})

    def read() -> list[Any]:
        policy = run.learner()
        optimizer = torch.optim.AdamW(policy.parameters())
        step = checkpoint.load(folder, policy, optimizer)
        tensors = [*policy.state_dict().values()]
        tensors += [x for s in optimizer.state.values() for x in s.values()]
        return [step, run_of(folder), [tensor.tolist() for tensor in tensors]]

    for path in sorted(folder.iterdir()):
        yield Kind(f"checkpoint: {path.name}", path, read)


def _index(folder: Path) -> Iterator[Kind]:
    passages = [Passage(str(i), f"Title {i}", f"word{i} and a smith") for i in range(30)]
    build_index(passages, folder, engine="bm25s")

    def read() -> Any:
        retriever = open_index(folder)
        return dict(retriever.about), retriever.search(["smith", "word7"], 30)

    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield Kind(f"index: {path.name}", path, read)


def _record() -> Result:
    texts = ("agent", "env", "task", "family", "model", "split", "source", "dataset_hash", "device")
    named: Mapping[str, Any] = {**dict.fromkeys(texts, "x"), **dict.fromkeys(_NUMBERS, 0.25)}
    return Result(
        **named,
        checkpoint=None,
        n=40,
        seeds=[0],
        accuracy=0.5,
        accuracy_ci95=[0.25, 0.75],
        metrics={"hr@5": 0.5},
        forward_positions={"prompt": 3.0},
        answers_per_s=2.0,
        control=None,
        config={"agent": {"k": 4}},
    ).stamp()


def _answer(index: int) -> Answer:
    info = {"answer": f"no. {index}", "score": 1.0, "parsed": None}
    return Answer(index, info, "", Positions(1.5), 3, samples=(1.0, 0.0))


def flips(kind: Kind, tries: int, rng: random.Random) -> Tally:
    """Flip a random bit in each try: a sentence, or what was written."""
    tally = Tally(f"bit flipped: {kind.name}")
    whole = kind.path.read_bytes()
    written = kind.read()
    for _ in range(tries):
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        kind.path.write_bytes(bytes(damaged))
        tally.add(_fault(kind, written, f"byte {place}, bit {bit}"))
    kind.path.write_bytes(whole)
    return tally


def _fault(kind: Kind, written: Any, where: str) -> str | None:
    try:
        found = kind.read()
    except LatentGymError as error:
        return None if "\n" not in str(error) else f"{where}: several lines"
    except Exception as error:
        return f"{where}: {type(error).__name__}: {error}"[:200]
    return None if kind.same(found, written) else f"{where}: it is read as something else"
