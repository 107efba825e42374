"""What every room stands on: errors, places, files and locks, progress bars, pictures and figures.

It knows nothing of concepts or models.
"""

from .errors import UserError
from .places import mount_drive
from .progress import progress
from .sheets import described, finish, image_grid, new_figure, say
