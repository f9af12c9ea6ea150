// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch of cmdline_proc_show() that asks for one thing that only the
 * livepatch core in Rust has. It is built for both cores.
 */

#include <linux/errno.h>
#include <linux/kconfig.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/string.h>

static char *needs = "nothing";
module_param(needs, charp, 0444);
MODULE_PARM_DESC(needs, "What the livepatch asks for");

/* What the header says of the core of this kernel. */
static bool managed_states = __is_defined(KLP_HAVE_MANAGED_STATES);
static bool shadow_types = __is_defined(KLP_HAVE_SHADOW_TYPES);
static bool replace_sets = __is_defined(KLP_HAVE_REPLACE_SETS);
module_param(managed_states, bool, 0444);
module_param(shadow_types, bool, 0444);
module_param(replace_sets, bool, 0444);

static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s: %s\n", KBUILD_MODNAME, "this has been live patched");
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
		/* name being NULL means vmlinux */
		.funcs = funcs,
	}, { }
};

/* Far from the ids of others. Any core accepts a state without callbacks. */
#define STATE_ID	0x6e656564
#define SHADOW_ID	0x6e656565

static struct klp_state states[] = {
	{
		.id = STATE_ID,
		.version = 1,
	}, { }
};

static struct klp_shadow_type shadow_type = {
	.id = SHADOW_ID,
};

static struct klp_shadow_type *types[] = {
	&shadow_type,
	NULL
};

static const unsigned int sets[] = { 7, 0 };

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.states = states,
};

static int state_pre_patch(struct klp_patch *patch, struct klp_state *state)
{
	return 0;
}

static void state_callback(struct klp_patch *patch, struct klp_state *state)
{
}

static void shadow_dtor(void *obj, void *data)
{
}

static bool set_up(void)
{
	struct klp_state *state = &states[0];

	if (!strcmp(needs, "scoped"))
		patch.scoped = true;
	else if (!strcmp(needs, "replace_set"))
		patch.replace_set = 7;
	else if (!strcmp(needs, "supersedes"))
		patch.supersedes = sets;
	else if (!strcmp(needs, "nr_supersedes"))
		patch.nr_supersedes = 1;
	else if (!strcmp(needs, "nr_param_supersedes"))
		patch.nr_param_supersedes = 1;
	else if (!strcmp(needs, "shadow_types"))
		patch.shadow_types = types;
	else if (!strcmp(needs, "object_shadow_types"))
		objs[0].shadow_types = types;
	else if (!strcmp(needs, "is_shadow"))
		state->is_shadow = true;
	else if (!strcmp(needs, "block_disable"))
		state->block_disable = true;
	else if (!strcmp(needs, "name"))
		state->name = "needs";
	else if (!strcmp(needs, "pre_patch"))
		state->callbacks.pre_patch = state_pre_patch;
	else if (!strcmp(needs, "post_patch"))
		state->callbacks.post_patch = state_callback;
	else if (!strcmp(needs, "pre_unpatch"))
		state->callbacks.pre_unpatch = state_callback;
	else if (!strcmp(needs, "post_unpatch"))
		state->callbacks.post_unpatch = state_callback;
	else if (!strcmp(needs, "shadow_dtor"))
		state->callbacks.shadow_dtor = shadow_dtor;
	else
		return !strcmp(needs, "nothing");
	return true;
}

static int test_klp_needs_init(void)
{
	return set_up() ? klp_enable_patch(&patch) : -ENOENT;
}

static void test_klp_needs_exit(void)
{
}

module_init(test_klp_needs_init);
module_exit(test_klp_needs_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: what not every core has");
