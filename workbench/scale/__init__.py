"""Work for many processes, here or on a cluster: sweeps of reports and activations of a whole corpus."""
from importlib import import_module

_HOME = {"workers": "cluster", "each": "cluster", "open_harvest": "harvest", "harvest_bytes": "harvest"}   # looked up when used: a worker that only runs reports never loads torch
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME: return getattr(import_module(f"workbench.scale.{_HOME[name]}"), name)
    raise AttributeError(f"module 'workbench.scale' has no attribute '{name}'")


def __dir__(): return sorted([*globals(), *__all__])
