"""Turn a picture of a concept, or cut it square; the file in `images/` is written anew under its name."""

from PIL import Image

from .errors import UserError
from .images import ConceptLike, load_image, replace_image


def rotate_image(concept: ConceptLike, name: str) -> None:
    """Turn the picture `name` by 90 degrees clockwise; four times give the same pixels again.

    Args:
        concept: a concept, its name, or the path of its folder.
        name: for example `002.png`.

    Raises:
        UserError: there is no picture of that name, or it is damaged.
    """
    # Pillow counts its angles the other way round.
    replace_image(concept, name, load_image(concept, name).transpose(Image.Transpose.ROTATE_270))


def crop_image(concept: ConceptLike, name: str, place: float = 0.5) -> None:
    """Keep the largest square of the picture `name`; one that is square already stays as it is.

    Args:
        concept: a concept, its name, or the path of its folder.
        name: for example `002.png`.
        place: where the square lies along the longer side: 0 left or top, 1 right or bottom.

    Raises:
        UserError: there is no picture of that name, it is damaged, or `place` is not in 0..1.
    """
    image = load_image(concept, name)
    box = square_box(image.size, place)
    if box != (0, 0, *image.size):
        replace_image(concept, name, image.crop(box))


def square_box(size: tuple[int, int], place: float) -> tuple[int, int, int, int]:
    """The largest square in a picture of `size` (width, height): left, top, right, bottom, in pixels.

    Raises:
        UserError: `place`, as for `crop_image`, is not in 0..1.
    """
    if not 0 <= place <= 1:
        raise UserError(f"The place of a crop lies between 0 and 1, not at {place}.")
    side = min(size)
    left, top = (round((length - side) * place) for length in size)
    return left, top, left + side, top + side
