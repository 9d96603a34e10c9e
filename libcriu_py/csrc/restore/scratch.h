/*
 * This user's private directories on a tmpfs, as libcriu_py/linux/runtime_dir.py makes them.
 */
#ifndef LCP_SCRATCH_H
#define LCP_SCRATCH_H

struct problem;

#define WORK_LOG "criu.log"

/* Return the path of the user's directory, which is made if it is missing, or NULL. */
const char *lcp_scratch_directory(struct problem *problem);

/*
 * The environment of a criu after the variable of its cache: a PATH, and what keeps it from hardware breakpoints
 * (libcriu_py/linux/runtime_dir.py). It gets nothing of the caller's.
 */
#define CRIU_ENVIRONMENT "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CRIU_FAULT=130", NULL

/*
 * Return the variable that names the cache of kernel features of a criu, to be freed, or NULL. `filtered`: under a
 * seccomp filter, whose refusals criu mistakes for features that the kernel lacks.
 */
char *lcp_criu_cache(const char *criu, int filtered, struct problem *problem);

/* A directory for the log of one restore: a launcher chooses its path, and the supervisor makes and removes it. */
struct work {
	char path[512];
	int fd; /* in the process that has made it; else -1 */
};
int lcp_work_choose(struct work *work, struct problem *problem);
/* Make it; a descriptor of it or -errno. */
int lcp_work_make(void *work);
/* Remove it and its files, if it is there. */
void lcp_work_remove(void *work);

#endif
