"""Importing diffusers without bitsandbytes, and loading without either library's remarks.

bitsandbytes, where it is installed, starts CUDA when it is imported, and a process that has started CUDA
can't be copied for a second GPU.
"""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

import transformers


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars, notices or warnings of transformers and diffusers while a model is read from disk."""
    with contextlib.ExitStack() as stack:
        for library in (transformers.utils.logging, diffusers().utils.logging):
            stack.callback(library.set_verbosity, library.get_verbosity())
            if library.is_progress_bar_enabled():
                stack.callback(library.enable_progress_bar)
            library.set_verbosity_error()
            library.disable_progress_bar()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", FutureWarning)
        yield


def bitsandbytes() -> ModuleType:
    """Import bitsandbytes without its remark on a faster 4-bit kernel for drawing on some processors.

    It would have to be fetched, and has no gradient: `quantize` does without it.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


def diffusers() -> ModuleType:
    """Import diffusers so that neither its models nor its pipelines, nor peft, import bitsandbytes."""
    import diffusers
    from diffusers.utils import import_utils

    with mock.patch.object(import_utils, "_bitsandbytes_available", False), _hidden("bitsandbytes"):
        import diffusers.models.modeling_utils
        from peft.import_utils import is_bnb_available

        is_bnb_available()  # peft keeps the answer
    return diffusers


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Who asks meanwhile whether there is such a module hears no; not so where it was imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
