"""Statistics and conditions of experiments."""
from workbench.experiments.intervals import bootstrap, wilson

__all__ = ["bootstrap", "wilson"]
