/*
 * The reader of plans (common/plan.h): whatever is odd in one is refused, so that what acts on it has nothing to check.
 */
#ifndef LCP_READER_H
#define LCP_READER_H

#include <stddef.h>
#include "common/plan.h"

#define LOWEST_ADDRESS 0x10000ul       /* the highest vm.mmap_min_addr that distributions set */
#define HIGHEST_ADDRESS 0x7ffffffff000ul /* TASK_SIZE of four page table levels, the first address that is not usable */
#define HIGHEST_DESCRIPTOR (1 << 20)   /* the kernel's fs.nr_open */

/* Return what is wrong with a plan of `size` bytes, a part of a sentence, or NULL if it can be acted on. */
const char *lcp_plan_fault(const struct plan_header *plan, size_t size);
/* Return what is wrong with its rows of descriptors and what they watch, or NULL. */
const char *lcp_plan_descriptors_fault(const struct plan_header *plan);
/* Whether so many bytes, and a NUL behind them, are in the plan; if `is_text`, without another NUL. */
int lcp_plan_has(const struct plan_header *plan, struct plan_bytes bytes, int is_text);

/* Macros, because blob.c can call no function outside of itself. */
#define plan_at(plan, at) ((const void *)((const char *)(plan) + (at)))
#define plan_for_each(type, item, plan, list) \
	for (const type *item = plan_at(plan, (list).offset), *item##_end = item + (list).count; item < item##_end; item++)

#endif
