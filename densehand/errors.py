"""Errors a user can act on: one line that names the thing and the remedy."""


class DensehandError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line and exits with 1."""


class InputError(DensehandError):
    """A file, picture or value given by the user cannot be used."""


class WeightsError(DensehandError):
    """A weights or asset file is missing, damaged or of another model."""


class DependencyError(DensehandError):
    """An optional package is needed for what was asked; the message says what to install."""
