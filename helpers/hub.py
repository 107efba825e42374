"""Fetching a base model from a hub, and logging in where it asks for that.

Which hub is `huggingface_hub`'s business: it reads the variables `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`.
"""

import re
from collections.abc import Collection
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

from .errors import UserError
from .hub_answers import clear_sentences, connection_errors, is_refusal

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
    with clear_sentences(repository):
        try:
            files = huggingface_hub.list_repo_files(repository)
        except connection_errors() as error:
            if is_refusal(error):
                raise
            return _fetched_before(repository, error)
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


def check_access(repository: str) -> None:
    """Ask the hub whether a repository may be read, and fetch nothing.

    Where the hub does not answer, nothing happens: what was fetched before may be enough.

    Raises:
        UserError: the repository is missing, private or gated, or the token is refused.
    """
    with clear_sentences(repository):
        try:
            huggingface_hub.auth_check(repository)
        except connection_errors() as error:
            if is_refusal(error):
                raise


def login(repository: str) -> str:
    """Ask for a login only where the repository wants one and no token is found.

    Returns:
        One sentence on what was done.

    Raises:
        UserError: the repository is missing or private, or the token does not open it.
    """
    token = huggingface_hub.get_token()
    with clear_sentences(repository):
        try:
            huggingface_hub.auth_check(repository)
        except connection_errors() as error:
            if isinstance(error, GatedRepoError) and not token:
                return _ask_for_token(repository)
            if is_refusal(error):
                raise
            return "The hub can't be asked now: what was fetched before can still be used."
    whom = "to your token" if token else "to everyone"
    return f"{repository} is open {whom}: no login is needed."


def _fetched_before(repository: str, error: Exception) -> Path:
    try:
        return Path(
            huggingface_hub.snapshot_download(repository, allow_patterns=_SETTINGS, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        raise error from None


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
