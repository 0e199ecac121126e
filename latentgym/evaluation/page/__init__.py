"""The page of results: one file to open, send around and publish."""

from latentgym.evaluation.page.build import MOST_ANSWERS, page, write_page

__all__ = ["MOST_ANSWERS", "page", "write_page"]
