"""A task and an agent of one's own. Importing it registers the task."""

from latentgym.registry import register_task

register_task("Mul2", "my_pkg.tasks:make")
