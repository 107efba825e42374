"""What holds for the repository as a whole."""

import importlib
import re
import subprocess

import pytest

from helpers.common import places

# Written in pieces, since this file is searched as well.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("huggingface", "co"),
        ("hf", "co"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pytorch", "org"),
        ("npmjs", "org"),
        ("debian", "org"),
    )
]
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "LICENSE",
    "Makefile",
    "README.md",
    "concepts",
    "constraints.txt",
    "data",
    "helpers",
    "notebooks",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements.txt",
    "tests",
}
TWO_MB = 2 * 1024 * 1024


@pytest.fixture(scope="module")
def tracked():
    """The committed files, relative to the repository."""
    root = places.repository_folder()
    if not (root / ".git").exists():
        pytest.skip("this is a zip, not a clone: there is no list of committed files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if (root / name).is_file()]


def test_the_top_level_stays_small(tracked):
    assert {name.split("/")[0] for name in tracked} <= TOP_LEVEL


def test_no_file_names_a_registry(tracked):
    hosts = re.compile("|".join(rf"\b{re.escape(host)}\b" for host in REGISTRIES).encode())
    assert not [name for name in tracked if hosts.search((places.repository_folder() / name).read_bytes())]


def test_only_the_miniature_is_heavy(tracked):
    heavy = [name for name in tracked if (places.repository_folder() / name).stat().st_size > TWO_MB]
    assert all(name.startswith("data/miniature/") for name in heavy), heavy


def test_the_miniature_is_forty_megabytes_at_most(tracked):
    weights = [places.repository_folder() / name for name in tracked if name.endswith(".safetensors")]
    assert sum(path.stat().st_size for path in weights) <= 40_000_000


def test_constraints_pin_every_requirement():
    root = places.repository_folder()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in _lines(root / "constraints.txt")}
    for line in _lines(root / "requirements.txt") + _lines(root / "requirements-dev.txt"):
        assert line.split(">=")[0].lower().replace("_", "-") in pinned


@pytest.mark.parametrize("path", ["Anna's cat photos", "a $cat/$(HOME)/${x}/$$", 'a "cat" #1 \\ %'])
def test_make_hands_over_a_path_as_it_was_typed(path, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    ran = subprocess.run(
        ["make", "run", f"PYTHON={python}", "CONCEPT=cat", f"IMAGES={path}"],
        cwd=places.repository_folder(),
        capture_output=True,
        text=True,
    )
    given = ran.stdout.splitlines()
    assert given[given.index("--images") + 1] == path, ran.stderr
    assert given[given.index("--concept") + 1] == "cat"
    assert given[given.index("--base-model") + 1] == ""


def test_make_lists_every_command():
    root = places.repository_folder()
    [phony] = re.findall(r"^\.PHONY: (.*)", (root / "Makefile").read_text(), re.MULTILINE)
    command = ["make", "--no-print-directory"]  # `make test` would have its folder printed
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    names = {name for line in listed.splitlines() for name in re.split(r"  +", line)[0].split()}
    assert names == set(phony.split()) - {"always"}


def test_every_file_that_the_readme_names_is_there():
    readme = (places.repository_folder() / "README.md").read_text()
    named = re.findall(r"\]\((?!https?:)([^)]+)\)", readme)
    assert {"data/readme.webp", "data/the_word_comes.webp"} <= set(named)
    assert not [path for path in named if not (places.repository_folder() / path).exists()]


def test_every_module_that_only_a_command_runs_finds_what_it_imports():
    """`make bench`, `make truth` and `make trust` are run by people, rarely: no other test would see it."""
    tests = places.repository_folder() / "tests"
    for path in sorted(tests.glob("*/*.py")):
        if path.name.startswith(("test_", "conftest")):
            continue
        try:
            importlib.import_module(".".join(path.relative_to(tests.parent).with_suffix("").parts))
        except ModuleNotFoundError as error:  # another program's own code, which is tried by hand
            assert error.name.split(".")[0] not in ("helpers", "tests"), error


def _lines(path):
    return [line for line in path.read_text().splitlines() if line and not line.startswith(("#", "-r"))]
