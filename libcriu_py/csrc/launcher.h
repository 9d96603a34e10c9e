/*
 * What the parts of libcriu-py-run share.
 */
#ifndef LIBCRIU_PY_LAUNCHER_H
#define LIBCRIU_PY_LAUNCHER_H

#include "manifest.h"
#include "order.h"
#include "place.h"
#include "problem.h"

struct launch {
	const char *directory;
	const char *mode;        /* NULL: the first that works */
	const char *script;      /* a launch script, or NULL */
	char *const *arguments;  /* of the program, NULL-terminated */
	char **env;
	uint64_t blocked;        /* bit n: signal n + 1 was blocked from the start */
	char **command;          /* the whole command line where this is libcriu-py, else NULL */
	int no_fallback, quiet;
	int print_request;       /* only print what would be handed over */
	const struct order *order; /* of a caller, or NULL where this process is to be the program */
};

/* A launch script: the options and the conventional command that are in it (libcriu_py/copies/launch_script.py). */
struct script {
	char *text;
	char **command;          /* NULL: that of the snapshot */
	char directory[2 * PATH_MAX];
};
int script_read(struct script *script, struct launch *launch, struct problem *problem);

/* Whether a descriptor is closed, or only held by a placeholder. */
int is_closed(int fd);

int print_request(const struct launch *launch, const struct snapshot *snapshot);

#endif
