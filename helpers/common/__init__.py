"""What every room uses: errors, places, files and locks, progress bars, pictures and figures."""

from .errors import UserError
from .places import mount_drive
from .progress import progress
from .sheets import described, finish, image_grid, new_figure, say
