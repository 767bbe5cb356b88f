"""Errors a user can cause. The command line prints their message alone and exits with 2."""


class PathWeaveError(ValueError):
    """Base of every error that a user can cause: one line with the rule, the value, the remedy."""


class MediaError(PathWeaveError):
    """A medium that cannot be decoded: empty, truncated, mislabelled, too large, not finite."""


class ManifestError(PathWeaveError):
    """A manifest that is missing, malformed or refers to files that do not exist."""


class RequestError(PathWeaveError):
    """A question that is malformed: a part with a wrong or missing field, or none at all."""


class RecipeError(PathWeaveError):
    """A recipe with an unknown field, name or value, or with fields that contradict each other."""


class PathError(PathWeaveError):
    """A path directory that is damaged, incomplete, or whose predecessors are missing."""


class BaseMismatchError(PathError):
    """A path that was made for another base than the one it is loaded into."""


class FetchError(PathWeaveError):
    """Weights that cannot be fetched, or whose hash differs from the manifest's."""


class DiskError(PathWeaveError):
    """A file that cannot be written, most often because the disk is full."""


class BusyError(PathWeaveError):
    """A directory that another run is writing to."""


class RunError(PathWeaveError):
    """A run that cannot go on: too many bad samples, or a result directory of another recipe."""
