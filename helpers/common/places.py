"""Where things are: the repository, the shipped data, the root of all concepts."""

import contextlib
import hashlib
import os
from functools import cache
from pathlib import Path

from .errors import UserError

# There is none yet: until there is, a cloud notebook works from a zip (README, "On a cloud").
REPOSITORY_ADDRESS: str | None = None
ROOT_VARIABLE = "CONCEPTS_ROOT"
_SHOWN = 80  # letters of what was typed, in an error's sentence
# An environment variable that only this cloud sets: the cloud's name, and its folder that outlives a machine.
_CLOUDS = {
    "COLAB_RELEASE_TAG": ("colab", "/content/drive/MyDrive"),
    "KAGGLE_KERNEL_RUN_TYPE": ("kaggle", "/kaggle/working"),
    "PAPERSPACE_NOTEBOOK_REPO_ID": ("gradient", "/storage"),
    "PAPERSPACE_FQDN": ("gradient", "/storage"),
    "RUNPOD_POD_ID": ("runpod", "/workspace"),
}


def repository_folder() -> Path:
    """The folder that holds `helpers/`, `notebooks/` and `data/`."""
    return Path(__file__).resolve().parent.parent.parent


def data_folder() -> Path:
    """What ships with the series: the miniature Stable Diffusion and the grooty pictures."""
    return repository_folder() / "data"


def miniature_folder() -> Path:
    """The embedded default model, in the folder layout of Stable Diffusion 1.5."""
    return data_folder() / "miniature"


@cache
def miniature_hash() -> str:
    """A hash of the miniature's weights, which change when it is built again; its name does not."""
    digest = hashlib.sha256()
    for path in sorted(miniature_folder().rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cloud() -> str:
    """The kind of machine: `colab`, `kaggle`, `gradient`, `runpod` or `workstation`."""
    return _cloud_and_folder()[0]


def _cloud_and_folder() -> tuple[str, str]:
    found = (about for variable, about in _CLOUDS.items() if variable in os.environ)
    return next(found, ("workstation", ""))


def concepts_root() -> Path:
    """The folder of all concepts, `concepts/`, in the repository or in the folder that a cloud keeps.

    The environment variable `CONCEPTS_ROOT` overrides it; UserError if that is not the path of a folder.
    """
    if chosen := os.environ.get(ROOT_VARIABLE):
        return _chosen_root(chosen)
    _, kept = _cloud_and_folder()
    return (Path(kept) if kept and Path(kept).is_dir() else repository_folder()) / "concepts"


def _chosen_root(chosen: str) -> Path:
    try:
        root = repository_folder() / Path(chosen).expanduser()
        is_something_else = root.exists() and not root.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long a name, `~nobody`, a zero byte
        is_something_else = True
    if is_something_else:
        shown = chosen if len(chosen) <= _SHOWN else f"{chosen[:_SHOWN]}…"
        raise UserError(f"{ROOT_VARIABLE} is “{shown}”, which can't be a folder: set it to the path of one.")
    return root


def find_path(typed: str | Path, *folders: Path) -> Path | None:
    """The file or folder at a path that a person typed, in the first of `folders` that has it, or None.

    Without `folders`, the path is relative to the working folder. A name that no disk can have gives None.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        path = Path(typed).expanduser()
        return next((folder / path for folder in folders or (Path(),) if (folder / path).exists()), None)
    return None


def make_folder(folder: Path) -> Path:
    """Create a folder under the root of concepts, unless it exists.

    Raises:
        UserError: it can't be created or written to; or the disk takes its name for another concept's.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK) else "it is read-only"
    except OSError as error:
        problem = error.strerror
    if problem:
        raise UserError(
            f"Nothing can be written to {concepts_root().name}/ ({problem}): set {ROOT_VARIABLE} to another "
            "folder."
        )
    _check_spelling(folder)
    return folder


def _check_spelling(folder: Path) -> None:
    """On a disk that ignores case, `Grooty` would write into the folder of `grooty`."""
    root = concepts_root()
    if not folder.is_relative_to(root) or folder == root:
        return
    name = folder.relative_to(root).parts[0]
    there = os.listdir(root)
    if name not in there:
        twin = next(one for one in there if one.lower() == name.lower())
        raise UserError(
            f"This disk makes no difference between “{name}” and “{twin}”, which is there: write it so, or "
            "choose another name."
        )


def connection_advice() -> str:
    """What to do when a connection fails, on this kind of machine: one sentence."""
    if cloud() == "kaggle":
        return "On Kaggle, switch Internet on: in the panel at the right, under Session options."
    return "Check your connection, then try again."


def mount_drive() -> None:
    """On Colab, mount Google Drive so that concepts outlive the machine; then print where they are."""
    if cloud() == "colab":
        from google.colab import drive

        try:
            drive.mount("/content/drive")
        except Exception as error:  # of several kinds, depending on how the request was declined
            raise UserError(
                "Drive is not mounted: run this cell again, or go on without it and download the "
                "concept as a zip before the machine is shut down."
            ) from error
    print(f"Concepts are kept in the folder “{concepts_root().name}” ({cloud()}).")
