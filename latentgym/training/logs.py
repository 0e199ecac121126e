"""Where metrics go: a JSON-lines file and TensorBoard, and other loggers if asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from latentgym.errors import UsageError
from latentgym.storage import atomic_write, to_json, writable
from latentgym.system.sealed import parsed

PROJECT = "latentgym"
"""Where Weights & Biases and Trackio file a run by default."""


class Sink(Protocol):
    """Takes the metrics of a step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


class JsonLines:
    """`metrics.jsonl`. On resume, lines of steps that will be taken again are cut off.

    Raises:
        UsageError: it cannot be written, or a line is damaged that is not the last.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self._path = path
        with _room(path):
            kept = list(_until(path, first_step)) if path.exists() else []
            with atomic_write(path) as partial:
                partial.write_bytes(b"".join(kept))
            self._file = path.open("a")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        with _room(self._path):
            self._file.write(to_json({"step": step, **metrics}) + "\n")
            self._file.flush()

    def close(self) -> None:
        with _room(self._path):
            self._file.close()


def _room(path: Path) -> AbstractContextManager[None]:
    return writable(path, "choose another --out; --resume goes on from the last checkpoint")


def _until(path: Path, step: int) -> Iterator[bytes]:
    """The lines of steps up to that one."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            logged = parsed(line)["step"]
            if not isinstance(logged, int) or not line.endswith(b"\n"):
                raise ValueError("no step")
        except (ValueError, LookupError, TypeError):
            if number < len(lines):
                raise UsageError(
                    f"{path} is damaged in line {number}; delete that line or the file, and go on "
                    "with --resume: a run goes on from its checkpoint, not from its log."
                ) from None
            return  # the line that a killed run was writing
        if logged <= step:
            yield line


class TensorBoard:
    """Scalars for TensorBoard."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        # Its thread would print a traceback of what `write` or `close` then raises here.
        self._hook, threading.excepthook = threading.excepthook, self._on_exception
        with _room(folder):
            self._writer: Any = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        with _room(self._folder):
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        try:
            with _room(self._folder):
                self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _on_exception(self, arguments: threading.ExceptHookArgs) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            self._hook(arguments)


class WandB:
    """Weights & Biases (extra `loggers`)."""

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str) -> None:
        wandb = _optional("wandb")
        self._run = wandb.init(project=project, dir=str(folder), config=dict(config))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio (extra `loggers`)."""

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str) -> None:
        self._trackio = _optional("trackio")
        self._trackio.init(project=project, name=folder.name, config=dict(config))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._trackio.log({**metrics, "step": step})

    def close(self) -> None:
        self._trackio.finish()


LOGGERS: Mapping[str, Callable[[Path, Mapping[str, Any], str], Sink]] = {
    "wandb": WandB,
    "trackio": Trackio,
}


def _optional(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"--logger {name} needs the package {name}; pip install 'latentgym[loggers]'."
        ) from error


def open_sinks(
    out: Path,
    first_step: int,
    loggers: tuple[str, ...],
    config: Mapping[str, Any],
    project: str = PROJECT,
) -> list[Sink]:
    """The sinks of a run: JSON lines and TensorBoard always, others by name.

    Args:
        out: folder of the run.
        first_step: from which it goes on; what was logged of later ones is cut off.
        loggers: names of others.
        config: what the run is, for these.
        project: of whose runs it is one, for these.

    Raises:
        UsageError: the folder cannot be written, or there is no such logger.
    """
    with _room(out):
        out.mkdir(parents=True, exist_ok=True)
    sinks: list[Sink] = [JsonLines(out / "metrics.jsonl", first_step)]
    sinks.append(TensorBoard(out / "tensorboard", first_step))
    for name in loggers:
        if name not in LOGGERS:
            raise UsageError(f"no logger {name!r}; choose {' or '.join(LOGGERS)}.")
        sinks.append(LOGGERS[name](out, config, project))
    return sinks
