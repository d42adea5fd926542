"""An invoice as a typed answer: its type, a valid text, and texts with one fault each."""

import json
from typing import Any

from pydantic import BaseModel, field_validator


class Line(BaseModel):
    name: str
    price: float


class Invoice(BaseModel):
    number: str
    note: str = "none"
    lines: list[Line]
    total: float

    @field_validator("total")
    @classmethod
    def positive(cls, value: float) -> float:
        if value < 0:
            raise ValueError("the total is negative")
        return value


DATA: dict[str, Any] = {
    "number": "7",
    "lines": [{"name": "Apple \u00e4", "price": 1.5}, {"name": "Pear \U0001f600", "price": 2}],
    "total": 3.5,
}
TEXT = json.dumps(DATA)
INVOICE = Invoice.model_validate(DATA)


def text_with(**fields: Any) -> str:
    """Return the text of the invoice with other values; None: without the field."""
    return json.dumps({name: value for name, value in {**DATA, **fields}.items() if value is not None})


NEGATIVE = text_with(total=-1)
EARLY = json.dumps({"total": "much", **DATA | {"total": "much"}, "more": "x" * 2000})
