"""The base of all settings."""

import difflib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class SettingsError(ValueError):
    """Settings that cannot be; the message names each, its value and the rule that it breaks."""


class Settings(BaseModel):
    """Base of all settings: immutable; SettingsError for a misspelt name and for a value that breaks a rule."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_in_words(type(self), error)) from None

    @model_validator(mode="before")
    @classmethod
    def _paths_as_text(cls, values):
        if not isinstance(values, dict):
            return values  # of which pydantic says what is wrong
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def part_of(kind: type[Settings], given: dict) -> dict:
    """Those of the given values that are settings of a kind."""
    return {name: value for name, value in given.items() if name in kind.model_fields}


def _in_words(kind: type[Settings], error: ValidationError) -> str:
    """What is wrong with settings of a kind, such as "epochs=0: should be greater than or equal to 1"."""
    sentences = []
    faults = error.errors(include_url=False)
    inner = {fault["loc"][:1] for fault in faults if len(fault["loc"]) > 1}
    for fault in faults:
        if fault["loc"] in inner:
            continue  # a list lacks what one of its own faults took out
        name = ".".join(str(part) for part in fault["loc"])
        rule = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if fault["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(name, kind.model_fields, 1, 0.5)
            hint = (
                f"did you mean {nearest[0]!r}?" if nearest else f"choose from {', '.join(kind.model_fields)}"
            )
            sentences.append(f"{kind.__name__} has no setting {name!r}: {hint}")
        elif fault["type"] == "missing":
            value = f"{fault['loc'][0]}={fault['input']!r}: " if len(fault["loc"]) > 1 else ""
            sentences.append(f"{value}{name} is missing; add it")
        elif name:
            sentences.append(f"{name}={fault['input']!r}: {rule}")
        else:  # a rule about several settings, which it names itself
            sentences.append(rule)
    return "; ".join(sentences)
