"""The local trainer: one process, one device, resumable bit for bit on the CPU."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentgym.errors import CheckpointError, Notice, TrainingError, UsageError, require_same
from latentgym.lm.mode import mode
from latentgym.lm.model import LatentLM
from latentgym.lm.packed_training import packed_training
from latentgym.progress import progress_bar
from latentgym.training import checkpoint
from latentgym.training.config import Optimisation
from latentgym.training.logs import PROJECT, Sink, open_sinks
from latentgym.training.looks import Looks
from latentgym.training.manifest import find, latest, read_manifest
from latentgym.training.optimizers import optimizer_for
from latentgym.training.stage import Metrics, Stage, Watch

_PROBE = 8  # tokens
_LOG_SECONDS = 5.0  # TensorBoard and the disk need no line for every step of a tiny model


class Trainer:
    """Runs a stage for a number of steps.

    Args:
        stage: what a step does.
        optimisation: how parameters move.
        steps: how many in all.
        out: folder of the run: checkpoints, metrics, TensorBoard. None keeps nothing.
        save_every: steps between checkpoints; 0 for the last alone.
        keep: how many checkpoints stay, the newest; the best of `looks` stays beside them.
        log_every: steps between logged metrics; 0 chooses by time.
        identity: what the run is; a resumed run must be the same.
        loggers: further ones, `wandb` or `trackio`.
        project: under which these file the run.
        skip_long: leave out questions that the model cannot read; refused otherwise.
        watch: looks at what some steps read; these steps are logged.
        looks: evaluations during training; these steps are logged too. A look that is better than
            all before it is followed by a checkpoint, and when training ends the policy has the
            weights of the best, as with `load_best_model_at_end` of transformers.
        adapters: checkpoints leave out the model's weights that are not trained.
        packed: let linear layers pack their weights where that is faster, which rounds otherwise.

    Attributes:
        done: how many steps have been taken.
        last: metrics of the last of them.

    Raises:
        UsageError: settings that cannot work, nothing to train, weights of less than fp32, or an
            optimiser whose package is missing.
    """

    def __init__(
        self,
        stage: Stage,
        optimisation: Optimisation,
        steps: int,
        *,
        out: Path | None = None,
        save_every: int = 0,
        log_every: int = 0,
        identity: dict[str, Any] | None = None,
        keep: int = 1,
        loggers: tuple[str, ...] = (),
        project: str = PROJECT,
        skip_long: bool = False,
        watch: Watch | None = None,
        looks: Looks | None = None,
        packed: bool = True,
        adapters: bool = False,
    ) -> None:
        optimisation.validate()
        if steps < 1:
            raise UsageError(f"a run needs at least one step, but steps is {steps}.")
        if keep < 1:
            raise UsageError(f"a run keeps at least one checkpoint, but keep is {keep}.")
        if looks is not None and out is None:
            raise UsageError("the best checkpoint is kept in the folder of the run; give out.")
        self.stage, self.policy = stage, stage.policy
        self.watch = stage.watch = watch
        self.optimisation, self.steps, self.out = optimisation, steps, out
        self.save_every, self.log_every, self.keep = save_every, log_every, keep
        self.looks, self.project, self.adapters = looks, project, adapters
        self.identity = identity or {}
        self.loggers, self.skip_long, self.packed = loggers, skip_long, packed
        groups = self.policy.parameter_groups(optimisation.lr)
        if not groups:
            raise UsageError("nothing to train: the policy has no trainable parameters.")
        for group in groups:
            group["peak_lr"] = group["lr"]
            _check_precision(group["params"])
        self.optimizer = optimizer_for(groups, optimisation)
        self.last: Metrics = {}
        self.done = 0
        self._number = 0
        self._lengths: list[dict[str, int]] = []  # how the run was made longer, or shorter

    @property
    def checkpoints(self) -> Path | None:
        """Folder of the checkpoints."""
        return None if self.out is None else self.out / "checkpoints"

    def run(self, *, resume: bool = False) -> Metrics:
        """Train to the end; the metrics of the last step.

        Args:
            resume: go on from the newest checkpoint in `out`, if there is one. It may be of a run
                of other length, which a warning tells and the next checkpoint records.

        Raises:
            UsageError: the checkpoint is of another run, or has more steps.
            CheckpointError: it is damaged, or cannot be written.
            TrainingError: a loss, a gradient or weights are not finite; the last checkpoint stays.
        """
        self.stage.fit(self.steps, skip_long=self.skip_long)
        first = self.done = self._resume() if resume else 0
        sinks: list[Sink] = []
        if self.out is not None:
            sinks = open_sinks(self.out, first, self.loggers, self.identity, self.project)
        logged_at, logged_step = time.monotonic(), first
        try:
            with progress_bar("training", self.steps, first) as advance:
                for number in range(first, self.steps):
                    if self._enough():
                        break
                    self.last = self.step(number)
                    advance(1, _note(self.last))
                    done = self.done = number + 1
                    now = time.monotonic()
                    seen = self._look(done)
                    due = (
                        done % self.log_every == 0
                        if self.log_every
                        else (now - logged_at > _LOG_SECONDS or done in (1, self.steps))
                    )
                    if due or seen or (self.watch is not None and self.watch.due(number)):
                        rate = (done - logged_step) / max(now - logged_at, 1e-9)
                        line = {**self.last, **seen, "train/steps_per_second": rate}
                        for sink in sinks:
                            sink.write(done, line)
                        logged_at, logged_step = time.monotonic(), done
                    if self._is_kept(done):
                        self._save(done)
        finally:
            for sink in sinks:
                sink.close()
        self._take_best()
        return self.last

    def step(self, number: int) -> Metrics:
        """Take step `number` of the run alone, without logs and checkpoints; its metrics."""
        self._number = number
        factor = self.optimisation.factor(number, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        with packed_training(self.policy.lm.model) if self.packed else nullcontext():
            metrics = self.stage.step(number, self._update)
        return {**metrics, "train/lr": factor * self.optimisation.lr}

    def _look(self, done: int) -> Metrics:
        """What an evaluation after so many steps logs; empty where there is none."""
        if self.looks is None or not self.looks.due(done, self.steps):
            return {}
        self._check_weights()
        return self.looks.look(done)

    def _enough(self) -> bool:
        return self.looks is not None and self.looks.exhausted

    def _is_kept(self, done: int) -> bool:
        """Whether a checkpoint follows so many steps."""
        due = bool(self.save_every) and done % self.save_every == 0
        best = self.looks is not None and self.looks.best == done
        return due or best or done == self.steps or self._enough()

    def _take_best(self) -> None:
        if self.looks is not None and self.checkpoints is not None:
            checkpoint.load(find(self.checkpoints), self.policy)

    def _update(self, losses: Iterable[Tensor]) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64)
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            total = total.to(loss.device) + loss.detach()
        limit = self.optimisation.max_grad_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        if not math.isfinite(norm) or not math.isfinite(total):
            raise self._diverged(
                f"the loss is {float(total):g} and the norm of its gradient {norm:g}"
            )
        self.optimizer.step()
        return norm

    def _check_weights(self) -> None:
        if not all(bool(p.isfinite().all()) for p in self._parameters):
            raise self._diverged("there are weights that are not finite")
        if not _computes(self.policy.lm):
            raise self._diverged("the weights are so large that the model's logits are not finite")

    def _save(self, done: int) -> None:
        self._check_weights()
        if self.checkpoints is not None:
            manifest = {"steps": self.steps, "run": self.identity, "lengths": self._lengths}
            if self.looks is not None:
                manifest["looks"] = self.looks.stored()
            checkpoint.save(
                *(self.checkpoints, done, self.policy, self.optimizer, manifest),
                keep=self.keep,
                kept=self.stage.kept,
                adapters=self.adapters,
            )

    def _diverged(self, what: str) -> TrainingError:
        kept = None if self.checkpoints is None else latest(self.checkpoints)
        rest = "nothing was saved before" if kept is None else f"{kept} is the last good checkpoint"
        return TrainingError(
            f"training stopped at step {self._number + 1}: {what}; {rest}. A lower "
            "--optimisation.lr or --optimisation.max-grad-norm often helps."
        )

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _resume(self) -> int:
        folder = None if self.checkpoints is None else latest(self.checkpoints)
        if folder is None:
            return 0
        manifest = read_manifest(folder)
        require_same(manifest.get("run") or {}, self.identity, folder)
        before = manifest.get("steps")
        if before is None:
            raise CheckpointError(
                f"{folder} does not say of how many steps its run was, so it cannot be resumed; "
                "begin another run from its weights with --checkpoint."
            )
        done = checkpoint.load(folder, self.policy, self.optimizer, self.stage.kept)
        if self.steps < done:
            raise UsageError(f"{self.out} has taken {done} steps already; give more --steps.")
        if self.looks is not None:
            self.looks.restore(manifest.get("looks") or [])
        self._lengths = list(manifest.get("lengths") or [])
        if self.steps != before:
            self._lengths.append({"at_step": done, "from": before, "to": self.steps})
            warnings.warn(self.optimisation.lengthened(before, self.steps), Notice, stacklevel=3)
        return done


@torch.no_grad()
def _computes(lm: LatentLM) -> bool:
    """Whether what a model says to a few tokens is finite, which that of finite weights may not be.

    The next loss would tell, but a checkpoint is written before.
    """
    ids_BT = torch.arange(min(_PROBE, lm.vocab_size), device=lm.device)[None]
    with mode(lm, training=False):
        hidden_BTD = lm.hidden(lm.embed(ids_BT), torch.ones_like(ids_BT, dtype=torch.bool))
        return bool(lm.logits(hidden_BTD).isfinite().all())


def _check_precision(parameters: Iterable[Tensor]) -> None:
    """Of a bf16 weight, a step of less than 1/256 of it leaves nothing."""
    for parameter in parameters:
        if torch.finfo(parameter.dtype).bits < 32:
            raise UsageError(
                f"the weights to train are {str(parameter.dtype).removeprefix('torch.')}, in which "
                "small steps are lost; load the model with mixed_precision=True, which keeps them "
                "in fp32 and runs the forward pass in bfloat16."
            )


def _note(metrics: Metrics) -> str:
    shown = ("reward/score", "train/loss", "train/answer_accuracy", "latent/share")
    return "  ".join(f"{k.split('/')[1]} {metrics[k]:.3f}" for k in shown if k in metrics)
