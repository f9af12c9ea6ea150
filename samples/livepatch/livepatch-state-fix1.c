// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * livepatch-state-fix1.c - a livepatch that changes more than code
 *
 * While it is enabled, a panic reboots the machine after a minute, unless another
 * time was set before.  The setting is a state: the core calls pre_patch when the
 * first livepatch with the state comes, and post_unpatch when the last one is
 * gone.  The old value is in a shadow variable that belongs to the state: later
 * livepatches find it there, and the core frees it in the end.
 *
 * livepatch-state-fix2.c is the next release.
 *
 * $ cat /proc/sys/kernel/panic
 * $ insmod samples/livepatch/livepatch-state-fix1.ko
 * $ cat /proc/sys/kernel/panic
 * $ cat /sys/kernel/debug/livepatch/states
 * $ insmod samples/livepatch/livepatch-state-fix2.ko
 * $ rmmod livepatch-state-fix1
 * $ cat /proc/sys/kernel/panic
 * $ echo 0 > /sys/kernel/livepatch/livepatch_state_fix2/enabled
 * $ cat /proc/sys/kernel/panic
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "livepatch-state-fix.h"

static struct klp_func no_funcs[] = { { } };

static struct klp_object objs[] = {
	{
		/* vmlinux; this release changes no code */
		.funcs = no_funcs,
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

static int livepatch_state_fix1_init(void)
{
	return klp_enable_patch(&patch);
}

static void livepatch_state_fix1_exit(void)
{
}

module_init(livepatch_state_fix1_init);
module_exit(livepatch_state_fix1_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Live patching demo: a state that the core manages");
MODULE_INFO(livepatch, "Y");
