// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that exit.
 *
 *   one NAME		starts a thread of that name which exits at once
 *   leader NAME	starts a process of that name which exits at once, and reaps it
 *   zombie NAME	the same, but reaps it after SIGUSR1
 *   exec NAME		is a process of that name, whose other thread calls exec
 *   stay		does nothing
 *   storm		for each number N on a line of its input, starts N threads that
 *			exit, some at a time, and prints N when they have
 *
 * All but storm then stay until they are killed.
 */

#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The threads of a storm that are there at a time. */
#define NR_THREADS	25

static struct {
	pid_t id;
	char stack[4096];
} threads[NR_THREADS];

static void *run(void *name)
{
	if (name)
		prctl(PR_SET_NAME, name);
	return NULL;
}

static int create(pthread_t *thread, char *name)
{
	int err = pthread_create(thread, NULL, run, name);

	if (err)
		fprintf(stderr, "pthread_create: %s\n", strerror(err));
	return err;
}

static int stay(void)
{
	for (;;)
		pause();
}

static int one(char *name)
{
	pthread_t thread;

	if (create(&thread, name))
		return 1;
	/* Not joined: that is over when the kernel has cleared its id. */
	return stay();
}

static int leader(char *name, int wanted)
{
	sigset_t signals;
	pid_t pid;
	int signal;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_NAME, name);
		_exit(0);
	}
	if (pid < 0 || (wanted && sigwait(&signals, &signal)) || waitpid(pid, NULL, 0) != pid) {
		perror("fork or wait");
		return 1;
	}
	return stay();
}

static void *run_exec(void *path)
{
	execl(path, path, "stay", NULL);
	perror("execl");
	exit(1);
}

/* The thread becomes the leader of the process, the old one exits. */
static int exec(char *path, char *name)
{
	pthread_t thread;

	prctl(PR_SET_NAME, name);
	if (pthread_create(&thread, NULL, run_exec, path)) {
		fprintf(stderr, "no thread\n");
		return 1;
	}
	return stay();
}

static int leave(void *unused)
{
	return 0;
}

/* The kernel clears the id when the thread exits, after which it needs no stack. */
static void wait_for_exit(int i)
{
	pid_t id;

	while ((id = __atomic_load_n(&threads[i].id, __ATOMIC_ACQUIRE)))
		syscall(SYS_futex, &threads[i].id, FUTEX_WAIT, id, NULL, NULL, 0);
}

/* Not pthread_create(), whose threads do a lot more than to begin and to end. */
static int storm(void)
{
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			  CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
	unsigned long n, todo;
	int i = 0;

	while (scanf("%lu", &n) == 1) {
		for (todo = n; todo; todo--) {
			i = (i + 1) % NR_THREADS;
			wait_for_exit(i);
			if (clone(leave, threads[i].stack + sizeof(threads[i].stack), flags, NULL,
				  &threads[i].id, NULL, &threads[i].id) < 0) {
				perror("clone");
				return 1;
			}
		}
		for (i = 0; i < NR_THREADS; i++)
			wait_for_exit(i);
		printf("%lu\n", n);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "one"))
		return one(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "leader"))
		return leader(argv[2], 0);
	if (argc == 3 && !strcmp(argv[1], "zombie"))
		return leader(argv[2], 1);
	if (argc == 3 && !strcmp(argv[1], "exec"))
		return exec(argv[0], argv[2]);
	if (argc == 2 && !strcmp(argv[1], "stay"))
		return stay();
	if (argc == 2 && !strcmp(argv[1], "storm"))
		return storm();
	fprintf(stderr, "usage: %s one|leader|zombie|exec NAME | stay | storm\n", argv[0]);
	return 2;
}
