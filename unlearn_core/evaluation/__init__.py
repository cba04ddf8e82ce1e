"""The official scores: `evaluate.evaluate` measures a model, `official` scores answers that were generated elsewhere.

`score`, `mia`, `rouge` and `official` work on plain rows and numbers and import no torch.
"""
