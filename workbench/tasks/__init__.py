"""Prompts with planted truth: `make("ioi", n=100)` -> Task; `names()` lists them."""
from workbench.tasks.catalogue import make, names
from workbench.tasks.task import Item, Task, TaskError

__all__ = ["Item", "Task", "TaskError", "make", "names"]
