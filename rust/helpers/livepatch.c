// SPDX-License-Identifier: GPL-2.0

#include <linux/cpuhplock.h>
#include <linux/livepatch.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/tick.h>

#ifdef CONFIG_LIVEPATCH

__rust_helper void rust_helper_set_tsk_thread_flag(struct task_struct *tsk,
						   int flag)
{
	set_tsk_thread_flag(tsk, flag);
}

__rust_helper void rust_helper_clear_tsk_thread_flag(struct task_struct *tsk,
						     int flag)
{
	clear_tsk_thread_flag(tsk, flag);
}

__rust_helper void rust_helper_set_notify_signal(struct task_struct *task)
{
	set_notify_signal(task);
}

__rust_helper void rust_helper_read_lock(rwlock_t *lock)
{
	read_lock(lock);
}

__rust_helper void rust_helper_read_unlock(rwlock_t *lock)
{
	read_unlock(lock);
}

__rust_helper void rust_helper_cond_resched(void)
{
	cond_resched();
}

__rust_helper int rust_helper_pid_alive(const struct task_struct *p)
{
	return pid_alive(p);
}

__rust_helper bool rust_helper_thread_group_leader(struct task_struct *p)
{
	return thread_group_leader(p);
}

#ifndef CONFIG_HOTPLUG_CPU
__rust_helper void rust_helper_cpus_read_lock(void)
{
	cpus_read_lock();
}

__rust_helper void rust_helper_cpus_read_unlock(void)
{
	cpus_read_unlock();
}
#endif

__rust_helper bool rust_helper_cpu_possible(unsigned int cpu)
{
	return cpu_possible(cpu);
}

__rust_helper bool rust_helper_cpu_online(unsigned int cpu)
{
	return cpu_online(cpu);
}

__rust_helper bool rust_helper_klp_task_exiting(struct task_struct *task)
{
	return !hlist_unhashed_lockless(&task->klp_exit_node);
}

__rust_helper u64 rust_helper_klp_task_start_time(struct task_struct *task)
{
	return task->start_time;
}

__rust_helper char rust_helper_task_state_to_char(struct task_struct *task)
{
	return task_state_to_char(task);
}

__rust_helper unsigned int rust_helper_task_cpu(const struct task_struct *task)
{
	return task_cpu(task);
}

__rust_helper bool rust_helper_tick_nohz_full_cpu(int cpu)
{
	return tick_nohz_full_cpu(cpu);
}

#endif /* CONFIG_LIVEPATCH */
