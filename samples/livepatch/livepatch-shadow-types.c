// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * livepatch-shadow-types.c - shadow variables that the core frees
 *
 * Counts, in a shadow variable of each struct of livepatch-shadow-mod.c, how often
 * that module looks at the struct.  The livepatch declares the type of these
 * variables for the module, so the core frees them: when the livepatch is disabled
 * or replaced, and when the module goes.  The livepatch needs no callback for that.
 *
 * $ insmod samples/livepatch/livepatch-shadow-mod.ko
 * $ insmod samples/livepatch/livepatch-shadow-types.ko
 * (wait a minute or so)
 * $ cat /sys/kernel/debug/livepatch/states
 * $ echo 0 > /sys/kernel/livepatch/livepatch_shadow_types/enabled
 * $ cat /sys/kernel/debug/livepatch/states
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/slab.h>

/* The beginning of the struct in livepatch-shadow-mod.c, as far as it is used. */
struct dummy {
	struct list_head list;
	unsigned long jiffies_expire;
};

static void checks_dtor(void *obj, void *data)
{
	pr_info("%p was checked %lu times\n", obj, *(unsigned long *)data);
}

/* livepatch-shadow-fix1.c and -fix2.c use other ids for the same structs. */
#define SV_CHECKS	1002

static struct klp_shadow_type checks_type = {
	.id = SV_CHECKS,
	.dtor = checks_dtor,
};

static bool livepatch_dummy_check(struct dummy *d, unsigned long jiffies)
{
	unsigned long *checks;

	/* A struct can be older than the livepatch, and have no variable yet. */
	checks = klp_shadow_type_get_or_alloc(d, &checks_type, sizeof(*checks),
					      GFP_NOWAIT, NULL);
	if (checks)
		*checks += 1;

	return time_after(jiffies, d->jiffies_expire);
}

/* Do not wait for the core: another struct could get the same address. */
static void livepatch_dummy_free(struct dummy *d)
{
	klp_shadow_type_free(d, &checks_type);
	kfree(d);
}

static struct klp_func funcs[] = {
	{
		.old_name = "dummy_check",
		.new_func = livepatch_dummy_check,
	},
	{
		.old_name = "dummy_free",
		.new_func = livepatch_dummy_free,
	}, { }
};

static struct klp_shadow_type *types[] = {
	&checks_type,
	NULL
};

static struct klp_object objs[] = {
	{
		.name = "livepatch_shadow_mod",
		.funcs = funcs,
		.shadow_types = types,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int livepatch_shadow_types_init(void)
{
	return klp_enable_patch(&patch);
}

static void livepatch_shadow_types_exit(void)
{
}

module_init(livepatch_shadow_types_init);
module_exit(livepatch_shadow_types_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Live patching demo: shadow variables that the core frees");
MODULE_INFO(livepatch, "Y");
