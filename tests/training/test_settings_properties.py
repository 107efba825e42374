"""Every setting with any value: what is accepted trains two steps, what is refused says which and what to do.

`EXAMPLES=50` tries more of those that train, of which each takes some seconds.
"""

import os
from types import NoneType
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helpers.common.errors import UserError
from helpers.concept.concept import Concept, TrainingSettings
from helpers.training.train import train

IN_PLACE = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# As large as two steps of a tiny model stay quick; the compiler alone takes minutes.
QUICK = {
    "resolution": 64,
    "max_train_steps": 2,
    "train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "timesteps_per_picture": 3,
    "weight_decay": 1,
    "compile": False,
    "save_pipeline": False,
}
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.binary(max_size=5),
)
REMEDIES = ("give ", "choose ", "use ", "name ", "put ", "must ", "write ", "there is no such setting")


def allowed(name, field):
    """Values that a training setting may have, by its type and its limits."""
    kinds = get_args(field.annotation) if NoneType in get_args(field.annotation) else (field.annotation,)
    limits = {
        key: getattr(limit, key)
        for limit in field.metadata
        for key in ("ge", "gt", "le", "lt", "multiple_of")
        if hasattr(limit, key)
    }
    return st.one_of(
        _of_kind(name, kind, limits) for kind in kinds if (name, kind) != ("resolution", NoneType)
    )


def _of_kind(name, kind, limits):
    if kind is NoneType:
        return st.none()
    if kind is bool:
        return st.just(QUICK[name]) if name in QUICK else st.booleans()
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    most = min(limits.get("le", limits.get("lt", 1_000)), QUICK.get(name, 1_000))
    if kind is float:
        least = limits.get("ge", limits.get("gt"))
        return st.floats(least, most, exclude_min="gt" in limits, exclude_max=most == limits.get("lt"))
    least, step = max(limits.get("ge", limits.get("gt", -1) + 1), -1_000), limits.get("multiple_of", 1)
    return st.integers(-(-least // step), most // step).map(lambda number: number * step)


TRAINING = st.fixed_dictionaries(
    {name: allowed(name, field) for name, field in TrainingSettings.model_fields.items()}
)


@settings(IN_PLACE, max_examples=int(os.environ.get("EXAMPLES", 3)))
@given(training=TRAINING, vectors=st.integers(1, 32), style=st.booleans())
def test_what_is_accepted_trains_two_steps(training, vectors, style, grooty, families):
    assume(training["first_timestep"] <= training["last_timestep"])
    concept = grooty.changed(
        base_model=str(families["sd1"]),
        what_to_teach="style" if style else "object",
        vectors=vectors,
        training=training,
    )
    assert train(concept, fresh=True).steps == concept.training.max_train_steps


@pytest.mark.parametrize("name", TrainingSettings.model_fields)
@settings(IN_PLACE, max_examples=40)
@given(value=ANYTHING)
def test_a_training_setting_takes_a_value_or_says_what_would_do(name, value):
    _check(name, lambda concept: concept.changed(training={name: value}))


@pytest.mark.parametrize("name", [*sorted({*Concept.model_fields} - {"training"}), "no_such_setting"])
@settings(IN_PLACE, max_examples=40)
@given(value=ANYTHING)
def test_a_concepts_setting_takes_a_value_or_says_what_would_do(name, value):
    _check(name, lambda concept: concept.changed(**{name: value}))


def _check(name, change):
    concept = Concept.make("grooty")
    try:
        changed = change(concept)
    except UserError as error:
        sentence = str(error)
        assert name in sentence and any(word in sentence for word in REMEDIES), sentence
        assert sentence.endswith(".") and len(sentence) < 300
    else:
        Concept.model_validate_json(changed.model_dump_json())  # what it takes can be kept
