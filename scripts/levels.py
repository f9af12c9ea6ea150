#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""levels.py [MAIN]: do the files of the core use each other in one direction only?

MAIN is the root of the crate, kernel/livepatch/livepatch_main.rs. Its head, and that of
each file that has a folder of its own name, has a map: a line for each level

    //!     3  lookup set_spec shadow

and none without a number, but for one that goes on with the level above it. A module may
use those of lower levels, neither higher ones nor others of its own; what is in a folder
is where the folder is. All may use what MAIN itself defines or imports. Tests
(tests.rs, *_tests.rs) may use all, and nobody them. What is in the folder "rules" must
not use the kernel. Prints what is wrong, a line each, and how many files are in circles.
"""

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MAIN = os.path.join(HERE, "../kernel/livepatch/livepatch_main.rs")
# Other crates, which share files with this one.
OTHERS = {"ftrace_handler"}
RULES = "rules"
KERNEL = re.compile(r"\b(?:(?:kernel|bindings)\s*::|use\s+::?(?:kernel|bindings)\b|use\s+(?:kernel|bindings)\b)")


def blank(match):
    """As many lines of nothing."""
    return re.sub(r"[^\n]", " ", match[0])


def strip(text):
    """Rust without comments and strings; what is left stays in its place."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|b?c?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', blank, text, flags=re.S)


def expand(tree):
    """The paths of a use tree, as lists of names."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        return [[n.strip() for n in re.sub(r"\bas\s+\w+", "", tree).split("::") if n.strip()]]
    inner, depth, part, parts = rest[: rest.rindex("}")], 0, "", []
    for c in inner + ",":
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += c
    before = [n.strip() for n in head.split("::") if n.strip()]
    return [before + path for p in parts if p.strip() for path in expand(p)]


def inline_modules(text):
    """Where modules within a file begin and end, with their names."""
    found = []
    for match in re.finditer(r"\bmod\s+(\w+)\s*\{", text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        found.append((match.start(), end, match[1]))
    return found


class Crate:
    """The files of the core, by the paths of their modules."""

    def __init__(self, main):
        self.folder = os.path.dirname(main)
        self.wrong = []
        self.files = {(): main}
        for folder, _, names in os.walk(self.folder):
            inside = os.path.relpath(folder, self.folder).split(os.sep)
            inside = () if inside == ["."] else tuple(inside)
            for name in sorted(names):
                stem, ext = os.path.splitext(name)
                path = os.path.join(folder, name)
                if ext == ".rs" and path != main and not (not inside and stem in OTHERS):
                    self.files[inside + (stem,)] = path
        self.text, self.maps = {}, {}
        for module, path in self.files.items():
            with open(path, encoding="utf-8") as f:
                text = f.read()
            self.text[module] = strip(text)
            if not module or any(m[:-1] == module for m in self.files):
                self.maps[module] = self.read_map(module, text)
        root = self.text[()]
        self.items = set(re.findall(r"\b(?:fn|struct|enum|static|const|type|trait|macro_rules!)\s+(\w+)", root))
        for match in re.finditer(r"\buse\s+([^;]+);", root):
            self.items.update(path[-1] for path in expand(match[1]))
        # What module! makes.
        self.items.update({"LocalModule", "THIS_MODULE"} if "module!" in root else ())

    def say(self, module, position, text):
        """Note what is wrong, and where."""
        line = self.text[module].count("\n", 0, position) + 1
        path = os.path.relpath(self.files[module], os.path.join(self.folder, "../.."))
        text = "%s:%d: %s" % (path, line, text)
        if text not in self.wrong:
            self.wrong.append(text)

    @staticmethod
    def is_test(module):
        return module[-1:] and (module[-1] == "tests" or module[-1].endswith("_tests"))

    def read_map(self, module, text):
        """The levels of the modules in one, from the head of its file."""
        levels, level = {}, None
        for line in text.splitlines():
            found = re.match(r"//!     +(?:(\d+)  +)?((?:\w+ ?)+)$", line)
            if not line.startswith("//"):
                if line:
                    break
            elif found and (found[1] or level is not None):
                level = int(found[1]) if found[1] else level
                for name in found[2].split():
                    if name in levels:
                        self.wrong.append("%s is in the map of %s twice" % (name, "::".join(module) or "crate"))
                    if module + (name,) not in self.files:
                        self.wrong.append("%s is in a map, and no file" % "::".join(module + (name,)))
                    levels[name] = level
            else:
                level = None
        return levels

    def paths(self, module):
        """What a file uses: positions, and paths from the crate's root."""
        text = self.text[module]
        inner = inline_modules(text)
        found = []
        uses = [(m.start(), m.end(), m[1]) for m in re.finditer(r"\buse\s+([^;]+);", text)]
        for start, _, tree in uses:
            found += [(start, path) for path in expand(tree)]
        for match in re.finditer(r"\b(?:crate|super|self)(?:\s*::\s*\w+)+", text):
            if not any(start <= match.start() < end for start, end, _ in uses):
                found.append((match.start(), [n.strip() for n in match[0].split("::")]))
        for position, path in found:
            here = list(module) + [name for start, end, name in inner if start <= position < end]
            if path[0] == "crate":
                here, path = [], path[1:]
            elif path[0] in ("self", "super"):
                while path and path[0] in ("self", "super"):
                    here = here[:-1] if path[0] == "super" else here
                    path = path[1:]
            else:
                continue
            yield position, tuple(here + path)

    def check(self):
        """Looks at all files. Returns the edges, by file."""
        edges = {}
        for module in self.files:
            if module and not self.is_test(module) and module[-1] not in self.maps.get(module[:-1], {}):
                self.say(module, 0, "is in no map: where it belongs is for the head of %s"
                         % os.path.basename(self.files.get(module[:-1], "?")))
            if module[:1] == (RULES,):
                for match in KERNEL.finditer(self.text[module]):
                    self.say(module, match.start(), "uses the kernel; what is in %s must not" % RULES)
            edges[module] = self.edges(module)
        return edges

    def edges(self, module):
        """The files that one uses; says so if it must not."""
        used = set()
        for position, path in self.paths(module):
            target = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in self.files), ())
            if not target:
                if path and path[0] not in self.items and path[0] != "*" and module:
                    self.say(module, position, "uses crate::%s, which is nowhere" % path[0])
                continue
            # What is used of itself or of what is below it in its own folder.
            if target == module or target[: len(module)] == module:
                used.update({target} - {module})
                continue
            used.add(target)
            if self.is_test(module):
                continue
            name = "::".join(("crate",) + target)
            if self.is_test(target):
                self.say(module, position, "uses %s, which is a test" % name)
                continue
            common = 0
            while common < min(len(module), len(target)) and module[common] == target[common]:
                common += 1
            if common == len(target):
                self.say(module, position, "uses %s, which it is a part of" % name)
                continue
            levels = self.maps.get(target[:common], {})
            mine, its = levels.get(module[common]), levels.get(target[common])
            if mine is not None and its is not None and its >= mine:
                self.say(module, position, "uses %s, which is not below it: level %d from level %d"
                         % (name, its, mine))
        return used


def circles(edges):
    """The groups of files that use each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(one):
        index[one] = low[one] = len(index)
        stack.append(one)
        for other in sorted(edges[one]):
            if other not in index:
                visit(other)
                low[one] = min(low[one], low[other])
            elif other in stack:
                low[one] = min(low[one], index[other])
        if low[one] == index[one]:
            group = []
            while not group or group[-1] != one:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for one in sorted(edges):
        if one not in index:
            visit(one)
    return found


def main():
    crate = Crate(os.path.abspath(sys.argv[1] if sys.argv[1:] else MAIN))
    found = circles(crate.check())
    for line in crate.wrong:
        print(line)
    for group in found:
        print("a circle: " + " ".join("::".join(module) or "crate" for module in group))
    print("%d files, %d of them in circles" % (len(crate.files), sum(map(len, found))))
    sys.exit(bool(crate.wrong or found))


if __name__ == "__main__":
    main()
