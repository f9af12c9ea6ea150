// SPDX-License-Identifier: GPL-2.0
/*
 * Counts instructions: under QEMU's -icount shift=0 one takes one nanosecond of
 * the guest's time, and idling goes by in jumps.  A command written to the
 * parameter "run" leaves its figures in "result".
 *
 * Commands, with N as number of repetitions:
 *   call I N		a call of function I, in thousandths of an instruction
 *   calls F N		the functions below F: least, mean and most of a call
 *   trace I		attach a second ftrace user to function I
 *   untrace
 *   hold		start a task that sleeps in test_klp_bench_hold()
 *   held-call I N	a call made by that task
 *   release		end that task
 *   watch P		look, each P ns, how long an interrupt and the task that it
 *			wakes are kept from running
 *   unwatch		the most of both, above the least, and where that was
 *   shadow-alloc N	as many more shadow variables: instructions for one
 *   shadow-get N	a look-up that finds, and one that does not, in thousandths
 *   shadow-free N	the last N variables: instructions for one
 *   shadow-free-all	how many there were, and instructions for all
 *   exit A B N		a call of klp_task_exit() and one of klp_task_dead(), which
 *			are at A and B, in thousandths of an instruction
 */

#include <linux/completion.h>
#include <linux/ftrace.h>
#include <linux/hrtimer.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/livepatch.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timex.h>
#include <linux/vmalloc.h>
#include <trace/events/power.h>
#include <asm/irq_regs.h>
#ifdef CONFIG_ARM64
#include <asm/arch_timer.h>
#endif

#include "test_klp_bench.h"

static char result[512];

/*
 * The virtual time in ns.  QEMU's x86 TSC counts these as they are, arm64's
 * counter with -cpu max,cntfrq=1000000000.
 */
static u64 now(void)
{
	return get_cycles();
}

/*
 * Idle time: the kernel's own account of it goes by ticks, which is too coarse.
 * The interrupt that ends an idle period is in it.
 */
static DEFINE_PER_CPU(u64, idle_since);
static DEFINE_PER_CPU(u64, idle_sum);

static void probe_idle(void *data, unsigned int state, unsigned int cpu)
{
	if (state != PWR_EVENT_EXIT)
		this_cpu_write(idle_since, now());
	else if (this_cpu_read(idle_since))
		this_cpu_add(idle_sum, now() - this_cpu_read(idle_since));
}

static u64 idle(void)
{
	u64 sum = 0;
	int cpu;

	for_each_online_cpu(cpu)
		sum += per_cpu(idle_sum, cpu);
	return sum;
}

/* Moments, for which a livepatch calls test_klp_bench_mark(). */

static struct {
	u64 now, idle;
} marks[BENCH_MARKS];

void test_klp_bench_mark(enum test_klp_bench_mark mark)
{
	marks[mark].idle = idle();
	marks[mark].now = now();
	if (mark == BENCH_ENABLE)
		memset(&marks[mark + 1], 0, sizeof(marks) - (mark + 1) * sizeof(marks[0]));
}
EXPORT_SYMBOL_GPL(test_klp_bench_mark);

static int get_marks(char *buffer, const struct kernel_param *kp)
{
	int len = 0, i;

	for (i = 0; i < BENCH_MARKS; i++)
		len += scnprintf(buffer + len, PAGE_SIZE - len, "%llu %llu\n",
				 marks[i].now, marks[i].idle);
	return len;
}

static const struct kernel_param_ops marks_ops = { .get = get_marks };
module_param_cb(marks, &marks_ops, NULL, 0444);
MODULE_PARM_DESC(marks, "The last livepatch's marks: time and idle time in ns");

static int get_now(char *buffer, const struct kernel_param *kp)
{
	u64 i = idle();

	return scnprintf(buffer, PAGE_SIZE, "%llu %llu\n", now(), i);
}

static const struct kernel_param_ops now_ops = { .get = get_now };
module_param_cb(now, &now_ops, NULL, 0444);
MODULE_PARM_DESC(now, "Time and idle time in ns");

/* Calls */

/* Not inlined, nor is time_gets(): the code around the loops must be the same. */
static noinline u64 time_calls(test_klp_bench_func_t func, unsigned int n)
{
	unsigned long flags;
	int x = 0;
	u64 t;

	local_irq_save(flags);
	t = now();
	while (n--)
		x = func(x);
	t = now() - t;
	local_irq_restore(flags);
	return t;
}

/* The difference of two of them has nothing of the code around the loop. */
static u64 time_call(test_klp_bench_func_t func, unsigned int n)
{
	u64 once = time_calls(func, n);

	return div_u64((time_calls(func, 2 * n) - once) * 1000, n);
}

static int run_call(unsigned int i, unsigned int n)
{
	if (i >= BENCH_FUNCTIONS || !n)
		return -EINVAL;
	sprintf(result, "%llu", time_call(test_klp_bench_funcs[i], n));
	return 0;
}

static int run_calls(unsigned int functions, unsigned int n)
{
	u64 least = U64_MAX, most = 0, sum = 0, t;
	unsigned int i;

	if (!functions || functions > BENCH_FUNCTIONS || !n)
		return -EINVAL;
	for (i = 0; i < functions; i++) {
		t = time_call(test_klp_bench_funcs[i], n);
		least = min(least, t);
		most = max(most, t);
		sum += t;
		cond_resched();
	}
	sprintf(result, "%llu %llu %llu", least, div_u64(sum, functions), most);
	return 0;
}

/* A second user of a function */

static void notrace observe(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
}

static struct ftrace_ops trace_ops = {
	.func = observe,
};

static bool traced;

static int run_trace(unsigned int i)
{
	int ret;

	if (traced || i >= BENCH_FUNCTIONS)
		return -EINVAL;
	ret = ftrace_set_filter_ip(&trace_ops, (unsigned long)test_klp_bench_funcs[i], 0, 1);
	if (!ret)
		ret = register_ftrace_function(&trace_ops);
	traced = !ret;
	return ret;
}

static int run_untrace(void)
{
	int ret;

	if (!traced)
		return -EINVAL;
	ret = unregister_ftrace_function(&trace_ops);
	ftrace_free_filter(&trace_ops);
	traced = false;
	return ret;
}

/*
 * The least that a redirected call can cost: a direct jump in place of the call to
 * ftrace, without a handler.
 */

static bool jumps = IS_ENABLED(CONFIG_DYNAMIC_FTRACE_WITH_JMP);
module_param(jumps, bool, 0444);
MODULE_PARM_DESC(jumps, "Whether this kernel has such jumps");

#ifdef CONFIG_DYNAMIC_FTRACE_WITH_JMP
static struct ftrace_ops jump_ops;
static unsigned long jump_to;

static void note_wait(u64 since, u64 idle_before)
{
	sprintf(result, "%llu %llu", now() - since, idle() - idle_before);
}

static int run_jump(unsigned int i, unsigned int j)
{
	u64 idle_before, t;
	int ret;

	if (jump_to || i >= BENCH_FUNCTIONS || j >= BENCH_FUNCTIONS || i == j)
		return -EINVAL;
	ret = ftrace_set_filter_ip(&jump_ops, (unsigned long)test_klp_bench_funcs[i], 0, 1);
	if (ret)
		return ret;
	jump_to = ftrace_jmp_set((unsigned long)test_klp_bench_funcs[j]);
	idle_before = idle();
	t = now();
	ret = register_ftrace_direct(&jump_ops, jump_to);
	note_wait(t, idle_before);
	if (ret) {
		jump_to = 0;
		ftrace_free_filter(&jump_ops);
	}
	return ret;
}

static int run_unjump(void)
{
	u64 idle_before, t;
	int ret;

	if (!jump_to)
		return -EINVAL;
	idle_before = idle();
	t = now();
	ret = unregister_ftrace_direct(&jump_ops, jump_to, true);
	note_wait(t, idle_before);
	jump_to = 0;
	return ret;
}

static void end_jump(void)
{
	if (jump_to)
		run_unjump();
}
#else
static int run_jump(unsigned int i, unsigned int j)
{
	return -EOPNOTSUPP;
}

static int run_unjump(void)
{
	return -EINVAL;
}

static void end_jump(void)
{
}
#endif

/* A task that a livepatch cannot switch */

static struct task_struct *holder;
static DECLARE_COMPLETION(holder_is_in);
static DECLARE_COMPLETION(holder_has_work);
static DECLARE_COMPLETION(holder_is_done);
static unsigned int holder_i, holder_n;
static int holder_ret;

static int inside_hold(void)
{
	for (;;) {
		complete(&holder_is_in);
		while (wait_for_completion_interruptible(&holder_has_work))
			;
		if (!holder_n)
			return 0;
		holder_ret = run_call(holder_i, holder_n);
		complete(&holder_is_done);
	}
}

static int hold_thread(void *data)
{
	test_klp_bench_hold(inside_hold);
	while (!kthread_should_stop())
		schedule_timeout_idle(1);
	return 0;
}

static int run_hold(void)
{
	if (holder)
		return -EBUSY;
	holder = kthread_run(hold_thread, NULL, "klp_bench_hold");
	if (IS_ERR(holder)) {
		int ret = PTR_ERR(holder);

		holder = NULL;
		return ret;
	}
	wait_for_completion(&holder_is_in);
	return 0;
}

static int run_held_call(unsigned int i, unsigned int n)
{
	if (!holder || !n)
		return -EINVAL;
	holder_i = i;
	holder_n = n;
	complete(&holder_has_work);
	wait_for_completion(&holder_is_done);
	wait_for_completion(&holder_is_in);
	return holder_ret;
}

static int run_release(void)
{
	if (!holder)
		return -EINVAL;
	holder_n = 0;
	complete(&holder_has_work);
	kthread_stop(holder);
	holder = NULL;
	return 0;
}

/*
 * How long interrupts, and with them preemption, are off.  A timer's interrupt
 * is late when interrupts were off, and the task of highest priority that it
 * wakes when preemption was.  On one CPU that includes every spinlock.
 */

struct late {
	u64 least, most;
	unsigned long ip, most_ip;
};

static struct late irq_late, task_late;
static struct hrtimer watch_timer;
static struct task_struct *watcher;
static u64 watch_period, watch_rounds;

static void note_late(struct late *late, u64 ns, unsigned long ip)
{
	late->least = min(late->least, ns);
	if (ns > late->most) {
		late->most = ns;
		late->most_ip = ip;
	}
}

static enum hrtimer_restart watch_interrupt(struct hrtimer *timer)
{
	u64 ns = ktime_to_ns(ktime_sub(ktime_get(), hrtimer_get_expires(timer)));
	struct pt_regs *regs = get_irq_regs();

	task_late.ip = regs ? instruction_pointer(regs) : 0;
	note_late(&irq_late, ns, task_late.ip);
	wake_up_process(watcher);
	return HRTIMER_NORESTART;
}

static int watch_thread(void *data)
{
	while (!kthread_should_stop()) {
		u64 ns;

		set_current_state(TASK_IDLE);
		hrtimer_start(&watch_timer, ns_to_ktime(watch_period), HRTIMER_MODE_REL);
		schedule();
		hrtimer_cancel(&watch_timer);
		ns = ktime_to_ns(ktime_sub(ktime_get(), hrtimer_get_expires(&watch_timer)));
		/* If it was woken in order to stop, it is not late. */
		if (kthread_should_stop())
			break;
		note_late(&task_late, ns, task_late.ip);
		watch_rounds++;
	}
	__set_current_state(TASK_RUNNING);
	hrtimer_cancel(&watch_timer);
	return 0;
}

static int run_watch(unsigned int period)
{
	struct task_struct *task;

	if (watcher || !period)
		return -EINVAL;
	/*
	 * The stacks of threads that have ended are freed later, thousands of
	 * them under one spinlock. Free them now, so that it is not watched.
	 */
	vm_unmap_aliases();
	irq_late = (struct late) { .least = U64_MAX };
	task_late = irq_late;
	watch_rounds = 0;
	watch_period = period;
	hrtimer_setup(&watch_timer, watch_interrupt, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	task = kthread_create(watch_thread, NULL, "klp_bench_watch");
	if (IS_ERR(task))
		return PTR_ERR(task);
	sched_set_fifo(task);
	watcher = task;
	wake_up_process(task);
	return 0;
}

static int run_unwatch(void)
{
	if (!watcher)
		return -EINVAL;
	kthread_stop(watcher);
	watcher = NULL;
	if (!watch_rounds)
		return -EAGAIN;
	sprintf(result, "%llu %llu %llu %pS %pS", irq_late.most - irq_late.least,
		task_late.most - task_late.least, watch_rounds,
		(void *)irq_late.most_ip, (void *)task_late.most_ip);
	return 0;
}

/* Shadow variables of objects that are 64 bytes apart */

#define SHADOW_ID 0x62656e63

static unsigned int shadows;

static void *shadow_object(u32 i)
{
	return (void *)((unsigned long)test_klp_bench_funcs + 64UL * i);
}

static int run_shadow_alloc(unsigned int n)
{
	unsigned int i;
	u64 t = now();

	for (i = 0; i < n; i++) {
		if (!klp_shadow_alloc(shadow_object(shadows), SHADOW_ID, sizeof(u64),
				      GFP_KERNEL, NULL, NULL))
			return -ENOMEM;
		shadows++;
		cond_resched();
	}
	sprintf(result, "%llu", div_u64(now() - t, n));
	return 0;
}

static noinline u64 time_gets(unsigned int n, unsigned long id)
{
	unsigned int i, found = 0;
	unsigned long flags;
	u32 x = 1;
	u64 t;

	local_irq_save(flags);
	t = now();
	for (i = 0; i < n; i++) {
		void *obj, *data;

		x = x * 1664525 + 1013904223;
		obj = shadow_object(((u64)x * shadows) >> 32);
		data = id ? klp_shadow_get(obj, id) : obj;
		/* The loop without the call must do all the rest. */
		OPTIMIZER_HIDE_VAR(data);
		found += !!data;
	}
	t = now() - t;
	local_irq_restore(flags);
	if (found != n && id == SHADOW_ID)
		return 0;
	return t;
}

static int run_shadow_get(unsigned int n)
{
	u64 base, hit, miss;

	if (!shadows || !n)
		return -EINVAL;
	base = time_gets(n, 0);
	hit = time_gets(n, SHADOW_ID);
	miss = time_gets(n, SHADOW_ID + 1);
	if (!hit)
		return -ENOENT;
	sprintf(result, "%llu %llu", div_u64((hit - base) * 1000, n),
		div_u64((miss - base) * 1000, n));
	return 0;
}

static int run_shadow_free(unsigned int n)
{
	unsigned int i;
	u64 t = now();

	if (!n || n > shadows)
		return -EINVAL;
	for (i = 0; i < n; i++) {
		klp_shadow_free(shadow_object(--shadows), SHADOW_ID, NULL);
		cond_resched();
	}
	sprintf(result, "%llu", div_u64(now() - t, n));
	return 0;
}

static int run_shadow_free_all(void)
{
	u64 t = now();

	klp_shadow_free_all(SHADOW_ID, NULL);
	sprintf(result, "%u %llu", shadows, now() - t);
	shadows = 0;
	return 0;
}

/* What livepatching adds to the exit of a task. */

typedef void (*exit_func_t)(struct task_struct *task);

static noinline u64 time_exits(struct task_struct *task, exit_func_t begin, exit_func_t end,
			       unsigned int n)
{
	unsigned long flags;
	u64 t;

	local_irq_save(flags);
	t = now();
	while (n--) {
		/* The loop without the calls must do all the rest. */
		OPTIMIZER_HIDE_VAR(task);
		if (begin) {
			begin(task);
			end(task);
		}
	}
	t = now() - t;
	local_irq_restore(flags);
	return t;
}

static int run_exit(const char *value)
{
	unsigned long begin, end;
	struct task_struct *task;
	unsigned int n;
	u64 t;

	if (sscanf(value, "exit %lx %lx %u", &begin, &end, &n) != 3 || !begin || !end || !n)
		return -EINVAL;
	task = kzalloc_obj(*task);
	if (!task)
		return -ENOMEM;
	t = time_exits(task, (exit_func_t)begin, (exit_func_t)end, n);
	t -= time_exits(task, NULL, NULL, n);
	sprintf(result, "%llu", div_u64(t * 1000, n));
	/* Walks over exiting tasks may still be at it. */
	synchronize_rcu();
	kfree(task);
	return 0;
}

static int set_run(const char *value, const struct kernel_param *kp)
{
	unsigned int a = 0, b = 0;
	char command[20];

	if (sscanf(value, "%19s %u %u", command, &a, &b) < 1)
		return -EINVAL;
	result[0] = '\0';
	if (!strcmp(command, "call"))
		return run_call(a, b);
	if (!strcmp(command, "calls"))
		return run_calls(a, b);
	if (!strcmp(command, "trace"))
		return run_trace(a);
	if (!strcmp(command, "untrace"))
		return run_untrace();
	if (!strcmp(command, "jump"))
		return run_jump(a, b);
	if (!strcmp(command, "unjump"))
		return run_unjump();
	if (!strcmp(command, "hold"))
		return run_hold();
	if (!strcmp(command, "held-call"))
		return run_held_call(a, b);
	if (!strcmp(command, "release"))
		return run_release();
	if (!strcmp(command, "watch"))
		return run_watch(a);
	if (!strcmp(command, "unwatch"))
		return run_unwatch();
	if (!strcmp(command, "shadow-alloc"))
		return a ? run_shadow_alloc(a) : -EINVAL;
	if (!strcmp(command, "shadow-get"))
		return run_shadow_get(a);
	if (!strcmp(command, "shadow-free"))
		return run_shadow_free(a);
	if (!strcmp(command, "shadow-free-all"))
		return run_shadow_free_all();
	if (!strcmp(command, "exit"))
		return run_exit(value);
	return -EINVAL;
}

static const struct kernel_param_ops run_ops = { .set = set_run };
module_param_cb(run, &run_ops, NULL, 0200);
MODULE_PARM_DESC(run, "A command; see the source");

static int get_result(char *buffer, const struct kernel_param *kp)
{
	return scnprintf(buffer, PAGE_SIZE, "%s\n", result);
}

static const struct kernel_param_ops result_ops = { .get = get_result };
module_param_cb(result, &result_ops, NULL, 0444);
MODULE_PARM_DESC(result, "What the last command found");

static int test_klp_bench_init(void)
{
#ifdef CONFIG_ARM64
	if (arch_timer_get_cntfrq() != NSEC_PER_SEC)
		return -EOPNOTSUPP;
#endif
	return register_trace_cpu_idle(probe_idle, NULL);
}

static void test_klp_bench_exit(void)
{
	if (holder)
		run_release();
	if (watcher)
		run_unwatch();
	if (traced)
		run_untrace();
	end_jump();
	klp_shadow_free_all(SHADOW_ID, NULL);
	unregister_trace_cpu_idle(probe_idle, NULL);
	tracepoint_synchronize_unregister();
}

module_init(test_klp_bench_init);
module_exit(test_klp_bench_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch benchmark: what measures");
