"""Extractors of one's own: a class or factory in a file or module, named as `my_module.py:Extractor`.

Its source travels with the tasks and is run where it is needed, so workers need not have the file. What it
imports has to be installed there. The digest of the source is part of fingerprints, as that of weights is.
"""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lmr.errors import LmrError, SettingsError

__all__ = ["OwnCode", "failed", "is_own"]


def is_own(name: str) -> bool:
    """Return whether a name is of one's own code, not of the table."""
    return ":" in name


@dataclass(frozen=True)
class OwnCode:
    """The source of an extractor.

    Attributes
    ----------
    module
        The module's name, without folders and ending.
    attribute
        The class or factory in it.
    source
        The module's text.
    package
        The package that its relative imports start from; empty: none.
    """

    module: str
    attribute: str
    source: str
    package: str = ""

    @classmethod
    def read(cls, name: str) -> "OwnCode":
        """Read the source that `file.py:Name` or `package.module:Name` means.

        Raises
        ------
        SettingsError
            If there is no such file or module, or it defines no such name.
        """
        place, _, attribute = name.rpartition(":")
        path, package = Path(place).expanduser(), ""
        if path.suffix != ".py":
            path, package = _module_file(place, name)
        try:
            source = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"cannot read the extractor {name}", got=str(error), fix="give FILE.py:NAME, or MODULE:NAME"
            ) from error
        code = cls(path.stem, attribute, source, package)
        code.factory()
        return code

    @property
    def name(self) -> str:
        """The module and the name in it, wherever the file lies."""
        return f"{self.module}:{self.attribute}"

    @property
    def digest(self) -> str:
        """SHA-256 of the source, hexadecimal."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def factory(self) -> Any:
        """Run the module and return the class or factory; once per process.

        Raises
        ------
        SettingsError
            If it cannot be run here, or defines no such name.
        """
        return _factory(self)

    def make(self, options: Mapping[str, Any]) -> Any:
        """Call the factory with those options that its parameters name.

        Raises
        ------
        LmrError
            If it has a parameter without default that is no option, or raises.
        """
        factory = self.factory()
        parameters = inspect.signature(factory).parameters.values()
        every = any(p.kind is p.VAR_KEYWORD for p in parameters)
        unknown = [
            p.name
            for p in parameters
            if p.default is p.empty
            and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            and (p.name not in options or p.kind is p.POSITIONAL_ONLY)
        ]
        if unknown:
            raise LmrError(
                f"{self.name} asks for what lmr does not give",
                got=f"parameters {', '.join(unknown)}",
                fix=f"give them defaults, or use some of: {', '.join(options)}",
            )
        names = {p.name for p in parameters}
        try:
            return factory(**{k: v for k, v in options.items() if every or k in names})
        except LmrError:
            raise
        except Exception as error:  # anything may go wrong in other people's code
            raise failed(self, "cannot be made", error) from error


@lru_cache(maxsize=8)
def _factory(code: OwnCode) -> Any:
    name = f"lmr_own_{code.module}_{code.digest[:8]}"
    module = ModuleType(name)
    module.__file__ = f"{code.module}.py"
    module.__package__ = code.package
    sys.modules[name] = module  # where dataclasses and pickle look for a class's module
    try:
        exec(compile(code.source, module.__file__, "exec"), vars(module))
    except Exception as error:  # as in `make`; SyntaxError is among them
        raise SettingsError(
            f"the extractor {code.name} cannot be imported",
            got=f"{type(error).__name__}: {error}",
            fix="mend the file, and install what it imports on this machine and on every worker",
        ) from error
    found = vars(module).get(code.attribute)
    if not callable(found):
        there = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == name]
        raise SettingsError(
            f"{code.module}.py has no class or function {code.attribute}",
            got=f"classes {', '.join(there) or 'none'}",
            fix=f"for example {code.module}.py:{there[0] if there else 'Extractor'}",
        )
    return found


def _module_file(module: str, name: str) -> tuple[Path, str]:
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # the packages around it are imported, which runs other people's code
        raise SettingsError(
            f"cannot find the extractor {name}",
            got=f"{type(error).__name__}: {error}",
            fix="give FILE.py:NAME, or MODULE:NAME of a package that can be imported",
        ) from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise SettingsError(
            f"cannot find the extractor {name}",
            got=f"no module {module} with a source file",
            fix="give FILE.py:NAME, or MODULE:NAME of an installed module",
        )
    return Path(spec.origin), spec.parent or ""


def failed(code: OwnCode, what: str, error: Exception) -> LmrError:
    """Return the error that tells what happened in one's own code."""
    return LmrError(
        f"{code.name} {what}", got=f"{type(error).__name__}: {error}", fix="mend it; lmr only called it"
    )
