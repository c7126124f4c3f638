"""The command line of main.py and the scripts: a user's mistake is one message and exit 2."""

import errno
import gc
import inspect
import os
import re
import sys
from pathlib import Path

import jax
from absl import app, flags, logging

from vireid_jax.types import UserError

_NEW_OBJECTS = 50_000  # from one search for garbage to the next
_NOT_WRITABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
}


def run(main) -> None:
    """Parses the flags and calls `main` with the other arguments; `configs` is importable then.

    Compiled programs are kept in ~/.cache/vireid_jax (or below XDG_CACHE_HOME), and the next call
    with the same shapes starts in seconds; JAX_COMPILATION_CACHE_DIR names another place. It may be
    removed at any time.

    Exit status 2, and one line that names the cause and the fix, for flags that cannot be parsed,
    config keys that do not exist (with the nearest that does), folders that cannot be written and
    every `UserError`.
    """
    sys.path.append(str(Path(__file__).parents[1]))  # scripts/ does not see configs/ otherwise
    if not jax.config.jax_compilation_cache_dir:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", f"{caches}/vireid_jax")
    # Tracing leaves objects by the hundred thousand. Python would search them for garbage again and
    # again, for more than a second before the first step.
    gc.set_threshold(_NEW_OBJECTS)
    app.run(
        lambda argv: _guarded(_call, main, argv[1:]),
        flags_parser=lambda argv: _guarded(_parse, argv),
    )


def _parse(argv):
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS:
            flags.FLAGS.config.lock()  # a file that failed to load says so at its first use
        return rest
    except (flags.Error, KeyError, AttributeError, OSError) as error:
        raise UserError(_explain(error, argv)) from error


def _call(main, arguments):
    wanted = inspect.signature(main).parameters
    if len(arguments) != len(wanted):
        raise UserError(
            f"arguments without -- are {' '.join(arguments) or 'none'}, but should be "
            f"{' '.join(wanted).upper() or 'none'}"
        )
    main(*arguments)


def _guarded(function, *args):
    logging.set_verbosity(logging.ERROR)  # the libraries' own reports are for debugging
    try:
        return function(*args)
    except UserError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        message = f"{error}: make room there, or choose another folder"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _explain(error, argv):
    text = str(error.args[0])
    if isinstance(error, (KeyError, AttributeError)):  # ConfigDict's, of a key that is not there
        key = re.search(r"\w+", text)[0]
        given = next((arg for arg in argv if re.search(rf"\.{re.escape(key)}\b", arg)), key)
        near = re.search('Did you mean "(.*?)"', text)
        hint = f"did you mean {near[1]!r}? " if near else ""
        return (
            f"{given}: the config has no key {key!r}; {hint}its file, or the one that this "
            "imports, lists all keys"
        )
    last_of_traceback = re.search(r"^\s*(?:\w+Error:|\[Errno \d+\]) (.*)", text, re.MULTILINE)
    return last_of_traceback[1] if last_of_traceback else " ".join(text.split())
