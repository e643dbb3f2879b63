"""Dialogue: turns that are held, branched and audited, between agents that see only what they may."""
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.scenario import Scenario, open_scenario
from workbench.dialogue.events import Event, Events
from workbench.dialogue.play import Dialogue, Said, View, hold
from workbench.dialogue.audit import audit
from workbench.dialogue.scripted import Arguer, Bayesian, LogitChoice, network
from workbench.dialogue.chat import Capture, Chat
from workbench.dialogue.endpoint import Endpoint, estimate
from workbench.dialogue.reading import Reading
from workbench.dialogue.tiny import Tiny, TinyPersuader
from workbench.dialogue.double_blind import tomma
from workbench.dialogue.persuasion_rct import analysed, debate, trial
from workbench.dialogue.teacher import budget_curve, taught
from workbench.dialogue.donor import DonorRules, donor_game, donor_seeds
from workbench.dialogue.opinions import deffuant, degroot, friedkin_johnsen, hegselmann_krause
from workbench.dialogue.corpora import load_choices13k, load_convokit, load_ctompersu, load_p4g, load_rct
from workbench.dialogue.export import from_jsonl, to_convokit, to_jsonl
