// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps tasks in functions, in all the ways in which a task can block a
 * transition. What is written to the parameter "enter" says in which the writer
 * is kept: "sleep", "deep" (with more on its stack than is checked), "run", "vcpu"
 * (it runs until it is told to leave the kernel, as a virtual CPU does, and goes
 * back there), or a number: it sleeps in those of eight functions whose bits are
 * set. With the parameter "kthread" a kernel thread sleeps, too. They stay until
 * the parameter "hold" is cleared.
 */

#include <linux/array_size.h>
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/err.h>
#include <linux/kstrtox.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(held);
static atomic_t inside = ATOMIC_INIT(0);

static int set_hold(const char *val, const struct kernel_param *kp)
{
	int ret = param_set_bool(val, kp);

	wake_up_all(&held);
	return ret;
}

static const struct kernel_param_ops hold_ops = {
	.set = set_hold,
	.get = param_get_bool,
};

static bool hold = true;
module_param_cb(hold, &hold_ops, &hold, 0644);
MODULE_PARM_DESC(hold, "Keep tasks");

static bool kthread;
module_param(kthread, bool, 0444);
MODULE_PARM_DESC(kthread, "Keep a kernel thread");

static int get_inside(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&inside));
}

static const struct kernel_param_ops inside_ops = { .get = get_inside };
module_param_cb(inside, &inside_ops, NULL, 0444);
MODULE_PARM_DESC(inside, "How many tasks are kept");

static noinline int test_klp_block_sleep(void)
{
	atomic_inc(&inside);
	wait_event(held, !READ_ONCE(hold));
	atomic_dec(&inside);
	return 0;
}

static noinline int test_klp_block_deep(int depth)
{
	int ret;

	if (!depth) {
		atomic_inc(&inside);
		wait_event(held, !READ_ONCE(hold));
		atomic_dec(&inside);
		return 0;
	}
	ret = test_klp_block_deep(depth - 1);
	OPTIMIZER_HIDE_VAR(ret);
	return ret;
}

static int wait_in(unsigned int functions);

#define FUNCTION(n)							\
static noinline int test_klp_block_##n(unsigned int functions)		\
{									\
	int ret = wait_in(functions & ~BIT(n));				\
									\
	OPTIMIZER_HIDE_VAR(ret);					\
	return ret;							\
}

FUNCTION(0)
FUNCTION(1)
FUNCTION(2)
FUNCTION(3)
FUNCTION(4)
FUNCTION(5)
FUNCTION(6)
FUNCTION(7)

static int (*const functions[])(unsigned int functions) = {
	test_klp_block_0, test_klp_block_1, test_klp_block_2, test_klp_block_3,
	test_klp_block_4, test_klp_block_5, test_klp_block_6, test_klp_block_7,
};

static int wait_in(unsigned int which)
{
	int ret = 0;

	if (which) {
		ret = functions[__ffs(which)](which);
	} else {
		atomic_inc(&inside);
		wait_event(held, !READ_ONCE(hold));
		atomic_dec(&inside);
	}
	OPTIMIZER_HIDE_VAR(ret);
	return ret;
}

static noinline int test_klp_block_run(void)
{
	atomic_inc(&inside);
	while (READ_ONCE(hold)) {
		/* ftrace waits for tasks that it may have a hold on. */
		rcu_tasks_qs(current, false);
		cpu_relax();
	}
	atomic_dec(&inside);
	return 0;
}

static noinline int test_klp_block_vcpu(void)
{
	int ret = 0;

	atomic_inc(&inside);
	while (READ_ONCE(hold)) {
		if (signal_pending(current)) {
			ret = -ERESTARTNOINTR;
			break;
		}
		rcu_tasks_qs(current, false);
		cpu_relax();
	}
	atomic_dec(&inside);
	return ret;
}

static int set_enter(const char *val, const struct kernel_param *kp)
{
	/* The lock of the parameters would keep "hold" from being written. */
	unsigned int which;
	int ret = -EINVAL;

	kernel_param_unlock(THIS_MODULE);
	if (sysfs_streq(val, "sleep"))
		ret = test_klp_block_sleep();
	else if (sysfs_streq(val, "deep"))
		ret = test_klp_block_deep(120);
	else if (sysfs_streq(val, "run"))
		ret = test_klp_block_run();
	else if (sysfs_streq(val, "vcpu"))
		ret = test_klp_block_vcpu();
	else if (!kstrtouint(val, 0, &which) && which < BIT(ARRAY_SIZE(functions)))
		ret = wait_in(which);
	kernel_param_lock(THIS_MODULE);
	return ret;
}

static const struct kernel_param_ops enter_ops = { .set = set_enter };
module_param_cb(enter, &enter_ops, NULL, 0200);
MODULE_PARM_DESC(enter, "Be kept: sleep, deep, run, vcpu or a number");

static struct task_struct *thread;

static int run_thread(void *unused)
{
	int ret = test_klp_block_sleep();

	OPTIMIZER_HIDE_VAR(ret);
	return ret;
}

static int test_klp_rust_block_init(void)
{
	if (!kthread)
		return 0;
	thread = kthread_run(run_thread, NULL, "klp-kthread");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	/* It may end by itself. */
	get_task_struct(thread);
	return 0;
}

static void test_klp_rust_block_exit(void)
{
	if (thread)
		kthread_stop_put(thread);
}

module_init(test_klp_rust_block_init);
module_exit(test_klp_rust_block_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: tasks that block a transition");
