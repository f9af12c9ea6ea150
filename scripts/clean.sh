#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# clean.sh: removes build directories, grafted trees, logs and figures from the cache.
# What was fetched or takes long to make once (source, tools) stays.

. "$(dirname "$0")/lib.sh"

take_lock
rm -rf "$CACHE"/linux*/{build,tree,manifest,id} "$CACHE"/{rootfs,bench} "$LOGS"
