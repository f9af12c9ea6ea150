/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The parameters "vmlinux" and "target" of a livepatch. Each lists up to
 * MAX_FUNCS functions, of vmlinux and of a module, which the livepatch replaces
 * by a function of its own.
 */

#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/moduleparam.h>
#include <linux/string.h>

static char *vmlinux[MAX_FUNCS];
static int nr_vmlinux;
module_param_array(vmlinux, charp, &nr_vmlinux, 0444);
MODULE_PARM_DESC(vmlinux, "Functions of vmlinux, each NAME or NAME:POSITION");

static char *target[MAX_FUNCS];
static int nr_target;
module_param_array(target, charp, &nr_target, 0444);
MODULE_PARM_DESC(target, "Functions of the module, each NAME or NAME:POSITION");

static struct klp_func vmlinux_funcs[MAX_FUNCS + 1];
static struct klp_func target_funcs[MAX_FUNCS + 1];

static int add_funcs_of(struct klp_func *funcs, char **names, int nr, void *new_func)
{
	char *name;
	int i, ret;

	for (i = 0; i < nr; i++) {
		name = names[i];
		funcs[i].old_name = strsep(&name, ":");
		funcs[i].new_func = new_func;
		if (!name)
			continue;
		ret = kstrtoul(name, 10, &funcs[i].old_sympos);
		if (ret)
			return ret;
	}
	return 0;
}

/* Fills in vmlinux_funcs and target_funcs. */
static int add_funcs(void *new_func)
{
	return add_funcs_of(vmlinux_funcs, vmlinux, nr_vmlinux, new_func) ?:
	       add_funcs_of(target_funcs, target, nr_target, new_func);
}
