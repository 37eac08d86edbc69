"""What the OpenAPI document says of requests and refusals."""

from typing import Any

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            "multipart/form-data": _FORM,
        },
    }
}
ONE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": _IMAGE, "application/octet-stream": _IMAGE},
    }
}
ERROR = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            }
        }
    }
}
_SAID = {
    400: "no image, or a form that cannot be read",
    401: "the token is missing or wrong",
    408: "the request did not arrive in time",
    413: "too many bytes or images",
    415: "neither an image nor a form",
    422: "not an image that can be decoded, or too large a one; or top is out of range",
    503: "too much to do: try again after Retry-After seconds",
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": said, **ERROR} for status, said in _SAID.items()
}
