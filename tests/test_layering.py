"""Imports between the rooms run one way."""

import ast
import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "vireid_jax"
LEAVES = {"types", "registry"}
ALLOWED = {
    "types": set(),
    "registry": {"types"},
    "command_line": {"types"},
    "models": LEAVES,
    "losses": LEAVES,
    "data": LEAVES,
    "evaluation": LEAVES,
    "interop": LEAVES | {"models"},
    "training": LEAVES | {"models", "losses", "data", "evaluation", "interop"},
}


def rooms_imported(file):
    """The rooms of the package that a file imports from."""
    for node in ast.walk(ast.parse(file.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            if module.startswith("vireid_jax."):
                yield module.split(".")[1]


def test_each_room_imports_only_what_it_may():
    files = [file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py"]
    assert len(files) > 30
    for file in files:
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        forbidden = set(rooms_imported(file)) - ALLOWED[room] - {room}
        assert not forbidden, f"{file.relative_to(PACKAGE)} imports {forbidden}"


def test_pmap_is_known_to_one_file():
    knowing = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "pmap(" in file.read_text() or "jax.pmap" in file.read_text()
    ]
    assert knowing == ["training/devices.py"]


def test_the_package_imports_neither_torch_nor_tensorflow():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            assert not {name.split(".")[0] for name in names} & {"torch", "tensorflow"}, file


def test_training_starts_without_what_it_does_not_need(tmp_path):
    (tmp_path / "torch.py").touch()  # one that can be imported
    code = """if True:
        import sys, vireid_jax.training.train
        print(sorted({"sklearn", "torch"} & set(sys.modules)))
        import torch
    """
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = {"capture_output": True, "text": True, "check": True, "cwd": PACKAGE.parent}
    options["env"] = os.environ | {"PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", code], **options)
    assert run.stdout == "[]\n"
