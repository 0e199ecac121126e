"""Training in one process: stages, the trainer, checkpoints, logs."""

from latentgym.training.compression import Compression, CompressionConfig
from latentgym.training.config import Optimisation
from latentgym.training.curriculum import Curriculum, CurriculumConfig
from latentgym.training.grpo import GRPO, GRPOConfig
from latentgym.training.order import Order
from latentgym.training.pathwise import Pathwise, PathwiseConfig
from latentgym.training.stage import (
    MakeEnv,
    Metrics,
    Recipe,
    Stage,
    StageConfig,
    Update,
)
from latentgym.training.supervised import Supervised, SupervisedConfig, supervised_loss
from latentgym.training.trainer import Trainer

__all__ = [
    "GRPO",
    "Compression",
    "CompressionConfig",
    "Curriculum",
    "CurriculumConfig",
    "GRPOConfig",
    "MakeEnv",
    "Metrics",
    "Optimisation",
    "Order",
    "Pathwise",
    "PathwiseConfig",
    "Recipe",
    "Stage",
    "StageConfig",
    "Supervised",
    "SupervisedConfig",
    "Trainer",
    "Update",
    "supervised_loss",
]
