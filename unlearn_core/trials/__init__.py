"""Scores of many updates on one base, chosen on one half of the documents and read on the other."""
