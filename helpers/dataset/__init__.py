"""What a word is learned from: pictures, fetched, checked and stored, and their captions.

The data set made of them is what notebook 3 shows and what training draws from.
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
