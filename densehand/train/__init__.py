"""Training programs of the estimator (the detector has its own in `densehand.detect`)."""
