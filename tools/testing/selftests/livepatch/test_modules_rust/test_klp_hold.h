/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The parameter "hold" of a test module. While it is set, a program with the name
 * "reader" sleeps in functions of the module that wait for let_go().
 */

#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(held);

static int set_and_wake(const char *val, const struct kernel_param *kp)
{
	int ret = param_set_bool(val, kp);

	wake_up_all(&held);
	return ret;
}

static const struct kernel_param_ops wake_ops = {
	.set = set_and_wake,
	.get = param_get_bool,
};

static bool hold;
module_param_cb(hold, &wake_ops, &hold, 0644);
MODULE_PARM_DESC(hold, "Hold readers");

static bool let_go(void)
{
	return !READ_ONCE(hold) || strcmp(current->comm, "reader");
}
