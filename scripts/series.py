#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""series.py REPO BASE OUT: this repository as commits on top of BASE/pristine.

What goes where is in scripts/series.list, whose head explains it. OUT/git is a
repository of the files that are touched, with the tag "base" and a commit for
each patch; OUT/*.patch are the patches.

Each file is a list of lines that know the commit they come with and the one
they go with. A whole patch gives all of its lines to one commit. The lines of a
patch that only wires new files into the tree (a mod line, an object in a
Makefile, a header to bind, a toctree entry) go to the commit of the file that
they name. A commit is what is there of all files at its place.
"""

import email
import email.policy
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import textwrap

LIST = "scripts/series.list"
OVERLAY = ("kernel", "rust", "include", "samples", "tools", "Documentation")


class Error(Exception):
    """Something that whoever changed the repository has to decide."""


class Commit:
    """One patch of the series."""

    def __init__(self, subject, where):
        self.subject = subject
        self.where = where
        self.text = []
        self.after = []
        self.globs = []
        self.rest = []
        self.patches = []
        self.files = []
        self.number = None


class Line:
    """A line of a file, from commit `birth` until commit `death`."""

    def __init__(self, text, birth=None, death=None):
        self.text = text
        self.birth = birth
        self.death = death


class File:
    """A file of the tree and all that the series does to it."""

    def __init__(self, lines=(), mode=0o644):
        self.lines = [Line(text) for text in lines]
        self.mode = mode

    def live(self):
        """The indexes of what is there after all patches so far."""
        return [i for i, line in enumerate(self.lines) if line.death is None]

    def at(self, number):
        """The content at commit `number`, or None if it is not there yet."""
        there = [
            line.text
            for line in self.lines
            if (line.birth is None or line.birth.number <= number)
            and (line.death is None or line.death.number > number)
        ]
        return "".join(there) if there else None


# A commit that is not known yet: that of the file that the line names.
WIRE = object()


def match(path, globs):
    """Whether a path matches one of the patterns, and none that begins with !."""
    if any(fnmatch.fnmatchcase(path, glob[1:]) for glob in globs if glob[0] == "!"):
        return False
    return any(fnmatch.fnmatchcase(path, glob) for glob in globs)


def pattern(glob):
    """The regular expression that get_maintainer.pl makes of an F: line."""
    regex = re.sub(
        r"\*\*|[*?.+]", lambda m: {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(m[0], re.escape(m[0])), glob
    )
    return re.compile(regex if glob.endswith("/") else regex + "$")


def strip_comments(text):
    """Rust or C without comments, more or less."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)


class Patch:
    """A file of patches/: its message, and its hunks by path."""

    def __init__(self, path):
        self.name = path.name
        self.number = path.name.split("-")[0]
        text = path.read_text()
        head, _, diff = text.partition("\ndiff --git ")
        mail = email.message_from_string(
            head.partition("\n")[2], policy=email.policy.default
        )
        self.author = str(mail["From"])
        self.subject = re.sub(r"^\[PATCH[^]]*\] *", "", str(mail["Subject"]))
        self.message = mail.get_content().partition("\n---\n")[0].strip() + "\n"
        self.hunks = {}
        self.modes = {}
        path = hunk = None
        for line in ("diff --git " + diff).splitlines(keepends=True):
            if line.startswith("diff --git "):
                path = line.split()[-1].partition("/")[2]
                self.hunks[path], hunk = [], None
            elif line.startswith("new file mode "):
                self.modes[path] = int(line.split()[-1], 8) & 0o777
            elif line.startswith("deleted file") or line.startswith("rename "):
                raise Error(f"{self.name}: deletes or renames {path}: not handled")
            elif found := re.match(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@", line):
                hunk = []
                # Of an empty range the number is that of the line before it.
                start = int(found[1]) - (found[2] != "0")
                self.hunks[path].append((start, hunk))
            elif hunk is not None and line == "-- \n":
                hunk = None
            elif hunk is not None and line[0] in " +-":
                hunk.append((line[0], line[1:]))
            elif hunk is not None and line == "\n":
                hunk.append((" ", line))

    def apply(self, files, birth, pristine):
        """Put the patch on what the ones before it have made."""
        for path, hunks in self.hunks.items():
            if path not in files:
                files[path] = pristine(path) or File(mode=self.modes.get(path, 0o644))
            file, moved = files[path], 0
            for start, hunk in hunks:
                live = file.live()
                text = [file.lines[i].text for i in live]
                old = [text for tag, text in hunk if tag != "+"]
                near = max(0, start + moved)
                at = next(
                    (
                        p
                        for d in range(len(text) + near + 1)
                        for p in (near - d, near + d)
                        if 0 <= p <= len(text) - len(old) and text[p : p + len(old)] == old
                    ),
                    None,
                )
                if at is None:
                    raise Error(f"{self.name}: a hunk of {path} does not apply")
                moved += sum((tag == "+") - (tag == "-") for tag, _ in hunk)
                # Where the next line goes, in the list that has the gone ones too.
                place = live[at] if at < len(live) else len(file.lines)
                for tag, line in hunk:
                    if tag == "+":
                        file.lines.insert(place, Line(line, birth))
                        place += 1
                        continue
                    while file.lines[place].death is not None:
                        place += 1
                    if tag == "-":
                        if birth is WIRE:
                            raise Error(
                                f"{self.name}: removes a line of {path}: only what adds lines "
                                f"can be a \"wire\" patch; name it in a commit of {LIST}"
                            )
                        file.lines[place].death = birth
                    place += 1


class Series:
    """The list, the tree, and what comes of both."""

    def __init__(self, repo, base):
        self.repo = pathlib.Path(repo)
        self.pristine_dir = pathlib.Path(base) / "pristine"
        self.tree = pathlib.Path(base) / "tree"
        self.manifest = (pathlib.Path(base) / "manifest").read_text().split()
        self.new = [p for p in self.manifest if not (self.pristine_dir / p).exists()]
        self.patches = [Patch(p) for p in sorted((self.repo / "patches").glob("*.patch"))]
        self.commits = []
        self.wires = []
        self.rules = []
        self.left = {}
        self.roots = []
        self.temps = []
        self.subjects = {}
        self.files = {}
        self.owner = {}
        self.errors = []

    # 1. The list.

    def read_list(self):
        """Read scripts/series.list into commits and rules."""
        commit = None
        rows = []
        for number, line in enumerate((self.repo / LIST).read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            rows.append((f"{LIST}:{number}", line[:1].isspace(), line.strip()))
        for _, _, row in rows:
            if found := re.match(r"subject (\S+) +(.*)", row):
                self.subjects[found[1]] = found[2]
        named = [n for _, _, row in rows for n in self.named_patches(row)]
        # What a wire patch or another row names is not for a pattern of paths.
        self.explicit = {p.number for p in self.patches if match(p.number, named)}
        self.taken = {}
        joins = []
        for where, inside, row in rows:
            word, _, rest = row.partition(" ")
            rest = rest.strip()
            if inside:
                if commit is None:
                    raise Error(f"{where}: belongs to no commit")
                if word == ">":
                    commit.text.append(rest)
                elif word == "add":
                    commit.globs += [g for glob in rest.split() for g in self.or_folder(glob)]
                elif word == "rest":
                    commit.rest += rest.split()
                elif word == "patch":
                    for patch in self.find(rest, where):
                        commit.patches.append(patch)
                elif word == "root":
                    self.roots.append((rest, commit, where))
                elif word == "temp":
                    path, _, text = rest.partition(" ")
                    self.temps.append((path, text, commit, where))
                else:
                    raise Error(f"{where}: '{word}' in a commit: add, rest, patch, root, temp or >")
                continue
            commit = None
            if word == "commit":
                commit = Commit(rest, where)
                self.commits.append(commit)
            elif word in ("patch", "patches"):
                found = self.find(rest, where) if word == "patch" else self.find_by_path(rest)
                for patch in found:
                    single = Commit(patch.subject, where)
                    single.patches = [patch]
                    self.commits.append(single)
            elif word == "each":
                self.commits += self.each(rest, where)
            elif word == "join":
                numbers, _, path = rest.partition(" => ")
                joins.append((list(self.find(numbers, where)), path.strip(), where))
            elif word == "wire":
                for glob in rest.split():
                    if "/" in glob:
                        self.wires.append(glob)
                    else:
                        for patch in self.find(glob, where):
                            patch.wire = True
            elif word == "line":
                path, _, rest = rest.partition(" ")
                regex, _, target = rest.rpartition(" => ")
                self.rules.append((path, re.compile(regex.strip()), target.strip(), where))
            elif word == "leave":
                path, _, _ = rest.partition(" ")
                self.left[path] = where
            elif word != "subject":
                raise Error(f"{where}: what is '{word}'?")
        for patch in self.patches:
            if patch.number not in self.taken:
                self.errors.append(
                    f"patches/{patch.name} is in no commit: name it in {LIST} "
                    f'("patch {patch.number}" where it belongs, or in "wire")'
                )
        for found, path, where in joins:
            commit = next((c for c in self.commits if match(path, c.globs)), None)
            if found and (not commit or path not in self.new):
                self.errors.append(f"{where}: {path}: there is no such new file")
            elif found:
                commit.patches += found
        for number, commit in enumerate(self.commits, 1):
            commit.number = number

    def or_folder(self, glob):
        """A module is a file, or a folder with mod.rs: then it is what is in that."""
        folder = glob.removesuffix(".rs") + "/"
        if glob[0] == "!" or not glob.endswith(".rs") or not any(fnmatch.fnmatchcase(p, folder + "mod.rs") for p in self.new):
            return [glob]
        there = any(fnmatch.fnmatchcase(p, glob) for p in self.new)
        return [glob, folder + "*"] if there else [folder + "*"]

    @staticmethod
    def named_patches(row):
        """The patch numbers that a row of the list names, as patterns."""
        word, _, rest = row.partition(" ")
        if word not in ("patch", "wire", "join"):
            return []
        return [glob for glob in rest.split() if "/" not in glob]

    def take(self, patch, where):
        """Note that a row has taken a patch."""
        if patch.number in self.taken:
            self.errors.append(
                f"patches/{patch.name} is in two places: {self.taken[patch.number]} and {where}"
            )
        self.taken[patch.number] = where
        return patch

    def find(self, globs, where):
        """The patches with these numbers; ? stands for any digit."""
        for glob in globs.split():
            found = [p for p in self.patches if fnmatch.fnmatchcase(p.number, glob)]
            if not found and not set("?[") & set(glob):
                self.errors.append(f"{where}: there is no patches/{glob}-*.patch")
            for patch in found:
                yield self.take(patch, where)

    def find_by_path(self, globs):
        """The patches that no other row names and that touch such paths only."""
        for patch in self.patches:
            if patch.number in self.explicit or patch.number in self.taken:
                continue
            if all(match(path, globs.split()) for path in patch.hunks):
                yield self.take(patch, f"patches {globs}")

    def each(self, globs, where):
        """A commit for each new file, those that others need first."""
        globs = globs.split()
        head = len(globs[0].split("*")[0])
        found = [p for p in self.new if match(p, globs) and "/" not in p[head:]]
        stems = {pathlib.PurePath(p).stem: p for p in found}
        needs = {
            p: {stems[m] for m in re.findall(r"(?:crate|kernel)::(\w+)", strip_comments(self.text(p))) if m in stems}
            for p in found
        }
        done = []

        def visit(path, above):
            if path in done or path in above:
                return
            for other in sorted(needs[path]):
                visit(other, above | {path})
            done.append(path)

        for path in sorted(found):
            visit(path, set())
        for path in done:
            stem = pathlib.PurePath(path).stem
            commit = Commit(self.subjects.get(path, f"rust: {stem}: add abstraction"), where)
            # What is in the folder of the same name are its submodules.
            commit.globs = [path, path[: -len(".rs")] + "/*"]
            commit.after = ["The core of live patching in Rust, which follows, is its first user."]
            yield commit

    # 2. Which file is whose.

    def text(self, path):
        """The content of a file of the grafted tree."""
        return (self.tree / path).read_text(errors="replace")

    def pristine(self, path):
        """A file of the pristine tree, or None."""
        file = self.pristine_dir / path
        if not file.exists():
            return None
        lines = file.read_bytes().decode(errors="surrogateescape").splitlines(keepends=True)
        return File(lines, file.stat().st_mode & 0o777)

    def assign(self):
        """Give every new file to the one commit that has it."""
        made = {path for patch in self.patches for path in patch.modes}
        used = set()
        for path in self.new:
            if path in made:
                continue
            if path in self.left:
                continue
            rows = [c for c in self.commits if match(path, c.globs)]
            rows = rows or [c for c in self.commits if match(path, c.rest)]
            wire = match(path, self.wires)
            if len(rows) + wire > 1:
                self.errors.append(
                    f"{path} is in more than one group: "
                    + ", ".join([f"{c.where} ({c.subject})" for c in rows] + ["wire"] * wire)
                )
            elif not rows and not wire:
                self.errors.append(f'{path} is in no group: add it to a commit ("add") of {LIST}')
            elif rows:
                self.owner[path] = rows[0]
                rows[0].files.append(path)
                used.update(g for g in rows[0].globs if fnmatch.fnmatchcase(path, g))
        for path in self.subjects:
            if path not in self.owner:
                self.errors.append(f"{LIST}: subject of {path}: there is no such new file")
        for path, where in self.left.items():
            if path not in self.new:
                self.errors.append(f"{where}: {path}: there is no such new file")
        for commit in self.commits:
            if not commit.files and not commit.patches:
                self.errors.append(f"{commit.where}: nothing is in '{commit.subject}'")
            for glob in commit.globs:
                if glob not in used and "*" not in glob and glob[0] != "!":
                    self.errors.append(f"{commit.where}: {glob}: there is no such new file")
        if self.errors:
            raise Error("\n".join(self.errors))

    # 3. The lines.

    def build(self):
        """Make the files of what the patches and the new files say."""
        owner = {p.number: c for c in self.commits for p in c.patches}
        for patch in self.patches:
            wire = getattr(patch, "wire", False)
            patch.apply(self.files, WIRE if wire else owner[patch.number], self.pristine)
            for path in patch.modes:
                if not wire:
                    self.owner[path] = owner[patch.number]
        for path in self.new:
            if path in self.left or path in self.files:
                continue
            file = self.tree / path
            lines = file.read_bytes().decode(errors="surrogateescape").splitlines(keepends=True)
            self.files[path] = File(lines, 0o755 if file.stat().st_mode & 0o100 else 0o644)
            for line in self.files[path].lines:
                line.birth = self.owner.get(path, WIRE)
        for path, commit, where in self.roots:
            self.plant(path, commit, where)
        rooted = {path for path, _, _ in self.roots}
        for path in self.new:
            if path.endswith(".rs") and path in self.owner and path not in rooted:
                self.declare(path, self.owner[path], self.owner[path])
        for path, text, commit, where in self.temps:
            until = max((self.owner[p] for p, _, _ in self.roots), key=lambda c: c.number)
            if path not in self.files:
                raise Error(f"{where}: nothing else touches {path}")
            self.files[path].lines.append(Line(text + "\n", commit, until))
        # Helpers that are only wired are asked for by the line that includes them.
        order = sorted(self.files, key=lambda p: self.pristine_dir.joinpath(p).exists())
        for path in order:
            if any(line.birth is WIRE for line in self.files[path].lines):
                self.resolve(path)
        if self.errors:
            raise Error("\n".join(self.errors))
        for path, file in self.files.items():
            for line in file.lines:
                if line.birth and line.death and line.birth.number >= line.death.number:
                    raise Error(
                        f"{path}: '{line.text.strip()}' goes with '{line.death.subject}' "
                        f"and comes with '{line.birth.subject}', which is not before it"
                    )

    def plant(self, path, commit, where):
        """Let the root of a crate begin as scripts/series.root says."""
        if path not in self.owner:
            raise Error(f"{where}: {path} is in no group")
        last = self.owner[path]
        file = self.files[path]
        lines, at = [], 0
        template = (self.repo / "scripts/series.root").read_text().splitlines()
        for number, row in enumerate(template, 1):
            if row.startswith("#"):
                continue
            tag, text = (row[:1] or " "), row[1:] + "\n"
            if tag == "-":
                lines.append(Line(text, commit, last))
                continue
            while at < len(file.lines) and file.lines[at].text != text:
                lines.append(file.lines[at])
                at += 1
            if at == len(file.lines):
                raise Error(
                    f"scripts/series.root:{number}: '{text.strip()}' is not in {path} any more, "
                    "or not behind the line before it"
                )
            file.lines[at].birth = commit
            lines.append(file.lines[at])
            at += 1
        file.lines = lines + file.lines[at:]
        self.declare(path, last, commit)

    def declare(self, path, own, first):
        """What declares a module comes with the module, and so does its #[cfg], but not
        before `first`, with which the file begins."""
        group = []
        for line in self.files[path].lines:
            if line.birth is not own:
                group = []
                continue
            group.append(line)
            if re.match(r"\s*#\[.*\]$", line.text):
                continue
            target = self.module(path, line.text)
            if target:
                for one in group:
                    one.birth = max(first, self.owner[target], key=lambda c: c.number)
            group = []

    def module(self, path, text):
        """The file of `mod name;` in the file `path`, if it is a new one."""
        found = re.match(r"\s*(?:pub(?:\([^)]*\))? )?mod (\w+);", text)
        if not found:
            return None
        folder, name = os.path.split(path)
        if name not in ("lib.rs", "mod.rs") and not name.endswith("_main.rs"):
            folder = os.path.join(folder, name[: -len(".rs")])
        for other in (f"{folder}/{found[1]}.rs", f"{folder}/{found[1]}/mod.rs"):
            if other in self.owner:
                return other
        return None

    def birth_of(self, path):
        """The commit that a file first comes with, or None."""
        if path in self.owner:
            return self.owner[path]
        births = [line.birth for line in self.files[path].lines] if path in self.files else []
        if not births or None in births:
            return None
        return min(births, key=lambda c: c.number)

    def user_of(self, regex, comments=False):
        """The first commit that adds `regex` to Rust files."""
        for commit in self.commits:
            texts = [self.text(path) for path in commit.files if path.endswith(".rs")]
            for patch in commit.patches:
                for path, hunks in patch.hunks.items():
                    if path.endswith(".rs"):
                        texts.append("".join(t for _, hunk in hunks for tag, t in hunk if tag == "+"))
            for text in texts:
                if re.search(regex, text if comments else strip_comments(text)):
                    return commit
        return None

    def due(self, path, text):
        """The commit that one line, or one C function, of a wire patch goes to."""
        for glob, regex, target, where in self.rules:
            if fnmatch.fnmatchcase(path, glob) and regex.search(text):
                found = [p for p in self.owner if fnmatch.fnmatchcase(p, target)]
                if not found:
                    raise Error(f"{where}: {target}: there is no such new file")
                return min((self.owner[p] for p in found), key=lambda c: c.number)
        if target := self.module(path, text):
            return self.owner[target]
        here = os.path.dirname(path)
        if found := re.match(r'#include "(.*)"', text):
            return self.birth_of(os.path.normpath(os.path.join(here, found[1])))
        if names := re.findall(r"\b(?:RUST_CONST_HELPER|rust_helper)_(\w+)", text):
            return self.user_of(rf"\b{names[0]}\b")
        if found := re.match(r"#include <(.*)>", text):
            return self.user_of(re.escape(f"include/{found[1]}"), comments=True)
        owners = []
        for word in re.findall(r"[\w./-]+", text):
            stem = word[:-2] if word.endswith(".o") else word
            for name in (word, f"{stem}.c", f"{stem}.rs", f"{stem}.rst"):
                owner = self.owner.get(os.path.normpath(os.path.join(here, name)))
                if owner:
                    owners.append(owner)
        return max(owners, key=lambda c: c.number) if owners else None

    def resolve(self, path):
        """Find out which commit each line of a wire patch comes with."""
        whole = path in self.new
        c_like = path.endswith((".c", ".h"))
        opening = r"#\s*if" if c_like else r"(ifdef|ifndef|ifeq|ifneq)\b"
        units = []
        for line in (line for line in self.files[path].lines if line.birth is WIRE):
            text = line.text.strip()
            before = units[-1] if units else None
            if c_like and before and before[0] == "body" and before[3]:
                before[1].append(line)
                before[2] += line.text
                before[3] = not re.search(r"(^\}|;)\s*$", line.text) or line.text[0].isspace() and "{" in before[2]
                continue
            if not text:
                kind = "blank"
            elif re.match(opening, text):
                kind = "open"
            elif re.match(r"#\s*endif" if c_like else r"endif\b", text):
                kind = "close"
            elif re.match(r"#\s*else" if c_like else r"else\b", text):
                kind = "else"
            elif re.match(r"/\*|\*|//" if c_like else r"//" if path.endswith(".rs") else "#", text):
                kind = "lead"
                if path.endswith(".rs") and text.startswith("#["):
                    kind = "attr"
            elif path.endswith(".rs") and text.startswith("#["):
                kind = "attr"
            else:
                kind = "body"
            ends = text.startswith("#") or bool(re.search(r"[;}]$", text))
            units.append([kind, [line], line.text, c_like and kind == "body" and not ends, None])
        for unit in units:
            if unit[0] == "body":
                unit[4] = self.due(path, unit[2])
        known = [u[4] for u in units if u[4]]
        first = min(known, key=lambda c: c.number) if known else None
        for unit in units:
            if unit[0] == "body" and not unit[4]:
                # In a file of helpers, what is no helper is for all of them.
                if whole and first:
                    unit[4] = first
                else:
                    self.errors.append(
                        f"{path}: no commit is known for the line '{unit[2].splitlines()[0].strip()}': "
                        f'add a "line" row to {LIST}'
                    )
        if self.errors:
            return
        self.brackets(units)
        for i, unit in enumerate(units):
            if unit[0] == "attr":
                unit[4] = next((u[4] for u in units[i + 1 :] if u[0] == "body"), first)
            elif unit[0] == "lead":
                para = []
                for other in units[i + 1 :]:
                    if other[0] in ("blank", "close", "else"):
                        break
                    if other[4]:
                        para.append(other[4])
                unit[4] = min(para, key=lambda c: c.number) if para else first
        for i, unit in enumerate(units):
            if unit[0] == "blank":
                follow = next((u for u in units[i + 1 :] if u[0] != "blank"), None)
                # At the end of what is inserted, it is the end of what is before.
                back = next((u for u in reversed(units[:i]) if u[0] != "blank"), None)
                unit[4] = (follow or back)[4]
        for unit in units:
            for line in unit[1]:
                line.birth = unit[4]

    @staticmethod
    def brackets(units):
        """#if, #else and #endif come with the first of what is between them."""
        stack = []
        for unit in units:
            kind = unit[0]
            if kind == "open":
                stack.append(([unit], []))
            elif kind == "else" and stack:
                stack[-1][0].append(unit)
            elif kind == "close" and stack:
                marks, inside = stack.pop()
                marks.append(unit)
                first = min(inside, key=lambda c: c.number) if inside else None
                for mark in marks:
                    mark[4] = first
                if stack and first:
                    stack[-1][1].append(first)
            elif kind == "body" and stack:
                stack[-1][1].append(unit[4])

    # 4. MAINTAINERS.

    def maintain(self, person):
        """Put the entries of the repository's MAINTAINERS into the tree's."""
        entries = [
            entry.splitlines()
            for entry in re.split(r"\n\n+", (self.repo / "MAINTAINERS").read_text())
            if re.search(r"^F:\t", entry, re.M)
        ]
        covered = set()
        file = self.pristine("MAINTAINERS")
        for title, *rows in entries:
            births = []
            for row in rows:
                commit = None
                if row.startswith("F:\t"):
                    regex = pattern(row[3:])
                    hits = [p for p in self.new if p not in self.left and regex.match(p)]
                    covered.update(hits)
                    found = [c for c in map(self.birth_of, hits) if c]
                    commit = min(found, key=lambda c: c.number) if found else None
                births.append((row, commit))
            named = [(row, c) for row, c in births if row.startswith("F:")]
            if not any(c for _, c in named):
                if any(row[3:].split("/")[0] in OVERLAY for row, _ in named):
                    raise Error(f"MAINTAINERS: {title}: none of its files is in the series")
                continue  # of the repository, not of the kernel
            for row, commit in named:
                if not commit:
                    raise Error(f"MAINTAINERS: {title}: {row[3:]}: no new file of the series is like that")
            if named != sorted(named, key=lambda f: f[0]):
                raise Error(f"MAINTAINERS: {title}: the F: lines are not in order")
            first = min((c for _, c in named), key=lambda c: c.number)
            if not any(row.startswith("M:") for row in rows):
                births.insert(0, (f"M:\t{person}", None))
            entry = [Line(f"{title}\n", first)]
            entry += [Line(f"{row}\n", commit or first) for row, commit in births]
            entry.append(Line("\n", first))
            # The list begins behind what explains it.
            at = next(i for i, l in enumerate(file.lines) if l.text == "Maintainers List\n")
            titles = [
                i
                for i, line in enumerate(file.lines[at:], at)
                if re.match(r"[A-Z0-9]", line.text)
                and not re.match(r"[A-Z]:\t", line.text)
                and file.lines[i - 1].text == "\n"
                and i > at + 2
            ]
            # It is not sorted everywhere: best is behind the title that is most alike.
            near = max(
                (a for a, b in zip(titles, titles[1:]) if file.lines[a].text < f"{title}\n" < file.lines[b].text),
                key=lambda a: len(os.path.commonprefix([file.lines[a].text, title])),
            )
            place = titles[titles.index(near) + 1]
            file.lines[place:place] = entry
        self.files["MAINTAINERS"] = file
        alone = [p for p in self.new if p not in covered and p not in self.left]
        if alone:
            raise Error("MAINTAINERS: no F: line for\n" + "\n".join(f"\t{p}" for p in alone))

    # 5. The order.

    def check_order(self):
        """Nothing uses a module of the core that comes later."""
        stems = {}
        for path, commit in self.owner.items():
            if path.endswith(".rs"):
                name = path[: -len("/mod.rs")] if path.endswith("/mod.rs") else path[:-3]
                stems.setdefault((path.split("/")[0], name.split("/")[-1]), commit)
        for path, file in self.files.items():
            for line in file.lines:
                if not line.birth or line.death:
                    continue
                for other in self.wired(path, line.text):
                    if self.owner[other].number > line.birth.number:
                        self.errors.append(
                            f"{path}: '{line.text.strip()}' ('{line.birth.subject}') names {other}, which comes "
                            f"later, with '{self.owner[other].subject}': \"wire\" or \"join\" that patch"
                        )
        for path, commit in self.owner.items():
            if not path.endswith(".rs"):
                continue
            text = strip_comments(self.text(path))
            if path in {root for root, _, _ in self.roots}:
                continue
            for crate, name in self.uses(text):
                home = path.split("/")[0] if crate != "kernel" else "rust"
                other = stems.get((home, name))
                if other and other.number > commit.number:
                    self.errors.append(
                        f"{path} ('{commit.subject}') uses {crate}::{name}, "
                        f"which comes later, with '{other.subject}'"
                    )
        if self.errors:
            raise Error("\n".join(sorted(set(self.errors))))

    def wired(self, path, text):
        """The new files that a line declares, includes or links."""
        here = os.path.dirname(path)
        names = [self.module(path, text)] if path.endswith(".rs") else []
        if path.endswith((".c", ".h")):
            names += [os.path.normpath(os.path.join(here, n)) for n in re.findall(r'^#include "(.*)"', text)]
        elif path.endswith("Makefile") and not text.startswith("#"):
            for stem in re.findall(r"([\w-]+)\.o\b", text):
                names += [f"{here}/{stem}.c", f"{here}/{stem}.rs"]
        return [name for name in names if name in self.owner]

    @staticmethod
    def uses(text):
        """The first names behind crate::, super:: and kernel::."""
        for found in re.finditer(r"(?<![\w:])(crate|super|kernel)::(\{|\w+)", text):
            if found[2] != "{":
                yield found[1], found[2]
                continue
            depth, part, at = 1, "", found.end()
            while depth and at < len(text):
                char = text[at]
                depth += {"{": 1, "}": -1}.get(char, 0)
                if depth == 1 and char == "," or not depth:
                    if name := re.match(r"\s*(\w+)", part):
                        yield found[1], name[1]
                    part = ""
                else:
                    part += char
                at += 1

    # 6. The commits.

    def message(self, commit):
        """What a commit says."""
        if len(commit.patches) == 1 and not commit.files and not commit.text:
            return f"{commit.patches[0].subject}\n\n{commit.patches[0].message}"
        paras = []
        for text in commit.text:
            if text and paras and paras[-1] is not None:
                paras[-1] += " " + text
            elif text:
                paras = [p for p in paras if p is not None] + [text]
            else:
                paras.append(None)
        paras = [p for p in paras if p is not None]
        roots = {root for root, _, _ in self.roots}
        rust = sorted(p for p in commit.files if p.endswith(".rs") and p not in roots)
        abouts = [(pathlib.PurePath(p).stem, self.about(p)) for p in rust]
        abouts = [(stem, about) for stem, about in abouts if about]
        if len(abouts) == 1 and len(rust) == 1:
            paras.append(abouts[0][1])
        elif abouts:
            paras += [f"- {stem}: {about}" for stem, about in abouts]
        if not paras:
            raise Error(f"{commit.where}: '{commit.subject}' says nothing: add lines with >")
        body = "\n\n".join(
            textwrap.fill(
                para, 72, break_on_hyphens=False, break_long_words=False,
                subsequent_indent="  " if para.startswith("- ") else "",
            )
            for para in paras + commit.after
        )
        return f"{commit.subject}\n\n{body}\n"

    def about(self, path):
        """The first paragraph of a file's documentation."""
        text = []
        for line in self.text(path).splitlines():
            if found := re.match(r"//! ?(.*)", line):
                if not found[1]:
                    break
                text.append(found[1])
            elif text:
                break
        # Links are for rustdoc.
        return re.sub(r"\[(`?[^]]*`?)\](\([^)]*\))?", r"\1", " ".join(text))

    def write(self, out):
        """Make the commits and the patches."""
        git_dir = pathlib.Path(out) / "git"
        git_dir.mkdir(parents=True)

        def git(*args, **kwargs):
            return subprocess.run(
                ["git", "-c", "core.hooksPath=/dev/null", "-C", git_dir, *args],
                check=True, text=True, stdout=subprocess.PIPE, **kwargs
            ).stdout

        def put(number):
            for path, file in self.files.items():
                target = git_dir / path
                text = file.at(number)
                if text is None:
                    target.unlink(missing_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(text.encode(errors="surrogateescape"))
                target.chmod(file.mode)
            git("add", "-A")

        git("init", "-q")
        for key, default in (("name", "The livepatch-rs developers"), ("email", "livepatch-rs@localhost")):
            git("config", f"user.{key}", self.config(f"user.{key}") or default)
        put(0)
        git("commit", "-q", "-m", "Linux")
        git("tag", "base")
        for commit in self.commits:
            put(commit.number)
            if not git("diff", "--cached", "--name-only"):
                raise Error(f"{commit.where}: '{commit.subject}' changes nothing")
            message = self.message(commit)
            author = []
            if commit.patches and not commit.files:
                author = [f"--author={commit.patches[0].author}"]
            git("commit", "-q", "-s", "-F", "-", *author, input=message)
        self.compare(git_dir)
        git(
            "format-patch", "-q", "--cover-letter", "--zero-commit", "--no-signature",
            "-o", str(pathlib.Path(out).resolve()), "base",
        )
        self.cover(pathlib.Path(out), git)
        # What is sent is what is applied.
        tip = git("rev-parse", "HEAD^{tree}")
        patches = sorted(str(p.resolve()) for p in pathlib.Path(out).glob("*.patch"))[1:]
        git("checkout", "-q", "-b", "applied", "base")
        git("am", "-q", *patches)
        if git("rev-parse", "HEAD^{tree}") != tip:
            raise Error("git am of the patches makes another tree")
        git("checkout", "-q", "-")
        return len(patches)

    def config(self, key):
        """A setting of the repository's git."""
        return subprocess.run(
            ["git", "-C", self.repo, "config", key], text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ).stdout.strip()

    def compare(self, git_dir):
        """Nothing is left out, and nothing else comes in."""
        for path in self.manifest:
            if path in self.left:
                continue
            if (self.tree / path).read_bytes() != (git_dir / path).read_bytes():
                raise Error(f"the series does not make {path} what it is")
            if (self.tree / path).stat().st_mode & 0o100 != (git_dir / path).stat().st_mode & 0o100:
                raise Error(f"the series does not make the mode of {path} what it is")
        ours = {
            str(p.relative_to(git_dir))
            for p in git_dir.rglob("*")
            if p.is_file() and ".git" not in p.relative_to(git_dir).parts
        }
        extra = ours - set(self.manifest) - {"MAINTAINERS"}
        if extra:
            raise Error("the series adds what the tree does not have: " + " ".join(sorted(extra)))

    def cover(self, out, git):
        """Put the text of scripts/series.cover into the cover letter."""
        text = (self.repo / "scripts/series.cover").read_text()
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
        subject, _, body = text.strip().partition("\n")
        letter = next(out.glob("0000-*.patch"))
        filled = letter.read_text()
        filled = filled.replace("*** SUBJECT HERE ***", subject.strip())
        filled = filled.replace("*** BLURB HERE ***", body.strip())
        letter.write_text(filled)


def main():
    """Do it all."""
    repo, base, out = sys.argv[1:]
    series = Series(repo, base)
    date = subprocess.run(
        ["git", "-C", repo, "log", "-1", "--format=%cI"], text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ).stdout.strip()
    if date:  # the same repository, the same patches
        os.environ["GIT_AUTHOR_DATE"] = os.environ["GIT_COMMITTER_DATE"] = date
    try:
        series.read_list()
        series.assign()
        series.build()
        series.check_order()
        name = series.config("user.name") or "The livepatch-rs developers"
        mail = series.config("user.email") or "livepatch-rs@localhost"
        series.maintain(f"{name} <{mail}>")
        count = series.write(out)
    except Error as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))
    print(count)


if __name__ == "__main__":
    main()
