"""Files as names: a value in the config is the name of a module in a package."""

import difflib
import importlib
import pkgutil
from types import ModuleType

from vireid_jax.types import UserError


def find(package: str, name: str, kind: str) -> ModuleType:
    """Imports `package.name`.

    Args:
      package: the dotted package that holds one file per choice.
      name: the file's name without `.py`.
      kind: the word for such a file in messages, e.g. "loss".

    Raises:
      UserError: no such file; lists those there are and the nearest.
    """
    known = names(package)
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}; {suggest(name, known)}")
    return importlib.import_module(f"{package}.{name}")


def names(package: str) -> list[str]:
    """The names of the files in `package`, sorted."""
    path = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path))


def suggest(name: str, known: list[str]) -> str:
    """A clause for an error message: the nearest known name, if any, and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"


def choose(key: str, value: str, choices: dict):
    """`choices[value]`.

    Raises:
      UserError: naming the config `key`, the known values and the nearest.
    """
    if value not in choices:
        raise UserError(f"{key}={value!r} is unknown; {suggest(value, sorted(choices))}")
    return choices[value]
