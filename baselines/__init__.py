"""The methods of the benchmark, one file each. Importing this package registers all of them by name."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
