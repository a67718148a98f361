"""JSON files in a run's folder, with a digest of what they hold: read as what they must be, or refused."""

import hashlib
import json
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from lmr.errors import StorageError
from lmr.storage import objects

__all__ = ["read_json", "write_json"]

_DIGEST, _CONTENT = "sha256", "content"


def write_json(url: str, value: Any) -> None:
    """Write a value as a JSON file that carries a digest; one that is no object becomes its `content`."""
    content = value if isinstance(value, dict) else {_CONTENT: value}
    text = json.dumps({**content, _DIGEST: _digest(json.loads(json.dumps(content)))}, indent=2)
    objects.put(url, f"{text}\n".encode())


def read_json(url: str, kind: Any, *, fix: str) -> Any:
    """Read a JSON file that must be of a type; one without a digest, of an earlier lmr, is read too.

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
        If the file cannot be read, is no JSON, is of another shape, or does not fit its digest.
    """
    data = objects.read(url)
    try:
        return TypeAdapter(kind).validate_json(json.dumps(_verified(from_json(data))))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _another(url, f"{where or 'the file'}: {first['msg']}", fix) from error
    except (ValueError, RecursionError) as error:
        raise _another(url, f"the file: {error}", fix) from error


def _verified(found: Any) -> Any:
    if not (isinstance(found, dict) and _DIGEST in found):
        return found
    content = {name: value for name, value in found.items() if name != _DIGEST}
    if _digest(content) != found[_DIGEST]:
        raise ValueError("it does not fit its digest")
    return content[_CONTENT] if content.keys() == {_CONTENT} else content


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _another(url: str, got: str, fix: str) -> StorageError:
    return StorageError(f"{url} is not what lmr wrote", got=got[:300], fix=fix)
