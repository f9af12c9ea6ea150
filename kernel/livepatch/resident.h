/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interface between the livepatch hooks that live in vmlinux (resident.c) and
 * the livepatch core, which may be a module.
 */
#ifndef _LIVEPATCH_RESIDENT_H
#define _LIVEPATCH_RESIDENT_H

#include <linux/ftrace.h>
#include <linux/livepatch.h>
#include <linux/mutex.h>
#include "exit.h"

/**
 * struct klp_core_ops - what the kernel asks of a livepatch core
 * @module_coming: apply enabled livepatches to a module that is being loaded;
 *		an error refuses the module; called under klp_mutex
 * @module_going: revert livepatches of a module that goes away; called under
 *		klp_mutex
 * @withdraw:	undo the livepatch of a module that is about to be freed
 *		though it is enabled, and return whether the module is still
 *		needed; called under klp_mutex, which the caller has just taken
 * @apply_section_relocs: write one klp relocation section of a livepatch
 *		module; called under klp_mutex
 * @try_switch_current: try to move the current task to the target patch
 *		state; called from __schedule() with preemption disabled
 */
struct klp_core_ops {
	int (*module_coming)(struct module *mod);
	void (*module_going)(struct module *mod);
	bool (*withdraw)(struct module *mod);
	int (*apply_section_relocs)(struct module *pmod, Elf_Shdr *sechdrs,
				    const char *shstrtab, const char *strtab,
				    unsigned int symndx, unsigned int secndx,
				    const char *objname);
	void (*try_switch_current)(void);
};

extern struct mutex klp_mutex;
extern int klp_target_state;

int klp_register_core(const struct klp_core_ops *ops);
void klp_unregister_core(void);
void klp_set_sched_try_switch(bool enable);

/* The ftrace handler, see ftrace_handler.rs. */
void klp_ftrace_handler(unsigned long ip, unsigned long parent_ip,
			struct ftrace_ops *ops, struct ftrace_regs *fregs);

/* What Rust cannot express of the core, see exports.c. */
#define KLP_MAX_STACK_ENTRIES	100
unsigned long *klp_stack_buffer(void);

void klp_shadow_warn_duplicate(void *obj, unsigned long id);

extern bool klp_strict_replace_sets;

#endif /* _LIVEPATCH_RESIDENT_H */
