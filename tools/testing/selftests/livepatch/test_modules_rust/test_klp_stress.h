/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The livepatches of the stress test: test_klp_stress_a to _c are versions 1
 * to 3 of this. They change different functions, so that an atomic replace needs
 * nops, and objects for the nops.
 *
 *			/proc/...	a	b	c
 *   vmlinux		cmdline		x	x	x
 *			version		x		x
 *			execdomains		x	x
 *   stress_target	test_klp_stress	x	x	x
 *   mod_target		test_klp_mod_target	x	x
 *
 * Each callback checks that it may be called now.
 */

#define pr_fmt(fmt) "test_klp_stress: " fmt

#include <linux/array_size.h>
#include <linux/bits.h>
#include <linux/compiler.h>
#include <linux/jiffies.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/string.h>

static bool replace;
module_param(replace, bool, 0444);
MODULE_PARM_DESC(replace, "Replace the livepatches that are enabled");

static bool replaced;
module_param(replaced, bool, 0644);
MODULE_PARM_DESC(replaced, "Written when the livepatch was replaced, which calls no callbacks");

static int show_version(struct seq_file *m, void *v)
{
	seq_printf(m, "%s: %s\n", KBUILD_MODNAME, "this has been live patched");
	return 0;
}

/* Sleeps now and then, so that tasks are inside it when it is unpatched. */
static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	if (!get_random_u32_below(4))
		schedule_timeout_interruptible(msecs_to_jiffies(get_random_u32_below(50)));
	return show_version(m, v);
}

static int livepatch_stress_value(void)
{
	int version = STRESS_VERSION;

	OPTIMIZER_HIDE_VAR(version);
	return version;
}

static int livepatch_stress_sleep(unsigned int ms, int (*value)(void))
{
	schedule_timeout_interruptible(msecs_to_jiffies(ms));
	return 10 * STRESS_VERSION + value();
}

static struct klp_func vmlinux_funcs[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = livepatch_cmdline_proc_show,
	},
#if STRESS_VERSION != 2
	{
		.old_name = "version_proc_show",
		.new_func = show_version,
	},
#endif
#if STRESS_VERSION != 1
	{
		.old_name = "execdomains_proc_show",
		.new_func = show_version,
	},
#endif
	{ }
};

static struct klp_func stress_target_funcs[] = {
	{
		.old_name = "stress_value",
		.new_func = livepatch_stress_value,
	}, {
		.old_name = "stress_sleep",
		.new_func = livepatch_stress_sleep,
	}, { }
};

#if STRESS_VERSION != 2
static struct klp_func mod_target_funcs[] = {
	{
		.old_name = "test_klp_mod_target_show",
		.new_func = show_version,
	}, { }
};
#endif

static int pre_patch(struct klp_object *obj);
static void post_patch(struct klp_object *obj);
static void pre_unpatch(struct klp_object *obj);
static void post_unpatch(struct klp_object *obj);

#define CALLBACKS {				\
		.pre_patch = pre_patch,		\
		.post_patch = post_patch,	\
		.pre_unpatch = pre_unpatch,	\
		.post_unpatch = post_unpatch,	\
	}

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = vmlinux_funcs,
		.callbacks = CALLBACKS,
	}, {
		.name = "test_klp_stress_target",
		.funcs = stress_target_funcs,
		.callbacks = CALLBACKS,
	},
#if STRESS_VERSION != 2
	{
		.name = "test_klp_mod_target",
		.funcs = mod_target_funcs,
		.callbacks = CALLBACKS,
	},
#endif
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

/*
 * Which callbacks were called for an object. A transition that is reversed begins
 * once and ends once, whatever it ends with. A module that goes during a
 * transition ends it for its object.
 */
static enum stress_state {
	UNPATCHED,
	PATCHING,
	PATCHED,
	UNPATCHING,
} states[ARRAY_SIZE(objs)];

static void step(struct klp_object *obj, const char *callback, unsigned int allowed,
		 enum stress_state next)
{
	enum stress_state *state = &states[obj - objs];

	if (!(allowed & BIT(*state)))
		pr_err("unbalanced: %s: %s for '%s' in state %d\n", KBUILD_MODNAME,
		       callback, obj->name ?: "vmlinux", *state);
	if (obj->name ? !obj->mod || strcmp(obj->mod->name, obj->name) : !!obj->mod)
		pr_err("unbalanced: %s: %s for '%s' has the wrong module\n", KBUILD_MODNAME,
		       callback, obj->name ?: "vmlinux");
	*state = next;
}

static int pre_patch(struct klp_object *obj)
{
	step(obj, __func__, BIT(UNPATCHED), PATCHING);
	return 0;
}

static void post_patch(struct klp_object *obj)
{
	step(obj, __func__, BIT(PATCHING) | BIT(UNPATCHING), PATCHED);
}

static void pre_unpatch(struct klp_object *obj)
{
	step(obj, __func__, BIT(PATCHED), UNPATCHING);
}

static void post_unpatch(struct klp_object *obj)
{
	step(obj, __func__, BIT(PATCHING) | BIT(UNPATCHING), UNPATCHED);
}

static int stress_init(void)
{
	patch.replace = replace;
	return klp_enable_patch(&patch);
}

static void stress_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(objs) - 1; i++) {
		if (states[i] == UNPATCHED && !(replaced && !objs[i].name))
			continue;
		if (states[i] == PATCHED && replaced)
			continue;
		pr_err("unbalanced: %s: exit with '%s' in state %d, replaced=%d\n",
		       KBUILD_MODNAME, objs[i].name ?: "vmlinux", states[i], replaced);
	}
}

module_init(stress_init);
module_exit(stress_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: one version of several functions");
