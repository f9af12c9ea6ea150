// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that exit.
 *
 *   one NAME	starts a thread of that name which exits at once, and stays until it
 *		is killed
 *   storm N	starts N threads that exit, some at a time
 */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

static int one(char *name)
{
	pthread_t thread;

	if (create(&thread, name))
		return 1;
	/* Not joined: that is over when the kernel has cleared its id. */
	for (;;)
		pause();
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
	if (argc == 3 && !strcmp(argv[1], "storm"))
		return storm(strtoul(argv[2], NULL, 10));
	fprintf(stderr, "usage: %s one NAME | storm N\n", argv[0]);
	return 2;
}
