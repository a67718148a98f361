"""The TOML file beside an ONNX model: what the model does not say of itself."""

import dataclasses
import tomllib
from typing import Any

from lmr import storage
from lmr.errors import SettingsError
from lmr.features.extractors import OnnxSettings
from lmr.runtime.settings import replaced

__all__ = ["with_file_beside"]


def with_file_beside(settings: OnnxSettings, model: str) -> OnnxSettings:
    """Return the settings of a model with the values of the TOML file beside it under the user's own.

    Parameters
    ----------
    settings
        The user's; where one is at its default, the file's value counts.
    model
        Where the model lies: `net.onnx` has `net.toml` beside it, a folder has `model.toml` in it.

    Raises
    ------
    SettingsError
        If the file is no TOML, or a value of it is not valid.
    """
    url = (
        f"{model.removesuffix('.onnx')}.toml"
        if model.endswith(".onnx")
        else storage.join(model, "model.toml")
    )
    if not storage.exists(url):
        return settings
    try:
        values: dict[str, Any] = tomllib.loads(storage.read(url).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{url} is not valid TOML", got=str(error), fix="see docs/reference/settings.md"
        ) from error
    usual = OnnxSettings()
    given = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    chosen = {name: value for name, value in given.items() if value != getattr(usual, name)}
    return replaced(url, usual, {**values, **chosen})
