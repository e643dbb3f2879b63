"""Bias: what a model prefers when its sources disagree, and the knobs that change it."""
from workbench.bias.context_knob import IntentPairs, Knob, KnobError, layer_search, learn_knob, turn, without_intent

__all__ = ["IntentPairs", "layer_search", "learn_knob", "Knob", "turn", "without_intent", "KnobError"]
