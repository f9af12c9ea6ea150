// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch of cmdline_proc_show() with an optional mistake in its descriptor.
 *
 * The mistake comes after a correct object and a correct function: if the core
 * acted before it has checked everything, it would leave something behind.
 */

#include <linux/array_size.h>
#include <linux/errno.h>
#include <linux/kallsyms.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/seq_file.h>
#include <linux/string.h>

static char *bad = "none";
module_param(bad, charp, 0444);
MODULE_PARM_DESC(bad, "What is wrong with the descriptor");

static char *symbol;
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "A second function to patch");

static char *object;
module_param(object, charp, 0444);
MODULE_PARM_DESC(object, "A second object to patch");

static unsigned long sympos;
module_param(sympos, ulong, 0444);
MODULE_PARM_DESC(sympos, "Which of the functions of that name is meant");

/* Names of the greatest length that is allowed and of one more. */
static char longest_name[KSYM_NAME_LEN];
static char long_name[KSYM_NAME_LEN + 1];
static char longest_object[MODULE_NAME_LEN];
static char long_object[MODULE_NAME_LEN + 1];

static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s: %s\n", KBUILD_MODNAME, "this has been live patched");
	return 0;
}

/* Never called: the livepatch is refused, or the object is not loaded. */
static void livepatch_second(void)
{
}

static struct klp_func no_funcs[] = {
	{ }
};

static struct klp_func other_funcs[] = {
	{
		.old_name = "test_klp_rust_no_such_function",
		.new_func = livepatch_second,
	}, { }
};

static struct klp_func funcs[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = livepatch_cmdline_proc_show,
	}, {
		/* the second function, if there is one */
	}, { }
};

static struct klp_object no_objs[] = {
	{ }
};

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = funcs,
	}, {
		/* the second object, if there is one */
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int enable_early(const char *val, const struct kernel_param *kp)
{
	return klp_enable_patch(&patch);
}

static const struct kernel_param_ops early_ops = {
	.set = enable_early,
};

module_param_cb(early, &early_ops, NULL, 0200);
MODULE_PARM_DESC(early, "Enable the livepatch at once");

static void second_func(const char *name, void *new_func)
{
	funcs[1].old_name = name;
	funcs[1].new_func = new_func;
}

static void second_object(const char *name, struct klp_func *object_funcs)
{
	objs[1].name = name;
	objs[1].funcs = object_funcs;
}

static void bad_patch(void)
{
}

static void bad_mod(void)
{
	patch.mod = NULL;
}

static void bad_objs(void)
{
	patch.objs = NULL;
}

static void bad_no_objs(void)
{
	patch.objs = no_objs;
}

static void bad_funcs(void)
{
	second_object("test_klp_rust_object", NULL);
}

static void bad_no_funcs(void)
{
	objs[0].funcs = no_funcs;
}

static void bad_long_object(void)
{
	memset(long_object, 'o', sizeof(long_object) - 1);
	second_object(long_object, other_funcs);
}

static void bad_longest_object(void)
{
	memset(longest_object, 'o', sizeof(longest_object) - 1);
	second_object(longest_object, other_funcs);
}

static void bad_empty_object(void)
{
	second_object("", other_funcs);
}

static void bad_vmlinux_object(void)
{
	second_object("vmlinux", other_funcs);
}

static void bad_same_object(void)
{
	second_object("test_klp_rust_object", other_funcs);
	objs[0] = objs[1];
}

static void bad_same_vmlinux(void)
{
	second_object(NULL, other_funcs);
}

static void bad_old_name(void)
{
	second_func(NULL, livepatch_second);
}

static void bad_only_sympos(void)
{
	funcs[1].old_sympos = 1;
}

static void bad_new_func(void)
{
	second_func("version_proc_show", NULL);
}

static void bad_long_name(void)
{
	memset(long_name, 'f', sizeof(long_name) - 1);
	second_func(long_name, livepatch_second);
}

static void bad_longest_name(void)
{
	memset(longest_name, 'f', sizeof(longest_name) - 1);
	second_func(longest_name, livepatch_second);
}

static void bad_empty_name(void)
{
	second_func("", livepatch_second);
}

static void bad_same_func(void)
{
	second_func("cmdline_proc_show", livepatch_cmdline_proc_show);
	funcs[1].old_sympos = 1;
}

static void bad_none(void)
{
}

#define MISTAKE(name) { #name, bad_ ## name }

static const struct mistake {
	const char *name;
	void (*make)(void);
} mistakes[] = {
	MISTAKE(none),
	MISTAKE(patch),
	MISTAKE(mod),
	MISTAKE(objs),
	MISTAKE(no_objs),
	MISTAKE(funcs),
	MISTAKE(no_funcs),
	MISTAKE(long_object),
	MISTAKE(longest_object),
	MISTAKE(empty_object),
	MISTAKE(vmlinux_object),
	MISTAKE(same_object),
	MISTAKE(same_vmlinux),
	MISTAKE(old_name),
	MISTAKE(only_sympos),
	MISTAKE(new_func),
	MISTAKE(long_name),
	MISTAKE(longest_name),
	MISTAKE(empty_name),
	MISTAKE(same_func),
};

static int test_klp_rust_bad_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mistakes); i++) {
		if (!strcmp(bad, mistakes[i].name))
			break;
	}
	if (i == ARRAY_SIZE(mistakes)) {
		pr_err("%s: unknown mistake bad=%s\n", KBUILD_MODNAME, bad);
		return -EDOM;
	}

	if (symbol) {
		second_func(symbol, livepatch_second);
		funcs[1].old_sympos = sympos;
	}
	if (object)
		second_object(object, other_funcs);
	mistakes[i].make();
	return klp_enable_patch(strcmp(bad, "patch") ? &patch : NULL);
}

static void test_klp_rust_bad_exit(void)
{
}

module_init(test_klp_rust_bad_init);
module_exit(test_klp_rust_bad_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: mistakes in the descriptor");
