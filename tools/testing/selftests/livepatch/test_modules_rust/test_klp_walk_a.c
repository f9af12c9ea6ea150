// SPDX-License-Identifier: GPL-2.0
/*
 * The livepatch for the walk that compares livepatch cores. Its parameters say
 * which functions of vmlinux and of a module it changes, whether it replaces
 * others, and what its callbacks do. test_klp_walk_b and _c differ in name only.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#define MAX_FUNCS 4

#include "test_klp_funcs.h"
#include "test_klp_hold.h"

static char *object = "test_klp_walk_target";
module_param(object, charp, 0444);
MODULE_PARM_DESC(object, "Name of the module");

static bool replace;
module_param(replace, bool, 0444);
MODULE_PARM_DESC(replace, "Whether it replaces all other livepatches");

static bool callbacks;
module_param(callbacks, bool, 0444);
MODULE_PARM_DESC(callbacks, "Whether it has callbacks");

static char *refuse = "";
module_param(refuse, charp, 0644);
MODULE_PARM_DESC(refuse, "The object for which pre_patch fails");

static unsigned long state;
module_param(state, ulong, 0444);
MODULE_PARM_DESC(state, "The id of its state, 0: none");

static unsigned int version;
module_param(version, uint, 0444);
MODULE_PARM_DESC(version, "The version of its state");

static int livepatch_walk_show(struct seq_file *m, void *v)
{
	wait_event(held, let_go());
	seq_printf(m, "%s\n", KBUILD_MODNAME);
	return 0;
}

static struct klp_patch patch;

static void report(const char *callback, struct klp_object *obj)
{
	static const char *const module_state[] = {
		[MODULE_STATE_LIVE]	= "live",
		[MODULE_STATE_COMING]	= "coming",
		[MODULE_STATE_GOING]	= "going",
		[MODULE_STATE_UNFORMED]	= "unformed",
	};
	struct klp_state *prev;

	pr_info("%s: %s, %s, enabled=%d\n", callback, obj->name ? obj->name : "vmlinux",
		obj->mod ? module_state[obj->mod->state] : "no module", patch.enabled);

	/* klp_get_prev_state() may only be called during a transition. */
	if (!state || obj->name)
		return;
	prev = klp_get_prev_state(state);
	pr_info("%s: state %lu: %s %u, previous %s %u\n", callback, state,
		klp_get_state(&patch, state) ? "version" : "none", version,
		prev ? "version" : "none", prev ? prev->version : 0);
}

static int pre_patch(struct klp_object *obj)
{
	report(__func__, obj);
	return strcmp(refuse, obj->name ? obj->name : "vmlinux") ? 0 : -EXDEV;
}

static void post_patch(struct klp_object *obj)
{
	report(__func__, obj);
}

static void pre_unpatch(struct klp_object *obj)
{
	report(__func__, obj);
}

static void post_unpatch(struct klp_object *obj)
{
	report(__func__, obj);
}

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = vmlinux_funcs,
	}, {
		.funcs = target_funcs,
	}, { }
};

static struct klp_state states[2];

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.states = states,
};

static int test_klp_walk_init(void)
{
	struct klp_object *obj;
	int ret;

	ret = add_funcs(livepatch_walk_show);
	if (ret)
		return ret;

	objs[1].name = object;
	if (callbacks) {
		for (obj = objs; obj->funcs; obj++) {
			obj->callbacks.pre_patch = pre_patch;
			obj->callbacks.post_patch = post_patch;
			obj->callbacks.pre_unpatch = pre_unpatch;
			obj->callbacks.post_unpatch = post_unpatch;
		}
	}
	states[0].id = state;
	states[0].version = version;
	patch.replace = replace;
	return klp_enable_patch(&patch);
}

static void test_klp_walk_exit(void)
{
}

module_init(test_klp_walk_init);
module_exit(test_klp_walk_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: a livepatch that its parameters describe");
