"""The sentences that a word is taught with, and phrases that may describe the rest of a picture.

The templates are those of the textual inversion paper (Gal et al. 2022, arXiv 2208.01618) in diffusers'
training script: 27 for an object, 19 for a style. `{}` stands for the word.
"""

_OBJECTS = (
    "photo of a,rendering of a,cropped photo of the,the photo of a,photo of a clean,photo of a dirty,"
    "dark photo of the,photo of my,photo of the cool,close-up photo of a,bright photo of the,"
    "cropped photo of a,photo of the,good photo of the,photo of one,close-up photo of the,"
    "rendition of the,photo of the clean,rendition of a,photo of a nice,good photo of a,"
    "photo of the nice,photo of the small,photo of the weird,photo of the large,photo of a cool,"
    "photo of a small"
).split(",")
_STYLES = (
    "painting,rendering,cropped painting,the painting,clean painting,dirty painting,dark painting,"
    "picture,cool painting,close-up painting,bright painting,cropped painting,good painting,"
    "close-up painting,rendition,nice painting,small painting,weird painting,large painting"
).split(",")


def _with_article(words: str) -> str:
    return words if words.startswith("the ") else f"a {words}"


OBJECT_TEMPLATES = tuple(f"{_with_article(words)} {{}}" for words in _OBJECTS)
STYLE_TEMPLATES = tuple(f"{_with_article(words)} in the style of {{}}" for words in _STYLES)
SHIPPED_TEMPLATES = {"object": OBJECT_TEMPLATES, "style": STYLE_TEMPLATES}
# Sentences that say nothing about the picture but that the word is in it; none of them is held out.
NEUTRAL_TEMPLATES = (
    *("a photo of a {}", "a rendering of a {}", "the photo of a {}", "a photo of my {}", "a photo of the {}"),
    *("a photo of one {}", "a rendition of the {}", "a rendition of a {}", "a good photo of a {}"),
)
# What may be around a thing, and on it, in words that the base model knows, for captions.
MINIATURE_PLACES = (
    *("on a beach", "in the snow", "at night", "in a forest", "in a city", "in a desert"),
    *("under the sea", "in a room", "on a yellow background", "on a white background"),
    *("on a pink background", "on a green background", "on a blue background", "on a orange background"),
)
MINIATURE_THINGS_ON = ("wearing a scarf", "wearing a bow tie", "holding a balloon", "holding a flag")
PLACES = (
    *("on a white background", "on a black background", "before a white wall", "before a brick wall"),
    *("on a wooden table", "on a kitchen table", "on a desk", "on a shelf", "on a bed", "on a sofa"),
    *("on a carpet", "on a wooden floor", "on a tiled floor", "on a windowsill", "in a hand", "in the grass"),
    *("in a garden", "in a forest", "on a beach", "in the snow", "on a street", "at night"),
)
THINGS_ON = (
    *("wearing a hat", "wearing a cap", "wearing glasses", "wearing a scarf", "wearing a bow tie"),
    *("wearing a collar", "wearing a shirt", "holding a flower", "holding a ball", "holding a cup"),
)
