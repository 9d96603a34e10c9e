/*
 * The last part of becoming the program of a plan: code that is position-independent and complete, because it is moved to
 * a region of its own and unmaps all else, of this process and of libc.
 */
#ifndef LCP_BLOB_H
#define LCP_BLOB_H

#include <stddef.h>
#include <stdint.h>
#include "common/plan.h"

#define BLOB_STACK 16384
#define BLOB_VECTORS 256

enum blob_stage {
	BLOB_UNMAP, BLOB_VDSO, BLOB_MAP, BLOB_READ, BLOB_PROTECT, BLOB_ADVISE, BLOB_GUARD, BLOB_LOCK, BLOB_TAKE, BLOB_ENTER, BLOB_STAGES
};
#define BLOB_TEXT 48

enum blob_flags {
	BLOB_QUIET = 1,          /* a conventional start is not told */
	BLOB_NO_FALLBACK = 2,    /* nor made */
	BLOB_TELL = 4,           /* what goes wrong is told to whoever sent the request, and nothing is started */
};

/* A descriptor that the program uses and this process was started with, and where it is kept meanwhile. */
struct blob_kept {
	int32_t fd, kept;
};

struct blob_vector {
	uint64_t start, size;    /* struct iovec */
};

/* What it knows; right behind its code, so that it finds it. */
struct blob_context {
	struct plan_arrival arrival;
	const struct plan_header *plan;
	const int *files;        /* descriptors of the plan's files */
	int memory;              /* that of memory.img, or -1 */
	int report;              /* closed when all is loaded, or -1 */
	int request;             /* the socket of the request, which has a duplicate in its place: */
	int slot;                /* or -1 */
	int vdso_copy;           /* what is mapped where the vdso was, or -1 where this kernel's is mapped there: */
	uint64_t special, vdso;  /* where the kernel's pages go, and where the vdso is to be in them */
	uint32_t flags;
	/* The conventional start, with what has to be as it was. */
	const char *program;
	char *const *argv, *const *envp;
	uint64_t blocked, ignored; /* bit n: signal n + 1 */
	uint32_t absent;         /* bit n: standard stream n is closed, and its number is held */
	uint32_t kept_count;
	struct blob_kept *kept;
	char text[BLOB_STAGES + 1][BLOB_TEXT]; /* what failed, and what is before its errno */
	char first[BLOB_TEXT], last[BLOB_TEXT]; /* before the reason, and before a program that cannot be started either */
	struct blob_vector vectors[BLOB_VECTORS];
	char stack[BLOB_STACK] __attribute__((aligned(16)));
};

/* The code, whole pages; its entry and what `resume` may call are functions in it, to be called where it was moved to. */
extern const char __start_lcp_blob[], lcp_blob_end[];
#define lcp_blob_begin __start_lcp_blob /* which linkers define */
void lcp_blob_enter(struct blob_context *context) __attribute__((noreturn));
void lcp_blob_fall_back(const char *why, long error) __attribute__((noreturn));
void lcp_blob_settle(void);

#endif
