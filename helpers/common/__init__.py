"""What every room stands on: errors, places, files and locks, progress bars, pictures and figures.

It knows nothing of concepts or models.
"""

from .errors import UserError
from .places import concepts_root, data_folder, mount_drive
from .progress import progress
from .sheets import Described, described, finish, html_table, image_grid, new_figure, say
