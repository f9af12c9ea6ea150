// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The part of the livepatch core that Rust cannot express: the symbols that
 * livepatch modules link against, a per-CPU buffer, a warning with a text, and
 * parameters.
 */

#include <linux/bug.h>
#include <linux/export.h>
#include <linux/livepatch.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include "resident.h"

EXPORT_SYMBOL_GPL(klp_enable_patch);
EXPORT_SYMBOL_GPL(klp_find_section_by_name);
EXPORT_SYMBOL_GPL(klp_get_state);
EXPORT_SYMBOL_GPL(klp_get_prev_state);
EXPORT_SYMBOL_GPL(klp_shadow_get);
EXPORT_SYMBOL_GPL(klp_shadow_alloc);
EXPORT_SYMBOL_GPL(klp_shadow_alloc_from);
EXPORT_SYMBOL_GPL(klp_shadow_get_or_alloc);
EXPORT_SYMBOL_GPL(klp_shadow_get_or_alloc_from);
EXPORT_SYMBOL_GPL(klp_shadow_free);
EXPORT_SYMBOL_GPL(klp_shadow_free_all);
EXPORT_SYMBOL_GPL(klp_shadow_free_all_from);
EXPORT_SYMBOL_GPL(klp_shadow_type_get);
EXPORT_SYMBOL_GPL(klp_shadow_type_alloc);
EXPORT_SYMBOL_GPL(klp_shadow_type_get_or_alloc);
EXPORT_SYMBOL_GPL(klp_shadow_type_free);
EXPORT_SYMBOL_GPL(klp_shadow_type_free_all);

/* Too large for the stack of __schedule(). */
static DEFINE_PER_CPU(unsigned long [KLP_MAX_STACK_ENTRIES], klp_stack_entries);

/* The caller has preemption disabled for as long as it uses the buffer. */
unsigned long *klp_stack_buffer(void)
{
	return *this_cpu_ptr(&klp_stack_entries);
}

void klp_shadow_warn_duplicate(void *obj, unsigned long id)
{
	WARN(1, "Duplicate shadow variable <%p, %lx>\n", obj, id);
}

/* KLP_PARAM_SUPERSEDES(): the parameter of a livepatch's own module. */
static struct kparam_array klp_supersedes_array(struct klp_patch *patch)
{
	return (struct kparam_array) {
		.max = ARRAY_SIZE(patch->param_supersedes),
		.elemsize = sizeof(patch->param_supersedes[0]),
		.num = &patch->nr_param_supersedes,
		.ops = &param_ops_uint,
		.elem = patch->param_supersedes,
	};
}

static int klp_supersedes_set(const char *val, const struct kernel_param *kp)
{
	const struct kparam_array array = klp_supersedes_array(kp->arg);
	struct kernel_param param = *kp;

	param.arr = &array;
	return param_array_ops.set(val, &param);
}

static int klp_supersedes_get(char *buffer, const struct kernel_param *kp)
{
	const struct kparam_array array = klp_supersedes_array(kp->arg);
	struct kernel_param param = *kp;

	param.arr = &array;
	return param_array_ops.get(buffer, &param);
}

const struct kernel_param_ops klp_supersedes_param_ops = {
	.set = klp_supersedes_set,
	.get = klp_supersedes_get,
};
EXPORT_SYMBOL_GPL(klp_supersedes_param_ops);

bool klp_strict_replace_sets;
module_param_named(strict_replace_sets, klp_strict_replace_sets, bool, 0444);
MODULE_PARM_DESC(strict_replace_sets,
		 "Every livepatch follows the rules of replace sets: it replaces those in its own set, and shares nothing with others");
