"""What a model does inside, position by position: depth, outlier features, and its latents."""
