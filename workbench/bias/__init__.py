"""Bias: what a model prefers when its sources disagree, and the knobs that change it."""
from workbench.bias.context_knob import IntentPairs, Knob, KnobError, layer_search, learn_knob, turn, without_intent
from workbench.bias.pkck_subspace import PkckError, PkckSubspace, pkck_subspace, residuals, separation, step_shares, steps_figure

__all__ = ["IntentPairs", "layer_search", "learn_knob", "Knob", "turn", "without_intent", "KnobError",
           "pkck_subspace", "PkckSubspace", "step_shares", "steps_figure", "separation", "residuals", "PkckError"]
