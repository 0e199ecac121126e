"""Work on hostile input in a process that is bounded and may be killed; imports nothing of ours."""

from __future__ import annotations

from latentgym.system.bounded.process import BoundedError, BoundedProcess

__all__ = ["BoundedError", "BoundedProcess"]
