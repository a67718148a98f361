"""Writes the reference from the code: `python docs/reference.py`, after a change of options or settings.

With `--run RUN` it also writes which columns the files of a finished run of `retrieval` have.
`tests/docs/test_reference.py` holds that what is committed is what the code says.
"""

import argparse
import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import annotated_types
import pyarrow.parquet

from lmr.api.workflows import load_workflow
from lmr.cli.interrupts import INTERRUPTED
from lmr.cli.main import COMMANDS
from lmr.features.extractors import markdown_table
from lmr.steps.groups.group import GroupsSettings
from lmr.steps.results.columns import EXPORTS, FURTHER, meaning
from lmr.steps.results.export.export import FORMATS
from lmr.steps.results.folder.datasets import open_datasets

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BEGIN, END = "<!-- made by docs/reference.py -->", "<!-- end -->"
EXPORTED = "<!-- exports, made by docs/reference.py -->"
FURTHER_COLUMNS = "<!-- further steps, made by docs/reference.py -->"

ENVIRONMENT = {
    "DASK_SCHEDULER_ADDRESS": "Address of the scheduler, in the place of `--scheduler`.",
    "LMR_TLS": "Folder of certificates, in the place of `--tls`.",
    "LMR_CACHE": "Folder below which `lmr` keeps unpacked datasets, compiled code and scratch space on this"
    " machine. Without it: `lmr` in the user's cache.",
    "LMR_CACHE_GB": "Most gigabytes of unpacked datasets. Without it: half of the disk's free space.",
    "LMR_WEIGHTS": "Folder of fetched weights. Without it: `lmr/weights` in the user's cache.",
    "LMR_STORAGE_PATIENCE": "Seconds for which busy storage is waited for. Without it: 60.",
    "LMR_THREADS": "Threads of one task. Without it: 1, since each core has a worker process.",
    "LMR_SERVE_TOKEN": "Token that requests to `lmr serve` must show. Without it: none on loopback, a new one"
    " elsewhere.",
    "LMR_DASHBOARD_NAMES": "Names by which browsers may ask for the dashboard; `lmr cluster "
    "scheduler` sets it.",
    "LMR_LEAVE_NOTICE": "A file whose appearance tells a worker to finish and leave; set on AWS.",
    "XDG_CACHE_HOME": "The user's cache. Without it: `~/.cache`.",
    "NUMBA_CACHE_DIR": "Folder of compiled code, if you choose one yourself.",
    "CUDA_VISIBLE_DEVICES": "Which GPUs of this machine are used.",
    "AWS_DEFAULT_REGION": "Region of AWS, in the place of `--region`.",
}
"""Every variable that lmr reads; those of AWS's and Dask's own libraries count besides."""


def command_line() -> str:
    """Return the page of all commands."""
    parts = [
        "# Command line",
        "Made from the code. `lmr COMMAND --help` prints the same.",
        *(_command(found, f"lmr {name}") for name, one in COMMANDS.items() for found in [one.load(name)]),
        "## lmr version\n\nPrint the version; `--all` prints Python's and the libraries' too.",
    ]
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that can be called, by its full name."""
    for name, one in COMMANDS.items():
        yield from _leaves(one.load(name), f"lmr {name}")


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, sub in command.commands.items():
        yield from _leaves(sub, f"{name} {part}")


def _command(command: Any, name: str) -> str:
    return "\n\n".join(_one_command(leaf, full) for full, leaf in _leaves(command, name))


def _one_command(command: Any, name: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [
        p for p in command.params if p.param_type_name == "option" and p.name != "help" and not p.hidden
    ]
    shown = [p.metavar or p.name.upper() for p in arguments]
    usage = " ".join([name, *(s if p.required else f"[{s}]" for s, p in zip(shown, arguments, strict=True))])
    rows = [
        "| | default | |",
        "|---|---|---|",
        *(f"| `{s}` | | {_cell(getattr(p, 'help', ''))} |" for s, p in zip(shown, arguments, strict=True)),
        *(f"| `{', '.join(p.opts)}` | {_default(p)} | {_option_help(p)} |" for p in options),
    ]
    # The help of `evaluate` has a paragraph per protocol; others have one.
    about = inspect.cleandoc(command.help or "").replace("\n\n", "\n\n- ").strip()
    table = "\n".join(rows) if len(rows) > 2 else ""
    return (
        f"## {name}\n\n{about}\n\n```text\n{usage}{' [OPTIONS]' if options else ''}\n```\n\n{table}".rstrip()
    )


def _option_help(option: Any) -> str:
    needed = "Needed. " if option.required else ""
    variable = f" Variable: `{option.envvar}`." if option.envvar else ""
    return _cell(f"{needed}{option.help or ''}{variable}")


def _default(option: Any) -> str:
    value = option.default() if callable(option.default) else option.default
    if value is None or value is False or value == [] or option.required:
        return ""
    return f"`{value}`" if value != "" else ""


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def settings_page() -> str:
    """Return the page of the settings of all workflows and of `lmr group`, with ranges and defaults."""
    module = load_workflow("retrieval")
    kind = module.RetrievalSettings
    named = [group.name for group in dataclasses.fields(kind)]
    further = [
        group
        for group in dataclasses.fields(load_workflow("recognition").RecognitionSettings)
        if group.name not in named
    ]
    others = {
        "Of the workflow `recognition` only.": further,
        "Of the workflow `descriptors` only.": [
            group
            for group in dataclasses.fields(load_workflow("descriptors").DescriptorSettings)
            if group.name not in named
        ],
        "Of `lmr group` only, whose options set them.": dataclasses.fields(GroupsSettings),
    }
    parts = [
        "# Settings",
        "Made from the code. These are the settings of the workflow `retrieval`. `recognition` has most of "
        f"them too, and {_listing([group.name for group in further])} besides. `descriptors` has those of "
        "steps 3 to 5, and [`own`](#own). `lmr group` has [`gallery_pairs`](#gallery_pairs) and "
        "[`group`](#group). "
        "What a run uses is layered, "
        "the strongest last: a preset (`--preset`), the extractors (`--local`, `--global`), a TOML file "
        '(`--config`), and `--set step.field=value`. In Python, give `settings={"verify": '
        '{"min_inliers": 20}}`.',
        '```toml title="settings.toml"\n[verify]\nmin_inliers = 40\n\n[ingest]\nphotos_per_shard = 1000\n```',
        "An unknown step or field, or a value out of range, is refused with the valid ones before any work. "
        "[Where the defaults come from](../results/defaults.md) tells why they are what they are.",
        "## Presets",
        f"Without `--preset` and `--global`, a run takes `{next(iter(module.PRESETS))}`. It takes `vlad` "
        "where the weights of that are not installed, and says so. A preset sets what differs from the "
        "defaults in the tables below.",
        "\n".join(
            ["| preset | sets |", "|---|---|", *(_preset(n, p, kind()) for n, p in module.PRESETS.items())]
        ),
    ]
    for whose, groups in {"": dataclasses.fields(kind), **others}.items():
        for group in groups:
            factory = group.default_factory
            assert isinstance(factory, type)
            only = [whose] if whose else []
            parts += [f"## {group.name}", _summary(factory), *only, _settings_table(group.name, factory)]
    return "\n\n".join(parts) + "\n"


def _listing(names: list[str]) -> str:
    links = [f"[`{name}`](#{name})" for name in names]
    return f"{', '.join(links[:-1])} and {links[-1]}"


def _preset(name: str, preset: Any, plain: Any) -> str:
    changed = [
        f"`{group.name}.{f.name}={value}`"
        for group in dataclasses.fields(plain)
        for f in dataclasses.fields(getattr(plain, group.name))
        if (value := getattr(getattr(preset, group.name), f.name))
        != getattr(getattr(plain, group.name), f.name)
    ]
    return f"| `{name}` | {', '.join(changed) or 'nothing besides the defaults of the steps'} |"


def _summary(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _settings_table(group: str, kind: type[Any]) -> str:
    hints, texts = typing.get_type_hints(kind, include_extras=True), field_texts(kind)
    rows = ["| setting | type, range | default | |", "|---|---|---|---|"]
    nested = []
    for one in dataclasses.fields(kind):
        value = one.default if one.default is not dataclasses.MISSING else None
        if one.default_factory is not dataclasses.MISSING:
            value = one.default_factory()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            nested.append((f"{group}.{one.name}", type(value)))
            shown, described = f"[below](#{group}{one.name})".lower(), "table"
        else:
            shown, described = f"`{_plain(value)}`", _type(hints[one.name])
        rows.append(f"| `{group}.{one.name}` | {described} | {shown} | {_cell(texts.get(one.name))} |")
    below = [f"### {name}\n\n{_summary(sub)}\n\n{_settings_table(name, sub)}" for name, sub in nested]
    return "\n\n".join(["\n".join(rows), *below])


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:_}"
        if isinstance(value, int)
        else str(value)
    )


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return ", ".join([_type(arguments[0]), *filter(None, map(_range, arguments[1:]))])
    if origin is typing.Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin in (typing.Union, UnionType):
        return " or ".join("none" if one is NoneType else _type(one) for one in arguments)
    if origin is tuple:
        return "list of " + _type(arguments[0])
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _range(limit: Any) -> str:
    words = {
        annotated_types.Ge: ("at least", "ge"),
        annotated_types.Gt: ("above", "gt"),
        annotated_types.Le: ("at most", "le"),
        annotated_types.Lt: ("below", "lt"),
    }
    word, attribute = words.get(type(limit), ("", ""))
    return f"{word} {getattr(limit, attribute):_}" if word else ""


def field_texts(kind: type[Any]) -> dict[str, str]:
    """Return what stands under each field of a dataclass, or in its docstring's list of attributes."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        texts |= _listed(inspect.getdoc(base) or "")
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError):
            continue
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            match field, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                    texts[name] = str(text)
    return texts


def _listed(docstring: str) -> dict[str, str]:
    _, _, attributes = docstring.partition("Attributes\n----------\n")
    texts, names = {}, []
    for line in attributes.splitlines():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.split(",")]
        else:
            for name in names:
                texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return texts


def environment_page() -> str:
    """Return the page of environment variables."""
    rows = [f"| `{name}` | {says} |" for name, says in ENVIRONMENT.items()]
    return "\n".join(
        [
            "# Environment variables\n",
            "A test holds that this list names every variable that the code reads. Those of AWS's and Dask's "
            "own libraries, such as `AWS_PROFILE`, `AWS_ENDPOINT_URL` and `DASK_…`, count besides.\n",
            "| variable | what it does |",
            "|---|---|",
            *rows,
            "\n`LMR_GALLERY`, `LMR_QUERIES` and `LMR_OUT` in the files `place.env` are for your "
            "shell; `lmr` does "
            "not read them.\n",
        ]
    )


def variables_in(folder: Path) -> set[str]:
    """Return the names of environment variables that stand in code as text."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Constant(value=str(name)) if re.fullmatch(r"LMR_[A-Z_]+", name):
                    found.add(name)
    return found


def exit_codes_page() -> str:
    """Return the page of exit codes."""
    rows = {
        0: "All went well. `lmr run` and `lmr watch` end so when every shard is there.",
        1: "An error that the message explains: what, got, fix. What was finished is kept. `lmr "
        "cluster worker` "
        "ends so when it is cut off from its scheduler, so that a service manager starts it again.",
        2: "The command line cannot be read: an unknown option, or a missing one.",
        INTERRUPTED: "Stopped by Ctrl-C. The same command goes on.",
    }
    table = [f"| {code} | {says} |" for code, says in rows.items()]
    return "\n".join(["# Exit codes\n", "| code | means |", "|---|---|", *table, ""])


def columns_table(run: str) -> str:
    """Return which columns the shards of a finished run have, step by step."""
    datasets = open_datasets(run)
    rows = ["| step | folder | column | stored as | means |", "|---|---|---|---|---|"]
    seen = set()
    for step in datasets.steps:
        folder = step.url[len(datasets.root.rstrip("/")) + 1 :].rpartition("/")[0]
        if folder in seen:
            continue
        seen.add(folder)
        files = sorted(Path(datasets.root, folder).rglob("*.parquet"))
        where = f"{step.step} | `{folder}/`"
        for field in pyarrow.parquet.read_schema(files[0]):
            says = meaning(step.step, field.name)
            rows.append(f"| {where} | `{field.name}` | {_arrow_type(field.type)} | {says} |")
            where = " | "
    return "\n".join(rows)


def further_table() -> str:
    """Return which columns the steps have that the default workflow has not."""
    rows = ["| step | of | folder | column | means |", "|---|---|---|---|---|"]
    for step, (whose, folder, columns) in FURTHER.items():
        where = f"{step} | {whose} | `{folder}/`"
        for name, says in columns.items():
            rows.append(f"| {where} | `{name}` | {says} |")
            where = " |  | "
    return "\n".join(rows)


def exports_table() -> str:
    """Return which columns `lmr export` writes."""
    rows = ["| `--what` | formats | column | means |", "|---|---|---|---|"]
    for what, columns in EXPORTS.items():
        where = f"{what} | {', '.join(name for name, (kinds, _) in FORMATS.items() if what in kinds)}"
        for name, says in columns.items():
            rows.append(f"| {where} | `{name}` | {says} |")
            where = " | "
    return "\n".join(rows)


def _arrow_type(kind: Any) -> str:
    text = re.sub(r"list<element: (.*)>", r"list of \1", str(kind))
    return re.sub(r"fixed_size_binary\[\d+\]", "packed", text)


def filled(page: str, text: str, begin: str = BEGIN) -> str:
    """Return a page with text between its marks."""
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def pages() -> Mapping[Path, str]:
    """Return every page that is made from the code alone."""
    features, files = DOCS / "guides" / "features.md", DOCS / "reference" / "files.md"
    return {
        DOCS / "reference" / "command-line.md": command_line(),
        DOCS / "reference" / "settings.md": settings_page(),
        DOCS / "reference" / "environment.md": environment_page(),
        DOCS / "reference" / "exit-codes.md": exit_codes_page(),
        features: filled(features.read_text(), markdown_table()),
        files: filled(filled(files.read_text(), further_table(), FURTHER_COLUMNS), exports_table(), EXPORTED),
    }


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", help="folder of a finished run, for the columns of its files")
    given = parser.parse_args().run
    made = dict(pages())
    if given:
        files = DOCS / "reference" / "files.md"
        made[files] = filled(made[files], columns_table(given))
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
