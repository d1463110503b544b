"""The estimator's networks: trunks, 2D evidence, mesh regression, and the named models with their weights."""
