// SPDX-License-Identifier: GPL-2.0
/*
 * A target module for the tests of replace sets. Its first function has a
 * second name.
 */

#include <linux/array_size.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

/*
 * Livepatches look these up by name. Used as callbacks they keep their names;
 * otherwise the one with two names would have the other name.
 */
#define SHOW(name)							\
	static noinline __used int test_klp_rust_set_ ## name(struct seq_file *m, void *v) \
	{								\
		seq_puts(m, "original " #name "\n");			\
		return 0;						\
	}

SHOW(first)
SHOW(second)
SHOW(third)
SHOW(fourth)

static int __used __alias(test_klp_rust_set_first)
test_klp_rust_set_alias(struct seq_file *m, void *v);

static const struct {
	const char *name;
	int (*show)(struct seq_file *m, void *v);
} files[] = {
	{ "test_klp_rust_set_first", test_klp_rust_set_first },
	{ "test_klp_rust_set_second", test_klp_rust_set_second },
	{ "test_klp_rust_set_third", test_klp_rust_set_third },
	{ "test_klp_rust_set_fourth", test_klp_rust_set_fourth },
};

static void test_klp_rust_set_target_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(files); i++)
		remove_proc_entry(files[i].name, NULL);
}

static int test_klp_rust_set_target_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		if (proc_create_single(files[i].name, 0, NULL, files[i].show))
			continue;
		while (i--)
			remove_proc_entry(files[i].name, NULL);
		return -ENOMEM;
	}
	return 0;
}

module_init(test_klp_rust_set_target_init);
module_exit(test_klp_rust_set_target_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: target module for replace sets");
