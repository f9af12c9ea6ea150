/* SPDX-License-Identifier: GPL-2.0 */

/* Takes the call of a function and goes on to it. Not for calls from C. */
void test_klp_rust_direct_call(void);
