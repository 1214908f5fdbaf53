"""The base of all settings."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator


class Settings(BaseModel):
    """Base of all settings: immutable, and a misspelt name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _paths_as_text(cls, values):
        if not isinstance(values, dict):
            return values  # of which pydantic says what is wrong
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
