"""The source of a function, as the package has it, in colours."""

import inspect
from collections.abc import Callable

from IPython.display import Code


def show_source(*functions: Callable) -> Code:
    """Show the very source that runs, not a copy of it."""
    return Code("\n\n".join(inspect.getsource(function) for function in functions), language="python")
