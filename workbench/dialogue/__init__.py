"""Dialogue: turns that are held, branched and audited, between agents that see only what they may."""
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.scenario import Scenario, open_scenario
from workbench.dialogue.events import Event, Events
from workbench.dialogue.play import Dialogue, Said, View, hold
from workbench.dialogue.audit import audit
from workbench.dialogue.scripted import Arguer, Bayesian, LogitChoice, network
from workbench.dialogue.donor import DonorRules, donor_game, donor_seeds
from workbench.dialogue.opinions import deffuant, degroot, friedkin_johnsen, hegselmann_krause
