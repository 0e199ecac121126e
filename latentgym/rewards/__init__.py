"""Graders: a model's completion and the gold answer in, a grade out."""

from __future__ import annotations

from latentgym.rewards.exact import ChoiceGrader, ExactGrader
from latentgym.rewards.grade import GoldError, Grade, Grader, GraderError
from latentgym.rewards.maths import MathGrader, NumberGrader
from latentgym.rewards.own import OwnGrader
from latentgym.rewards.spans import SpanGrader
from latentgym.rewards.title import TitleGrader

__all__ = [
    "ChoiceGrader",
    "ExactGrader",
    "GoldError",
    "Grade",
    "Grader",
    "GraderError",
    "MathGrader",
    "NumberGrader",
    "OwnGrader",
    "SpanGrader",
    "TitleGrader",
]
