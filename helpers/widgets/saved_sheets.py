"""Choose a grid that was saved: of the concept, or a file from elsewhere."""

from collections.abc import Callable

import ipywidgets

from ..concept import Concept
from ..grid_plan import GridPlan
from ..xy_grid import reopen, saved_sheets

_NONE = "(none yet)"


class SavedSheets(ipywidgets.HBox):
    """A list of the concept's saved grids with a button, and a way to bring a file."""

    def __init__(self, concept: Concept, reopened: Callable[[Callable[[], GridPlan]], None]):
        """Show the list. `reopened` gets what reads the chosen grid, and shows a `UserError` of it."""
        self._concept, self._reopened = concept, reopened
        self._list = ipywidgets.Dropdown(description="Saved grids", layout={"width": "min(420px, 100%)"})
        self._list.style.description_width = "110px"
        self._list.tooltip = "Grids in this concept's folder grids/, the newest first"
        self.button = ipywidgets.Button(description="Reopen", tooltip="Put its settings into the form")
        self.button.on_click(lambda _: reopened(lambda: reopen(concept.grids_folder / self._list.value)))
        self.upload = ipywidgets.FileUpload(accept=".png", description="Reopen a file")
        self.upload.tooltip, self.upload.layout.width = "A grid's PNG file on your computer", "auto"
        self.upload.observe(self._uploaded, "value")
        super().__init__([self._list, self.button, self.upload], layout={"flex_flow": "row wrap"})
        self.refresh()

    def refresh(self) -> None:
        """Read the concept's folder anew; the newest is chosen."""
        folder = self._concept.grids_folder
        names = [path.relative_to(folder).as_posix() for path in saved_sheets(self._concept)]
        self._list.options = names or [_NONE]
        self._list.index = 0
        self.button.disabled = not names

    def _uploaded(self, change) -> None:
        for file in change["new"]:
            self._reopened(lambda file=file: reopen(file["name"], bytes(file["content"])))
        if change["new"]:
            self.upload.value = ()  # so that the same file may come again
