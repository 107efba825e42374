"""Find a Web UI on this machine, put an embedding where it looks, and say how to start it."""

import filecmp
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..common import places
from ..common.errors import UserError
from ..common.files import write_whole
from ..common.places import find_path
from .formats import read_word
from .running import StartedProgram

NAMES = {
    "automatic1111": "AUTOMATIC1111",
    "forge": "Forge",
    "sdnext": "SD.Next",
    "comfyui": "ComfyUI",
    "invokeai": "InvokeAI",
}
LAUNCHED = ("automatic1111", "forge", "sdnext")  # one family, with the same options on the command line
# What tells a program's folder from another's. The forks of AUTOMATIC1111 are asked before it.
_SIGNS = {
    "forge": ("launch.py", "modules_forge"),
    "sdnext": ("launch.py", "installer.py", "modules/textual_inversion"),
    "automatic1111": ("launch.py", "modules/textual_inversion"),
    "comfyui": ("main.py", "comfy"),
    "invokeai": ("invokeai.yaml",),
}
_EMBEDDINGS = {
    "automatic1111": "embeddings",
    "forge": "embeddings",
    "sdnext": "models/embeddings",
    "comfyui": "models/embeddings",
}
_CHECKPOINTS = "models/Stable-diffusion"
_FILE_TYPES = {".safetensors", ".pt", ".bin", ".png"}
_CLOUD_FOLDERS = (
    "/notebooks",  # Gradient
    "/storage",
    "/content",  # Colab
    "/content/drive/MyDrive",
    "/kaggle/working",
    "/workspace",  # RunPod
    "/opt",  # containers
)


class EmbeddingExists(UserError):
    """Another embedding of the same file name is there: whether to overwrite it is a person's choice.

    Attributes:
        question: to be asked before it is.
    """

    def __init__(self, place: str):
        """`place` is where it is, as a person calls it."""
        self.question = f"There is another {place}. Overwrite it?"
        super().__init__(
            f"There is another {place}: pass replace=True to overwrite it, or name your concept otherwise."
        )


@dataclass(frozen=True)
class WebUI:
    """A program on this machine; `program` is a key of `NAMES`."""

    program: str
    folder: Path

    @property
    def embeddings_folder(self) -> Path | None:
        """Where it looks for embeddings; None for InvokeAI, which takes them in its model manager."""
        inside = _EMBEDDINGS.get(self.program)
        return inside and self.folder / inside

    @property
    def checkpoints(self) -> list[Path]:
        """Base models that it can be started with; none where they are chosen in its window."""
        folder = self.folder / _CHECKPOINTS
        found = sorted(folder.rglob("*")) if self.program in LAUNCHED else []
        return [path for path in found if path.suffix in (".safetensors", ".ckpt")]


def web_ui_at(folder: Path | str) -> WebUI:
    """The Web UI in a folder.

    Raises:
        UserError: the folder is not there, or is not the main folder of a Web UI.
    """
    found = find_path(folder)
    if not (found and found.is_dir()):
        raise UserError(f"There is no folder {folder}: give the one that the Web UI was installed into.")
    program = _program_in(found)
    if program is None:
        raise UserError(
            f"{found} is not the main folder of a Web UI: give the one that holds launch.py "
            "(AUTOMATIC1111, Forge, SD.Next), main.py (ComfyUI) or invokeai.yaml (InvokeAI)."
        )
    return WebUI(program, found)


def find_web_uis(folders: Iterable[Path | str] | None = None) -> list[WebUI]:
    """Look for Web UIs in folders and in the folders directly inside them.

    Args:
        folders: where to look; None: beside this repository, at home, and where clouds keep files.
    """
    usual = [places.repository_folder().parent, Path.home(), *_CLOUD_FOLDERS]
    starts = map(Path, usual if folders is None else folders)
    candidates = dict.fromkeys(path.resolve() for start in starts for path in (start, *_inside(start)))
    found = ((_program_in(folder), folder) for folder in candidates)
    return [WebUI(program, folder) for program, folder in found if program]


def put_embedding(file: Path, web_ui: WebUI, replace: bool = False) -> Path:
    """Copy an exported file to where the Web UI looks for embeddings.

    Args:
        replace: overwrite another embedding of the same file name.

    Returns:
        The copy's path.

    Raises:
        EmbeddingExists: there is another embedding of that name.
        UserError: InvokeAI, which wants the file in its model manager; the word has another file; or the
            folder can't be written to. Nothing was changed then.
    """
    folder = web_ui.embeddings_folder
    if folder is None:
        raise UserError(
            "InvokeAI keeps its own list: open Models, Add Model, paste the path of "
            f"{file.name} from the concept's export folder, and choose Install."
        )
    target = folder / file.name
    for other in _of_the_same_name(target, folder):
        if other != target:
            raise UserError(
                f"{other.relative_to(web_ui.folder)} gives the same word in {NAMES[web_ui.program]}: "
                "move it away first, or name your concept otherwise."
            )
        if not replace and not _is_same_word(file, target):
            raise EmbeddingExists(f"{file.name} in {NAMES[web_ui.program]}'s {folder.name}/")
    try:
        return write_whole(target, file.read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} can't be written to ({error.strerror}): copy {file} there yourself."
        ) from error


def start_command(web_ui: WebUI, checkpoint: Path | str | None = None, share: bool = False) -> str:
    """The line that starts a Web UI, to be typed into a terminal.

    Args:
        checkpoint: the base model as a file. ComfyUI and InvokeAI choose it in their window instead.
        share: ask for a public address, which is open to anyone who has it. ComfyUI and InvokeAI have none.

    Raises:
        UserError: the checkpoint is not there.
    """
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return f"cd {join([str(web_ui.folder)])} && {join(_words(web_ui, checkpoint, share))}"


_STARTED: dict[Path, StartedProgram] = {}  # by the Web UI's folder: what this process has started


def start_web_ui(web_ui: WebUI, checkpoint: Path | str | None = None, share: bool = False) -> StartedProgram:
    """Start a Web UI, as `start_command` would. It ends with this process at the latest.

    Raises:
        UserError: the checkpoint is not there, it is running already, or it can't be started.
    """
    if running_web_ui(web_ui):
        raise UserError(f"{NAMES[web_ui.program]} is running already: stop it first.")
    _STARTED[web_ui.folder] = StartedProgram(_words(web_ui, checkpoint, share), web_ui.folder)
    return _STARTED[web_ui.folder]


def running_web_ui(web_ui: WebUI) -> StartedProgram | None:
    """What `start_web_ui` started in this process, as long as it runs."""
    program = _STARTED.get(web_ui.folder)
    return program if program and program.is_running else None


def _words(web_ui: WebUI, checkpoint: Path | str | None, share: bool) -> list[str]:
    """The command line, word by word."""
    if web_ui.program == "invokeai":
        own = _own(web_ui.folder, "invokeai-web") or shutil.which("invokeai-web") or "invokeai-web"
        return [own, "--root", str(web_ui.folder)]
    if web_ui.program == "comfyui":
        return [_own(web_ui.folder, "python") or sys.executable, "main.py"]
    words = [*_launcher(web_ui.folder), *(["--share"] if share else [])]
    if checkpoint is not None:
        found = find_path(checkpoint)
        if not (found and found.is_file()):
            raise UserError(f"There is no checkpoint {checkpoint}: give a .safetensors or .ckpt file.")
        words += ["--ckpt", str(found.resolve())]
    return words


def _launcher(folder: Path) -> list[str]:
    """`python launch.py` in the program's own environment, or the script that makes it one.

    Never our Python: launch.py would install the versions that it wants over those of the notebooks.
    """
    if own := _own(folder, "python"):
        return [own, "launch.py"]
    if os.name == "nt":
        return [str(folder / "webui.bat")]
    return ["bash", "webui.sh", *(["-f"] if os.geteuid() == 0 else [])]  # -f: as root, too


def _own(folder: Path, name: str) -> str | None:
    """A command of the program's own virtual environment, if it has one with that command."""
    inside, suffix = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
    paths = [folder / venv / inside / f"{name}{suffix}" for venv in ("venv", ".venv")]
    return next((str(path) for path in paths if path.is_file()), None)


def _program_in(folder: Path) -> str | None:
    for program, signs in _SIGNS.items():
        if all((folder / sign).exists() for sign in signs):
            return program
    return None


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # not there, or not ours to read
        return []


def _of_the_same_name(target: Path, folder: Path) -> list[Path]:
    """Embeddings anywhere below the folder that give the same word.

    Programs look in subfolders too, and some take capitals for small letters.
    """
    word = target.stem.casefold()
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix.lower() in _FILE_TYPES and path.stem.casefold() == word
    ]


def _is_same_word(file: Path, other: Path) -> bool:
    """The same numbers for the same text encoders; keys and notes don't count."""
    if filecmp.cmp(file, other, shallow=False):
        return True
    try:
        ours, theirs = read_word(file).rows, read_word(other).rows
    except UserError:
        return False
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
