"""The result record: `result.json`, with `rollouts.jsonl.gz` beside it.

Its keys are a contract: they may be added to, never renamed. Records may be anyone's, so all of one
is looked at before any of it is used.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

from latentgym.errors import UsageError
from latentgym.evaluation.stats import seed_interval
from latentgym.evaluation.stored import read_lines, told
from latentgym.registry import stored_fault
from latentgym.storage import atomic_write, finite, gzipped, to_json, writable
from latentgym.system.nearby import no_folder
from latentgym.system.sealed import digest, is_of, note_unverified, read_sealed, sealed

SCHEMA = 1
METRICS = "metrics.jsonl"
RESULT, ROLLOUTS = "result.json", "rollouts.jsonl.gz"
LOOKS = "looks"
"""Within the folder of a training run: the evaluations while it trained, a folder for each."""
# Why an answer could not be compared, as graders say it.
TROUBLES = ("timeout", "too_long", "invalid", "refused", "no_answer")
_ROUNDING = 1e-9  # of a mean of scores
_MOST = 2**31 - 1  # questions
_MOST_ENTRIES = 1_000_000  # files and folders among which records are looked for
_ROLLOUT = {"index": int, "seed": int, "completion": str, "answer": str, "score": float}


@dataclass
class Result:
    """One evaluation of one agent on one environment.

    Attributes:
        agent, env, task, family, model, checkpoint, split, source, dataset_hash: what was
            evaluated, on what.
        n: questions.
        seeds: one evaluation of all questions each.
        accuracy: mean score over questions and seeds, in [0, 1].
        accuracy_ci95: 95 % interval over questions.
        metrics: further numbers by name; None where one was not finite.
        metrics_ci95: 95 % intervals over questions of those that every answer has.
        thoughts_mean, tokens_mean: per answer.
        latent_share: share of the steps that were latent.
        forward_positions: mean per answer by kind, see `latentgym.evaluation.accounting.Positions`.
        flops_per_answer: floating-point operations.
        wall_s, answers_per_s, device: clock and machine.
        control: which control replaced the thoughts, or None.
        about: what the task adds, such as the index in which passages were found.
        oracle: whether gold answers took part in choosing among attempts: an upper bound.
        trained_on: how many of the questions the checkpoint was trained on, by its run or one that
            the run began from; None where there is none, or where that is not known.
        index: numbers of the questions; empty for the first n, None in records from before.
        modules: of other packages, that "agent" and "env" are from; empty where both are ours.
        files: SHA-256 of what is stored beside the record; empty in records from before.
        prompts: SHA-256 of the prompts' token ids; empty where there are none, and in records from
            before.
        command: the command line that made it, without its --out; empty in records from before.
        config, versions, git, created: to do it again.
    """

    agent: str
    env: str
    task: str
    family: str
    model: str
    checkpoint: str | None
    split: str
    source: str
    dataset_hash: str
    n: int
    seeds: list[int]
    accuracy: float
    accuracy_ci95: list[float]
    metrics: dict[str, float | None]
    thoughts_mean: float
    tokens_mean: float
    latent_share: float
    forward_positions: dict[str, float]
    flops_per_answer: float
    wall_s: float
    answers_per_s: float
    device: str
    control: str | None
    config: dict[str, Any]
    oracle: bool = False
    metrics_ci95: dict[str, list[float]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    index: list[int] | None = None
    trained_on: int | None = None
    modules: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    prompts: str = ""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    git: str | None = None
    created: str = ""
    schema: int = SCHEMA

    def stamp(self) -> Result:
        """Fill in versions, commit and time."""
        self.versions, self.git = versions(), git_commit()
        self.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return self

    def save(self, folder: Path, rollouts: Iterable[dict[str, Any]]) -> None:
        """Write record and rollouts; both are complete or not there.

        Raises:
            UsageError: the folder cannot be written.
        """
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / ROLLOUTS) as path, gzipped(path) as file:
                for rollout in rollouts:
                    file.write(to_json(rollout).encode("ascii") + b"\n")
            self.files = {ROLLOUTS: digest(folder / ROLLOUTS)}
            with atomic_write(folder / RESULT) as path:
                record = sealed(finite(asdict(self)))
                path.write_text(to_json(record, indent=2) + "\n")


def load_result(folder: Path) -> Result:
    """Read a result record.

    Raises:
        UsageError: there is none, or it is damaged or of another schema.
    """
    path = folder if folder.is_file() else folder / RESULT
    result, verified = _read(path)
    if not verified:
        note_unverified(str(path))
    return result


def _read(path: Path) -> tuple[Result, bool]:
    """A record, and whether it is known to be as it was written."""
    try:
        data, verified = read_sealed(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path.parent} holds no {RESULT}; give a folder that eval wrote.") from (
            error
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}); evaluate again.") from error
    if data.get("schema") != SCHEMA:
        raise UsageError(f"{path} is no result record of schema {SCHEMA}; evaluate again.")
    needed = {f.name for f in fields(Result) if f.default is f.default_factory is MISSING}
    missing = needed - set(data)
    if missing:
        raise UsageError(f"{path} lacks {', '.join(sorted(missing))}; evaluate again.")
    kinds = get_type_hints(Result)
    known = {key: value for key, value in data.items() if key in kinds}
    for key, value in known.items():
        if not is_of(value, kinds[key]):
            raise UsageError(f"{path} is damaged ({key} cannot be {told(value)}); evaluate again.")
    result = Result(**known)
    if fault := next(_faults(result), None):
        raise UsageError(f"{path} is damaged ({fault}); evaluate again.")
    return result, verified


def _faults(r: Result) -> Iterator[str]:
    """What no evaluation says, in a record of which every value is of its type."""
    if not 1 <= r.n <= _MOST or not all(0 <= x <= 1 for x in (r.accuracy, r.latent_share)):
        yield "it is no share of questions"
    if not all(len(each) == 2 and each[0] <= each[1] for each in _intervals(r)):
        yield "an interval has a lower and an upper end"
    if not all(0 <= bound <= 1 for bound in r.accuracy_ci95):
        yield "an interval of shares lies between 0 and 1"
    if not r.seeds or len({*r.seeds}) < len(r.seeds):
        yield "every seed counts once, and there is at least one"
    if r.index and (len({*r.index}) < len(r.index) or len(r.index) != r.n or min(r.index) < 0):
        yield f"index does not name {r.n} questions"
    if r.trained_on is not None and not 0 <= r.trained_on <= r.n:
        yield f"{r.trained_on} of {r.n} questions cannot be trained on"
    costs = (r.thoughts_mean, r.tokens_mean, r.flops_per_answer, r.wall_s, r.answers_per_s)
    if min(*costs, *r.forward_positions.values()) < 0:
        yield "a count is below 0"
    if fault := stored_fault(r.config.get("env_options", {})):
        yield fault


def _intervals(r: Result) -> list[list[float]]:
    return [r.accuracy_ci95, *r.metrics_ci95.values()]


def load_rollouts(folder: Path) -> Iterator[dict[str, Any]]:
    """Read stored rollouts, one dict each.

    Raises:
        UsageError: there are none, they are not those that were written with the record, a line is
            damaged or says what no evaluation does, or there is more than is written here.
    """
    path = folder / ROLLOUTS
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        written = load_result(folder).files.get(ROLLOUTS) if (folder / RESULT).exists() else None
        if written not in (None, digest(path)):
            raise ValueError(f"it is not the file that {RESULT} tells of: its SHA-256 differs")
        yield from read_lines(path)
    except FileNotFoundError as error:
        raise UsageError(f"{folder} holds no {ROLLOUTS}; evaluate with --out.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}); evaluate again.") from error


def load_answers(
    folder: Path, result: Result, stored: Iterable[Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """What is graded and counted of the stored rollouts, without texts that people alone read.

    Args:
        folder: of the run.
        result: its record.
        stored: the rollouts, for who reads them too; those in the folder by default.

    Raises:
        UsageError: see `load_rollouts` and `require_all`.
    """
    kept = (*_ROLLOUT, "samples", "n_thoughts", "n_tokens", "truncated")
    lines = load_rollouts(folder) if stored is None else stored
    found = [{k: line[k] for k in kept if k in line} for line in lines]
    require_all(result, found, folder)
    return found


def require_all(result: Result, rollouts: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Stored rollouts must be those that a record tells of: one for each question and seed.

    Args:
        result: the record.
        rollouts: what is stored beside it.
        folder: where.

    Raises:
        UsageError: some are missing, there twice, of something else, in another order, or do not
            have the accuracy of the record.
    """
    for number, rollout in enumerate(rollouts, start=1):
        whole = isinstance(rollout, dict) and rollout.keys() >= _ROLLOUT.keys()
        if not whole or not all(is_of(rollout[name], kind) for name, kind in _ROLLOUT.items()):
            raise UsageError(f"{folder / ROLLOUTS} is damaged near line {number}; evaluate again.")
    found = [(rollout["seed"], rollout["index"]) for rollout in rollouts]
    questions: Sequence[int] = result.index or range(result.n)
    if result.index is None:  # which they were is only known from the answers themselves
        first = dict.fromkeys(question for seed, question in found if seed == result.seeds[0])
        questions = list(first) if len(first) == result.n else questions
    # As many as a record says there are, which may be far more than anybody has stored.
    total = len(result.seeds) * len(questions)
    there, known = Counter(found), questions if isinstance(questions, range) else set(questions)
    own = {each: n for each, n in there.items() if each[0] in result.seeds and each[1] in known}
    missing = next((each for each in _asked(result.seeds, questions) if each not in own), None)
    more = [each for each, times in own.items() if times > 1]
    strange = [each for each in there if each not in own]
    moved = [a for a, b in zip(found, _asked(result.seeds, questions), strict=False) if a != b]
    faults = (
        (total - len(own), "missing", missing),
        (len(more), "there more than once", next(iter(more), None)),
        (len(strange), "not of this evaluation", next(iter(strange), None)),
        (len(moved), "out of order", next(iter(moved), None)),
    )
    scores = [rollout["score"] for rollout in rollouts]
    for count, what, each in faults:
        if each is not None:
            fault = f"of {total} answers {count} are {what}, the first of them to "
            fault += f"question {each[1]} under seed {each[0]}"
            break
    else:
        if abs(sum(scores) / len(scores) - result.accuracy) <= _ROUNDING:
            return
        fault = f"their accuracy is {sum(scores) / len(scores)}, not {result.accuracy}"
    raise UsageError(
        f"the rollouts in {folder} are not those of its {RESULT} ({fault}); restore the file, or "
        "evaluate again."
    )


def _asked(seeds: Sequence[int], questions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each question under each seed, in the order in which answers are stored."""
    return ((seed, question) for seed in seeds for question in questions)


def find_results(
    folders: Iterable[Path], refused: Callable[[UsageError], None] | None = None
) -> list[tuple[Path, Result]]:
    """All records in these folders and below.

    Args:
        folders: where to look.
        refused: told of every record that cannot be read, which is then left out. None raises.

    Raises:
        UsageError: there is no such folder, it holds too many files, or a record cannot be read.
    """
    found, unverified = [], []
    for path in records_in(folders):
        try:
            result, verified = _read(path)
        except UsageError as error:
            if refused is None:
                raise
            refused(error)
            continue
        found.append((path.parent, result))
        unverified += [] if verified else [path]
    if unverified:
        more = f" (and {len(unverified) - 1} more)" if len(unverified) > 1 else ""
        note_unverified(f"{unverified[0]}{more}")
    return found


def records_in(folders: Iterable[Path]) -> list[Path]:
    """The paths of all records in some folders and below, read or not; links are not followed.

    Evaluations during a training run are left out, unless their own folders are given. A record
    that several of the folders hold, whatever they are called, is there once.

    Raises:
        UsageError: there is no such folder, or more in it than records are looked for in.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        for path in _records_below(folder):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _records_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{no_folder(folder)}.")
    found, left = list[Path](), _MOST_ENTRIES
    for path, folders, files in os.walk(folder):
        left -= len(folders) + len(files)
        if left < 0:
            raise UsageError(
                f"{folder} holds more than {_MOST_ENTRIES:,} files; give the folders of the runs."
            )
        if "checkpoints" in folders and LOOKS in folders:
            folders.remove(LOOKS)  # what a run chose its weights by is no result beside its own
        found += [Path(path, RESULT)] if RESULT in {*folders, *files} else []
    return sorted(found)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("latentgym", "torch", "transformers", "gymnasium", "numpy", "math-verify"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the source tree, with `-dirty` for changes; None for an installed package."""
    here = Path(__file__).resolve().parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None


def accuracy_interval(results: Sequence[Result]) -> tuple[float, float, float]:
    """Mean accuracy of runs that differ in their seed, and its 95 % interval over seeds.

    It is never narrower than the interval over questions; of one run it is that interval.
    """
    over_questions = [r.accuracy_ci95 for r in results]
    return seed_interval([r.accuracy for r in results], min(r.n for r in results), over_questions)
