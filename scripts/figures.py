"""Tables and pictures of a page in docs/, made anew by the script that the page names."""

from pathlib import Path

from vireid_jax.types import UserError


def markdown(columns, rows) -> str:
    """A table; the first column is of names."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def section(page: Path, name: str) -> tuple[str, str]:
    """What stands before and behind the lines of `page` that the script `name` writes.

    Raises:
      UserError: the page has no place for it.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = page.read_text() if page.is_file() else ""
    if first not in text or last not in text:
        raise UserError(f"{page} has no lines {first.strip()} and {last.strip()} to write between")
    head, rest = text.split(first, 1)
    return head + first, last + rest.split(last, 1)[1]


def write(page: Path, name: str, content: str) -> None:
    """Puts `content` into the place of `name` on a page; raises as `section`."""
    head, tail = section(page, name)
    page.write_text(f"{head}\n{content.strip()}\n\n{tail}")


def made_with(environment: dict) -> str:
    """Versions and hardware, from a run's environment.json."""
    jax = environment["packages"]["jax"]
    device = f"{environment['devices']} x {environment['device']}"
    return f"JAX {jax}, Python {environment['python']}, {device}."
