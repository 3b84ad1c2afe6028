"""Import of packages that the tools need and the library does not."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def need(name: str) -> Any:
    """Import a package of requirements/tools.txt.

    Raises:
        SystemExit: The package is not installed; the message has the command
            that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition('.')[0]
        if str(error.name).partition('.')[0] != package:
            raise
        sys.exit(f'this tool needs the package {package}, which is not '
                 "installed: pip install 'mmkd-rl[tools]', or in a checkout "
                 'pip install -r requirements/tools.txt')
