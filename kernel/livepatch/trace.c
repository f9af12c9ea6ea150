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
#define KLP_EXPORT_TRACEPOINT(name)						\
	EXPORT_SYMBOL_FOR_MODULES(__tracepoint_##name, "livepatch");		\
	EXPORT_SYMBOL_FOR_MODULES(rust_do_trace_##name, "livepatch")

KLP_EXPORT_TRACEPOINT(klp_transition);
KLP_EXPORT_TRACEPOINT(klp_task_switch);
KLP_EXPORT_TRACEPOINT(klp_task_blocked);
#endif
