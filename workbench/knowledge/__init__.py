"""Knowledge: what a model's answer to a question of fact rests on."""
from workbench.knowledge.prism_split import PrismError, compare_profiles, prism_split, profiles_figure, trace_scenarios

__all__ = ["prism_split", "trace_scenarios", "compare_profiles", "profiles_figure", "PrismError"]
