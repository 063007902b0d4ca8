"""What the site shows that is written nowhere: it is read from YAML, schema, commands and tests."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import typer
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from typer.main import get_command

from classifier_training.cli.main import app
from classifier_training.config.schema import Config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.helpers.promises import by_promise  # noqa: E402 - found only from here on

CONF = ROOT / "src" / "classifier_training" / "conf"
_BOUNDS = (
    ("exclusiveMinimum", ">"),
    ("minimum", "≥"),
    ("exclusiveMaximum", "<"),
    ("maximum", "≤"),
)
_WORKER = "https://unpkg.com/iframe-worker/shim"
# The sections of a root configuration that a group of the same name fills.
_GROUPS = (
    *("data", "transforms", "model", "loss", "optimizer", "schedule"),
    *("trainer", "callbacks", "logging", "export"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, content in (
        ("reference/configuration.md", configuration()),
        ("reference/commands.md", commands()),
    ):
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name the tests of each promise, and send links out of docs/ to the repository."""
    if page.file.src_uri == "promises.md":
        markdown = with_tests(markdown)
    return _outside_links(markdown, page.file.src_uri, str(config.extra["repository"]))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Take what lets the search run from a folder from here instead of from a network."""
    here = posixpath.relpath("_site/worker.js", posixpath.dirname(page.file.dest_uri) or ".")
    return output.replace(_WORKER, here)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page of a wrong address."""
    return output_content.replace(_WORKER, "/_site/worker.js")


def _outside_links(markdown: str, source: str, repository: str) -> str:
    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), found[1]))
        if target.startswith("docs/") or not (ROOT / target).exists():
            return found[0]
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"]({repository}/{kind}/main/{target})"

    return re.sub(r"\]\((\.\./[^)#]+)\)", moved, markdown)


def with_tests(markdown: str) -> str:
    """Put the tests that carry an id below its line."""
    tests = by_promise()

    def named(found: re.Match[str]) -> str:
        names = tests.get(found[1], [])
        many = f"{len(names)} test{'s' * (len(names) != 1)}"
        listed = ", ".join(f"`{name}`" for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{found[0]}\n  <span class='tests' markdown>{many}: {listed}{more}</span>"

    return re.sub(r"^- \*\*([A-Z]+\d+)\*\*.*$", named, markdown, flags=re.MULTILINE)


def configuration() -> str:
    """Return every key with its type, default and meaning, as YAML and schema say them."""
    lines = [
        "# Configuration",
        "",
        "Generated from the YAML files of the package, which hold every default, and the schema,",
        "which holds types and ranges. `classifier train --cfg job` shows the same, composed.",
        "Set a key on the command line (`trainer.max_epochs=10`), choose an option of a group",
        "(`trainer=t4`), or write a YAML of your own and give its folder by `--config-dir`.",
    ]
    lines += ["", "## Top level", "", *_table(CONF / "base.yaml", Config, "")]
    for section in _GROUPS:
        lines += ["", f"## {section}", ""]
        model = _section(section)
        files = sorted((CONF / section).glob("*.yaml"))
        options = [path.stem for path in files if path.stem != "base"]
        lines += [f"Options: {', '.join(f'`{section}={name}`' for name in options)}."]
        for path in files:
            rows = _table(path, model, section)
            if len(rows) > 2:
                title = "every option" if path.stem == "base" else f"`{section}={path.stem}`"
                lines += ["", f"### {section}: {title}", "", *_head(path), *rows]
    for name in ("experiment", "debug"):
        lines += ["", f"## {name}", ""]
        for path in sorted((CONF / name).glob("*.yaml")):
            body = path.read_text(encoding="utf-8")
            lines += [f"### `{name}={path.stem}`", "", "```yaml", body.rstrip(), "```", ""]
    return "\n".join(lines) + "\n"


def _section(name: str) -> type[BaseModel] | None:
    kind = Config.model_fields[name].annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _head(path: Path) -> list[str]:
    """Return the comment at the beginning of a file as a paragraph."""
    said = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# "))
    text = " ".join(line for line in said if line and not line.startswith("classifier "))
    return [text.replace("|", "\\|"), ""] if text else []


def _table(path: Path, model: type[BaseModel] | None, section: str) -> list[str]:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, default, said in keys(path):
        plain = key.partition(".")[0]
        if plain == "hydra" or (not section and plain in _GROUPS):
            continue
        full = f"{section}.{key}" if section else key
        kind = _type(model, key)
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{full}` | {kind} | {shown} | {said} |".replace("\n", " "))
    return rows


def keys(path: Path) -> list[tuple[str, str, str]]:
    """Return ``(key, default, meaning)`` of a YAML file; lists of mappings are one key."""
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    comments = _comments(text)
    return [
        (key, _shown(value), _escaped(comments.get(key, "")))
        for key, value in _leaves(content)
        if key != "defaults"
    ]


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            if not prefix:
                found.append((full, None))
            found += _leaves(value, f"{full}.")
        else:
            found.append((full, value))
    return found


def _comments(text: str) -> dict[str, str]:
    """Return the comment above each key."""
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    said: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        matched = re.match(r"( *)([A-Za-z_][\w/@ ]*):", line)
        if stripped.startswith("#"):
            said.append(stripped.lstrip("# "))
        elif not stripped:
            said = []
        elif matched:
            indent = len(matched[1])
            stack = [item for item in stack if item[0] < indent]
            stack.append((indent, matched[2]))
            found[".".join(name for _, name in stack)] = " ".join(said)
            said = []
    return found


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return " → ".join(str(item["_target_"]).rpartition(".")[2] for item in value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0].strip()


def _type(model: type[BaseModel] | None, key: str) -> str:
    if model is None:
        return ""
    name, _, rest = key.partition(".")
    field = model.model_fields.get(name)
    if field is None:
        return ""
    if rest:
        inner = field.annotation
        return _type(inner, rest) if _is_model(inner) else ""
    if _is_model(field.annotation):
        return "section"
    schema = model.model_json_schema()
    return _escaped(_kind(schema["properties"][name], schema))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kind(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say a JSON schema in words."""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_kind(part, schema) for part in node["anyOf"]))
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "$ref" in node:
        return "section"
    kind = {"integer": "int", "number": "float", "boolean": "bool", "string": "text",
            "array": "list", "object": "mapping", "null": "null"}  # fmt: skip
    bounds = [f"{sign} {node[name]}" for name, sign in _BOUNDS if name in node]
    return " ".join([kind[node.get("type", "object")], *bounds])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def commands() -> str:
    """Return every command with its help, arguments and options, from the program itself."""
    lines = [
        "# Commands",
        "",
        "Generated from the program. Exit codes: 0 done, 1 unexpected, 2 configuration or usage, 3",
        "data, 4 diverged, 5 export, verification or a gate, 6 resume refused, 130 interrupted,",
        "143 SIGTERM (saved; the same command goes on).",
    ]
    root: Any = get_command(app)
    for name, command in root.commands.items():
        context = typer.Context(command, info_name=f"classifier {name}")
        usage = command.get_usage(context).removeprefix("Usage: ").strip()
        lines += ["", f"## classifier {name}", "", _escaped(command.help or ""), ""]
        lines += ["```text", re.sub(r"\s+", " ", usage), "```", ""]
        options = [row for parameter in command.params if (row := _option(parameter))]
        if options:
            lines += ["| | | default |", "|---|---|---|", *options]
    return "\n".join(lines) + "\n"


def _option(parameter: Any) -> str:
    named = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        named = f"`{str(parameter.name).upper()}`"
    default = parameter.default
    shown = "" if default in (None, False) or callable(default) else f"`{default}`"
    return f"| {named} | {_escaped(getattr(parameter, 'help', None) or '')} | {shown} |"
