#!/usr/bin/env python3
"""Writes the types of the messages for Python and TypeScript, and their tables in docs/formats/messages.md, from their
JSON Schema, which `lockstep message schema` prints from the C++ structs.

    tools/generate_types.py [--binary build/lockstep]            write the files
    tools/generate_types.py [--binary build/lockstep] --check    exit status 1 when a file is not what it should be
    tools/generate_types.py --self-test                          show on a small schema that each construct is written

Nobody edits what it writes by hand; of the page it writes the part behind the mark.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / "python/lockstep/messages.py"
TYPESCRIPT = ROOT / "dashboard/src/messages.ts"
PAGE = ROOT / "docs/formats/messages.md"
MARK = "<!-- from here on: tools/generate_types.py -->\n"
SPOKEN = "Made by tools/generate_types.py from `lockstep message schema`; not edited by hand."
COLUMNS = 120


def name_of(schema):
    """The definition that a schema points to, or None."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    return reference.rsplit("/", 1)[1] if reference else None


def without_null(schema):
    """The schema of an optional member without its null, and whether there was one."""
    if isinstance(schema, dict) and "anyOf" in schema:
        others = [each for each in schema["anyOf"] if each != {"type": "null"}]
        if len(others) == 1:
            return others[0], True
    return schema, False


def remarks(schema):
    """What a reader should know about the values of a member: unit, range, usual words."""
    schema, _ = without_null(schema)
    if not isinstance(schema, dict):
        return ""
    if schema.get("type") == "array":
        return remarks(schema["items"])
    if schema.get("type") == "object":
        return remarks(schema["additionalProperties"])
    parts = [schema["description"]] if "description" in schema else []
    low, high = schema.get("minimum"), schema.get("maximum")
    wide = high is None or (schema["type"] == "integer" and high >= 2**31 - 1)
    if low is not None and not wide:
        parts.append(f"{low:g} to {high:g}")
    elif low is not None and low != 0:
        parts.append(f"{low:g} or more")
    if "multipleOf" in schema:
        parts.append(f"divisible by {schema['multipleOf']}")
    if "x-open-words" in schema:
        parts.append("open: " + ", ".join(schema["x-open-words"]))
    return "; ".join(parts)


# ---- Python -----------------------------------------------------------------------------------------------


def python_type(schema):
    if schema is True:
        return "Any"
    if name_of(schema):
        return name_of(schema)
    if schema["type"] == "array":
        return f"list[{python_type(schema['items'])}]"
    if schema["type"] == "object":
        return f"dict[str, {python_type(schema['additionalProperties'])}]"
    return {"boolean": "bool", "integer": "int", "number": "float", "string": "str"}[schema["type"]]


def commented(line, remark, mark):
    """A line with its remark behind it, or above it where that would be too long."""
    if not remark:
        return [line]
    together = f"{line}  {mark} {remark}"
    if len(together) <= COLUMNS:
        return [together]
    indent = line[:len(line) - len(line.lstrip())]
    return [f"{indent}{mark} {remark}", line]


def in_order(schema):
    """The definitions, each behind those that it uses."""
    done = {}

    def visit(name):
        if name in done:
            return
        text = schema["$defs"][name]
        stack = [text]
        while stack:
            each = stack.pop()
            if isinstance(each, dict):
                if name_of(each) and name_of(each) != name:
                    visit(name_of(each))
                stack.extend(each.values())
            elif isinstance(each, list):
                stack.extend(each)
        done[name] = text

    for name in schema["$defs"]:
        visit(name)
    return done


def python(schema):
    lines = ['"""The messages of the worker link and the event stream.', "", SPOKEN, '"""', "",
             "from __future__ import annotations", "", "from dataclasses import dataclass",
             "from typing import Any, ClassVar, Literal, Optional"]
    messages = []
    for name, text in in_order(schema).items():
        if "enum" in text:
            lines += ["", "", f"{name} = Literal[" + ", ".join(json.dumps(word) for word in text["enum"]) + "]"]
        elif text["type"] == "string":
            lines += ["", "", *commented(f"{name} = str", text["description"], "#")]
        else:
            lines += ["", "", "@dataclass(kw_only=True)", f"class {name}:"]
            for member, each in text["properties"].items():
                if "const" in each:
                    messages.append((each["const"], name))
                    lines.append(f"    {member}: ClassVar[str] = {json.dumps(each['const'])}")
                    continue
                inner, optional = without_null(each)
                kind = f"Optional[{python_type(inner)}] = None" if optional else python_type(inner)
                lines += commented(f"    {member}: {kind}", remarks(each), "#")
    lines += ["", "", "# The class of every event_type.", "MESSAGES: dict[str, type] = {"]
    lines += [f"    {json.dumps(event)}: {name}," for event, name in messages]
    return "\n".join([*lines, "}"]) + "\n"


# ---- TypeScript -------------------------------------------------------------------------------------------


def typescript_type(schema):
    if schema is True:
        return "unknown"
    if name_of(schema):
        return name_of(schema)
    if schema["type"] == "array":
        return f"{typescript_type(schema['items'])}[]"
    if schema["type"] == "object":
        return f"Record<string, {typescript_type(schema['additionalProperties'])}>"
    return {"boolean": "boolean", "integer": "number", "number": "number", "string": "string"}[schema["type"]]


def typescript(schema):
    lines = ["// The messages of the worker link and the event stream.", f"// {SPOKEN}"]
    messages = []
    for name, text in in_order(schema).items():
        if "enum" in text:
            lines += ["", f"export type {name} = " + " | ".join(json.dumps(word) for word in text["enum"]) + ";"]
        elif text["type"] == "string":
            lines += ["", *commented(f"export type {name} = string;", text["description"], "//")]
        else:
            lines += ["", f"export interface {name} {{"]
            for member, each in text["properties"].items():
                if "const" in each:
                    messages.append(name)
                    lines.append(f"  {member}: {json.dumps(each['const'])};")
                    continue
                inner, optional = without_null(each)
                kind = typescript_type(inner)
                line = f"  {member}?: {kind} | null;" if optional else f"  {member}: {kind};"
                lines += commented(line, remarks(each), "//")
            lines.append("}")
    lines += ["", "export type Message =", *[f"  | {name}" for name in messages]]
    lines[-1] += ";"
    return "\n".join(lines) + "\n"


# ---- the page ---------------------------------------------------------------------------------------------


def page_type(schema):
    if schema is True:
        return "anything"
    if name_of(schema):
        return f"`{name_of(schema)}`"
    if schema["type"] == "array":
        return f"list of {page_type(schema['items'])}"
    if schema["type"] == "object":
        return f"free keys, each {page_type(schema['additionalProperties'])}"
    return schema["type"]


# A document of §3 says under one of these keys what it is.
DOCUMENT_KEYS = ("operation_type", "validation_type", "synchronization_event", "rollback_scenario", "coordination_event",
                 "transaction_flow", "failure_scenario")


def title_of(name, definitions):
    """The event's type, or the word that tells a document; else the struct's name in small letters."""
    properties = definitions[name]["properties"]
    if "event_type" in properties:
        return properties["event_type"]["const"]
    for key in DOCUMENT_KEYS:
        if key in properties and name_of(properties[key]):
            return definitions[name_of(properties[key])]["enum"][0]
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def page(schema):
    """A table for each message, its own structs inside it, then the words and texts that several use."""
    definitions = schema["$defs"]
    lines = []
    shown = {}

    def rows(name, prefix):
        for member, each in definitions[name]["properties"].items():
            inner, optional = without_null(each)
            path = f"{prefix}/{member}"
            if "const" in inner:
                lines.append(f"| `{path}` | `\"{inner['const']}\"` | |")
                continue
            element, suffix = (inner["items"], "/0") if inner is not True and inner.get("type") == "array" else (inner, "")
            remark = remarks(each)
            kind = page_type(inner) + (", optional" if optional else "")
            target = definitions.get(name_of(element) or "")
            if target and "properties" in target:
                kind = kind.replace(f"`{name_of(element)}`", "object" if not suffix else "objects")
            elif target:
                shown[name_of(element)] = target
            lines.append(f"| `{path}` | {kind} | {remark} |")
            if target and "properties" in target:
                rows(name_of(element), path + suffix)

    section = None
    for root in schema["oneOf"]:
        name = name_of(root)
        if root["description"] != section:
            section = root["description"]
            lines += ["", f"## {section}"]
        lines += ["", f"### `{title_of(name, definitions)}`", "", "| place | type | |", "|---|---|---|"]
        rows(name, "")
    lines += ["", "## Words and texts", "", "| type | |", "|---|---|"]
    for name, target in sorted(shown.items()):
        says = "one of " + ", ".join(f"`{word}`" for word in target["enum"]) if "enum" in target else target["description"]
        lines.append(f"| `{name}` | {says} |")
    return "\n".join(lines) + "\n"


# ---- files ------------------------------------------------------------------------------------------------


def self_test():
    schema = {"oneOf": [{"$ref": "#/$defs/Outer", "description": "§9"}], "$defs": {
        "Word": {"enum": ["a", "b"]},
        "Outer": {"type": "object", "required": ["event_type", "inner"], "properties": {
            "event_type": {"const": "outer"},
            "inner": {"$ref": "#/$defs/Inner"},
            "scores": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 10}}}},
        "Inner": {"type": "object", "required": ["word"], "properties": {
            "word": {"$ref": "#/$defs/Word"},
            "width": {"anyOf": [{"type": "integer", "minimum": 8, "maximum": 2**32 - 1, "multipleOf": 8},
                                {"type": "null"}]},
            "why": {"type": "array", "items": {"type": "string", "x-open-words": ["x", "y"]}}}}}}
    wanted = {
        "Python": (python(schema), ['Word = Literal["a", "b"]', "    inner: Inner", "scores: dict[str, float]  # 0 to 10",
                                    "width: Optional[int] = None  # 8 or more; divisible by 8",
                                    "why: list[str]  # open: x, y", 'event_type: ClassVar[str] = "outer"',
                                    '"outer": Outer,']),
        "TypeScript": (typescript(schema), ['export type Word = "a" | "b";', "inner: Inner;", "scores: Record<string, number>;",
                                            "width?: number | null;", "why: string[];", 'event_type: "outer";',
                                            "  | Outer;"]),
    }
    wanted["page"] = (page(schema), ["## §9", "### `outer`", "| `/inner/word` | `Word` |  |", "| `Word` | one of `a`, `b` |",
                                     "| `/scores` | free keys, each number | 0 to 10 |",
                                     "| `/inner/width` | integer, optional | 8 or more; divisible by 8 |"])
    failures = [f"{language}: no {piece!r}" for language, (text, pieces) in wanted.items()
                for piece in pieces if piece not in text]
    if wanted["Python"][0].index("class Inner") > wanted["Python"][0].index("class Outer"):
        failures.append("Python: Inner must stand before Outer")
    exec(compile(wanted["Python"][0], "messages", "exec"), {"__name__": "__main__"})  # it is Python
    for failure in failures:
        print(f"self-test: {failure}")
    print(f"generate_types self-test: {len(failures)} failures")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/lockstep"))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()

    output = subprocess.run([arguments.binary, "message", "schema"], check=True, capture_output=True, text=True).stdout
    schema = json.loads(output)
    status = 0
    introduction = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    for path, text in {PYTHON: python(schema), TYPESCRIPT: typescript(schema),
                       PAGE: introduction + MARK + page(schema)}.items():
        name = path.relative_to(ROOT)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            print(f"{name}: up to date")
        elif arguments.check:
            print(f"{name}:1: does not match `lockstep message schema`; run tools/generate_types.py")
            status = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"{name}: written")
    return status


if __name__ == "__main__":
    sys.exit(main())
