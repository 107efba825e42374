"""Fetching a base model from a hub, and one clear sentence for each thing that can go wrong.

Which hub is `huggingface_hub`'s business: it reads the variables `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`.
"""

import contextlib
import errno
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from . import places
from .errors import UserError

_SETTINGS = ["*.json", "*.txt"]
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_|pytorch_)?model(?P<half>\.fp16)?(?:-\d+-of-\d+)?\.(?P<type>safetensors|bin)"
)
# huggingface_hub lets the errors of its HTTP client through, and has changed that client twice.
_HTTP_CLIENTS = {"httpx2": "HTTPError", "httpx": "HTTPError", "requests": "RequestException"}


def fetch(repository: str, parts: Collection[str] = (), half: bool = False) -> Path:
    """Download a repository's settings, and the weights of some of its parts, into the hub's cache.

    What is there already is not fetched again; without a connection the cache alone is used.

    Args:
        repository: `owner/name`.
        parts: the folders whose weights are wanted, for example `unet`.
        half: prefer the files in half precision (`fp16`) where the repository has them.

    Returns:
        The folder, in diffusers' layout.

    Raises:
        UserError: the repository is missing, private or gated, the connection broke, or the disk is full.
    """
    with _clear_sentences(repository):
        try:
            files = huggingface_hub.list_repo_files(repository)
        except (OfflineModeIsEnabled, *_connection_errors()) as error:
            if isinstance(error, RepositoryNotFoundError):
                raise
            return Path(
                huggingface_hub.snapshot_download(repository, allow_patterns=_SETTINGS, local_files_only=True)
            )
        wanted = [file for part in parts for file in weight_files(files, part, half)]
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=[*_SETTINGS, *wanted]))


def weight_files(files: Collection[str], part: str, half: bool) -> list[str]:
    """Those of a repository's files that hold the weights of `part`, in one format only.

    safetensors goes before pickles, and half precision before full where `half` is asked for.
    """
    found = {}
    for file in files:
        match = _WEIGHTS.fullmatch(file.removeprefix(f"{part}/"))
        if match and file.startswith(f"{part}/"):
            found.setdefault((match["type"] == "safetensors", bool(match["half"]) == half), []).append(file)
    return found[max(found)] if found else []


def login(repository: str) -> str:
    """Ask for a login only where the repository wants one and no token is found.

    Returns:
        One sentence on what was done.
    """
    if huggingface_hub.get_token():
        return "A token for the hub is here already: nothing to do."
    try:
        huggingface_hub.auth_check(repository)
    except RepositoryNotFoundError:  # also one that is gated
        huggingface_hub.notebook_login()
        return (
            f"{repository} is gated, private or misspelt: accept its licence on its page, and log in above."
        )
    except (OfflineModeIsEnabled, *_connection_errors()):
        return "The hub can't be asked now: what was fetched before can still be used."
    return f"{repository} is open to everyone: no login is needed."


@contextlib.contextmanager
def _clear_sentences(repository: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{repository} is gated: accept its licence on its page, then run the login cell of notebook 2."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"The hub has no repository “{repository}”, or it is private: check the spelling, or run the "
            "login cell of notebook 2."
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, *_connection_errors()) as error:
        raise UserError(_connection_sentence(repository, error)) from error


def _connection_errors() -> tuple[type[Exception], ...]:
    clients = [
        getattr(sys.modules[name], error) for name, error in _HTTP_CLIENTS.items() if name in sys.modules
    ]
    return (*clients, OSError)


def _connection_sentence(repository: str, error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"The disk is full: make room in {constants.HF_HUB_CACHE}, then run the cell again."
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set and {repository} was never fetched: unset it, then restart."
    if places.cloud() == "kaggle":
        return (
            f"{repository} can't be fetched: switch on Internet in the notebook's settings, then try again."
        )
    return f"The connection broke while fetching {repository}: run the cell again, finished files are kept."
