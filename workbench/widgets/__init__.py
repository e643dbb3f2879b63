"""Widgets: one front-end core, one base class, and what stands on them. Each is imported when it is first used: `Predict` needs no torch."""
from importlib import import_module

_HOME = {"AttentionExplorer": "attention_explorer", "DialogueSimulator": "dialogue_simulator", "ExplainChat": "explain_chat", "FeatureBrowser": "feature_browser", "PatchingGrid": "patching_grid",
         "PersuasionSimulator": "dialogue_simulator", "Predict": "predict", "RelianceQuiz": "reliance_quiz", "Selection": "base", "SocietyView": "society", "TrainingRoom": "training_room", "Widget": "base", "WidgetError": "base"}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME: return getattr(import_module(f"workbench.widgets.{_HOME[name]}"), name)
    raise AttributeError(f"module 'workbench.widgets' has no attribute '{name}'")


def __dir__(): return sorted([*globals(), *__all__])
