// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that exit.
 *
 *   one NAME		starts a thread of that name which exits at once
 *   leader NAME	starts a process of that name which exits at once, and reaps it
 *   zombie NAME	the same, but reaps it after SIGUSR1
 *   exec NAME		is a process of that name, whose other thread calls exec
 *   stay		does nothing
 *   storm N		starts N threads that exit, some at a time
 *
 * All but storm then stay until they are killed.
 */

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* How many are there at a time. */
#define NR_THREADS	25

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

static int storm(unsigned long n)
{
	pthread_t threads[NR_THREADS];
	unsigned long i, count;

	for (; n; n -= count) {
		count = n < NR_THREADS ? n : NR_THREADS;
		for (i = 0; i < count; i++)
			if (create(&threads[i], NULL))
				return 1;
		for (i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
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
	if (argc == 3 && !strcmp(argv[1], "storm"))
		return storm(strtoul(argv[2], NULL, 10));
	fprintf(stderr, "usage: %s one|leader|zombie|exec NAME | stay | storm N\n", argv[0]);
	return 2;
}
