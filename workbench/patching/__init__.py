"""Patching: which state, head, path or subspace carries an answer, found by changing it."""
