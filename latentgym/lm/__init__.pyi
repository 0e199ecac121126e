from .model import LatentLM
from .zoo import load_model

__all__ = ["LatentLM", "load_model"]
