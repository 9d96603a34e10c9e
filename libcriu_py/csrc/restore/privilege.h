/*
 * The privilege mode of a restore, and the namespaces that it runs in.
 */
#ifndef LCP_PRIVILEGE_H
#define LCP_PRIVILEGE_H

#include <limits.h>
#include <stdint.h>

struct problem;
struct snapshot;

enum mode { MODE_AUTO, MODE_ROOT, MODE_CAPABILITY, MODE_ROOTLESS, MODES };

/* The mode of that name; -1 for none. */
int lcp_mode_of(const char *name);
const char *lcp_mode_name(int mode);

/* Say at which stage (LCP_STAGE_*) a supervisor failed. */
const char *lcp_stage_text(int stage);

/* Of /proc/self/status. */
struct own_status {
	uint64_t effective, permitted, bounding;
	uint64_t ignored;        /* signals, by bit, without those that Python itself ignores */
	uint64_t all_ignored;    /* with them */
	int no_new_privs;
	long seccomp_filters;
};
int lcp_read_own_status(struct own_status *own, struct problem *problem);
/* Only the signals, without /proc; 0. */
int lcp_read_ignored(struct own_status *own);

struct decision {
	enum mode mode;
	char plain[PATH_MAX];    /* the criu program that is found first */
	const char *criu;        /* that of the mode */
};

/*
 * Choose the privilege mode. `wanted` names it; NULL leaves it to LIBCRIU_PY_MODE, else to the first that works.
 * Returns 0 or -1.
 */
int lcp_decide_mode(struct decision *decision, const char *wanted, const struct own_status *own,
		    const struct snapshot *snapshot, struct problem *problem);

struct isolation {
	int namespaces;          /* LCP_NS_* */
	uint64_t ambient;
	int last_pid;
};

/* Choose the namespaces of a restore; `isolate` asks for a pid namespace even if the pids look free. */
void lcp_decide_isolation(struct isolation *isolation, const struct decision *decision, const struct own_status *own,
		     const struct snapshot *snapshot, int isolate);

/* Forget that namespaces could be made: making them just failed. */
void lcp_forget_namespaces(const struct own_status *own);

#endif
