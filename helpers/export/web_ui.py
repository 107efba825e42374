"""Find a Web UI on this machine, copy an embedding to where it looks, start it, and follow its output.

A folder, a file or a program that can't be used is a `UserError`.
"""

import atexit
import codecs
import contextlib
import filecmp
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import requests
import torch

from ..common import places
from ..common.errors import UserError
from ..common.files import write_whole
from .formats import read_word


class _Program(NamedTuple):
    name: str
    embeddings: str | None  # its folder for them; None: it has a model manager
    marks: str  # files and folders by which its main folder is recognized


_PROGRAMS = {  # AUTOMATIC1111 after its forks, which have its files, too
    "forge": _Program("Forge", "embeddings", "launch.py modules_forge"),
    "sdnext": _Program("SD.Next", "models/embeddings", "launch.py installer.py modules/textual_inversion"),
    "automatic1111": _Program("AUTOMATIC1111", "embeddings", "launch.py modules/textual_inversion"),
    "comfyui": _Program("ComfyUI", "models/embeddings", "main.py comfy"),
    "invokeai": _Program("InvokeAI", None, "invokeai.yaml"),
}
NAMES = {program: about.name for program, about in _PROGRAMS.items()}
LAUNCHED = ("automatic1111", "forge", "sdnext")  # one family, with the same options on the command line
_CHECKPOINTS = "models/Stable-diffusion"
_FILE_TYPES = {".safetensors", ".pt", ".bin", ".png"}
_CLOUD_FOLDERS = "/notebooks /storage /content /content/drive/MyDrive /kaggle/working /workspace /opt".split()


@dataclass(frozen=True)
class WebUI:
    """A program on this machine; `program` is a key of `NAMES`."""

    program: str
    folder: Path

    @property
    def embeddings_folder(self) -> Path | None:
        """Where it looks for embeddings; None for InvokeAI, which takes them in its model manager."""
        inside = _PROGRAMS[self.program].embeddings
        return inside and self.folder / inside

    @property
    def checkpoints(self) -> list[Path]:
        """Base models that it can be started with; none where a person chooses them in its window."""
        found = sorted((self.folder / _CHECKPOINTS).rglob("*")) if self.program in LAUNCHED else []
        return [path for path in found if path.suffix in (".safetensors", ".ckpt")]


def web_ui_at(folder: Path | str) -> WebUI:
    """The Web UI whose main folder this is."""
    found = places.find_path(folder)
    if not (found and found.is_dir()):
        raise UserError(f"There is no folder {folder}: give the one that the Web UI was installed into.")
    if program := _program_in(found):
        return WebUI(program, found)
    raise UserError(
        f"{found} is not the main folder of a Web UI: give the one that holds launch.py "
        "(AUTOMATIC1111, Forge, SD.Next), main.py (ComfyUI) or invokeai.yaml (InvokeAI)."
    )


def find_web_uis(folders: Iterable[Path | str] | None = None) -> list[WebUI]:
    """Look for Web UIs in folders and in the folders directly inside them.

    Args:
        folders: where to look; None: beside this repository, at home, and where clouds keep files.
    """
    usual = [places.repository_folder().parent, Path.home(), *_CLOUD_FOLDERS]
    candidates = {}
    for start in map(Path, usual if folders is None else folders):
        with contextlib.suppress(OSError):  # not there, or not ours to read
            inside = sorted(path for path in start.iterdir() if path.is_dir())
            candidates |= dict.fromkeys(path.resolve() for path in (start, *inside))
    found = ((_program_in(folder), folder) for folder in candidates)
    return [WebUI(program, folder) for program, folder in found if program]


def _program_in(folder: Path) -> str | None:
    for program, about in _PROGRAMS.items():
        if all((folder / mark).exists() for mark in about.marks.split()):
            return program
    return None


# The word's file.


class EmbeddingExists(UserError):
    """There is another embedding of that file name; `question` asks whether to overwrite it."""

    def __init__(self, place: str):
        """`place` says which file it is and where."""
        self.question = f"There is another {place}. Overwrite it?"
        super().__init__(
            f"There is another {place}: pass replace=True to overwrite it, or name your concept otherwise."
        )


def put_embedding(file: Path, web_ui: WebUI, replace: bool = False) -> Path:
    """Copy an exported file to where the Web UI looks for embeddings; returns the copy's path.

    Args:
        replace: overwrite another embedding of the same file name.

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
    for other in _of_the_same_word(target):
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


def _of_the_same_word(target: Path) -> list[Path]:
    """Embeddings of that name, also in subfolders and in other case: some programs make no difference."""
    return [
        path
        for path in sorted(target.parent.rglob("*"))
        if path.stem.casefold() == target.stem.casefold()
        and path.suffix.lower() in _FILE_TYPES
        and path.is_file()
    ]


def _is_same_word(file: Path, other: Path) -> bool:
    """Whether both have the same rows for the same text encoders; keys and notes don't count."""
    if filecmp.cmp(file, other, shallow=False):
        return True
    try:
        ours, theirs = read_word(file).rows, read_word(other).rows
    except UserError:
        return False
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


# Starting the program. `checkpoint` is the base model's file; `share` asks for a public address, which is
# open to anyone who knows it. ComfyUI and InvokeAI have no such options.


def start_command(web_ui: WebUI, checkpoint: Path | str | None = None, share: bool = False) -> str:
    """The line that starts a Web UI, to be typed into a terminal."""
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return f"cd {join([str(web_ui.folder)])} && {join(_command_line(web_ui, checkpoint, share))}"


def start_web_ui(
    web_ui: WebUI, checkpoint: Path | str | None = None, share: bool = False
) -> "StartedProgram":
    """Start a Web UI that is not running, as `start_command` would."""
    if running_web_ui(web_ui):
        raise UserError(f"{NAMES[web_ui.program]} is running already: stop it first.")
    _STARTED[web_ui.folder] = StartedProgram(_command_line(web_ui, checkpoint, share), web_ui.folder)
    return _STARTED[web_ui.folder]


def running_web_ui(web_ui: WebUI) -> "StartedProgram | None":
    """What `start_web_ui` started in this process, while it runs."""
    program = _STARTED.get(web_ui.folder)
    return program if program and program.is_running else None


def _command_line(web_ui: WebUI, checkpoint: Path | str | None, share: bool) -> list[str]:
    folder = web_ui.folder
    if web_ui.program == "invokeai":
        own = _venv_command(folder, "invokeai-web") or shutil.which("invokeai-web") or "invokeai-web"
        return [own, "--root", str(folder)]
    if web_ui.program == "comfyui":
        return [_venv_command(folder, "python") or sys.executable, "main.py"]
    words = [*_launcher(folder), *(["--share"] if share else [])]
    if checkpoint is not None:
        found = places.find_path(checkpoint)
        if not (found and found.is_file()):
            raise UserError(f"There is no checkpoint {checkpoint}: give a .safetensors or .ckpt file.")
        words += ["--ckpt", str(found.resolve())]
    return words


def _launcher(folder: Path) -> list[str]:
    """`python launch.py` in the program's own environment, or the script that makes it one.

    Never our Python: launch.py would install the versions that it wants over those of the notebooks.
    """
    if own := _venv_command(folder, "python"):
        return [own, "launch.py"]
    if os.name == "nt":
        return [str(folder / "webui.bat")]
    return ["bash", "webui.sh", *(["-f"] if os.geteuid() == 0 else [])]  # -f: as root, too


def _venv_command(folder: Path, name: str) -> str | None:
    """A command in the program's own virtual environment; None where there is none."""
    command = f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}"
    paths = [folder / venv / command for venv in ("venv", ".venv")]
    return next((str(path) for path in paths if path.is_file()), None)


_KEPT = 40_000  # characters of a program's output
_GRACE_SECONDS = 10.0  # between being asked to end and being killed
_POLL_SECONDS = 0.5  # between two looks for addresses
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has none
# gradio, SD.Next, ComfyUI, and uvicorn under InvokeAI, each in its own words
_SAYS_WHERE = re.compile(r"(?:running on|go to|\burl)\b[^\n]*?(https?://[\w.:/-]*\w)", re.IGNORECASE)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")  # earlier states of a progress bar
# Variables of a Jupyter kernel that are wrong in another program's environment.
_NOT_INHERITED = ("MPLBACKEND", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")


class StartedProgram:
    """A program in a process group of its own, which ends with this process at the latest.

    Attributes:
        addresses: those that it has printed and that answer.
    """

    def __init__(self, words: Sequence[str], folder: Path):
        """Run the command line `words` in `folder`."""
        try:
            self._process = subprocess.Popen(
                words,
                cwd=folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(
                f"{words[0]} can't be started ({error.strerror}): see how it is installed."
            ) from error
        self.addresses: list[str] = []
        self._written, self._stopped = "", False
        atexit.register(self.stop)
        threading.Thread(target=self._read, daemon=True).start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def output(self) -> str:
        """The end of its output, as a terminal would show it."""
        return _OVERWRITTEN.sub("", _ESCAPES.sub("", self._written))

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def end(self) -> str:
        """A sentence on how it ended; empty while it runs."""
        if self.is_running:
            return ""
        if self._stopped:
            return "It was stopped."
        return f"It ended by itself, with exit code {self._process.returncode}: its last lines say why."

    def wait(self, seconds: float) -> bool:
        """Wait for its end, for at most this long; whether it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_running

    def stop(self) -> None:
        """End it and its children: SIGTERM, and after ten seconds SIGKILL."""
        if self.is_running:
            self._stopped = True
            self._signal(signal.SIGTERM)
            self.wait(_GRACE_SECONDS)
            self._signal(_KILL)
        self._watcher.join()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self._process.stdout as pipe:
            while piece := pipe.read1():
                self._written = (self._written + decoder.decode(piece))[-_KEPT:]

    def _watch(self) -> None:
        """Look for addresses until it ends; then kill what is left of its process group."""
        while not self.wait(_POLL_SECONDS):
            for address in dict.fromkeys(_SAYS_WHERE.findall(self.output)):
                address = address.replace("//0.0.0.0", "//127.0.0.1")
                if address not in self.addresses and _answers(address):
                    self.addresses.append(address)
        self._signal(_KILL)
        atexit.unregister(self.stop)

    def _signal(self, number: int) -> None:
        """Send a signal to its process group: itself and its children."""
        if os.name == "nt":
            command = ["taskkill", "/F", "/T", "/PID", str(self._process.pid)]
            subprocess.run(command, capture_output=True, check=False)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses it to zombies
            os.killpg(self._process.pid, number)


_STARTED: dict[Path, StartedProgram] = {}  # by the Web UI's folder: what this process has started


def _environment() -> dict[str, str]:
    """The environment variables, without those of our own virtual environment."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    if sys.prefix != sys.base_prefix:
        own = str(Path(sys.executable).parent)
        folders = kept.get("PATH", os.defpath).split(os.pathsep)
        kept["PATH"] = os.pathsep.join(folder for folder in folders if folder != own)
    return kept | {"PYTHONUNBUFFERED": "1"}


def _answers(address: str) -> bool:
    """Whether anything answers there, even if it refuses."""
    with requests.Session() as session:
        session.trust_env = not re.search("//(127[.]|localhost)", address)  # no proxy leads to this machine
        try:
            session.get(address, timeout=5, stream=True).close()
        except (requests.RequestException, ValueError):
            return False
    return True
