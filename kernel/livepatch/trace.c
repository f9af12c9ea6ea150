// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The tracepoints of livepatching. They are in vmlinux, where some of those who
 * switch tasks are.
 */

#include <linux/export.h>

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/livepatch.h>

#if IS_MODULE(CONFIG_LIVEPATCH_RUST) && defined(CONFIG_TRACEPOINTS)
/* What the core needs of it, for it alone. */
EXPORT_SYMBOL_FOR_MODULES(__tracepoint_klp_transition, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(__tracepoint_klp_task_switch, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(__tracepoint_klp_task_blocked, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(__tracepoint_klp_func, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(__tracepoint_klp_callback, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(__tracepoint_klp_shadow, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(rust_do_trace_klp_transition, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(rust_do_trace_klp_task_switch, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(rust_do_trace_klp_task_blocked, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(rust_do_trace_klp_func, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(rust_do_trace_klp_callback, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(rust_do_trace_klp_shadow, "livepatch");
#endif
