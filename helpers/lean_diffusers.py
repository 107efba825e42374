"""diffusers without bitsandbytes.

diffusers' model classes import bitsandbytes where it is installed, and bitsandbytes asks the GPU for
its capabilities. `accelerate.notebook_launcher` then refuses to start more than one process, as on
Kaggle's two T4. None of this series' helpers needs that link: the trainer quantises layers itself.
"""

from types import ModuleType
from unittest import mock


def diffusers() -> ModuleType:
    """Import diffusers so that neither its models nor its pipelines import bitsandbytes."""
    import diffusers
    from diffusers.utils import import_utils

    with mock.patch.object(import_utils, "_bitsandbytes_available", False):
        import diffusers.models.modeling_utils
    return diffusers
