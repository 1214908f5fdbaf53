"""Plots: arrays in, RGB pictures or matplotlib figures out; never pyplot."""
