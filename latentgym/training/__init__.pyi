from .compression import Compression
from .compression_config import CompressionConfig
from .config import Optimisation
from .curriculum import Curriculum
from .curriculum_config import CurriculumConfig
from .elbo import ELBO
from .elbo_config import ELBOConfig
from .grpo import GRPO
from .grpo_config import GRPOConfig
from .looks import Look, Looks
from .order import Order
from .outliers import OutlierWatch
from .pathwise import Pathwise
from .pathwise_config import PathwiseConfig
from .rewards import Reward, Rewards
from .stage import (
    MakeEnv,
    Metrics,
    Recipe,
    Stage,
    StageConfig,
    Update,
    Watch,
)
from .supervised import Supervised, supervised_loss
from .supervised_config import SupervisedConfig
from .trainer import Trainer

__all__ = [
    "ELBO",
    "GRPO",
    "Compression",
    "CompressionConfig",
    "Curriculum",
    "CurriculumConfig",
    "ELBOConfig",
    "GRPOConfig",
    "Look",
    "Looks",
    "MakeEnv",
    "Metrics",
    "Optimisation",
    "Order",
    "OutlierWatch",
    "Pathwise",
    "PathwiseConfig",
    "Recipe",
    "Reward",
    "Rewards",
    "Stage",
    "StageConfig",
    "Supervised",
    "SupervisedConfig",
    "Trainer",
    "Update",
    "Watch",
    "supervised_loss",
]
