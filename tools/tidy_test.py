#!/usr/bin/env python3
"""Checks on the text of the tree: what the documents name exists, the six domains look alike, no
left-over notes, no long lines, every source file in a room.

    tools/tidy_test.py                 check this tree; one `file:line: rule` per violation, exit status 1 if any
    tools/tidy_test.py --self-test     show on a made-up tree that every kind of violation is found
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


LINE_MAX = 120

# Documents that must be there, and whose paths must exist. Domain READMEs are added when they are found.
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "docs/life_of_an_event.md"]
ALSO_READ = ["STYLE.md", "CONTRIBUTING.md", "docs/glossary.md"]
DOMAIN_README = re.compile(r"src/domains/[^/]+/README\.md$")

DOMAINS = ["device", "memory", "model", "processing", "inference", "postprocessing"]
# A file format that one domain owns; it has no twin in the others.
OF_ONE_DOMAIN = {f"{stem}.{ending}" for ending in ("h", "cc")
                 for stem in ("dtype", "guess", "safetensors", "configuration", "config", "health", "routing",
                              "throttle", "policy", "grants", "history", "capabilities", "tuning")}

CODE = {".h", ".cc", ".py", ".sh", ".ts", ".tsx"}
EXTENSIONS = {"h", "cc", "py", "md", "txt", "json", "sh", "toml", "ts", "tsx", "yml", "yaml", "sql", "cmake"}
NOT_TEXT = {".png", ".jpg", ".gif", ".ico", ".woff", ".woff2", ".gz", ".safetensors", ".bin", ".db", ".webp"}

# Made by a build or a run, so a document may name them although they are not in the tree.
MADE = ("build/", ".venv/", "demo-data/", "python/dist/", "node_modules/")

# Folders of a single machine. Split, so that this file does not report itself.
MACHINE_PATH = re.compile(r"(?<![\w.~$}*-])/(?:" + "work|" + "root" + r")/")
LEFT_OVER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
REAL_SLEEP = re.compile(r"\bsleep_" + r"for\b")

BACKTICKS = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"^[\w.+-]+(?:/[\w.+-]+)*/?$")


class Tree:
    def __init__(self, root):
        self.root = Path(root)
        self.files = sorted(self.list_files())
        self.known = set(self.files)
        for file in self.files:
            parts = file.split("/")
            self.known.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        self.names = {file.rsplit("/", 1)[-1] for file in self.files}
        self.tops = {file.split("/")[0] for file in self.files if "/" in file}
        self.problems = []

    def list_files(self):
        """What is tracked or could be: ignored files are not part of the tree."""
        try:
            output = subprocess.run(["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others",
                                     "--exclude-standard"], check=True, capture_output=True).stdout
            names = [name for name in output.decode().split("\0") if name]
        except (OSError, subprocess.CalledProcessError):
            names = []
        if not names:  # an unpacked archive
            skip = {".git", "build", ".venv", "__pycache__", "node_modules"}
            for folder, folders, files in os.walk(self.root):
                folders[:] = [name for name in folders if name not in skip]
                names += [(Path(folder) / name).relative_to(self.root).as_posix() for name in files]
        return [name for name in names if (self.root / name).is_file() and not name.startswith(MADE)]

    def report(self, file, line, rule):
        self.problems.append(f"{file}:{line}: {rule}")

    def lines(self, file):
        text = (self.root / file).read_text(encoding="utf-8", errors="replace")
        return enumerate(text.splitlines(), start=1)

    # -- documents

    def expand(self, token):
        """`a/b.{h,cc}` names two files."""
        found = re.match(r"^(.*)\{([\w.,+-]+)\}(.*)$", token)
        if not found:
            return [token]
        return [found.group(1) + part + found.group(3) for part in found.group(2).split(",")]

    def looks_like_a_path(self, token):
        if not PATH.match(token) or token.startswith(MADE) or token == "build":
            return False
        last = token.rstrip("/").rsplit("/", 1)[-1]
        if last.startswith("foo"):  # the name that stands for any name
            return False
        extension = last.rsplit(".", 1)[-1] if "." in last.lstrip(".") else ""
        if "/" not in token:
            return extension in EXTENSIONS and not last.startswith(".")
        first = token.split("/")[0]
        return extension in EXTENSIONS or (first in self.tops)

    def exists(self, document, token):
        token = token.rstrip("/")
        if "/" not in token and token in self.names:
            return True
        folder = document.rsplit("/", 1)[0] + "/" if "/" in document else ""
        for base in ("", "src/", folder, "docs/"):
            if os.path.normpath(base + token) in self.known:
                return True
        return False

    def check_document(self, document):
        fenced = False
        for number, line in self.lines(document):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            if fenced:
                continue
            for quoted in BACKTICKS.findall(line):
                token = quoted.strip().strip('"').split("#")[0].split(":")[0]
                for path in self.expand(token):
                    if self.looks_like_a_path(path) and not self.exists(document, path):
                        self.report(document, number, f"`{path}` does not exist")

    def check_documents(self):
        for document in DOCUMENTS:
            if document not in self.known:
                self.report(document, 1, "this document is missing")
        for document in self.files:
            if (document in DOCUMENTS or document in ALSO_READ or DOMAIN_README.match(document)
                    or document.startswith("docs/decisions/")):
                self.check_document(document)

    # -- rooms

    def check_domains(self):
        names = {domain: {file.removeprefix(f"src/domains/{domain}/") for file in self.files
                          if file.startswith(f"src/domains/{domain}/") and not file.endswith("_test.cc")} - OF_ONE_DOMAIN
                 for domain in DOMAINS}
        if not any(names.values()):
            return
        every = set().union(*names.values())
        for domain in DOMAINS:
            for missing in sorted(every - names[domain]):
                others = [other for other in DOMAINS if missing in names[other]]
                self.report(f"src/domains/{domain}", 1, f"has no {missing}, which {others[0]} has: "
                                                        "the six domains have the same file names")

    def check_in_a_room(self, ranks):
        for file in self.files:
            if not file.startswith("src/") or not file.endswith((".h", ".cc")):
                continue
            parts = file.split("/")
            room = "/".join(parts[1:3]) if parts[1] == "domains" else parts[1]
            if len(parts) < 3 or room not in ranks:
                self.report(file, 1, "belongs to no room of tools/room_ranks.json")

    # -- text

    def check_text(self):
        for file in self.files:
            suffix = Path(file).suffix
            if suffix in NOT_TEXT or b"\0" in (self.root / file).read_bytes()[:4096]:
                continue
            in_src = file.startswith(("src/", "sim/")) and suffix in CODE
            is_test = file.endswith("_test.cc") or file.startswith("tests/") and suffix in {".h", ".cc"}
            for number, line in self.lines(file):
                if MACHINE_PATH.search(line):
                    self.report(file, number, "names a folder of one machine")
                if in_src and LEFT_OVER.search(line):
                    self.report(file, number, "a left-over note: do it, or write down why not")
                if in_src and len(line) > LINE_MAX:
                    self.report(file, number, f"{len(line)} columns; {LINE_MAX} are allowed")
                if is_test and REAL_SLEEP.search(line):
                    self.report(file, number, "a test waits in real time; use the clock it is given")

    def check(self, ranks):
        self.check_documents()
        self.check_domains()
        self.check_in_a_room(ranks)
        self.check_text()
        return self.problems


# ---- self-test --------------------------------------------------------------------------------------------

def self_test(ranks):
    domain_files = {f"src/domains/{domain}/{name}": "\n" for domain in DOMAINS for name in ("types.h", "rules.cc")}
    good = {
        "README.md": "Read `docs/life_of_an_event.md`, `base/result.h`, `src/`, `build/lockstep`, `a/b`, `/v1/jobs`, "
                     "`make test`, `application/json`, `domains/model/types.h`, `result.{h,cc}`, `--json`, `foo_test.cc`.\n",
        "ARCHITECTURE.md": "```\n`src/none.h`\n```\n`src/base/result.h:12`\n",
        "docs/life_of_an_event.md": "`../README.md`\n",
        "src/domains/device/README.md": "`rules.cc` and `types.h`\n",
        "src/base/result.h": "// framework/ and /workshop/\n",
        "src/base/result.cc": "\n",
        "src/base/result_test.cc": "\n",
        **domain_files,
        **{f"src/domains/{domain}/README.md": "\n" for domain in DOMAINS if domain != "device"},
    }
    bad = [
        ({"README.md": "\nsee `src/base/none.h`\n"}, "README.md:2: `src/base/none.h` does not exist"),
        ({"README.md": "see `nothing.cc`\n"}, "README.md:1: `nothing.cc`"),
        ({"README.md": "see `docs/nowhere/`\n"}, "README.md:1: `docs/nowhere/`"),
        ({"src/domains/device/README.md": "`gone.h`\n"}, "src/domains/device/README.md:1: `gone.h`"),
        ({"docs/life_of_an_event.md": None}, "docs/life_of_an_event.md:1: this document is missing"),
        ({"src/domains/model/rules.cc": None}, "src/domains/model:1: has no rules.cc"),
        ({"src/domains/model/extra.h": "\n"}, "src/domains/device:1: has no extra.h"),
        ({"src/cellar/wine.h": "\n"}, "src/cellar/wine.h:1: belongs to no room"),
        ({"src/loose.h": "\n"}, "src/loose.h:1: belongs to no room"),
        ({"docs/x.md": "\n\nin /wo" + "rk/main\n"}, "docs/x.md:3: names a folder"),
        ({"tools/x.sh": "cd /ro" + "ot/x\n"}, "tools/x.sh:1: names a folder"),
        ({"src/base/text.cc": "// TO" + "DO later\n"}, "src/base/text.cc:1: a left-over note"),
        ({"src/base/text.cc": "x" * 121 + "\n"}, "src/base/text.cc:1: 121 columns"),
        ({"src/base/text_test.cc": "sleep_" + "for(1s);\n"}, "src/base/text_test.cc:1: a test waits"),
        ({"tests/design/a_test.cc": "sleep_" + "for(1s);\n"}, "tests/design/a_test.cc:1: a test waits"),
    ]
    failures = []
    for change, wanted in [({}, None), *bad]:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**good, **change}.items():
                if text is None:
                    continue
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            problems = Tree(folder).check(ranks)
        if wanted is None and problems:
            failures.append(f"a tidy tree was refused: {problems}")
        if wanted is not None and not any(problem.startswith(wanted) for problem in problems):
            failures.append(f"not caught: {wanted}; reported: {problems}")
    for failure in failures:
        print(f"self-test: {failure}")
    print(f"tidy_test self-test: {len(bad) + 1 - len(failures)} of {len(bad) + 1} cases as expected")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()

    with open(Path(__file__).resolve().parent / "room_ranks.json", encoding="utf-8") as file:
        ranks = json.load(file)["ranks"]
    if arguments.self_test:
        return self_test(ranks)
    tree = Tree(arguments.root)
    for problem in tree.check(ranks):
        print(problem)
    print(f"tidy_test: {len(tree.files)} files, {len(tree.problems)} violations")
    return 1 if tree.problems or not tree.files else 0


if __name__ == "__main__":
    sys.exit(main())
