"""Patching: which states, heads, edges and subspaces carry an answer, and how much of it they carry alone."""
from workbench.patching.errors import PatchError
from workbench.patching.pairs import Pairs, named_places, pair_of
from workbench.patching.cells import Cells
from workbench.patching.sweep import Plan, Sweep
from workbench.patching.patch import base_of, cell_edits, patch, patched_logits, summary, verify
from workbench.patching.attribution import attribution_patch, compare, worst
from workbench.patching.figures import cell_table, cells_figure, grid_figure
from workbench.patching.graph import Graph, load_circuit, save_circuit
from workbench.patching.edges import masked_run
from workbench.patching.path_patch import path_patch
from workbench.patching.eap import edge_attribution
from workbench.patching.acdc import acdc, discover
from workbench.patching.circuit_scores import circuit_scores, cpr_cmd
from workbench.patching.name_circuit import name_circuit
from workbench.patching.known import roc, score_against
from workbench.patching.circuit_figures import circuit_figure
from workbench.patching.cross_model import cross_model_patch, cross_patch_together
from workbench.patching.dcm import Desideratum, dcm
from workbench.patching.causal_graph import CausalGraph, causal_graph, stability
from workbench.patching.weight_grid import weight_grid
from workbench.patching.subspace import find_basis, subspace_patch
from workbench.patching.illusion import illusion_check, marked
from workbench.patching.das import das, size_curve
from workbench.patching.causal_trace import causal_trace
from workbench.patching.mediation import mediation
from workbench.patching.head_attribution import best_scaling, head_attribution, scale_head
from workbench.patching.output_nodes import output_nodes
from workbench.patching.patchscopes import patchscope, patchscope_text
from workbench.patching.generation import patch_generation
from workbench.patching.turns import patch_turn, turn_grid
