"""The text files in which the authors of data sets list images and identities."""

from pathlib import Path

from vireid_jax.types import UserError


def lines(root: Path, name: str) -> list[tuple[str, str]]:
    """(path, label) of each line "PATH LABEL" of an index file; paths may hold spaces.

    Args:
      root: the data set's folder.
      name: of the index file in it.

    Raises:
      UserError: no such file; a line of another form; an image that is not there.
    """
    found = []
    for number, line in enumerate(text(root / name).splitlines(), 1):
        if line.strip():
            path, separator, label = line.strip().rpartition(" ")
            if not separator:
                raise UserError(f"{root / name}, line {number}: {line!r} is not 'PATH LABEL'")
            found.append((path, label))
    missing = [path for path, _ in found if not (root / path).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{root / name} names {missing[0]}{more}, which is not in {root}: copy the image there"
        )
    return found


def ids(root: Path, name: str) -> list[int]:
    """The identities of a file with one line "1,2,5", in ascending order.

    Raises:
      UserError: no such file; something that is no number.
    """
    words = text(root / name).replace("\n", ",").split(",")
    return sorted({number(w.strip(), f"{root / name} holds") for w in words if w.strip()})


def number(word: str, where: str) -> int:
    """`word` as an identity's number.

    Raises:
      UserError: it is none; says `where`.
    """
    if not word.isdecimal() or int(word) >= 2**31:
        raise UserError(f"{where} {word!r}, where the number of an identity should be")
    return int(word)


def pid_of_folder(root: Path, path: str) -> int:
    """The identity that the folder of an image is named after; raises as `number`."""
    return number(Path(path).parent.name, f"{root / path} lies in")


def images(folder: Path) -> list[str]:
    """Names of the files in `folder`, sorted, hidden ones apart; [] where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(f.name for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def text(file: Path) -> str:
    """The content of a file of text.

    Raises:
      UserError: no such file, or no text in UTF-8.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: config.data.source must hold it")
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text in UTF-8 ({error}): replace it") from error
