/*
 * The vdso of another kernel: a private copy stays at its address, for who has pointers into it, and its functions jump to
 * those of this kernel's, which is mapped elsewhere.
 */
#ifndef LCP_VDSO_H
#define LCP_VDSO_H

#include <stdint.h>
#include "become/why.h"

struct plan_header;

/* Whether this kernel's vdso is that of the plan, or the plan has none. */
int lcp_vdso_is_same(const struct plan_header *plan);
/*
 * Make a copy of the plan's vdso, in a file to be mapped, for this kernel's pages to be mapped at an address; its
 * descriptor, or -1. `text` becomes the address of this kernel's vdso, which is somewhere behind that of its data.
 */
int lcp_vdso_make(const struct plan_header *plan, uint64_t at, uint64_t *text, struct why *why);

#endif
