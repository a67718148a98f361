"""What the application answers, as OpenAPI describes it, and a plain page of that."""

from typing import Any

from lmr import __version__
from lmr.api.server.limits import Limits
from lmr.evaluation.pages.answers import page_environment

__all__ = ["described", "describing_page"]

_ERRORS = {
    "400": "A value is out of range.",
    "401": "The token is missing.",
    "404": "There is no such thing.",
    "408": "The upload took too long.",
    "413": "The file is too large.",
    "422": "The photo cannot be used; the answer says why.",
    "429": "Too many searches from one client; Retry-After says when.",
    "503": "Too many searches wait; Retry-After says when.",
}


def _answer(what: str, schema: dict[str, Any], *errors: str) -> dict[str, Any]:
    told = {"description": what, "content": {"application/json": {"schema": schema}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"200": told, **{code: {"description": _ERRORS[code], "content": error} for code in errors}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_MAYBE_WHOLE, _MAYBE_NUMBER = {"type": ["integer", "null"]}, {"type": ["number", "null"]}
_MOST = {
    "name": "most",
    "in": "query",
    "description": "Photos of the answer at most.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 30},
}


def _in_path(name: str, what: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": what, "schema": _WHOLE}


def described(limits: Limits) -> dict[str, Any]:
    """Return the description of the interface, OpenAPI 3.1."""
    row = _in_path("row", "The photo's row in the gallery, as answers have it.")
    schemas = {
        "Error": _object(error=_TEXT),
        "About": _object(name=_TEXT, photos=_WHOLE, stages=_list(_TEXT), groups=_WHOLE, upload_bytes=_WHOLE),
        "Match": _object(
            photo=_WHOLE,
            name=_TEXT,
            rank=_WHOLE,
            score=_MAYBE_NUMBER,
            similarity=_MAYBE_NUMBER,
            inliers=_MAYBE_WHOLE,
            confident={"type": ["boolean", "null"]},
            probability={
                **_MAYBE_NUMBER,
                "description": "That it shows the same landmark; null for a run without a calibration.",
            },
            stage=_TEXT,
            lines={
                **_list(_list(_NUMBER)),
                "description": "Of a confident match: x and y in the query and in the photo, as fractions.",
            },
        ),
        "Answer": _object(
            width=_WHOLE,
            height=_WHOLE,
            note=_TEXT,
            confident=_MAYBE_WHOLE,
            seconds=_NUMBER,
            matches=_list(_ref("Match")),
        ),
        "Photo": _object(photo=_WHOLE, name=_TEXT),
        "Group": _object(group=_WHOLE, size=_WHOLE, photos=_list(_ref("Photo"))),
        "Groups": _object(page=_WHOLE, pages=_WHOLE, groups=_list(_ref("Group"))),
    }
    upload = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    paths = {
        "/api/about": {
            "get": {"summary": "What is searched.", "responses": _answer("The run.", _ref("About"))}
        },
        "/api/search": {
            "post": {
                "summary": "Search with a photo; the body is the file itself.",
                "parameters": [_MOST],
                "requestBody": {
                    "required": True,
                    "description": f"A photo of at most {limits.upload_bytes:,} bytes.",
                    "content": upload,
                },
                "responses": _answer(
                    "What was found, best first.",
                    _ref("Answer"),
                    *("400", "408", "413", "422", "429", "503"),
                ),
            }
        },
        "/api/photos/{row}": {
            "get": {
                "summary": "A photo of the gallery, as a JPEG.",
                "parameters": [
                    row,
                    {"name": "size", "in": "query", "schema": {"type": "string", "enum": ["small", "large"]}},
                ],
                "responses": {
                    "200": {"description": "The photo.", "content": {"image/jpeg": {}}},
                    "404": {"description": _ERRORS["404"]},
                },
            }
        },
        "/api/photos/{row}/search": {
            "post": {
                "summary": "Search with a photo of the gallery.",
                "parameters": [row, _MOST],
                "responses": _answer("What was found.", _ref("Answer"), "400", "404", "422", "429", "503"),
            }
        },
        "/api/groups": {
            "get": {
                "summary": "Groups of photos of the same place, largest first; none before lmr group.",
                "parameters": [{"name": "page", "in": "query", "schema": {**_WHOLE, "minimum": 0}}],
                "responses": _answer("A page of groups.", _ref("Groups"), "400"),
            }
        },
        "/api/groups/{number}": {
            "get": {
                "summary": "One group.",
                "parameters": [_in_path("number", "The group's number, from 1.")],
                "responses": _answer("The group.", _ref("Group"), "404"),
            }
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "lmr", "version": __version__, "description": "Find photos of the same place."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def describing_page(about: dict[str, Any]) -> str:
    """Return a page that says the same to people."""
    calls = [
        {"path": path, "method": method.upper(), **call}
        for path, methods in about["paths"].items()
        for method, call in methods.items()
    ]
    template = page_environment().get_template("interface.html")
    return str(template.render(calls=calls, schemas=about["components"]["schemas"]))
