"""What a word is learned from: pictures fetched, checked and kept, and their captions.

Notebook 3 shows, and training draws from, the data set that is made of them.
"""

from .check import fingerprint, open_picture
from .dataset import TextualInversionDataset, crop, held_out_templates, resize, training_templates
from .images import (
    add_images,
    advice,
    captions_of,
    crop_image,
    default_sources,
    image_paths,
    images_or_examples,
    load_image,
    load_images,
    remove_image,
    rotate_image,
    verdict_table,
    write_captions,
)
from .variety import outside_the_model, warnings_of
