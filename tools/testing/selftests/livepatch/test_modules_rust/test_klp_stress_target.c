// SPDX-License-Identifier: GPL-2.0
/*
 * A module whose functions are livepatched while tasks sleep in them.
 *
 * /proc/test_klp_stress/sleep sleeps for up to 200 ms in stress_sleep(), and
 * /proc/test_klp_stress/value does not sleep; both show which version of the
 * functions ran, 0 here.  A kernel thread calls them too.
 *
 * A task that is inside one version of stress_sleep() must not get another
 * version of stress_value(): that is the promise of the consistency model.
 *
 * Files in /proc do not hold the module: it can go at any time, and waits in
 * its exit function for the tasks that are inside.
 */

#define pr_fmt(fmt) "test_klp_stress: " fmt

#include <linux/compiler.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/sched.h>

static bool idle;
module_param(idle, bool, 0444);
MODULE_PARM_DESC(idle, "No kernel thread: it is hardly ever outside of the functions");

static struct proc_dir_entry *dir;
static struct task_struct *thread;

/*
 * The compiler must not draw conclusions from the result, as a livepatch returns
 * another one, and must not drop the arguments (__used keeps the signature).
 */
static noinline __used int stress_value(void)
{
	int version = 0;

	OPTIMIZER_HIDE_VAR(version);
	return version;
}

/* Returns its own version times ten, plus what value() returns. */
static noinline __used int stress_sleep(unsigned int ms, int (*value)(void))
{
	int version = 0;

	schedule_timeout_interruptible(msecs_to_jiffies(ms));
	OPTIMIZER_HIDE_VAR(version);
	return 10 * version + value();
}

/* Sleeps for 5 to 200 ms, rather short than long. Returns the version. */
static int sleep_and_check(void)
{
	unsigned int ms = 5 + get_random_u32_below(1 + get_random_u32_below(196));
	int versions = stress_sleep(ms, stress_value);

	if (versions % 10 != versions / 10)
		pr_err("inconsistent: %s:%d went from version %d to %d\n",
		       current->comm, current->pid, versions / 10, versions % 10);
	return versions % 10;
}

static int thread_func(void *unused)
{
	while (!kthread_should_stop()) {
		sleep_and_check();
		schedule_timeout_interruptible(1);
	}
	return 0;
}

static ssize_t show(int version, char __user *buf, size_t count, loff_t *ppos)
{
	char text[16];
	int len = scnprintf(text, sizeof(text), "%d\n", version);

	return simple_read_from_buffer(buf, count, ppos, text, len);
}

static ssize_t sleep_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	return *ppos ? 0 : show(sleep_and_check(), buf, count, ppos);
}

static ssize_t value_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	return show(stress_value(), buf, count, ppos);
}

static const struct proc_ops sleep_ops = {
	.proc_read	= sleep_read,
	.proc_lseek	= default_llseek,
};

static const struct proc_ops value_ops = {
	.proc_read	= value_read,
	.proc_lseek	= default_llseek,
};

static int test_klp_stress_target_init(void)
{
	if (!idle) {
		thread = kthread_run(thread_func, NULL, "klp_stress");
		if (IS_ERR(thread))
			return PTR_ERR(thread);
	}

	dir = proc_mkdir("test_klp_stress", NULL);
	if (!dir)
		goto stop;
	if (!proc_create("sleep", 0, dir, &sleep_ops) ||
	    !proc_create("value", 0, dir, &value_ops))
		goto remove;
	return 0;

remove:
	proc_remove(dir);
stop:
	if (thread)
		kthread_stop(thread);
	return -ENOMEM;
}

static void test_klp_stress_target_exit(void)
{
	proc_remove(dir);
	if (thread)
		kthread_stop(thread);
}

module_init(test_klp_stress_target_init);
module_exit(test_klp_stress_target_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: functions that tasks sleep in");
