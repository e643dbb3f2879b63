"""Small demonstrators of mathematical ideas, each with its laws tested; and how far people rely on a model."""
from workbench.theory.bayes_lens import BayesLens, Discrete, Gaussian, string_diagram
from workbench.theory.errors import TheoryError
from workbench.theory.learner import Learner, as_lens, as_span, layer, train
from workbench.theory.lens import Lens, Span, broken
from workbench.theory.memorize import Memorize, Nearest, opposed, play
from workbench.theory.novelty_tracer import Corpus, Traced, copied_share, invented, mentions, trace
from workbench.theory.partition_basis import commutant, commutator, compose, partition_basis, restricted_bell, set_partitions
from workbench.theory.prob_monad import Distribution, independent, marginals, mutual_information, next_two, pair
from workbench.theory.reliance import QuizItem, ScriptedUser, foreseen, protocol, quiz_items, scores, suitability
from workbench.theory.rl_basics import World, policy_gradient, q_learning, reinforce, value_iteration
from workbench.theory.token_information import directed_information, markov_bits, passed_on, rate_distortion

__all__ = ["partition_basis", "set_partitions", "restricted_bell", "commutant", "commutator", "compose", "Distribution", "pair", "marginals", "independent", "mutual_information", "next_two",
           "Discrete", "Gaussian", "BayesLens", "string_diagram", "Lens", "Span", "broken", "Learner", "layer", "train", "as_lens", "as_span", "Memorize", "Nearest", "play", "opposed", "directed_information", "rate_distortion", "markov_bits", "passed_on",
           "World", "value_iteration", "q_learning", "policy_gradient", "reinforce", "Corpus", "trace", "Traced", "copied_share", "mentions", "invented",
           "QuizItem", "quiz_items", "scores", "ScriptedUser", "protocol", "suitability", "foreseen", "TheoryError"]
