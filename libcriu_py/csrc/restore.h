/*
 * One restore, from the request to the end of the program: libcriu_py/copies/restore.py for the launcher.
 */
#ifndef LIBCRIU_PY_RESTORE_H
#define LIBCRIU_PY_RESTORE_H

#include <limits.h>
#include <signal.h>
#include <sys/types.h>
#include "launcher.h"
#include "manifest.h"
#include "problem.h"
#include "request.h"

struct restored {
	int channel;       /* events of the supervisor */
	int control;       /* the hand-over's socket */
	int pidfd;
	pid_t pid;         /* as its supervisor sees it */
	pid_t supervisor;  /* our child; 0: that of a pool */
	sigset_t mask;     /* of this process before */
	int own_session;   /* the terminal's signals do not reach it by themselves */
	struct inherited_fds inherited; /* passed on, and open here until the program has begun */
};

/* Describe what the program is to be given of this process, with the descriptors of `inherited`; 0 or -1. */
int fill_request(struct request *request, const struct launch *launch, const struct snapshot *snapshot,
		 const struct self *self, struct inherited_fds *inherited, char cwd[PATH_MAX], struct problem *problem);
/*
 * Check a snapshot, and restore it with this process's arguments, environment and streams; 0, after which signals are blocked, or -1.
 * It is 1 where that has failed and yet code of the program has run, which must not be started again then.
 */
int restore(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot, struct problem *problem);
/* Behave as the program until it ends; its wait status. */
int restored_mirror(const struct restored *restored);
/* Whether any code of the program has run; if not, why. */
int restored_has_started(const struct restored *restored, int status, struct problem *problem);

#endif
