"""JSON files in a run's folder: read as what they must be, or refused by name."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from lmr.errors import StorageError
from lmr.storage import objects

__all__ = ["read_json"]


def read_json(url: str, kind: Any, *, fix: str) -> Any:
    """Read a JSON file that must be of a type.

    Parameters
    ----------
    url
        The file.
    kind
        The type, as pydantic takes it.
    fix
        What to do when the file is another one.

    Raises
    ------
    StorageError
        If the file cannot be read, is no JSON, or is of another shape.
    """
    data = objects.read(url)
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        got = f"{where or 'the file'}: {first['msg']}"[:300]
        raise StorageError(f"{url} is not what lmr wrote", got=got, fix=fix) from error
