"""Add pictures from your computer, see those of a concept, remove one."""

import base64
import functools
import html
import io
from collections.abc import Callable

import ipywidgets
from PIL import Image

from ..download import Fetched
from ..errors import UserError
from ..grid import image_grid
from ..images import ConceptLike, add_fetched, advice, image_paths, load_images, remove_image, verdict_table

_SIDE = 128


class Gallery(ipywidgets.VBox):
    """A button to upload, the verdict on each upload, and the pictures, each with a button to remove it.

    All that it shows is read from the concept's folder. Where a widget can't live, as in a saved
    notebook on the web, it is a still picture.
    """

    def __init__(self, concept: ConceptLike, base_model: str | None = None):
        """Show the pictures of `concept` (as for `add_images`, also `base_model`)."""
        self._concept, self._base_model = concept, base_model
        upload = ipywidgets.FileUpload(accept="image/*", multiple=True, description="Add pictures")
        upload.observe(self._add, "value")
        self._message = ipywidgets.HTML()
        self._cards = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        super().__init__([upload, self._message, self._cards])
        self._show()

    def _add(self, change) -> None:
        files = [Fetched(file["name"], bytes(file["content"])) for file in change["new"]]
        if files:
            self._do(lambda: verdict_table(add_fetched(self._concept, files, self._base_model))._repr_html_())
            change["owner"].value = ()  # so that the same file may come again

    def _remove(self, name: str, _button) -> None:
        self._do(lambda: remove_image(self._concept, name))

    def _do(self, action: Callable[[], str | None]) -> None:
        """A callback has nowhere to show an error but the widget itself."""
        try:
            self._show(action() or "")
        except UserError as error:
            self._show(f"<p>{html.escape(str(error))}</p>")

    def _show(self, message: str = "") -> None:
        self._message.value = f"{message}<p>{html.escape(advice(self._concept))}</p>"
        self._cards.children = [self._card(name, image) for name, image in self._pictures().items()]

    def _pictures(self) -> dict[str, Image.Image]:
        try:
            names = [path.name for path in image_paths(self._concept)]
        except UserError:
            return {}  # none yet
        return dict(zip(names, load_images(self._concept), strict=True))

    def _card(self, name: str, image: Image.Image) -> ipywidgets.Widget:
        remove = ipywidgets.Button(description="Remove", tooltip=f"Delete {name}", layout={"width": "auto"})
        remove.on_click(functools.partial(self._remove, name))
        picture = ipywidgets.Image(value=_png(image_grid([image], columns=1, cell=_SIDE)))
        return ipywidgets.VBox([picture, ipywidgets.Label(name), remove], layout={"margin": "4px"})

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and beside it the still picture for pages that have no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        pictures = self._pictures()
        if pictures:
            sheet = image_grid(list(pictures.values()), columns=5, captions=list(pictures), cell=_SIDE)
            bundle["image/png"] = base64.b64encode(_png(sheet)).decode()
        return bundle


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
