"""Widgets: one front-end core, one base class, and what stands on them."""
from workbench.widgets.attention_explorer import AttentionExplorer
from workbench.widgets.base import Selection, Widget, WidgetError
from workbench.widgets.patching_grid import PatchingGrid

__all__ = ["AttentionExplorer", "PatchingGrid", "Selection", "Widget", "WidgetError"]
