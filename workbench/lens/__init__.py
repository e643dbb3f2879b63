"""The vocabulary lens: what a state of the model says, who wrote it, and which of two words is winning."""
from workbench.lens.dla import direct_logit_attribution, head_grid
from workbench.lens.figures import dla_figure, lens_figure, race_figure
from workbench.lens.logit_lens import logit_lens
from workbench.lens.project import LensError, folded_unembed, project
from workbench.lens.race import race
from workbench.lens.tuned_lens import TunedLens, load_translators, train_tuned_lens

__all__ = ["project", "folded_unembed", "logit_lens", "train_tuned_lens", "TunedLens", "load_translators", "direct_logit_attribution", "head_grid", "race",
           "lens_figure", "dla_figure", "race_figure", "LensError"]
