#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Write an initramfs (newc cpio, everything owned by root).

mkcpio.py OUT --tar root.tar [--drop GLOB ...] [--link PATH=TARGET ...]
mkcpio.py OUT --dir SRC=DEST ...

The first form makes the guest's base system out of mmdebstrap's tar without
the need to unpack it as root; the second one what a single boot adds to it.
"""

import argparse
import fnmatch
import os
import stat
import tarfile

# Debian before trixie ships some files outside /usr; the guest has one layout
# whatever the suite, so that an archive laid over it never meets a symlink
# where it brings a directory.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def merged(path):
    head = path.split("/", 1)[0]
    return "usr/" + path if head in MERGED else path


class Cpio:
    def __init__(self, path):
        self.out = open(path, "wb")
        self.ino = 0
        self.seen = set()

    def add(self, path, mode, data=b"", mtime=0):
        if path in self.seen:
            return
        self.seen.add(path)
        parent = os.path.dirname(path)
        if parent and parent not in self.seen:
            self.add(parent, stat.S_IFDIR | 0o755)
        self._write(path, mode, data, mtime)

    def _write(self, path, mode, data, mtime):
        self.ino += 1
        name = path.encode() + b"\0"
        fields = (self.ino, mode, 0, 0, 1, int(mtime) & 0xFFFFFFFF, len(data),
                  0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + name
        self.out.write(head + b"\0" * (-len(head) % 4))
        self.out.write(data + b"\0" * (-len(data) % 4))

    def close(self):
        self._write("TRAILER!!!", 0, b"", 0)
        # The kernel wants a following archive aligned to 4 bytes; pad to a
        # block as cpio(1) does.
        self.out.write(b"\0" * (-self.out.tell() % 512))
        self.out.close()


def add_tar(cpio, path, drop):
    def dropped(name):
        return any(fnmatch.fnmatch(name, g) for g in drop)

    with tarfile.open(path) as tar:
        for top in MERGED:
            cpio.add("usr/" + top, stat.S_IFDIR | 0o755)
            cpio.add(top, stat.S_IFLNK | 0o777, ("usr/" + top).encode())
        for m in tar:
            name = merged(os.path.normpath(m.name).lstrip("/"))
            if name == "." or dropped(name):
                continue
            if m.isdir():
                cpio.add(name, stat.S_IFDIR | m.mode, mtime=m.mtime)
            elif m.issym():
                if name not in MERGED:
                    cpio.add(name, stat.S_IFLNK | 0o777, m.linkname.encode(),
                             m.mtime)
            elif m.isfile() or m.islnk():
                data = tar.extractfile(m).read()
                cpio.add(name, stat.S_IFREG | m.mode, data, m.mtime)
            # Device nodes come from devtmpfs.


def add_dir(cpio, src, dest):
    for top, dirs, files in os.walk(src):
        dirs.sort()
        rel = os.path.relpath(top, src)
        base = os.path.normpath(os.path.join(dest, rel))
        if base != ".":
            cpio.add(base, stat.S_IFDIR | 0o755)
        for f in sorted(files) + [d for d in dirs
                                  if os.path.islink(os.path.join(top, d))]:
            full = os.path.join(top, f)
            name = os.path.normpath(os.path.join(base, f))
            st = os.lstat(full)
            if stat.S_ISLNK(st.st_mode):
                cpio.add(name, stat.S_IFLNK | 0o777, os.readlink(full).encode())
            else:
                with open(full, "rb") as fh:
                    cpio.add(name, st.st_mode, fh.read(), st.st_mtime)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--tar")
    ap.add_argument("--drop", action="append", default=[])
    ap.add_argument("--link", action="append", default=[])
    ap.add_argument("--dir", action="append", default=[])
    args = ap.parse_args()
    tmp = args.out + ".tmp"
    cpio = Cpio(tmp)
    if args.tar:
        add_tar(cpio, args.tar, args.drop)
    for d in args.dir:
        add_dir(cpio, *d.split("=", 1))
    for link in args.link:
        path, target = link.split("=", 1)
        cpio.add(path, stat.S_IFLNK | 0o777, target.encode())
    cpio.close()
    os.rename(tmp, args.out)


if __name__ == "__main__":
    main()
