"""A picture with a text in its place: for a screen reader, and for a page that shows no pictures."""

import base64
import html
import io

from PIL import Image


class Described(Image.Image):
    """A Pillow picture that a notebook shows together with its text.

    JupyterLab reads the text from an `<img>` of HTML alone, nbconvert from the metadata of the bare
    picture, a terminal from `text/plain`: it is given in each of these forms.

    Attributes:
        alt: what the picture shows, in words.
    """

    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """IPython's hook: the picture in each form, and what is to be known about them."""
        packed = io.BytesIO()
        self.save(packed, format="PNG")
        return picture_bundle(packed.getvalue(), "image/png", self.alt)


def described(image: Image.Image, alt: str) -> Described:
    """The same pixels, with a text."""
    picture = Described()
    picture.__setstate__(image.__getstate__())
    picture.alt = alt
    return picture


def picture_bundle(content: bytes, mime: str, alt: str) -> tuple[dict, dict]:
    """Data and metadata of a display, as `_repr_mimebundle_` returns them.

    Args:
        content: the picture's file.
        mime: its kind, for example `image/png`.
    """
    data = base64.b64encode(content).decode()
    shown = f'<img alt="{html.escape(alt)}" src="data:{mime};base64,{data}">'
    return {"text/html": shown, mime: data, "text/plain": alt}, {mime: {"alt": alt}}
