"""Suites, and the records they left."""
