"""Reports: parameterised notebooks. `wb.reports.run("tour", {"model": "micro"})` runs one, `wb.reports.names()` lists them."""
from importlib import import_module

_HOME = {"run": "run", "runs": "run", "open_run": "run", "plan": "run", "Run": "run", "ReportFailed": "run", "names": "catalogue", "describe": "catalogue", "sweep": "sweep", "open_sweep": "sweep", "sweeps": "sweep", "spread": "grid", "gallery": "gallery", "page": "page"}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME: return getattr(import_module(f"workbench.reporting.{_HOME[name]}"), name)
    raise AttributeError(f"module 'workbench.reports' has no attribute '{name}'")


def __dir__(): return sorted([*globals(), *__all__])
