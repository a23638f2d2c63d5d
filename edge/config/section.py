"""What every table of `config.toml` has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """One table: no key that it does not know, no value of another type, no infinite number, no NUL in a text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:  # noqa: ANN401 - whatever TOML held
        if isinstance(value, str) and "\0" in value:
            msg = "holds a NUL character: no name and no path does"
            raise ValueError(msg)
        return value
