"""Widgets: one front-end core, one base class, and what stands on them."""
from workbench.widgets.attention_explorer import AttentionExplorer
from workbench.widgets.base import Selection, Widget, WidgetError
from workbench.widgets.dialogue_simulator import DialogueSimulator, PersuasionSimulator
from workbench.widgets.explain_chat import ExplainChat
from workbench.widgets.feature_browser import FeatureBrowser
from workbench.widgets.patching_grid import PatchingGrid
from workbench.widgets.predict import Predict
from workbench.widgets.society import SocietyView
from workbench.widgets.training_room import TrainingRoom

__all__ = ["AttentionExplorer", "DialogueSimulator", "ExplainChat", "FeatureBrowser", "PatchingGrid", "PersuasionSimulator", "Predict", "Selection", "SocietyView", "TrainingRoom", "Widget", "WidgetError"]
