/*
 * This user's private directories on a tmpfs: what libcriu_py/linux/runtime_dir.py makes there.
 */
#ifndef LIBCRIU_PY_SCRATCH_H
#define LIBCRIU_PY_SCRATCH_H

#include <limits.h>

struct problem;

#define WORK_LOG "criu.log"

/* The user's directory, made where it is missing; 0 or -1. */
int lcp_scratch_directory(char path[PATH_MAX], struct problem *problem);

/*
 * The environment for a criu: its cache of kernel features, a PATH and what keeps it from hardware breakpoints
 * (libcriu_py/linux/runtime_dir.py), nothing of the caller's.
 */
struct criu_environment {
	char cache[PATH_MAX + 32];
	char *variables[4];
};
/* `filtered`: under a seccomp filter, whose refusals criu takes for what the kernel lacks. */
int lcp_scratch_environment(struct criu_environment *environment, const char *criu, int filtered, struct problem *problem);

/* A directory for the log of one restore. */
struct work {
	char path[PATH_MAX];
	int fd;
};
int lcp_work_make(struct work *work, struct problem *problem);
/* With what is in it; `fd` stays open. */
void lcp_work_remove(const struct work *work);

#endif
