"""A program with its children, started here: what it writes, the addresses where it answers, and its end."""

import atexit
import codecs
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import requests

from ..common.errors import UserError

_KEPT = 40_000  # characters of its output
_GRACE = 10.0  # seconds between being asked to end and being killed
_EVERY = 0.5  # seconds between two looks whether it answers
# gradio, SD.Next, ComfyUI, and uvicorn under InvokeAI, each in its own words
_SAYS_WHERE = re.compile(r"(?:running on|go to|\burl)\b[^\n]*?(https?://[\w.:/-]*\w)", re.IGNORECASE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")  # earlier states of a progress bar
# A kernel's own, which mean something else or nothing at all in another program's environment.
_NOT_HANDED_ON = ("MPLBACKEND", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")


class StartedProgram:
    """It runs in a process group of its own, and ends with this process at the latest.

    Attributes:
        addresses: where it said it can be opened, and answers.
    """

    def __init__(self, words: Sequence[str], folder: Path):
        """Start it.

        Args:
            words: the command line.
            folder: where it runs.

        Raises:
            UserError: there is no such command.
        """
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
        """The last of what it has written, as a terminal would show it."""
        return _OVERWRITTEN.sub("", _COLOURS.sub("", self._written))

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def end(self) -> str:
        """How it ended, in a sentence; empty while it runs."""
        if self.is_running:
            return ""
        if self._stopped:
            return "It was stopped."
        return f"It ended by itself, with exit code {self._process.returncode}: its last lines say why."

    def wait(self, seconds: float) -> bool:
        """Wait for its end, so long at most; whether it came."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_running

    def stop(self) -> None:
        """End it and its children: asked first, killed where that does nothing for ten seconds."""
        if self.is_running:
            self._stopped = True
            self._signal(signal.SIGTERM)
            self.wait(_GRACE)
            self._kill()
        self._watcher.join()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self._process.stdout as pipe:
            while piece := pipe.read1():
                self._written = (self._written + decoder.decode(piece))[-_KEPT:]

    def _watch(self) -> None:
        """Look for addresses until it ends; what it has left behind ends then, too."""
        while not self.wait(_EVERY):
            for address in dict.fromkeys(_SAYS_WHERE.findall(self.output)):
                address = address.replace("//0.0.0.0", "//127.0.0.1")
                if address not in self.addresses and _answers(address):
                    self.addresses.append(address)
        self._kill()
        atexit.unregister(self.stop)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)

    def _signal(self, number: int) -> None:
        """To it and all its children, which have its process group."""
        if os.name == "nt":
            command = ["taskkill", "/F", "/T", "/PID", str(self._process.pid)]
            subprocess.run(command, capture_output=True, check=False)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses it to zombies
            os.killpg(self._process.pid, number)


def _environment() -> dict[str, str]:
    """This process's, without what belongs to its own environment alone."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON}
    if sys.prefix != sys.base_prefix:
        own = str(Path(sys.executable).parent)
        folders = kept.get("PATH", os.defpath).split(os.pathsep)
        kept["PATH"] = os.pathsep.join(folder for folder in folders if folder != own)
    return kept | {"PYTHONUNBUFFERED": "1"}


def _answers(address: str) -> bool:
    """Whether anything answers there, a refusal included."""
    with requests.Session() as session:
        session.trust_env = not re.search("//(127[.]|localhost)", address)  # no proxy leads to this machine
        try:
            session.get(address, timeout=5, stream=True).close()
        except (requests.RequestException, ValueError):
            return False
    return True
