/*
 * Find the criu program as libcriu_py/criu/find.py does, and read its file capabilities.
 */
#ifndef LCP_CRIU_BINARY_H
#define LCP_CRIU_BINARY_H

#include <limits.h>
#include <stdint.h>

struct problem;

#define CAPABILITY_SETGID 6
#define CAPABILITY_SETUID 7
#define CAPABILITY_SETPCAP 8
#define CAPABILITY_SYS_ADMIN 21
#define CAPABILITY_CHECKPOINT_RESTORE 40

static inline uint64_t capability_bit(int capability)
{
	return (uint64_t)1 << capability;
}

/* Find the criu program by its absolute path; 0 or -1. */
int lcp_find_criu(char found[PATH_MAX], struct problem *problem);
/* The permitted file capabilities of a program. */
uint64_t lcp_file_capabilities(const char *program);
/* The program for the capability mode: this one if it carries the capability, else that of `setup`. */
const char *lcp_capable_criu(const char *criu);

#endif
