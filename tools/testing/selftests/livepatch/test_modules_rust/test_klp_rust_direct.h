/* SPDX-License-Identifier: GPL-2.0 */

/* Goes on to the function whose call it has taken; not to be called from C. */
void test_klp_rust_direct_call(void);
