/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The livepatch for the tests of replace sets. Its parameters say which functions
 * of vmlinux and of a module it changes, in which set it is, and which sets it
 * supersedes. The Makefile builds it a dozen times, under different names.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/array_size.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#define MAX_FUNCS 8
#define MAX_IDS 4

#include "test_klp_funcs.h"
#include "test_klp_hold.h"

static bool scoped;
module_param(scoped, bool, 0444);
MODULE_PARM_DESC(scoped, "Follow the rules of sets, also in set 0");

static bool replace;
module_param(replace, bool, 0444);
MODULE_PARM_DESC(replace, "Replace all others, as without sets");

static unsigned int set;
module_param(set, uint, 0444);
MODULE_PARM_DESC(set, "The set that it is in");

/* One more than allowed, and no 0 at the end. */
static unsigned int evicts[KLP_MAX_SUPERSEDES + 1];
static unsigned int nr_evicts;
module_param_array(evicts, uint, &nr_evicts, 0444);
MODULE_PARM_DESC(evicts, "The sets that it supersedes");

static char *list = "counted";
module_param(list, charp, 0444);
MODULE_PARM_DESC(list, "How the list of those sets is given, or what is wrong with it");

static unsigned long ids[MAX_IDS];
static int nr_ids;
module_param_array(ids, ulong, &nr_ids, 0444);
MODULE_PARM_DESC(ids, "The ids of its states");

static int livepatch_set_show(struct seq_file *m, void *v)
{
	wait_event(held, let_go());
	seq_printf(m, "%s\n", KBUILD_MODNAME);
	return 0;
}

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = vmlinux_funcs,
	}, {
		.name = "test_klp_rust_set_target",
		.funcs = target_funcs,
	}, { }
};

static struct klp_state states[MAX_IDS + 1];

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.states = states,
};

KLP_PARAM_SUPERSEDES(patch);

/* The same sets, by the macro and by the other names of the fields. */
static const struct klp_patch by_macro = { KLP_REPLACE_SETS(7, 3, 0, 4) };
static const struct klp_patch own_by_macro = { KLP_REPLACE_SETS(7) };
static const unsigned int obsolete[] = { 3, 4, 0 };
static const struct klp_patch by_alias = {
	.provides = 7,
	.obsoletes = obsolete,
};

static void take_sets(const struct klp_patch *from)
{
	patch.scoped = from->scoped;
	patch.replace_set = from->replace_set;
	patch.supersedes = from->supersedes;
	patch.nr_supersedes = from->nr_supersedes;
}

static int add_list(void)
{
	int i;

	if (!strcmp(list, "counted")) {
		patch.supersedes = nr_evicts ? evicts : NULL;
		patch.nr_supersedes = nr_evicts;
	} else if (!strcmp(list, "terminated")) {
		patch.supersedes = evicts;
	} else if (!strcmp(list, "null")) {
		patch.nr_supersedes = 3;
	} else if (!strcmp(list, "param_too_many")) {
		patch.nr_param_supersedes = KLP_MAX_PARAM_SUPERSEDES + 1;
	} else if (!strcmp(list, "too_long") || !strcmp(list, "longest") ||
		   !strcmp(list, "unterminated") || !strcmp(list, "longest_terminated")) {
		for (i = 0; i < ARRAY_SIZE(evicts); i++)
			evicts[i] = 1000 + i;
		patch.supersedes = evicts;
		if (!strcmp(list, "too_long"))
			patch.nr_supersedes = KLP_MAX_SUPERSEDES + 1;
		else if (!strcmp(list, "longest"))
			patch.nr_supersedes = KLP_MAX_SUPERSEDES;
		else if (!strcmp(list, "longest_terminated"))
			evicts[KLP_MAX_SUPERSEDES] = 0;
	} else if (!strcmp(list, "macro")) {
		take_sets(&by_macro);
	} else if (!strcmp(list, "own_macro")) {
		take_sets(&own_by_macro);
	} else if (!strcmp(list, "alias")) {
		take_sets(&by_alias);
	} else {
		pr_err("unknown list=%s\n", list);
		return -EDOM;
	}
	return 0;
}

static int test_klp_rust_set_init(void)
{
	int i, ret;

	ret = add_funcs(livepatch_set_show);
	if (ret)
		return ret;
	for (i = 0; i < nr_ids; i++)
		states[i].id = ids[i];

	patch.scoped = scoped;
	patch.replace = replace;
	patch.replace_set = set;
	ret = add_list();
	if (ret)
		return ret;
	return klp_enable_patch(&patch);
}

static void test_klp_rust_set_exit(void)
{
}

module_init(test_klp_rust_set_init);
module_exit(test_klp_rust_set_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: a livepatch in a replace set");
