"""The engine: data -> two unlearned models -> merge -> scores, without any interface code."""
