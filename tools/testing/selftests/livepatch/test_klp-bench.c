// SPDX-License-Identifier: GPL-2.0
/*
 * Does one thing for `make bench` and prints how long that took, as "NS IDLE
 * START": virtual nanoseconds until it was done, how many of them went by idle,
 * and when it began.
 *
 *   test_klp-bench enable FILE PARAMS NAME [OLD]...
 *	loads a livepatch; done when it is patched and each OLD one is unused
 *   test_klp-bench refused FILE PARAMS
 *	the same, but to load it must fail
 *   test_klp-bench disable NAME
 *	done when the module is unused
 *   test_klp-bench sleep N
 *	N threads that sleep in pause(): prints "ready", stays until it is killed
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KLP "/sys/kernel/livepatch/"
/* 16 KiB on x86_64, 128 KiB on arm64. */
#define STACK PTHREAD_STACK_MIN

static void die(const char *what)
{
	fprintf(stderr, "test_klp-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The file's contents, or -1 if there is none. */
static int slurp(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n < 0)
		return -1;
	buf[n] = '\0';
	return 0;
}

static void read_now(unsigned long long *ns, unsigned long long *idle)
{
	char buf[64];

	if (slurp("/sys/module/test_klp_bench/parameters/now", buf, sizeof(buf)) ||
	    sscanf(buf, "%llu %llu", ns, idle) != 2)
		die("no time from test_klp_bench");
}

static int load(const char *file, const char *params)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		die(file);
	if (syscall(SYS_finit_module, fd, params, 0))
		err = errno;
	close(fd);
	return err;
}

static int reads(const char *format, const char *name, const char *value)
{
	char path[128], buf[16];

	snprintf(path, sizeof(path), format, name);
	return !slurp(path, buf, sizeof(buf)) && !strcmp(buf, value);
}

static int patched(const char *name)
{
	return reads(KLP "%s/transition", name, "0\n");
}

static int unused(const char *name)
{
	return reads("/sys/module/%s/refcnt", name, "0\n");
}

static void *sleeper(void *unused_arg)
{
	for (;;)
		pause();
	return NULL;
}

static void sleep_all(int n)
{
	char *stacks = mmap(NULL, (size_t)n * STACK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	if (stacks == MAP_FAILED)
		die("mmap");
	pthread_attr_init(&attr);
	for (i = 0; i < n; i++) {
		errno = pthread_attr_setstack(&attr, stacks + (size_t)i * STACK, STACK);
		if (errno)
			die("pthread_attr_setstack");
		errno = pthread_create(&thread, &attr, sleeper, NULL);
		if (errno)
			die("pthread_create");
	}
	/* They get to pause() while this sleeps. */
	usleep(100000);
	printf("ready\n");
	fflush(stdout);
	pause();
}

int main(int argc, char **argv)
{
	const struct timespec moment = { .tv_nsec = 5000000 };
	unsigned long long start, start_idle, end, end_idle;
	const char *command = argc > 2 ? argv[1] : "";
	char path[128];
	int err, i, fd;

	if (!strcmp(command, "sleep")) {
		sleep_all(atoi(argv[2]));
	} else if (!strcmp(command, "enable") && argc > 4) {
		read_now(&start, &start_idle);
		errno = load(argv[2], argv[3]);
		if (errno)
			die(argv[2]);
		for (i = 4; i < argc; i++)
			while (!(i == 4 ? patched(argv[i]) : unused(argv[i])))
				nanosleep(&moment, NULL);
	} else if (!strcmp(command, "refused") && argc > 3) {
		read_now(&start, &start_idle);
		err = load(argv[2], argv[3]);
		if (!err) {
			fprintf(stderr, "test_klp-bench: %s was not refused\n", argv[2]);
			return 1;
		}
	} else if (!strcmp(command, "disable")) {
		snprintf(path, sizeof(path), KLP "%s/enabled", argv[2]);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			die(path);
		read_now(&start, &start_idle);
		if (write(fd, "0", 1) != 1)
			die(path);
		/* An open file would keep the livepatch. */
		close(fd);
		while (!unused(argv[2]))
			nanosleep(&moment, NULL);
	} else {
		fprintf(stderr, "test_klp-bench: what? (see the source)\n");
		return 2;
	}
	read_now(&end, &end_idle);
	printf("%llu %llu %llu\n", end - start, end_idle - start_idle, start);
	return 0;
}
