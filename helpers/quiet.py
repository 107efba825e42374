"""Loading without the libraries' remarks: what is wrong becomes a sentence of our own instead."""

import contextlib
import warnings
from collections.abc import Iterator

import transformers

from .lean_diffusers import diffusers


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars, notices or warnings of transformers and diffusers while a model is read from disk."""
    with contextlib.ExitStack() as stack:
        for logging in (transformers.utils.logging, diffusers().utils.logging):
            stack.callback(logging.set_verbosity, logging.get_verbosity())
            if logging.is_progress_bar_enabled():
                stack.callback(logging.enable_progress_bar)
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", FutureWarning)
        yield
