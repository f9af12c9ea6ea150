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
	KLP_BY_FORK,
};

/* What becomes of shadow variables with an id. */
enum klp_shadow_event {
	KLP_SHADOW_OPENED,
	KLP_SHADOW_CLOSED,
	KLP_SHADOW_COLLECTED,
	KLP_SHADOW_LEAKED,
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
TRACE_DEFINE_ENUM(KLP_BY_FORK);

TRACE_DEFINE_ENUM(KLP_SHADOW_OPENED);
TRACE_DEFINE_ENUM(KLP_SHADOW_CLOSED);
TRACE_DEFINE_ENUM(KLP_SHADOW_COLLECTED);
TRACE_DEFINE_ENUM(KLP_SHADOW_LEAKED);

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
		{ KLP_BY_FORCE,			"force" },		\
		{ KLP_BY_FORK,			"fork" })

#define klp_show_reason(reason)						\
	__print_symbolic(reason,					\
		{ KLP_REASON_READY,		"ready" },		\
		{ KLP_REASON_RUNNING,		"running" },		\
		{ KLP_REASON_UNRELIABLE,	"unreliable" },		\
		{ KLP_REASON_FUNCTION,		"function" },		\
		{ KLP_REASON_OTHER,		"other" })

#define klp_show_shadow(event)						\
	__print_symbolic(event,						\
		{ KLP_SHADOW_OPENED,		"opened" },		\
		{ KLP_SHADOW_CLOSED,		"closed" },		\
		{ KLP_SHADOW_COLLECTED,		"collected" },		\
		{ KLP_SHADOW_LEAKED,		"leaked" })

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
	    TP_STRUCT__entry(__string(patch, patch)
			     __field(int, target)
			     __field(unsigned int, stage)
			     __field(u64, age_ms)),
	    TP_fast_assign(__assign_str(patch);
			   __entry->target = target;
			   __entry->stage = stage;
			   __entry->age_ms = age_ms;),
	    TP_printk("patch=%s target=%s stage=%s age_ms=%llu",
		      __get_str(patch), klp_show_target(__entry->target),
		      klp_show_stage(__entry->stage), __entry->age_ms)
);

/* A task was switched to @target, or forked as one that is. */
TRACE_EVENT(klp_task_switch,
	    TP_PROTO(struct task_struct *task, int target, unsigned int by),
	    TP_ARGS(task, target, by),
	    TP_STRUCT__entry(__array(char, comm, TASK_COMM_LEN)
			     __field(pid_t, pid)
			     __field(int, target)
			     __field(unsigned int, by)),
	    TP_fast_assign(memcpy(__entry->comm, task->comm, TASK_COMM_LEN);
			   __entry->comm[TASK_COMM_LEN - 1] = '\0';
			   __entry->pid = task->pid;
			   __entry->target = target;
			   __entry->by = by;),
	    TP_printk("comm=%s pid=%d target=%s by=%s",
		      __entry->comm, __entry->pid, klp_show_target(__entry->target),
		      klp_show_switcher(__entry->by))
);

/* A task was looked at and could not be switched; @function is on its stack. */
TRACE_EVENT(klp_task_blocked,
	    TP_PROTO(struct task_struct *task, unsigned int reason, const char *function),
	    TP_ARGS(task, reason, function),
	    TP_STRUCT__entry(__array(char, comm, TASK_COMM_LEN)
			     __field(pid_t, pid)
			     __field(unsigned int, reason)
			     __string(function, function)),
	    TP_fast_assign(memcpy(__entry->comm, task->comm, TASK_COMM_LEN);
			   __entry->comm[TASK_COMM_LEN - 1] = '\0';
			   __entry->pid = task->pid;
			   __entry->reason = reason;
			   __assign_str(function);),
	    TP_printk("comm=%s pid=%d reason=%s function=%s",
		      __entry->comm, __entry->pid, klp_show_reason(__entry->reason),
		      __get_str(function))
);

/*
 * A version of @function of @object, whose code is at @code (0 for the original
 * one), was put on the func stack, or taken off it.
 */
TRACE_EVENT(klp_func,
	    TP_PROTO(const char *object, const char *function, unsigned long code,
		     bool pushed),
	    TP_ARGS(object, function, code, pushed),
	    TP_STRUCT__entry(__string(object, object)
			     __string(function, function)
			     __field(unsigned long, code)
			     __field(bool, pushed)),
	    TP_fast_assign(__assign_str(object);
			   __assign_str(function);
			   __entry->code = code;
			   __entry->pushed = pushed;),
	    TP_printk("object=%s function=%s code=%ps action=%s",
		      __get_str(object), __get_str(function),
		      (void *)__entry->code, __entry->pushed ? "push" : "pop")
);

/*
 * A callback of a livepatch, @name, is called, or has returned @ret. It is for
 * @object, or if that is empty for the state @id; its code is at @code.
 */
TRACE_EVENT(klp_callback,
	    TP_PROTO(const char *name, const char *object, unsigned long id,
		     unsigned long code, bool ended, int ret),
	    TP_ARGS(name, object, id, code, ended, ret),
	    TP_STRUCT__entry(__string(name, name)
			     __string(object, object)
			     __field(unsigned long, id)
			     __field(unsigned long, code)
			     __field(bool, ended)
			     __field(int, ret)),
	    TP_fast_assign(__assign_str(name);
			   __assign_str(object);
			   __entry->id = id;
			   __entry->code = code;
			   __entry->ended = ended;
			   __entry->ret = ret;),
	    TP_printk("name=%s object=%s id=%lu code=%ps action=%s ret=%d",
		      __get_str(name), __get_str(object), __entry->id,
		      (void *)__entry->code, __entry->ended ? "end" : "begin",
		      __entry->ret)
);

/*
 * Shadow variables with @id are managed since a livepatch owns it, are not any
 * more, have been freed with the last owner, or are never freed. @count is how
 * many there are, or how many were freed.
 */
TRACE_EVENT(klp_shadow,
	    TP_PROTO(unsigned long id, unsigned int event, unsigned long count),
	    TP_ARGS(id, event, count),
	    TP_STRUCT__entry(__field(unsigned long, id)
			     __field(unsigned int, event)
			     __field(unsigned long, count)),
	    TP_fast_assign(__entry->id = id;
			   __entry->event = event;
			   __entry->count = count;),
	    TP_printk("id=%lu event=%s count=%lu",
		      __entry->id, klp_show_shadow(__entry->event), __entry->count)
);

#endif /* _TRACE_LIVEPATCH_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
