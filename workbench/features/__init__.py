"""Features: dictionaries of directions, trained, opened, measured against known truth, described, searched and used."""
from workbench.features.errors import FeatureError
from workbench.features.dictionary import Components, Dictionary, Sae, fit_ica, fit_nmf, fit_pca, mean_difference, neurons, random_dictionary
from workbench.features.formats import open_dictionary, save_dictionary, write_saelens
from workbench.features.superposition import Superposition, score_truth
from workbench.features.toy import phase_map, train_toys
from workbench.features.metrics import explained_variance, feature_worth, loss_recovered, measure
from workbench.features.store import ActivationStore
from workbench.features.train import Trainer, train
from workbench.features.snmf import concept_scores, feature_tree, snmf
from workbench.features.records import FeatureStore
from workbench.features.describe import Background, description_score, polysemanticity, prism_describe
from workbench.features.explanations import score_explanation
from workbench.features.find import find_bench
from workbench.features.autointerp import autointerp
from workbench.features.use import ablate, clamp, dose, steer, steering_edit
from workbench.features.probing import sparse_probing
from workbench.features.absorption import absorption
from workbench.features.entity import entity_recognition
from workbench.features.recsae import concept_dictionary, recsae
from workbench.features.detox import detox
