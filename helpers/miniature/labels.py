"""A drawing's attributes as numbers, for the judge."""

from .world import (
    ACCESSORIES,
    BODIES,
    COLORS,
    EARS,
    EYES,
    FEET,
    HELD_OUT_STYLE,
    PATTERNS,
    SCENES,
    STYLES,
    Drawing,
    readable,
)

# What stays with a toy; the rest belongs to the picture.
TRAITS = ("body", "color", "ears", "eyes", "pattern", "feet")
# The attributes that a picture can be judged by, and the values of each.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "scene": SCENES,
    "style": (*STYLES, HELD_OUT_STYLE),
    "color": tuple(COLORS),
    "body": BODIES,
    "ears": EARS,
    "eyes": EYES,
    "pattern": PATTERNS,
    "second_color": tuple(COLORS),
    "accessory": ACCESSORIES,
    "feet": FEET,
}
UNREADABLE = -1
_OF_THE_PICTURE = ("scene", "style", "accessory")


def value_of(drawing: Drawing, attribute: str) -> str:
    """What a drawing has for an attribute."""
    return getattr(drawing if attribute in _OF_THE_PICTURE else drawing.toy, attribute)


def labels_of(drawing: Drawing) -> list[int]:
    """The index of each attribute's value, `UNREADABLE` where the style does not show it."""
    return [
        values.index(value_of(drawing, attribute)) if readable(attribute, drawing) else UNREADABLE
        for attribute, values in ATTRIBUTES.items()
    ]
