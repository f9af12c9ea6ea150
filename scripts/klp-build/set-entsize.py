#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Sets the entry size of special sections in x86_64 objects that lost it.

`ld.lld-19 -r` drops sh_entsize, without which "objtool klp diff" cannot tell
the entries of these sections apart.
"""

import struct
import sys

SIZES = {
    b".discard.annotate_insn": 8,
    b".discard.annotate_data": 8,
    b".altinstructions": 14,
    b"__ex_table": 12,
}


def fix(path):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    table, = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    # Numbers that do not fit are in the first section's header.
    if count == 0:
        count, = struct.unpack_from("<Q", data, table + 0x20)
    if names == 0xFFFF:
        names, = struct.unpack_from("<I", data, table + 0x28)
    strings, = struct.unpack_from("<Q", data, table + names * size + 0x18)
    for index in range(count):
        header = table + index * size
        start = strings + struct.unpack_from("<I", data, header)[0]
        name = bytes(data[start:data.index(0, start)])
        entsize, = struct.unpack_from("<Q", data, header + 0x38)
        if name in SIZES and entsize == 0:
            struct.pack_into("<Q", data, header + 0x38, SIZES[name])
            print(path, name.decode(), SIZES[name])
    with open(path, "wb") as file:
        file.write(data)


for argument in sys.argv[1:]:
    fix(argument)
