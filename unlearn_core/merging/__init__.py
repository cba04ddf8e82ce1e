"""Adapters as weight changes, what merging makes of them, and what else they could have become."""
