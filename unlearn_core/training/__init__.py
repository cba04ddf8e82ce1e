"""Memorising and unlearning: what a step reads, its losses, the loop."""
