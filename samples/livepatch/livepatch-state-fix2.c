// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * livepatch-state-fix2.c - takes over the state of livepatch-state-fix1.c
 *
 * Replaces livepatch-state-fix1 and all other livepatches.  If one of them has
 * the state, this livepatch takes it over: no callback is called, and this
 * livepatch is the one that removes the state.  Otherwise it introduces the state
 * itself.  Neither release has to ask which is the case.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/seq_file.h>
#include "livepatch-state-fix.h"

static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s\n", "this has been live patched");
	return 0;
}

static struct klp_func funcs[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = livepatch_cmdline_proc_show,
	}, { }
};

static struct klp_object objs[] = {
	{
		/* vmlinux */
		.funcs = funcs,
	}, { }
};

static struct klp_state states[] = {
	PANIC_STATE,
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.states = states,
	.replace = true,
};

static int livepatch_state_fix2_init(void)
{
	return klp_enable_patch(&patch);
}

static void livepatch_state_fix2_exit(void)
{
}

module_init(livepatch_state_fix2_init);
module_exit(livepatch_state_fix2_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Live patching demo: taking over a state");
MODULE_INFO(livepatch, "Y");
