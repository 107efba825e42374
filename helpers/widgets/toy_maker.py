"""A toy put together by its traits, drawn as one chooses, and kept as the pictures of a concept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
from PIL import Image

from ..common.sheets import image_grid
from ..dataset.images import ConceptLike, keep_drawn
from .kit import IN_A_ROW, ROW, Message, View, button, picture_row

Traits = Mapping[str, str]
_FIELD = {"layout": {"width": "260px"}, "style": {"description_width": "110px"}}


class ToyMaker(View):
    """Choose traits, see the toy in several places, and make these drawings a concept's pictures.

    What can be chosen, and how it is drawn, is given: the form knows no world. On a page without a kernel
    it is the drawings.
    """

    def __init__(
        self,
        concept: ConceptLike,
        traits: Mapping[str, Sequence[str]],
        draw: Callable[[Traits, int], list[Image.Image]],
        remark: Callable[[Traits], str] = lambda _: "",
    ):
        """Show the first toy.

        Args:
            concept: gets the pictures, as for `add_images`.
            traits: the values to choose from, by the name of the trait.
            draw: makes pictures of the chosen traits; another number, other places.
            remark: a sentence on the chosen traits; empty where there is none.
        """
        self._concept, self._draw, self._remark, self._seed = concept, draw, remark, 0
        self.fields = {name: self._field(name, values) for name, values in traits.items()}
        self.images: list[Image.Image] = []
        self._shown, self.remark, self.message = ipywidgets.HTML(), Message(), Message()
        others = button("Other places", self._elsewhere, "Draw the same toy in other places")
        use = button("Use these", self._use, "Make these drawings pictures of the concept", "primary")
        fields = ipywidgets.HBox(list(self.fields.values()), layout=ROW)
        super().__init__([fields, self.remark, self._shown, ipywidgets.HBox([others, use]), self.message])
        self._show()

    @property
    def chosen(self) -> dict[str, str]:
        """Values, by the name of the trait."""
        return {name: field.value for name, field in self.fields.items()}

    def _field(self, name: str, values: Sequence[str]) -> ipywidgets.Dropdown:
        title = name.replace("_", " ").capitalize()
        field = ipywidgets.Dropdown(options=values, description=title, tooltip=title, **_FIELD)
        field.observe(lambda _: self._show(), "value")
        return field

    def _show(self) -> None:
        self.images = self._draw(self.chosen, self._seed)
        texts = [f"drawing {number}" for number in range(1, len(self.images) + 1)]
        self._shown.value = picture_row("Your toy", self.images, texts)
        self.remark.say(self._remark(self.chosen))
        self.message.say()

    def _elsewhere(self) -> None:
        self._seed += 1
        self._show()

    def _use(self) -> None:
        self.message.do(lambda: keep_drawn(self._concept, self.images))

    def still(self) -> dict[str, Any]:
        """The drawings as one picture."""
        sheet = image_grid(self.images, columns=len(self.images), cell=IN_A_ROW)
        return {"text/html": sheet.as_html()}
