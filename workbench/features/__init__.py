"""Features: dictionaries of directions, trained, opened, and measured against worlds whose truth is known."""
from workbench.features.errors import FeatureError
from workbench.features.dictionary import Components, Dictionary, Sae, fit_ica, fit_nmf, fit_pca, mean_difference, neurons, random_dictionary
from workbench.features.formats import open_dictionary, save_dictionary, write_saelens
from workbench.features.superposition import Superposition, score_truth
from workbench.features.metrics import explained_variance, loss_recovered, measure
from workbench.features.store import ActivationStore
from workbench.features.train import Trainer, train
from workbench.features.snmf import concept_scores, feature_tree, snmf
