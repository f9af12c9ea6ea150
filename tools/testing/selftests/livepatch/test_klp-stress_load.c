// SPDX-License-Identifier: GPL-2.0
/*
 * Loads and unloads modules for a script, in one process: in an emulated guest a
 * new process would take longer than the module.
 *
 * Reads lines, "load FILE [PARAMETERS]" or "unload NAME", and answers each with
 * a line that says what came of it ("Success"). "quit" is the last line.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int load(const char *file, const char *params)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno;
	if (syscall(SYS_finit_module, fd, params, 0))
		err = errno;
	close(fd);
	return err;
}

static int unload(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

int main(void)
{
	char line[512];

	while (fgets(line, sizeof(line), stdin)) {
		const char *command = strtok(line, "\n ");
		const char *what = strtok(NULL, "\n ");
		const char *params = strtok(NULL, "\n");
		int err = EINVAL;

		if (command && !strcmp(command, "quit"))
			break;
		if (command && what && !strcmp(command, "load"))
			err = load(what, params ? params : "");
		else if (command && what && !strcmp(command, "unload"))
			err = unload(what);
		printf("%s\n", strerror(err));
		fflush(stdout);
	}
	return 0;
}
