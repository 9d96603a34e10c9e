/*
 * Being allowed to restore, and where: what libcriu_py/privilege/decision.py,
 * libcriu_py/privilege/namespaces.py and libcriu_py/criu/find.py decide, for a restore.
 */
#ifndef LIBCRIU_PY_PLACE_H
#define LIBCRIU_PY_PLACE_H

#include <limits.h>
#include <stdint.h>

struct problem;
struct snapshot;

enum mode { MODE_AUTO, MODE_ROOT, MODE_CAPABILITY, MODE_ROOTLESS, MODES };

/* The mode of that name; -1 for none. */
int lcp_mode_of(const char *name);
const char *lcp_mode_name(int mode);

/* What a supervisor was at when it failed (LCP_STAGE_*), in words. */
const char *lcp_stage_text(int stage);

/* What this process is, as the kernel tells. */
struct self {
	uint64_t effective, permitted, bounding;
	uint64_t ignored;        /* signals, by bit, but those that Python itself ignores */
	int no_new_privs;
	long seccomp_filters;
};
int lcp_self_read(struct self *self, struct problem *problem);

struct decision {
	enum mode mode;
	char plain[PATH_MAX];    /* the criu program that is found first */
	char criu[PATH_MAX];     /* that of the mode */
};

/*
 * Choose how a restore is allowed. `wanted` names the mode, NULL leaves it to
 * LIBCRIU_PY_MODE, else to what works. Returns 0 or -1.
 */
int lcp_decide_mode(struct decision *decision, const char *wanted, const struct self *self, const struct snapshot *snapshot,
		    struct problem *problem);

struct place {
	int namespaces;          /* LCP_NS_* */
	uint64_t ambient;
	int last_pid;
};

/* Where to restore; `isolate` asks for a pid namespace even where the pids look free. */
void lcp_decide_place(struct place *place, const struct decision *decision, const struct self *self,
		     const struct snapshot *snapshot, int isolate);

/* Forget that namespaces could be made: it was tried, and they could not. */
void lcp_forget_namespaces(const struct self *self);

#endif
