"""What a model does inside, position by position: depth, outlier features, and its latents."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
