"""Where metrics go: a JSON-lines file and TensorBoard, and other loggers if asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from latentgym.errors import UsageError
from latentgym.storage import to_json


class Sink(Protocol):
    """Takes the metrics of a step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


class JsonLines:
    """`metrics.jsonl`. On resume, lines of steps that will be taken again are cut off."""

    def __init__(self, path: Path, first_step: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= first_step:
                        kept.append(line)
                except (ValueError, KeyError):
                    continue  # the line that a killed run was writing
        partial = path.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept))
        os.replace(partial, path)
        self._file = path.open("a")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._file.write(to_json({"step": step, **metrics}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Scalars for TensorBoard."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases (extra `loggers`)."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = _optional("wandb")
        self._run = wandb.init(project="latentgym", dir=str(folder), config=dict(config))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio (extra `loggers`)."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._trackio = _optional("trackio")
        self._trackio.init(project="latentgym", name=folder.name, config=dict(config))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._trackio.log({**metrics, "step": step})

    def close(self) -> None:
        self._trackio.finish()


LOGGERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Sink]] = {
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
    out: Path, first_step: int, loggers: tuple[str, ...], config: Mapping[str, Any]
) -> list[Sink]:
    """The sinks of a run: JSON lines and TensorBoard always, others by name."""
    out.mkdir(parents=True, exist_ok=True)
    sinks: list[Sink] = [JsonLines(out / "metrics.jsonl", first_step)]
    sinks.append(TensorBoard(out / "tensorboard", first_step))
    for name in loggers:
        if name not in LOGGERS:
            raise UsageError(f"no logger {name!r}; choose {' or '.join(LOGGERS)}.")
        sinks.append(LOGGERS[name](out, config))
    return sinks
