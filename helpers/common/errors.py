"""What a person sees when something they typed can't be used."""

import pickle
import struct
import time

from safetensors import SafetensorError

# What readers of pickles, tensors and settings raise where a file is damaged, or of another kind.
DAMAGED = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError),
    *(struct.error, pickle.UnpicklingError, SafetensorError),
)
_SECONDS = 0.3  # in which the cells of “Run All” arrive


def memory_is_full(error: Exception) -> bool:
    """Whether an error says that the machine, or its GPU, has no memory left."""
    said = str(error).lower()  # only CUDA has a class of its own for it
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said


class UserError(ValueError):
    """One clear sentence that says what to do.

    Raised for everything a person can mistype: an address, a word, a folder, a number.
    In a notebook IPython shows the sentence alone, without a traceback; in a script the
    message is the same. Nothing on disk has changed when it is raised.
    """

    def _render_traceback_(self) -> list[str]:
        """IPython's hook for an exception that draws itself (IPython.core.interactiveshell).

        It waits a moment: after an error the kernel drops the cells that have arrived, and would run
        those of “Run All” that were still on their way.
        """
        time.sleep(_SECONDS)
        return [f"\N{HEAVY EXCLAMATION MARK SYMBOL} {self}"]


def whole_text(text: str) -> str:
    """The text itself, where it can be encoded.

    Raises:
        UserError: it holds a lone surrogate, which no file and no tokenizer takes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"There is half a character in {text!a}: write it anew.") from None
    return text
