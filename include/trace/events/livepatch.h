/* SPDX-License-Identifier: GPL-2.0-or-later */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM livepatch

#if !defined(_TRACE_LIVEPATCH_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_LIVEPATCH_H

#include <linux/livepatch.h>
#include <linux/sched.h>
#include <linux/tracepoint.h>

#ifndef _LIVEPATCH_TRACE_ENUMS
#define _LIVEPATCH_TRACE_ENUMS
/* What a transition has come to. */
enum klp_stage {
	KLP_STAGE_START,
	KLP_STAGE_REVERSED,
	KLP_STAGE_FORCED,
	KLP_STAGE_STALLED,
	KLP_STAGE_COMPLETE,
};

/* Who has switched a task. */
enum klp_switcher {
	KLP_BY_PASS,
	KLP_BY_EXIT,
	KLP_BY_IDLE,
	KLP_BY_SCHED,
	KLP_BY_FORCE,
};

/* Why a task could not be switched. */
enum klp_reason {
	KLP_REASON_READY,
	KLP_REASON_RUNNING,
	KLP_REASON_UNRELIABLE,
	KLP_REASON_FUNCTION,
	KLP_REASON_OTHER,
};
#endif

TRACE_DEFINE_ENUM(KLP_STAGE_START);
TRACE_DEFINE_ENUM(KLP_STAGE_REVERSED);
TRACE_DEFINE_ENUM(KLP_STAGE_FORCED);
TRACE_DEFINE_ENUM(KLP_STAGE_STALLED);
TRACE_DEFINE_ENUM(KLP_STAGE_COMPLETE);

TRACE_DEFINE_ENUM(KLP_BY_PASS);
TRACE_DEFINE_ENUM(KLP_BY_EXIT);
TRACE_DEFINE_ENUM(KLP_BY_IDLE);
TRACE_DEFINE_ENUM(KLP_BY_SCHED);
TRACE_DEFINE_ENUM(KLP_BY_FORCE);

TRACE_DEFINE_ENUM(KLP_REASON_READY);
TRACE_DEFINE_ENUM(KLP_REASON_RUNNING);
TRACE_DEFINE_ENUM(KLP_REASON_UNRELIABLE);
TRACE_DEFINE_ENUM(KLP_REASON_FUNCTION);
TRACE_DEFINE_ENUM(KLP_REASON_OTHER);

#define klp_show_stage(stage)						\
	__print_symbolic(stage,						\
		{ KLP_STAGE_START,		"start" },		\
		{ KLP_STAGE_REVERSED,		"reversed" },		\
		{ KLP_STAGE_FORCED,		"forced" },		\
		{ KLP_STAGE_STALLED,		"stalled" },		\
		{ KLP_STAGE_COMPLETE,		"complete" })

#define klp_show_switcher(by)						\
	__print_symbolic(by,						\
		{ KLP_BY_PASS,			"pass" },		\
		{ KLP_BY_EXIT,			"exit" },		\
		{ KLP_BY_IDLE,			"idle" },		\
		{ KLP_BY_SCHED,			"sched" },		\
		{ KLP_BY_FORCE,			"force" })

#define klp_show_reason(reason)						\
	__print_symbolic(reason,					\
		{ KLP_REASON_READY,		"ready" },		\
		{ KLP_REASON_RUNNING,		"running" },		\
		{ KLP_REASON_UNRELIABLE,	"unreliable" },		\
		{ KLP_REASON_FUNCTION,		"function" },		\
		{ KLP_REASON_OTHER,		"other" })

#define klp_show_target(target)						\
	__print_symbolic(target,					\
		{ KLP_TRANSITION_UNPATCHED,	"unpatched" },		\
		{ KLP_TRANSITION_PATCHED,	"patched" })

/*
 * A transition of @patch to @target has begun, was turned round or forced, has
 * stalled, or is complete, @age_ms milliseconds after it began.
 */
TRACE_EVENT(klp_transition,

	TP_PROTO(const char *patch, int target, unsigned int stage, u64 age_ms),

	TP_ARGS(patch, target, stage, age_ms),

	TP_STRUCT__entry(
		__string(patch, patch)
		__field(int, target)
		__field(unsigned int, stage)
		__field(u64, age_ms)
	),

	TP_fast_assign(
		__assign_str(patch);
		__entry->target = target;
		__entry->stage = stage;
		__entry->age_ms = age_ms;
	),

	TP_printk("patch=%s target=%s stage=%s age_ms=%llu",
		  __get_str(patch), klp_show_target(__entry->target),
		  klp_show_stage(__entry->stage), __entry->age_ms)
);

/* A task was switched to @target. */
TRACE_EVENT(klp_task_switch,

	TP_PROTO(struct task_struct *task, int target, unsigned int by),

	TP_ARGS(task, target, by),

	TP_STRUCT__entry(
		__array(char, comm, TASK_COMM_LEN)
		__field(pid_t, pid)
		__field(int, target)
		__field(unsigned int, by)
	),

	TP_fast_assign(
		memcpy(__entry->comm, task->comm, TASK_COMM_LEN);
		__entry->comm[TASK_COMM_LEN - 1] = '\0';
		__entry->pid = task->pid;
		__entry->target = target;
		__entry->by = by;
	),

	TP_printk("comm=%s pid=%d target=%s by=%s",
		  __entry->comm, __entry->pid, klp_show_target(__entry->target),
		  klp_show_switcher(__entry->by))
);

/* A task was looked at and could not be switched; @function is on its stack. */
TRACE_EVENT(klp_task_blocked,

	TP_PROTO(struct task_struct *task, unsigned int reason, const char *function),

	TP_ARGS(task, reason, function),

	TP_STRUCT__entry(
		__array(char, comm, TASK_COMM_LEN)
		__field(pid_t, pid)
		__field(unsigned int, reason)
		__string(function, function)
	),

	TP_fast_assign(
		memcpy(__entry->comm, task->comm, TASK_COMM_LEN);
		__entry->comm[TASK_COMM_LEN - 1] = '\0';
		__entry->pid = task->pid;
		__entry->reason = reason;
		__assign_str(function);
	),

	TP_printk("comm=%s pid=%d reason=%s function=%s",
		  __entry->comm, __entry->pid, klp_show_reason(__entry->reason),
		  __get_str(function))
);

#endif /* _TRACE_LIVEPATCH_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
