"""Lessons: exercises that say what is wrong, and one source for student, teacher and page."""
from workbench.teach.compare import chosen, compare, same
from workbench.teach.lesson import Lesson, Open, Right, Wrong

__all__ = ["Lesson", "Right", "Wrong", "Open", "compare", "same", "chosen"]
