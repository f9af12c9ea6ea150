// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps threads in the end of their exit: a livepatch of a function that they
 * call there calls test_klp_exit_stay(), and test_klp_exit_go() when it has said
 * all that it has to say. These are not in the livepatch's module, so that this
 * can go while a thread is here, if the core lets it.
 *
 * Parameters: "how" a thread is kept (0: it sleeps, 1: it runs, 2: it oopses,
 * 3: it sleeps and need not be unhashed), "inside" is how many are between those
 * two functions, and where they are kept, "release" lets them go. "side" is what
 * test_klp_exit_side() returns in an interrupt of the thread that runs: 0, or 1
 * when it is livepatched. "kthread" starts a kernel thread that exits, and oopses
 * before it is unhashed if "how" is 2.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pid.h>
#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/task_work.h>
#include "test_klp_exit.h"

static int how;
module_param(how, int, 0644);
MODULE_PARM_DESC(how, "How threads are kept: 0 asleep, 1 running, 2 by an oops, 3 asleep and hashed");

static atomic_t inside = ATOMIC_INIT(0);
static DECLARE_COMPLETION(release);
/* The thread that runs. */
static struct task_struct *runner;
/* What to oops on. */
static int *nowhere;

#define NAME "klp-exit"

bool test_klp_exit_is_ours(void)
{
	return current->flags & PF_EXITING && !strcmp(current->comm, NAME);
}
EXPORT_SYMBOL_GPL(test_klp_exit_is_ours);

static void run(void)
{
	WRITE_ONCE(runner, current);
	atomic_inc(&inside);
	while (!completion_done(&release)) {
		/* ftrace waits for tasks that it may have a hold on. */
		rcu_tasks_qs(current, false);
		cpu_relax();
	}
	WRITE_ONCE(runner, NULL);
}

/*
 * Livepatched with test_klp_exit_side(), so that the thread is not switched when
 * it is preempted. Each version is on the stack: no call in the place of a return.
 */
static noinline __used void test_klp_exit_run(void (*func)(void))
{
	func();
	barrier();
}

void test_klp_exit_stay(void)
{
	void (*func)(void) = run;
	int i;

	/* A process is unhashed by its parent, or by its thread that calls exec. */
	for (i = 0; i < 10000 && how != 3 && pid_alive(current); i++)
		usleep_range(1000, 2000);
	if (how != 3 && pid_alive(current))
		pr_err("the thread was not unhashed\n");

	switch (how) {
	case 1:
		/* Or the compiler makes a copy of the function that has this in it. */
		OPTIMIZER_HIDE_VAR(func);
		test_klp_exit_run(func);
		break;
	case 2:
		/* Nobody comes back from here. */
		WRITE_ONCE(*READ_ONCE(nowhere), 0);
		break;
	default:
		atomic_inc(&inside);
		wait_for_completion(&release);
	}
}
EXPORT_SYMBOL_GPL(test_klp_exit_stay);

void test_klp_exit_go(void)
{
	atomic_dec(&inside);
}
EXPORT_SYMBOL_GPL(test_klp_exit_go);

static int get_inside(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&inside));
}

static const struct kernel_param_ops inside_ops = { .get = get_inside };
module_param_cb(inside, &inside_ops, NULL, 0444);
MODULE_PARM_DESC(inside, "How many threads are kept");

static int set_release(const char *val, const struct kernel_param *kp)
{
	bool on;
	int ret = kstrtobool(val, &on);

	if (ret)
		return ret;
	if (on)
		complete_all(&release);
	else
		reinit_completion(&release);
	return 0;
}

static const struct kernel_param_ops release_ops = { .set = set_release };
module_param_cb(release, &release_ops, NULL, 0200);
MODULE_PARM_DESC(release, "Let the threads go, or keep those that come");

static struct callback_head work;

static void oops(struct callback_head *unused)
{
	WRITE_ONCE(*READ_ONCE(nowhere), 0);
}

static int exit_at_once(void *unused)
{
	if (how != 2)
		return 0;
	/* do_exit() does this before the thread is unhashed. */
	init_task_work(&work, oops);
	return task_work_add(current, &work, TWA_NONE);
}

static int set_kthread(const char *val, const struct kernel_param *kp)
{
	return PTR_ERR_OR_ZERO(kthread_run(exit_at_once, NULL, NAME));
}

static const struct kernel_param_ops kthread_ops = { .set = set_kthread };
module_param_cb(kthread, &kthread_ops, NULL, 0200);
MODULE_PARM_DESC(kthread, "Start a kernel thread that exits");

noinline int test_klp_exit_side(void)
{
	int side = 0;

	OPTIMIZER_HIDE_VAR(side);
	return side;
}

static void ask(void *side)
{
	/* Another task may run there by now. */
	if (current == READ_ONCE(runner))
		*(int *)side = test_klp_exit_side();
}

static int get_side(char *buffer, const struct kernel_param *kp)
{
	int cpu, i, side = -1;

	for (i = 0; i < 1000 && side < 0 && READ_ONCE(runner); i++) {
		for_each_online_cpu(cpu)
			smp_call_function_single(cpu, ask, &side, true);
		if (side < 0)
			usleep_range(1000, 2000);
	}
	return sysfs_emit(buffer, "%d\n", side);
}

static const struct kernel_param_ops side_ops = { .get = get_side };
module_param_cb(side, &side_ops, NULL, 0444);
MODULE_PARM_DESC(side, "What test_klp_exit_side() returns to the thread that runs");

static int test_klp_exit_hold_init(void)
{
	return 0;
}

static void test_klp_exit_hold_exit(void)
{
}

module_init(test_klp_exit_hold_init);
module_exit(test_klp_exit_hold_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: keeps threads in the end of their exit");
