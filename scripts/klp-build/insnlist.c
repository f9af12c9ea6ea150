// SPDX-License-Identifier: GPL-2.0
/*
 * insnlist N: gives /dev/comedi0 a list of N instructions and prints what the
 * kernel makes of it. All that each one asks for is the time of day.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/comedi.h>

int main(int argc, char **argv)
{
	unsigned int i, n = argc > 1 ? atoi(argv[1]) : 1, data[2];
	struct comedi_insn *insns = calloc(n, sizeof(*insns));
	struct comedi_insnlist list = { .n_insns = n, .insns = insns };
	int fd = open("/dev/comedi0", O_RDWR), ret;

	if (fd < 0 || !insns) {
		perror("/dev/comedi0");
		return 1;
	}
	for (i = 0; i < n; i++) {
		insns[i].insn = INSN_GTOD;
		insns[i].n = 2;
		insns[i].data = data;
	}
	ret = ioctl(fd, COMEDI_INSNLIST, &list);
	if (ret < 0)
		printf("%s\n", strerror(errno));
	else
		printf("%d done\n", ret);
	return 0;
}
