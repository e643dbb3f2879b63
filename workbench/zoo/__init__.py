"""Built-in models that were trained, or written, here: `names()`, `folder(name)`, `card(name)`."""
from workbench.zoo.shelf import card, folder, names

__all__ = ["card", "folder", "names"]
