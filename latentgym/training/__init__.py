"""Training in one process: stages, the trainer, checkpoints, logs."""

from latentgym.training.config import Optimisation
from latentgym.training.grpo import GRPO, GRPOConfig
from latentgym.training.stage import Metrics, Stage, Update
from latentgym.training.supervised import Supervised, supervised_loss
from latentgym.training.trainer import Trainer

__all__ = [
    "GRPO",
    "GRPOConfig",
    "Metrics",
    "Optimisation",
    "Stage",
    "Supervised",
    "Trainer",
    "Update",
    "supervised_loss",
]
