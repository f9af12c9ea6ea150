// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Livepatch hooks that must be resident, whether the core is built in or a
 * module: what fork, kernel exit, the scheduler and the module loader call,
 * and the state which those share with the core.
 */

#define pr_fmt(fmt) "livepatch: " fmt

#include <linux/delay.h>
#include <linux/export.h>
#include <linux/ftrace.h>
#include <linux/jiffies.h>
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/moduleloader.h>
#include <linux/rcupdate.h>
#include <linux/sched/idle.h>
#include <linux/sched/task.h>
#include <linux/stacktrace.h>
#include <linux/workqueue.h>
#include <trace/events/livepatch.h>
#include "resident.h"

/*
 * Serializes everything that changes livepatch state, except what runs in
 * klp_copy_process(), klp_update_patch_state(), __klp_sched_try_switch() and
 * the ftrace handler.  It also pins the registered core: the three hooks that
 * may sleep call the core under it.
 */
DEFINE_MUTEX(klp_mutex);

/* The patch state that tasks with TIF_PATCH_PENDING are to be switched to. */
int klp_target_state = KLP_TRANSITION_IDLE;

DEFINE_STATIC_KEY_FALSE(klp_sched_try_switch_key);

static const struct klp_core_ops __rcu *klp_core;

static const struct klp_core_ops *klp_core_locked(void)
{
	return rcu_dereference_protected(klp_core, lockdep_is_held(&klp_mutex));
}

int klp_register_core(const struct klp_core_ops *ops)
{
	guard(mutex)(&klp_mutex);

	if (klp_core_locked())
		return -EBUSY;

	rcu_assign_pointer(klp_core, ops);
	return 0;
}

void klp_unregister_core(void)
{
	scoped_guard(mutex, &klp_mutex)
		RCU_INIT_POINTER(klp_core, NULL);

	/* Pairs with rcu_dereference_sched() in __klp_sched_try_switch(). */
	synchronize_rcu();
}

void klp_set_sched_try_switch(bool enable)
{
	if (enable)
		static_branch_enable(&klp_sched_try_switch_key);
	else
		static_branch_disable(&klp_sched_try_switch_key);
}

/*
 * Called from copy_process() under tasklist_lock: bring the child in line with
 * its parent, which may have been switched since its thread flags were copied.
 * Neither klp_update_patch_state() nor __klp_sched_try_switch() can interfere,
 * the parent is current.  Nor can the core, which walks over all tasks without
 * tasklist_lock: it switches no task that is running, and with preemption
 * disabled (which the lock does not do on PREEMPT_RT) the parent is.
 */
void klp_copy_process(struct task_struct *child)
{
	guard(preempt)();

	if (test_tsk_thread_flag(current, TIF_PATCH_PENDING))
		set_tsk_thread_flag(child, TIF_PATCH_PENDING);
	else
		clear_tsk_thread_flag(child, TIF_PATCH_PENDING);

	child->patch_state = current->patch_state;

	/* Who is not on that side is traced when it is switched. */
	if (trace_klp_task_switch_enabled() &&
	    child->patch_state != KLP_TRANSITION_IDLE &&
	    child->patch_state == READ_ONCE(klp_target_state))
		trace_klp_task_switch(child, child->patch_state, KLP_BY_FORK);
}

/* Who calls klp_update_patch_state(). */
static enum klp_switcher klp_switcher(struct task_struct *task)
{
	if (task != current)
		return KLP_BY_FORCE;

	return is_idle_task(task) ? KLP_BY_IDLE : KLP_BY_EXIT;
}

/*
 * Switch a task that is current or inactive.  Disabled preemption makes
 * schedule_on_each_cpu() wait for it, also where RCU is not watching.
 */
void klp_update_patch_state(struct task_struct *task)
{
	preempt_disable_notrace();

	/*
	 * The atomic is a full barrier: it orders the flag before the read of
	 * klp_target_state, and before what klp_ftrace_handler() reads later.
	 * Pairs with the smp_wmb() of tasks::make_pending().
	 */
	if (test_and_clear_tsk_thread_flag(task, TIF_PATCH_PENDING)) {
		int target = READ_ONCE(klp_target_state);
		bool changes = task->patch_state != target;

		task->patch_state = target;
		if (changes)
			trace_klp_task_switch(task, target, klp_switcher(task));
	}

	preempt_enable_notrace();
}

void __klp_sched_try_switch(void)
{
	const struct klp_core_ops *core;

	lockdep_assert_preemption_disabled();

	if (likely(!klp_patch_pending(current)))
		return;

	/*
	 * Order the flag before the reads of klp_target_state and of the
	 * ranges to check, and before later reads in klp_ftrace_handler().
	 * Pairs with the smp_wmb() of tasks::make_pending().
	 */
	smp_rmb();

	core = rcu_dereference_sched(klp_core);
	if (core)
		core->try_switch_current();
}

int klp_module_coming(struct module *mod)
{
	const struct klp_core_ops *core;
	int ret = 0;

	if (WARN_ON(mod->state != MODULE_STATE_COMING))
		return -EINVAL;

	if (!strcmp(mod->name, "vmlinux")) {
		pr_err("vmlinux.ko: invalid module name\n");
		return -EINVAL;
	}

	guard(mutex)(&klp_mutex);

	/* A livepatch enabled from now on finds this module by itself. */
	mod->klp_alive = true;

	core = klp_core_locked();
	if (core)
		ret = core->module_coming(mod);
	if (ret)
		mod->klp_alive = false;

	return ret;
}

void klp_module_going(struct module *mod)
{
	const struct klp_core_ops *core;

	if (WARN_ON(mod->state != MODULE_STATE_GOING &&
		    mod->state != MODULE_STATE_COMING))
		return;

	guard(mutex)(&klp_mutex);

	mod->klp_alive = false;

	core = klp_core_locked();
	if (core)
		core->module_going(mod);
}

static bool klp_withdraw(struct module *mod)
{
	const struct klp_core_ops *core;

	guard(mutex)(&klp_mutex);

	core = klp_core_locked();
	return core && core->withdraw(mod);
}

/* Tasks get a fake signal after about 15 seconds. */
#define KLP_WITHDRAW_TIMEOUT	(30 * HZ)

/*
 * Called by the module loader before it frees a module that may be the one of
 * an enabled livepatch: its init function has failed behind klp_enable_patch(),
 * or it is unloaded by force.  Neither cares for references.  Wait until the
 * livepatch is undone; return true if tasks keep it from being so, and the
 * module must never be freed.
 */
bool klp_module_stays(struct module *mod)
{
	unsigned long timeout = jiffies + KLP_WITHDRAW_TIMEOUT;

	if (!is_livepatch_module(mod))
		return false;

	while (klp_withdraw(mod)) {
		if (time_after(jiffies, timeout)) {
			pr_err("module '%s' stays for ever: tasks may run functions of its livepatch\n",
			       mod->name);
			return true;
		}
		fsleep(10 * USEC_PER_MSEC);
	}

	return false;
}

int klp_apply_section_relocs(struct module *pmod, Elf_Shdr *sechdrs,
			     const char *shstrtab, const char *strtab,
			     unsigned int symndx, unsigned int secndx,
			     const char *objname)
{
	const struct klp_core_ops *core;

	guard(mutex)(&klp_mutex);

	core = klp_core_locked();
	if (!core) {
		pr_err("no livepatch core is loaded, cannot relocate module '%s'\n",
		       pmod->name);
		return -ENODEV;
	}

	return core->apply_section_relocs(pmod, sechdrs, shstrtab, strtab,
					  symndx, secndx, objname);
}

/* Only some architectures can, and need to, undo relocations. */
void __weak clear_relocate_add(Elf_Shdr *sechdrs, const char *strtab,
			       unsigned int symindex, unsigned int relsec,
			       struct module *me)
{
}

#if IS_MODULE(CONFIG_LIVEPATCH_RUST)
/* What the core needs of vmlinux, for it alone. */
EXPORT_SYMBOL_FOR_MODULES(klp_mutex, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(klp_target_state, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(klp_register_core, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(klp_unregister_core, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(klp_set_sched_try_switch, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(klp_update_patch_state, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(klp_next_exiting, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(clear_relocate_add, "livepatch");

EXPORT_SYMBOL_FOR_MODULES(apply_relocate_add, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(find_module, "livepatch");
#ifdef CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS
EXPORT_SYMBOL_FOR_MODULES(ftrace_find_rec_direct, "livepatch");
#endif
EXPORT_SYMBOL_FOR_MODULES(ftrace_location_range, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(idle_task, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(kallsyms_lookup_size_offset, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(kallsyms_on_each_match_symbol, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(module_kallsyms_on_each_symbol, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(schedule_on_each_cpu, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(stack_trace_save_tsk_reliable, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(task_call_func, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(task_curr, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(tasklist_lock, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(wake_up_if_idle, "livepatch");
EXPORT_SYMBOL_FOR_MODULES(wake_up_state, "livepatch");
#endif
