"""Errors that the ml package raises on purpose. Each names the thing and the fix."""


class MlError(Exception):
    """Base of every error of this package."""


class DatasetError(MlError):
    """A table, column or value that training or scoring needs is missing or contradictory."""


class FeatureVersionError(DatasetError):
    """A model was trained on another version of a feature than the table holds."""


class RegistryError(MlError):
    """The model registry cannot be opened, or an entry of it is incomplete."""


class ArtifactTamperedError(RegistryError):
    """A stored model's bytes differ from the hash recorded when it was registered."""
