"""Widgets: one front-end core, one base class, and what stands on them."""
