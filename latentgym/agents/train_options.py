"""How long a run is trained, on which questions, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from latentgym.errors import UsageError
from latentgym.evaluation.answers import KEEP_THOUGHTS
from latentgym.openrlhf.job import ClusterOptions
from latentgym.storage import folder_named
from latentgym.system.options.keywords import check, keywords
from latentgym.system.options.ranges import (
    Interval,
    Kept,
    Seed,
    Size,
    SizeOrZero,
    Steps,
    check_ranges,
)
from latentgym.training.logs import PROJECT


@dataclass(frozen=True)
class TrainOptions:
    """Options of every training run, whatever the agent."""

    steps: Steps = 1000
    """Training steps."""
    seed: Seed = 0
    """Of initial weights, order and random numbers."""
    out: Path = Path("runs/train")
    """Folder of the run: checkpoints, metrics, TensorBoard, final evaluation."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    save_every: Interval = 200
    """Steps between checkpoints."""
    keep_last: Size = 1
    """Checkpoints that are kept, the newest; with --eval-every the best is kept beside them."""
    log_every: Interval = 0
    """Steps between logged metrics; 0 logs every few seconds. OpenRLHF logs every step."""
    lora_r: SizeOrZero = 0
    """Train low-rank adapters of this rank instead of all weights; 0 trains all weights."""
    lora_alpha: Size | None = None
    """Scale of the adapters; default twice the rank."""
    split: str | None = None
    """Split to train on."""
    skip_long: bool = False
    """Leave out questions that are too long for the model's positions, instead of stopping."""
    eval_split: str | None = None
    """Split to evaluate on; default test at the end, and with --eval-every validation."""
    eval_limit: Interval | None = None
    """Questions of each evaluation; all by default, 0 for no evaluation at the end."""
    eval_every: Interval = 0
    """Steps between evaluations during training; 0 for none. The best checkpoint is kept."""
    early_stopping: Interval = 0
    """Stop after so many of them in a row without a better one; 0 for never."""
    test: bool = False
    """With --eval-every: evaluate the best checkpoint on the test split, once, at the end."""
    keep_thoughts: Kept = KEEP_THOUGHTS
    """Of each thought of it store so many of the heaviest tokens; 0 stores none one by one."""
    backend: Literal["local", "openrlhf"] = "local"
    """Where to train: in this process, or through OpenRLHF on Ray."""
    cluster: Annotated[ClusterOptions, tyro.conf.arg(name="")] = field(
        default_factory=ClusterOptions
    )
    outliers_every: Interval = 0
    """Steps between looks at outlier features of hidden layers, and at latents; 0 for none."""
    logger: list[str] = field(default_factory=list)
    """Further loggers: wandb, trackio."""
    project: str = PROJECT
    """Of these loggers, under which they file the run."""

    @classmethod
    def of(cls, given: dict[str, Any]) -> TrainOptions:
        """Options that come from Python, where nothing has checked them yet.

        Raises:
            UsageError: there is no such option, or a value of another type.
        """
        if isinstance(out := given.get("out"), str | Path):
            given = {**given, "out": folder_named(out)}
        own = dict.fromkeys(
            ("data", "test_data", "grader"), "in options=, beside the environment's"
        )
        check(given, keywords(cls), "latentgym.train", own)
        return cls(**given)

    @property
    def lora(self) -> dict[str, int] | None:
        """Rank and scale of adapters, if there are to be any.

        Raises:
            UsageError: a scale without a rank.
        """
        if self.lora_alpha and not self.lora_r:
            raise UsageError(
                "--lora-alpha is the scale of adapters; give --lora-r too, or leave it out."
            )
        if not self.lora_r:
            return None
        return {"r": self.lora_r, "alpha": self.lora_alpha or 2 * self.lora_r}

    def validate(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: there are such.
        """
        check_ranges(self)
        if self.backend == "local":
            _refuse_cluster(self.cluster)
        if not self.eval_every:
            for name, given in (("early-stopping", self.early_stopping), ("test", self.test)):
                if given:
                    raise UsageError(
                        f"--{name} goes with --eval-every; add it, or leave --{name} out."
                    )
        elif self.eval_split == "test":
            raise UsageError(
                "--eval-every evaluates during training, by which weights are chosen, so it does "
                "not take the test split; leave --eval-split out, and add --test for the test at "
                "the end."
            )
        elif self.eval_limit == 0:
            raise UsageError(
                "--eval-every evaluates, but --eval-limit 0 leaves it no questions; leave one out."
            )


def _refuse_cluster(given: ClusterOptions) -> None:
    """Refuse options of a cluster where there is none.

    Raises:
        UsageError: there are such, by name.
    """
    default, both = ClusterOptions(), ("gradient_checkpointing",)  # what training here has too
    names = [
        f"--{f.name.replace('_', '-')}"
        for f in fields(given)
        if f.name not in both and getattr(given, f.name) != getattr(default, f.name)
    ]
    if names:
        raise UsageError(
            f"{' and '.join(names)}: options of a cluster go with --backend openrlhf; add it."
        )
