"""Attention: where heads look, what they write when they do, and what happens when they are changed."""
from workbench.attention.patterns import AttentionError, combine, patterns, summarise, top_p, without_sink
from workbench.attention.scores import head_scores, top_heads
from workbench.attention.scaling import effect_of, knock_out, scale_attention
from workbench.attention.circuits import HeadFactors, copying_score, head_factors, ov_circuit, qk_circuit
from workbench.attention.composition import composition_scores, ov_components, strongest, transport
from workbench.attention.rollout import flow, rollout
from workbench.attention.information_flow import cut_edges, edge_map, information_flow
from workbench.attention.figures import flow_figure, pattern_figure, scores_figure
from workbench.attention.channel import Channel, channel, edit_channel, learn_shift, read_direction
from workbench.attention.safety import answers_without, sahara, ships, ships_dataset, undo
from workbench.attention.permutation import permutation_test, position_figure, position_information, stripped, without_mask, without_positions, without_residuals
from workbench.attention.compress import Subspace, along_items, compress_subspace, compressed, relabelled
from workbench.attention.weight_figures import composition_figure, items_figure
from workbench.attention.attn_attrib import attn_attrib, feed_back, mark_accuracy, mediation, mediators
from workbench.attention.successor import digit_arithmetic, digit_features, digit_probe, ranking, start_states, success, successor_score
from workbench.attention.successor_figures import successor_figure
from workbench.attention.effects import check_heads, effect_table, halves, head_effects, prompt_task, strongest_heads
from workbench.attention.roles import head_roles, role_table, untrained_twin
from workbench.attention.report_figures import effects_figure, or_reason
