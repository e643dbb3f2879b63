"""A Jupyter-native research workbench for looking inside language models.

Names are imported when they are first used: `import workbench` loads neither torch nor transformers.
"""
__version__ = "0.1.0"

from importlib import import_module

_HOME = {  # public name -> the module that defines it
    "load": "workbench.lm.load",
    "Site": "workbench.lm.sites",
    "load_result": "workbench.lm.results",
    "plot": "workbench.lm.results",
    "WorkbenchError": "workbench.lm.errors",
    "harvest": "workbench.scale.harvest",
    "open_harvest": "workbench.scale.harvest",
}
_ROOMS = "lm", "zoo", "tasks", "experiments", "lens", "attention", "patching", "features", "bias", "knowledge", "dialogue", "widgets", "reporting", "reports", "scale", "theory", "teach", "tutorials"

__all__ = [*_HOME, *_ROOMS]


def __getattr__(name):
    if name in _HOME: return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS: return import_module(f"workbench.{name}")
    raise AttributeError(f"module 'workbench' has no attribute '{name}'")


def __dir__(): return sorted([*globals(), *__all__])
