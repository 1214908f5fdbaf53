"""Ablation: the grid of the two modules, its statistics, and what one-line changes inside them bring."""
