"""Tutorials: `tutorials()` lists them, `open_tutorial(1)` writes a copy to work in. The judges of each are a module here; the notebooks are `workbench.tutorials.notebooks`."""
from workbench.teach.path import open_tutorial, tutorials

__all__ = ["tutorials", "open_tutorial"]
