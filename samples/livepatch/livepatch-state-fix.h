/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state that livepatch-state-fix1.c introduces and livepatch-state-fix2.c
 * takes over.  Each release brings what is needed to remove it.
 */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/panic.h>
#include <linux/slab.h>

/* All livepatches share one space of ids. No other sample uses this one. */
#define PANIC_STATE_ID		1001
#define PANIC_TIMEOUT_SECONDS	60

/* This is the first livepatch with the state: remember the old value. */
static int panic_pre_patch(struct klp_patch *patch, struct klp_state *state)
{
	int *saved;

	saved = klp_shadow_alloc(&panic_timeout, state->id, sizeof(*saved),
				 GFP_KERNEL, NULL, NULL);
	if (!saved)
		return -ENOMEM;
	*saved = panic_timeout;
	return 0;
}

static void panic_post_patch(struct klp_patch *patch, struct klp_state *state)
{
	if (panic_timeout == 0)
		panic_timeout = PANIC_TIMEOUT_SECONDS;
	pr_info("panic_timeout is %d\n", panic_timeout);
}

/* No livepatch with the state is left: restore the old value. */
static void panic_post_unpatch(struct klp_patch *patch, struct klp_state *state)
{
	int *saved = klp_shadow_get(&panic_timeout, state->id);

	if (saved && panic_timeout == PANIC_TIMEOUT_SECONDS)
		panic_timeout = *saved;
	pr_info("panic_timeout is %d again\n", panic_timeout);
}

#define PANIC_STATE							\
	{								\
		.id = PANIC_STATE_ID,					\
		.name = "panic_timeout",				\
		.is_shadow = true,					\
		.callbacks = {						\
			.pre_patch = panic_pre_patch,			\
			.post_patch = panic_post_patch,			\
			.post_unpatch = panic_post_unpatch,		\
		},							\
	}
