"""Attention: where heads look, what they write when they do, and what happens when they are changed."""
