"""Outlier features: by architecture and optimiser, and of latents where training collapses."""
