"""A plugin of a single file, for trying things out: `aforo serve --plugin my_pricing.py`."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from aforo.plugins.door import check_version, examine_file
from aforo.plugins.guard import told
from aforo.sdk import PluginError


def load_file(path: Path) -> ModuleType:
    """The module in a file, run once.

    Raises: `PluginError` where there is no such file, or it is no Python that can be imported, or
    its name is taken, or it imports what no plugin may. A file need not say which SDK it is for.
    """
    name = f"the plugin {path}"
    module_name = _checked(path, name)
    found = examine_file(name, path)
    if found.wanted is not None:
        check_version(name, None, found.wanted)
    spec = spec_from_file_location(module_name, path)
    assert spec is not None, "the name ends in .py"
    assert spec.loader is not None, "the name ends in .py"
    module = module_from_spec(spec)
    sys.modules[module_name] = module  # Where pydantic looks for the types in annotations.
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[module_name]
        raise PluginError(f"{name} is no Python: {error.msg} in line {error.lineno}") from error
    except (Exception, SystemExit) as error:  # A plugin's import may raise anything at all.
        del sys.modules[module_name]
        raise PluginError(f"{name} cannot be imported: {told(error)}") from error
    return module


def _checked(path: Path, name: str) -> str:
    if not path.exists():
        raise PluginError(f"{name} does not exist: looked for {path.absolute()}")
    if path.is_dir():
        raise PluginError(
            f"{name} is a folder: give a file, or install the folder's distribution with pip"
        )
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise PluginError(f"{name} is no module: name the file like one, such as my_pricing.py")
    taken = sys.modules.get(path.stem)
    # Loaded a second time in one process, or with its folder on the path, it is still this file.
    loaded = taken is not None and (taken.__dict__.get("__file__") or "built in")
    origin = loaded or _found(path.stem)
    if origin is not None and Path(origin).resolve() != path.resolve():
        raise PluginError(f"{name} has the name of another module: rename the file")
    return path.stem


def _found(module: str) -> str | None:
    """Where a module would be imported from that is not loaded; None where there is none."""
    if module in sys.stdlib_module_names:
        return "the standard library"
    spec = PathFinder.find_spec(module)
    return None if spec is None else spec.origin or "a folder"
