// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch of exit_task_stack_account(), which do_exit() calls when a thread
 * has been unhashed. A thread of the test stays in the new function, which uses
 * what the callbacks take away.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/compiler.h>
#include <linux/livepatch.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>
#include "test_klp_exit.h"

#define ID	0xe817

/* Whether the callbacks have brought what the new function uses. */
static bool by_object, by_state;

static void stay(void)
{
	void *obj = &init_task;
	int *data;

	data = klp_shadow_get_or_alloc(obj, ID, sizeof(*data), GFP_KERNEL, NULL, NULL);
	pr_info("a thread stays\n");
	test_klp_exit_stay();
	if (!data || klp_shadow_get(obj, ID) != data)
		pr_err("the shadow variable was freed\n");
	if (!READ_ONCE(by_object))
		pr_err("post_unpatch of the object was called\n");
	if (IS_ENABLED(CONFIG_LIVEPATCH_RUST) && !READ_ONCE(by_state))
		pr_err("post_unpatch of the state was called\n");
	pr_info("a thread goes\n");
	test_klp_exit_go();
}

/* Does what the original does, as far as that is to be seen without memcg. */
static void livepatch_exit_task_stack_account(struct task_struct *tsk)
{
	if (test_klp_exit_is_ours())
		stay();

	if (IS_ENABLED(CONFIG_VMAP_STACK)) {
		struct vm_struct *vm_area = task_stack_vm_area(tsk);
		int i;

		for (i = 0; i < THREAD_SIZE / PAGE_SIZE; i++)
			mod_node_page_state(page_pgdat(vm_area->pages[i]), NR_KERNEL_STACK_KB,
					    -(long)(PAGE_SIZE / 1024));
	} else {
		mod_node_page_state(page_pgdat(virt_to_page(task_stack_page(tsk))),
				    NR_KERNEL_STACK_KB, -(long)(THREAD_SIZE / 1024));
	}
}

static int object_pre_patch(struct klp_object *obj)
{
	WRITE_ONCE(by_object, true);
	return 0;
}

static void object_post_unpatch(struct klp_object *obj)
{
	WRITE_ONCE(by_object, false);
	pr_info("post_unpatch of the object\n");
	/* The core written in C frees nothing by itself. */
	if (!IS_ENABLED(CONFIG_LIVEPATCH_RUST))
		klp_shadow_free_all(ID, NULL);
}

static int state_pre_patch(struct klp_patch *patch, struct klp_state *state)
{
	WRITE_ONCE(by_state, true);
	return 0;
}

static void state_post_unpatch(struct klp_patch *patch, struct klp_state *state)
{
	WRITE_ONCE(by_state, false);
	pr_info("post_unpatch of the state\n");
}

static void shadow_dtor(void *obj, void *data)
{
	pr_info("a shadow variable is freed\n");
}

static struct klp_func funcs[] = {
	{
		.old_name = "exit_task_stack_account",
		.new_func = livepatch_exit_task_stack_account,
	}, { }
};

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = funcs,
		.callbacks = {
			.pre_patch = object_pre_patch,
			.post_unpatch = object_post_unpatch,
		},
	}, { }
};

static struct klp_state states[] __maybe_unused = {
	{
		.id = ID,
		.callbacks = {
			.pre_patch = state_pre_patch,
			.post_unpatch = state_post_unpatch,
			.shadow_dtor = shadow_dtor,
		},
		.is_shadow = true,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	/* The core written in C wants them of a livepatch that replaces this one. */
#if IS_ENABLED(CONFIG_LIVEPATCH_RUST)
	.states = states,
#endif
};

static int test_klp_exit_lp_init(void)
{
	return klp_enable_patch(&patch);
}

static void test_klp_exit_lp_exit(void)
{
}

module_init(test_klp_exit_lp_init);
module_exit(test_klp_exit_lp_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: a function in which threads are that exit");
