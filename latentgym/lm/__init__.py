"""Language models that read embeddings and tell hidden states."""

from latentgym.lm.model import LatentLM
from latentgym.lm.zoo import load_model

__all__ = ["LatentLM", "load_model"]
