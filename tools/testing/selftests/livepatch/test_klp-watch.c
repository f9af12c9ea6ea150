// SPDX-License-Identifier: GPL-2.0
/*
 * Waits for what the livepatch core tells.
 *
 *   poll FILE...	reads each file, waits until one has changed, and prints its
 *			last part and what it shows; and so on, until one is gone
 *   late FILE VALUE	waits in the same way until the file shows VALUE, and prints
 *			how many milliseconds after somebody who looks all the time
 *   write FILE VALUE	writes to the file, and prints how many milliseconds after
 *			it began to write poll() returned for it
 *   events N		prints the next N uevents about livepatches, with their numbers
 *   spin CPU		runs on that CPU in user mode
 *   traced		has a process that its tracer has stopped, and prints its id
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILES	8
/* In milliseconds: nobody waits for so long. */
#define TIMEOUT		60000

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static int open_file(const char *name, int flags)
{
	int fd = open(name, flags);

	if (fd < 0) {
		perror(name);
		exit(1);
	}
	return fd;
}

/* Returns false when the file is gone. */
static bool read_line(int fd, char *line, size_t size)
{
	ssize_t count = pread(fd, line, size - 1, 0);

	if (count < 0)
		return false;
	line[count] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return true;
}

static int watch(int count, char **names)
{
	struct pollfd fds[MAX_FILES];
	char line[64];
	int i;

	for (i = 0; i < count; i++) {
		fds[i].fd = open_file(names[i], O_RDONLY);
		fds[i].events = POLLPRI;
		read_line(fds[i].fd, line, sizeof(line));
	}
	printf("ready\n");
	for (;;) {
		if (poll(fds, count, -1) < 0) {
			perror("poll");
			return 1;
		}
		for (i = 0; i < count; i++) {
			if (!(fds[i].revents & POLLPRI))
				continue;
			if (!read_line(fds[i].fd, line, sizeof(line))) {
				printf("gone\n");
				return 0;
			}
			printf("%s %s\n", strrchr(names[i], '/') + 1, line);
		}
	}
}

struct wait {
	const char *name, *value;
	double seen;
};

static void *look(void *arg)
{
	struct wait *wait = arg;
	int fd = open_file(wait->name, O_RDONLY);
	char line[64];

	while (read_line(fd, line, sizeof(line)) && strcmp(line, wait->value))
		usleep(500);
	wait->seen = now();
	return NULL;
}

static void *wait_for(void *arg)
{
	struct wait *wait = arg;
	struct pollfd fd = {
		.fd = open_file(wait->name, O_RDONLY),
		.events = POLLPRI,
	};
	char line[64];

	while (read_line(fd.fd, line, sizeof(line)) && strcmp(line, wait->value)) {
		if (poll(&fd, 1, TIMEOUT) > 0)
			continue;
		fprintf(stderr, "poll() does not return\n");
		exit(1);
	}
	wait->seen = now();
	return NULL;
}

static int late(const char *name, const char *value)
{
	struct wait looks = { name, value }, polls = looks;
	pthread_t thread;

	if (pthread_create(&thread, NULL, look, &looks))
		return 1;
	wait_for(&polls);
	pthread_join(thread, NULL);
	printf("%.3f\n", polls.seen > looks.seen ? polls.seen - looks.seen : 0.0);
	return 0;
}

static int write_and_wait(const char *name, const char *value)
{
	struct wait polls = { name, value };
	int fd = open_file(name, O_WRONLY);
	pthread_t thread;
	double written;

	if (pthread_create(&thread, NULL, wait_for, &polls))
		return 1;
	/* It is in poll() by then. */
	usleep(100 * 1000);
	written = now();
	if (write(fd, value, strlen(value)) < 0) {
		perror(name);
		return 1;
	}
	pthread_join(thread, NULL);
	printf("%.3f\n", polls.seen > written ? polls.seen - written : 0.0);
	return 0;
}

static const char *find(const char *event, ssize_t count, const char *name)
{
	size_t len = strlen(name);
	const char *var;

	for (var = event; var < event + count; var += strlen(var) + 1)
		if (!strncmp(var, name, len) && var[len] == '=')
			return var + len + 1;
	return NULL;
}

static int events(int left)
{
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
		.nl_groups = 1,
	};
	int fd = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	const char *number, *patch, *stage, *target;
	char event[8192];
	ssize_t count;

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		perror("netlink");
		return 1;
	}
	printf("0 ready\n");
	while (left) {
		count = recv(fd, event, sizeof(event) - 1, 0);
		if (count < 0) {
			perror("recv");
			return 1;
		}
		event[count] = '\0';
		number = find(event, count, "SEQNUM");
		patch = find(event, count, "KLP_PATCH");
		stage = find(event, count, "KLP_TRANSITION");
		target = find(event, count, "KLP_TARGET");
		if (!number || !patch || !stage || !target)
			continue;
		printf("%s %s %s %s %s\n", number, event, patch, target, stage);
		left--;
	}
	return 0;
}

static int spin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		perror("sched_setaffinity");
		return 1;
	}
	printf("ready\n");
	for (;;)
		__asm__ volatile("" ::: "memory");
}

static int traced(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL)) {
		perror("fork or ptrace");
		return 1;
	}
	printf("ready %d\n", pid);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && argc - 2 <= MAX_FILES && !strcmp(argv[1], "poll"))
		return watch(argc - 2, argv + 2);
	if (argc == 4 && !strcmp(argv[1], "late"))
		return late(argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[1], "write"))
		return write_and_wait(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "events"))
		return events(atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "spin"))
		return spin(atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "traced"))
		return traced();
	fprintf(stderr,
		"usage: %s poll FILE... | late FILE VALUE | write FILE VALUE | events N | spin CPU | traced\n",
		argv[0]);
	return 2;
}
