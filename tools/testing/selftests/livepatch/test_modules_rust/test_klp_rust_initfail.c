// SPDX-License-Identifier: GPL-2.0
/*
 * A module whose init function enables a livepatch, frees its descriptor, and then
 * fails. With "two", the module has a second livepatch.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

static int error;
module_param(error, int, 0444);
MODULE_PARM_DESC(error, "What the init function returns");

static bool wait;
module_param(wait, bool, 0644);
MODULE_PARM_DESC(wait, "Keep the init function from returning");

static bool busy;
module_param(busy, bool, 0444);
MODULE_PARM_DESC(busy, "Change a function of test_klp_callbacks_busy, too");

static bool two;
module_param(two, bool, 0444);
MODULE_PARM_DESC(two, "Enable a second livepatch; its error is the init function's");

static bool shadow;
module_param(shadow, bool, 0444);
MODULE_PARM_DESC(shadow, "Attach a shadow variable, which belongs to the state");

static int hold;
module_param(hold, int, 0644);
MODULE_PARM_DESC(hold, "Hold readers: 1 until there is a signal, 2 for good");

static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	while (READ_ONCE(hold) == 1 && !signal_pending(current))
		schedule_timeout_interruptible(HZ / 10);
	while (READ_ONCE(hold) == 2)
		schedule_timeout_idle(HZ / 10);
	seq_printf(m, "%s: this has been live patched\n", KBUILD_MODNAME);
	return 0;
}

static int livepatch_target_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s: this has been live patched\n", KBUILD_MODNAME);
	return 0;
}

static void livepatch_work_func(struct work_struct *work)
{
}

static void say(const char *callback)
{
	pr_info("%s\n", callback);
}

static int pre_patch(struct klp_object *obj)
{
	say(__func__);
	return 0;
}

static DECLARE_COMPLETION(in_effect);

static void post_patch(struct klp_object *obj)
{
	say(__func__);
	complete(&in_effect);
}

static void pre_unpatch(struct klp_object *obj)
{
	say(__func__);
}

static void post_unpatch(struct klp_object *obj)
{
	say(__func__);
}

static void dtor(void *obj, void *data)
{
	say(__func__);
}

static int state_pre_patch(struct klp_patch *patch, struct klp_state *state)
{
	say(__func__);
	if (!shadow)
		return 0;
	return klp_shadow_alloc(&init_task, state->id, 8, GFP_KERNEL, NULL, NULL) ?
	       0 : -ENOMEM;
}

static void state_post_patch(struct klp_patch *patch, struct klp_state *state)
{
	say(__func__);
}

static void state_pre_unpatch(struct klp_patch *patch, struct klp_state *state)
{
	say(__func__);
}

static void state_post_unpatch(struct klp_patch *patch, struct klp_state *state)
{
	say(__func__);
}

struct descriptor {
	struct klp_func vmlinux_funcs[2];
	struct klp_func target_funcs[2];
	struct klp_func busy_funcs[2];
	struct klp_object objs[4];
	struct klp_state states[2];
	struct klp_patch patch;
};

static struct descriptor *new_descriptor(void)
{
	struct descriptor *d = kzalloc_obj(*d);

	if (!d)
		return NULL;
	d->vmlinux_funcs[0].old_name = "cmdline_proc_show";
	d->vmlinux_funcs[0].new_func = livepatch_cmdline_proc_show;
	d->target_funcs[0].old_name = "test_klp_mod_target_show";
	d->target_funcs[0].new_func = livepatch_target_show;
	d->busy_funcs[0].old_name = "busymod_work_func";
	d->busy_funcs[0].new_func = livepatch_work_func;
	d->objs[0].funcs = d->vmlinux_funcs;
	d->objs[0].callbacks = (struct klp_callbacks) {
		pre_patch, post_patch, pre_unpatch, post_unpatch
	};
	d->objs[1].name = "test_klp_mod_target";
	d->objs[1].funcs = d->target_funcs;
	if (busy) {
		d->objs[2].name = "test_klp_callbacks_busy";
		d->objs[2].funcs = d->busy_funcs;
	}
	d->states[0].id = 9000;
	d->states[0].is_shadow = shadow;
	d->states[0].callbacks = (struct klp_state_callbacks) {
		state_pre_patch, state_post_patch, state_pre_unpatch,
		state_post_unpatch, shadow ? dtor : NULL
	};
	d->patch.mod = THIS_MODULE;
	d->patch.objs = d->objs;
	d->patch.states = d->states;
	return d;
}

static struct descriptor *descriptor, *second;

static void free_descriptors(void)
{
	/* Poison: a use after this shows without KASAN, too. */
	if (descriptor)
		memset(descriptor, 0x6b, sizeof(*descriptor));
	kfree(descriptor);
	kfree(second);
}

static int test_klp_rust_initfail_init(void)
{
	int ret = -ENOMEM;

	descriptor = new_descriptor();
	second = new_descriptor();
	if (!descriptor || !second)
		goto free;
	ret = klp_enable_patch(&descriptor->patch);
	if (ret)
		goto free;
	if (two) {
		wait_for_completion(&in_effect);
		ret = klp_enable_patch(&second->patch);
		pr_info("second livepatch: %d\n", ret);
	}
	while (READ_ONCE(wait))
		msleep(20);
	/* 1 for success, whatever became of the second livepatch. */
	if (error)
		ret = min(error, 0);
	if (!ret)
		return 0;
	pr_info("init fails\n");
free:
	free_descriptors();
	return ret;
}

static void test_klp_rust_initfail_exit(void)
{
	free_descriptors();
}

module_init(test_klp_rust_initfail_init);
module_exit(test_klp_rust_initfail_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: init fails after the livepatch was enabled");
