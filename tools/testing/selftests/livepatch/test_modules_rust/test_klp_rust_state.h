/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A livepatch whose states and shadow types are module parameters. It is built
 * under several names, so that several can be loaded side by side.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#define MAX 8

static char *states = "";
module_param(states, charp, 0444);
MODULE_PARM_DESC(states,
		 "comma-separated; ID[:shadow][:block][:dtor][:nodtor][:forgot][:quiet][:NAME][=VERSION]; forgot is without post_unpatch, quiet without callbacks");

static unsigned long types[MAX];
static unsigned int nr_types;
module_param_array(types, ulong, &nr_types, 0444);
MODULE_PARM_DESC(types, "ids of shadow types of the livepatch");

static unsigned long object_types[MAX];
static unsigned int nr_object_types;
module_param_array(object_types, ulong, &nr_object_types, 0444);
MODULE_PARM_DESC(object_types, "ids of shadow types of test_klp_mod_target");

static bool replace;
module_param(replace, bool, 0444);
MODULE_PARM_DESC(replace, "replace other livepatches");

static bool callbacks;
module_param(callbacks, bool, 0444);
MODULE_PARM_DESC(callbacks, "per-object callbacks of vmlinux");

static unsigned long fail;
module_param(fail, ulong, 0444);
MODULE_PARM_DESC(fail, "the state whose pre_patch fails");

static bool version;
module_param(version, bool, 0444);
MODULE_PARM_DESC(version, "patch /proc/version");

static bool hold;
module_param(hold, bool, 0644);
MODULE_PARM_DESC(hold, "keep those who read /proc/version");

static unsigned long attempt;
module_param(attempt, ulong, 0444);
MODULE_PARM_DESC(attempt, "try to attach a shadow variable with this id, in pre_patch of vmlinux");

static unsigned long attempt_type;
module_param(attempt_type, ulong, 0444);
MODULE_PARM_DESC(attempt_type, "the same with a type of this id that nobody declared");

static bool keep;
module_param(keep, bool, 0444);
MODULE_PARM_DESC(keep, "keep what was attached by attempt until the module is unloaded");

static bool leave;
module_param(leave, bool, 0444);
MODULE_PARM_DESC(leave, "do not free what was attached by attempt");

static unsigned long tidy;
module_param(tidy, ulong, 0444);
MODULE_PARM_DESC(tidy, "free all shadow variables with this id when the module is unloaded");

/* Shadow variables are attached to these, which do not go with a module. */
#define NR_ANCHORS	3

static void *anchor(int i)
{
	return (char *)&init_task + i;
}

static void count_dtor(void *obj, void *data)
{
	pr_info("shadow variable %lu is freed\n", *(unsigned long *)data);
}

static int set_id(void *obj, void *data, void *ctor_data)
{
	*(unsigned long *)data = *(unsigned long *)ctor_data;
	return 0;
}

static int state_pre_patch(struct klp_patch *patch, struct klp_state *state)
{
	int i;

	pr_info("pre_patch of state %lu\n", state->id);
	if (state->id == fail)
		return -ENODEV;
	if (!state->is_shadow)
		return 0;
	for (i = 0; i < NR_ANCHORS; i++) {
		/* After a forced transition some are there already. */
		if (!klp_shadow_get_or_alloc(anchor(i), state->id,
					     sizeof(unsigned long), GFP_KERNEL,
					     set_id, &state->id))
			return -ENOMEM;
	}
	return 0;
}

static void state_post_patch(struct klp_patch *patch, struct klp_state *state)
{
	pr_info("post_patch of state %lu\n", state->id);
}

static void state_pre_unpatch(struct klp_patch *patch, struct klp_state *state)
{
	pr_info("pre_unpatch of state %lu\n", state->id);
}

static void state_post_unpatch(struct klp_patch *patch, struct klp_state *state)
{
	pr_info("post_unpatch of state %lu\n", state->id);
}

static int object_pre_patch(struct klp_object *obj)
{
	pr_info("pre_patch of vmlinux\n");
	return 0;
}

static void attach(void *obj, struct klp_shadow_type *type)
{
	if (!klp_shadow_type_get_or_alloc(obj, type, sizeof(unsigned long),
					  GFP_KERNEL, &type->id))
		pr_info("no shadow variable %lu\n", type->id);
}

static int attempt_pre_patch(struct klp_object *obj)
{
	struct klp_shadow_type undeclared = {
		.id = attempt_type,
		.ctor = set_id,
	};

	if (attempt_type)
		attach(anchor(2), &undeclared);
	if (!attempt)
		return 0;
	if (klp_shadow_alloc(anchor(2), attempt, sizeof(unsigned long),
			     GFP_KERNEL, set_id, &attempt)) {
		pr_info("there is a shadow variable %lu now\n", attempt);
		if (!keep && !leave)
			klp_shadow_free(anchor(2), attempt, NULL);
	}
	return 0;
}

static void object_post_patch(struct klp_object *obj)
{
	pr_info("post_patch of vmlinux\n");
}

static void object_pre_unpatch(struct klp_object *obj)
{
	pr_info("pre_unpatch of vmlinux\n");
}

static void object_post_unpatch(struct klp_object *obj)
{
	pr_info("post_unpatch of vmlinux\n");
}

static struct klp_shadow_type type_structs[2 * MAX];
static struct klp_shadow_type *type_lists[2][MAX + 1];

/* By now the livepatch owns its types, and those of the object. */
static int target_pre_patch(struct klp_object *obj)
{
	struct klp_shadow_type **type;
	int i;

	for (i = 0; i < 2; i++) {
		for (type = type_lists[i]; *type; type++)
			attach(obj->mod, *type);
	}
	for (type = type_lists[1]; *type; type++)
		attach(anchor(0), *type);
	return 0;
}

/* In effect only when the work of test_klp_callbacks_busy is done. */
static void livepatch_busymod_work_func(struct work_struct *work)
{
}

/* Tasks that read the file keep this function on their stacks. */
static int livepatch_version_proc_show(struct seq_file *m, void *v)
{
	while (READ_ONCE(hold))
		msleep(20);
	seq_printf(m, "%s\n", THIS_MODULE->name);
	return 0;
}

static struct klp_func no_funcs[] = { { } };

static struct klp_func version_funcs[] = {
	{
		.old_name = "version_proc_show",
		.new_func = livepatch_version_proc_show,
	}, { }
};

static struct klp_func busymod_funcs[] = {
	{
		.old_name = "busymod_work_func",
		.new_func = livepatch_busymod_work_func,
	}, { }
};

static struct klp_object objs[] = {
	{
		.funcs = no_funcs,
	}, {
		.name = "test_klp_callbacks_busy",
		.funcs = busymod_funcs,
	}, {
		.name = "test_klp_mod_target",
		.funcs = no_funcs,
		.callbacks = { .pre_patch = target_pre_patch },
	}, { }
};

static struct klp_state state_structs[MAX + 1];

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.states = state_structs,
};

static int parse_state(struct klp_state *state, char *text)
{
	const struct klp_state_callbacks all = {
		.pre_patch = state_pre_patch,
		.post_patch = state_post_patch,
		.pre_unpatch = state_pre_unpatch,
		.post_unpatch = state_post_unpatch,
	};
	char *word = text;
	int err;

	text = strchr(word, '=');
	if (text) {
		*text++ = '\0';
		err = kstrtouint(text, 0, &state->version);
		if (err)
			return err;
	}
	text = word;
	err = kstrtoul(strsep(&text, ":"), 0, &state->id);
	if (err)
		return err;
	state->callbacks = all;
	while ((word = strsep(&text, ":"))) {
		if (!strcmp(word, "shadow")) {
			state->is_shadow = true;
			state->callbacks.shadow_dtor = count_dtor;
		} else if (!strcmp(word, "block")) {
			state->block_disable = true;
		} else if (!strcmp(word, "dtor")) {
			state->callbacks.shadow_dtor = count_dtor;
		} else if (!strcmp(word, "nodtor")) {
			state->callbacks.shadow_dtor = NULL;
		} else if (!strcmp(word, "forgot")) {
			state->callbacks.post_unpatch = NULL;
		} else if (!strcmp(word, "quiet")) {
			memset(&state->callbacks, 0, sizeof(state->callbacks));
		} else {
			state->name = word;
		}
	}
	return 0;
}

static void add_types(int list, unsigned long *ids, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		type_structs[list * MAX + i] = (struct klp_shadow_type) {
			.id = ids[i],
			.ctor = set_id,
			.dtor = count_dtor,
		};
		type_lists[list][i] = &type_structs[list * MAX + i];
	}
}

static char *parsed;

static int __init test_klp_rust_state_init(void)
{
	struct klp_shadow_type **type;
	unsigned int nr = 0;
	char *text, *word;
	int err = 0;

	parsed = kstrdup(states, GFP_KERNEL);
	if (!parsed)
		return -ENOMEM;
	text = parsed;
	while (!err && (word = strsep(&text, ",")) && *word)
		err = nr < MAX ? parse_state(&state_structs[nr++], word) : -E2BIG;
	if (err)
		goto free;

	add_types(0, types, nr_types);
	add_types(1, object_types, nr_object_types);
	patch.shadow_types = type_lists[0];
	objs[2].shadow_types = type_lists[1];
	patch.replace = replace;
	if (version)
		objs[0].funcs = version_funcs;
	if (callbacks)
		objs[0].callbacks = (struct klp_callbacks) {
			.pre_patch = object_pre_patch,
			.post_patch = object_post_patch,
			.pre_unpatch = object_pre_unpatch,
			.post_unpatch = object_post_unpatch,
		};

	if (attempt || attempt_type)
		objs[0].callbacks.pre_patch = attempt_pre_patch;

	err = klp_enable_patch(&patch);
	if (err)
		goto free;

	for (type = type_lists[0]; *type; type++)
		attach(anchor(1), *type);
	return 0;

free:
	kfree(parsed);
	return err;
}

static void __exit test_klp_rust_state_exit(void)
{
	if (keep)
		klp_shadow_free(anchor(2), attempt, count_dtor);
	if (tidy)
		klp_shadow_free_all(tidy, count_dtor);
	kfree(parsed);
}

module_init(test_klp_rust_state_init);
module_exit(test_klp_rust_state_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: states and shadow types by parameter");
MODULE_INFO(livepatch, "Y");
