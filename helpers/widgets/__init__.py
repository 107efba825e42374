"""Forms for the notebooks.

They show and change what the other rooms own, and no other room imports them.
"""

from .concept_gallery import ConceptGallery, DrawingPage
from .dataset_preview import DatasetPreview
from .gallery import Gallery, ToyMaker
from .grid_form import GridForm, TurnForm
from .live import LiveTraining
from .quick_start import QuickStart
from .settings_form import SettingsForm
from .web_ui_form import WebUIForm
