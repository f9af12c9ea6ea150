// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch that prints, in each of its callbacks, the fields of its descriptor
 * that the core has filled in, and calls the original functions through them.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kallsyms.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/string.h>

static bool hold;
module_param(hold, bool, 0644);
MODULE_PARM_DESC(hold, "Hold readers");

static bool refuse;
module_param(refuse, bool, 0444);
MODULE_PARM_DESC(refuse, "Let pre_patch of vmlinux fail");

static int livepatch_show(struct seq_file *m, void *v)
{
	/* The callbacks below call this without a file: they are not held. */
	while (READ_ONCE(hold) && m->file)
		schedule_timeout_idle(HZ / 10);
	seq_printf(m, "%s\n", KBUILD_MODNAME);
	return 0;
}

static int pre_patch(struct klp_object *obj);
static void post_patch(struct klp_object *obj);
static void pre_unpatch(struct klp_object *obj);
static void post_unpatch(struct klp_object *obj);

#define CALLBACKS { pre_patch, post_patch, pre_unpatch, post_unpatch }

static struct klp_func vmlinux_funcs[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = livepatch_show,
	}, {
		.old_name = "version_proc_show",
		.new_func = livepatch_show,
		.old_sympos = 1,
	}, { }
};

static struct klp_func target_funcs[] = {
	{
		.old_name = "test_klp_mod_target_show",
		.new_func = livepatch_show,
	}, { }
};

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = vmlinux_funcs,
		.callbacks = CALLBACKS,
	}, {
		.name = "test_klp_mod_target",
		.funcs = target_funcs,
		.callbacks = CALLBACKS,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static const char *name_of(const struct klp_object *obj)
{
	return obj->name ?: "vmlinux";
}

/* All callbacks run under the core's mutex. */
static char text[KSYM_SYMBOL_LEN];

static const char *place_of(void *func)
{
	if (!func)
		return "nowhere";
	snprintf(text, sizeof(text), "%ps", func);
	/* That of a module, if it is in one. */
	text[strcspn(text, " ")] = '\0';
	return text;
}

static bool is_size(void *func, unsigned long size)
{
	unsigned long found;
	char *slash;

	snprintf(text, sizeof(text), "%pS", func);
	slash = strchr(text, '/');
	return slash && sscanf(slash, "/%lx", &found) == 1 && found == size;
}

/* What runs if somebody calls the original function. */
static const char *runs(const struct klp_func *func)
{
	int (*show)(struct seq_file *m, void *v) = func->old_func;
	struct seq_file m = { .buf = text, .size = sizeof(text) };

	if (!show)
		return "nothing";
	show(&m, NULL);
	return str_has_prefix(text, KBUILD_MODNAME) ? "new" : "original";
}

static void print_func(const struct klp_func *func)
{
	pr_info("    %s: at %s\n", func->old_name, place_of(func->old_func));
	pr_info("      patched=%d transition=%d nop=%d old_size=%s new_size=%s runs %s\n",
		func->patched, func->transition, func->nop,
		func->old_func && is_size(func->old_func, func->old_size) ? "right" : "-",
		func->old_func && is_size(func->new_func, func->new_size) ? "right" : "-",
		runs(func));
}

/* Whether the lists are those of the descriptor. */
static bool lists_agree(void)
{
	struct klp_object *obj, *next_obj, *static_obj = patch.objs;
	struct klp_func *func, *next_func, *static_func;

	klp_for_each_object_safe((&patch), obj, next_obj) {
		if (obj != static_obj)
			return false;
		static_func = obj->funcs;
		klp_for_each_func_safe(obj, func, next_func) {
			if (func != static_func)
				return false;
			static_func++;
		}
		if (static_func->old_name)
			return false;
		static_obj++;
	}
	return !static_obj->funcs;
}

static void print_patch(const char *callback, const struct klp_object *called)
{
	const struct klp_object *obj;
	const struct klp_func *func;

	pr_info("%s of %s: enabled=%d forced=%d post_unpatch_enabled=%d lists %s\n",
		callback, name_of(called), patch.enabled, patch.forced,
		called->callbacks.post_unpatch_enabled,
		lists_agree() ? "agree" : "do not agree");
	klp_for_each_object((&patch), obj) {
		pr_info("  %s: mod=%s dynamic=%d patched=%d\n", name_of(obj),
			obj->mod ? obj->mod->name : "-", obj->dynamic, obj->patched);
		klp_for_each_func(obj, func)
			print_func(func);
	}
}

static int pre_patch(struct klp_object *obj)
{
	print_patch(__func__, obj);
	return refuse ? -ENODEV : 0;
}

static void post_patch(struct klp_object *obj)
{
	print_patch(__func__, obj);
}

static void pre_unpatch(struct klp_object *obj)
{
	print_patch(__func__, obj);
}

static void post_unpatch(struct klp_object *obj)
{
	print_patch(__func__, obj);
}

static void print_end(const char *when)
{
	pr_info("%s: %s of the livepatch, %s of vmlinux\n", when,
		list_empty(&patch.obj_list) ? "no objects" : "objects",
		list_empty(&objs[0].func_list) ? "no functions" : "functions");
}

static int test_klp_rust_fields_init(void)
{
	int ret;

	ret = klp_enable_patch(&patch);
	if (ret)
		print_end("refused");
	return ret;
}

static void test_klp_rust_fields_exit(void)
{
	print_end("exit");
}

module_init(test_klp_rust_fields_init);
module_exit(test_klp_rust_fields_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: what the core fills in");
