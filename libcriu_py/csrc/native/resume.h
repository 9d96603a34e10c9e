/*
 * Where a copy begins.
 */
#ifndef LCP_NATIVE_RESUME_H
#define LCP_NATIVE_RESUME_H

#include <stdint.h>

struct thread;

/* Code that the loader jumps to with a struct plan_arrival, on the stack below. */
extern char lcp_native_resume[] __attribute__((visibility("hidden")));
uint64_t lcp_resume_stack(const struct thread *leader);

#endif
