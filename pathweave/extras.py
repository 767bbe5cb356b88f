"""Optional libraries, imported where they are used."""

import importlib
from types import ModuleType

from pathweave.errors import PathWeaveError


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: Name of the module to import.
        extra: Name of the extra of this package that installs it.

    Raises:
        PathWeaveError: If the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PathWeaveError(
            f"{module} must be installed for this, got {type(error).__name__} ({error}); run "
            f"pip install 'pathweave[{extra}]'"
        ) from error
