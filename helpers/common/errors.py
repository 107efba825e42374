"""The error for a reader's mistakes, and the kinds of error that damaged files raise."""

import pickle
import struct
import time

from safetensors import SafetensorError

# What readers of pickles, tensors and settings raise on a file that is damaged or of another kind.
DAMAGED = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError),
    *(struct.error, pickle.UnpicklingError, SafetensorError),
)
_SECONDS = 0.3  # until all cells of “Run All” have arrived at the kernel


def memory_is_full(error: Exception) -> bool:
    """Whether an error means that the machine, or its GPU, has no memory left."""
    message = str(error).lower()  # only CUDA has an error class of its own for it
    return isinstance(error, MemoryError) or "out of memory" in message or "allocate memory" in message


class UserError(ValueError):
    """One sentence that says what is wrong and what to do.

    Raised for everything that a person can mistype: an address, a word, a folder, a number. A notebook
    shows the sentence alone, without a traceback. Nothing on disk has changed when it is raised.
    """

    def _render_traceback_(self) -> list[str]:
        """IPython's hook for an exception that renders itself (IPython.core.interactiveshell).

        It waits a moment: after an error the kernel drops the cells of “Run All” that have arrived, but would
        run those that arrive later.
        """
        time.sleep(_SECONDS)
        return [f"\N{HEAVY EXCLAMATION MARK SYMBOL} {self}"]


def valid_unicode(text: str) -> str:
    """The text itself; UserError where it holds a lone surrogate, which no file and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"There is half a character in {text!a}: write it again.") from None
    return text
