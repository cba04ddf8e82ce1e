"""A recipe over values of its settings and over seeds."""
